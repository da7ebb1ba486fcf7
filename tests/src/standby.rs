//! A primary and its standbys: what they are made from, how far they are, and who asks them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Broker, Relay, eventually, free_port, nibble_name, output, query, tls};

/// A device that the primary has.
pub const DEVICE: &str = "0004a30b001c0530";
/// The name of the first standby.
pub const STANDBY: &str = "broker2.fed.example";

/// Writes a port into the configuration in a directory, so that a restart keeps it.
pub fn pin(dir: &Path, section: &str, port: u16) -> anyhow::Result<()> {
    let file = dir.join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    let (head, tail) = text.split_once(&format!("[{section}]\n")).context("no such section")?;
    ensure!(tail.contains("127.0.0.1:0"), "{section} has no port to choose:\n{tail}");
    let address = format!("127.0.0.1:{port}");
    Ok(std::fs::write(&file, format!("{head}[{section}]\n{}", tail.replacen("127.0.0.1:0", &address, 1)))?)
}

/// Makes a broker keep the ports of DNS over HTTPS and of the API over restarts.
pub fn keep_ports(broker: &mut Broker) -> anyhow::Result<()> {
    for (section, at) in [("api", broker.api()?), ("doh", broker.doh()?)] {
        pin(broker.path(), section, at.port())?;
    }
    broker.restart()
}

/// A primary with two members, on ports that it keeps.
pub fn primary() -> anyhow::Result<Broker> {
    let mut broker = Broker::start()?;
    keep_ports(&mut broker)?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE])?;
    Ok(broker)
}

/// What a standby is made from.
pub struct Kit {
    dir: TempDir,
    credential: PathBuf,
    backup: PathBuf,
    name: String,
    doh: u16,
    api: u16,
}

impl Kit {
    /// Registers a standby at its primary, with ports that are free, and takes certificate and backup with it.
    pub fn new(of: &Broker, id: &str, name: &str) -> anyhow::Result<Self> {
        let doh = free_port()?;
        Self::with_ports(of, id, name, (doh, doh), free_port()?)
    }

    /// The same with ports of DNS over HTTPS, as members are told and as it listens, and of the API.
    pub fn with_ports(of: &Broker, id: &str, name: &str, (told, doh): (u16, u16), api: u16) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("standby-").tempdir()?;
        let (doh_port, api_port) = (told.to_string(), api.to_string());
        let ports = ["--standby-port", &doh_port, "--standby-api-port", &api_port];
        let standby = ["--standby", name, "--standby-address", "127.0.0.1"];
        of.json(&[&["replica", "add", id, "--all"], &standby[..], &ports[..]].concat())?;
        let credential = of.replica_certificate(id)?;
        let backup = dir.path().join("backup");
        of.json(&["backup", &backup.to_string_lossy()])?;
        Ok(Self { dir, credential, backup, name: name.to_owned(), doh, api })
    }

    /// Where the standby lives, unless it is made elsewhere.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("b")
    }

    /// Makes the standby in a directory.
    pub fn init(&self, of: &Broker, at: &Path, more: &[&str]) -> anyhow::Result<Value> {
        self.init_over(of, of.api()?, at, more)
    }

    fn init_over(&self, of: &Broker, address: SocketAddr, at: &Path, more: &[&str]) -> anyhow::Result<Value> {
        let url = format!("https://{}:{}", of.status()?.broker.to_string().trim_end_matches('.'), of.api()?.port());
        let mut command = Command::new(Broker::program()?);
        command.args(["standby", "init", "--json", "--name", &self.name, "--primary", &url]);
        command.args(["--connect", &address.to_string(), "--address", "127.0.0.1"]);
        command.arg("--from").arg(&self.backup).arg("--dir").arg(at).arg("--credential").arg(&self.credential);
        command.arg("--passphrase-file").arg(of.path().join("secrets/ca-passphrase"));
        let made = output(command.args(more))?;
        ensure!(made.ok, "standby init failed: {}", made.stderr);
        Ok(serde_json::from_str(&made.stdout)?)
    }

    /// The same, on the ports that it was registered with.
    pub fn place(&self, of: &Broker, at: &Path, more: &[&str]) -> anyhow::Result<()> {
        self.init(of, at, &[&["--port-base", "0"], more].concat())?;
        pin(at, "doh", self.doh)?;
        pin(at, "api", self.api)
    }

    /// A standby that is served.
    pub fn start(&self, of: &Broker, more: &[&str]) -> anyhow::Result<Broker> {
        self.place(of, &self.path(), more)?;
        Broker::open(&self.path())
    }

    /// The same over a relay.
    pub fn start_over(&self, relay: &Relay, of: &Broker, more: &[&str]) -> anyhow::Result<Broker> {
        self.init_over(of, relay.address(), &self.path(), &[&["--port-base", "0"], more].concat())?;
        Broker::open(&self.path())
    }
}

/// Waits until a standby has all that its primary has, and answers.
pub fn follows(standby: &Broker, primary: &Broker) -> anyhow::Result<()> {
    eventually("the standby has what the primary has", || {
        let (ours, theirs) = (standby.json(&["standby", "status"])?, primary.json(&["standby", "status"])?);
        Ok(ours["act"] == theirs["act"] && ours["following"]["answers"] == true)
    })
    .with_context(|| standby.log())
}

/// Asks a broker over DoH on one connection.
pub struct Asker(pub tls::Tls);

impl Asker {
    /// With a member's certificate, of a broker that shows this name.
    pub fn open(ca: &Broker, certificate: &Path, at: &Broker, name: &str) -> anyhow::Result<Self> {
        let config = tls::client(ca, Some(tls::credential(certificate)?), &["http/1.1"])?;
        Ok(Self(tls::connect_as(at.doh()?, &config, name)?))
    }

    /// Asks for a device's address: HTTP status and answer.
    pub fn ask(&mut self, device: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        tls::ask(&mut self.0, &query(7, 0, &nibble_name(device), 1, 1))
    }

    /// Whether a device is found.
    pub fn finds(&mut self, device: &str) -> anyhow::Result<bool> {
        let (status, answer) = self.ask(device)?;
        Ok(status == 200 && answer.get(7).is_some_and(|count| *count > 0))
    }
}
