//! A primary and its standbys: how they are made, and who asks them.

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

/// Writes a port into the configuration, so that a restart keeps it.
pub fn pin(broker: &Broker, section: &str, address: SocketAddr) -> anyhow::Result<()> {
    let file = broker.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    let (head, tail) = text.split_once(&format!("[{section}]\n")).context("no such section")?;
    std::fs::write(&file, format!("{head}[{section}]\n{}", tail.replacen("127.0.0.1:0", &address.to_string(), 1)))?;
    Ok(())
}

/// Where a broker's API is.
pub fn api(broker: &Broker) -> anyhow::Result<SocketAddr> {
    broker.status()?.listeners.api.first().copied().context("no API listener")
}

/// A primary with two members, on an API port that it keeps.
pub fn primary() -> anyhow::Result<Broker> {
    let mut broker = Broker::start()?;
    pin(&broker, "api", api(&broker)?)?;
    pin(&broker, "doh", broker.doh()?)?;
    broker.restart()?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.devices("atlantic", "60002d", &[DEVICE])?;
    Ok(broker)
}

/// What a standby is made from.
pub struct Kit {
    dir: TempDir,
    credential: PathBuf,
    backup: PathBuf,
}

/// Registers a standby, with its certificate and a backup.
pub fn kit(of: &Broker, id: &str, name: &str) -> anyhow::Result<Kit> {
    let dir = tempfile::Builder::new().prefix("standby-").tempdir()?;
    let port = free_port()?.to_string();
    let standby = ["--standby", name, "--standby-address", "127.0.0.1", "--standby-port", &port];
    of.json(&[&["replica", "add", id, "--all"], &standby[..]].concat())?;
    let credential = of.replica_certificate(id)?;
    let backup = dir.path().join("backup");
    of.json(&["backup", &backup.to_string_lossy()])?;
    Ok(Kit { dir, credential, backup })
}

impl Kit {
    /// Where the standby lives.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("b")
    }

    /// Makes the standby.
    pub fn init(&self, of: &Broker, at: &Path, name: &str, more: &[&str]) -> anyhow::Result<Value> {
        self.init_over(of, api(of)?, at, name, more)
    }

    fn init_over(
        &self,
        of: &Broker,
        address: SocketAddr,
        at: &Path,
        name: &str,
        more: &[&str],
    ) -> anyhow::Result<Value> {
        let url = format!("https://{}:{}", of.status()?.broker.to_string().trim_end_matches('.'), api(of)?.port());
        let mut command = Command::new(Broker::program()?);
        command.args([
            "standby",
            "init",
            "--json",
            "--name",
            name,
            "--primary",
            &url,
            "--connect",
            &address.to_string(),
        ]);
        command.arg("--from").arg(&self.backup).arg("--dir").arg(at).arg("--credential").arg(&self.credential);
        command.arg("--passphrase-file").arg(of.path().join("secrets/ca-passphrase"));
        let made = output(command.args(["--address", "127.0.0.1"]).args(more))?;
        ensure!(made.ok, "standby init failed: {}", made.stderr);
        Ok(serde_json::from_str(&made.stdout)?)
    }

    /// A standby that is served.
    pub fn start(&self, of: &Broker, more: &[&str]) -> anyhow::Result<Broker> {
        self.init(of, &self.path(), STANDBY, &[&["--port-base", "0"], more].concat())?;
        Broker::open(&self.path())
    }

    /// The same over a relay.
    pub fn start_over(&self, relay: &Relay, of: &Broker, more: &[&str]) -> anyhow::Result<Broker> {
        let more = [&["--port-base", "0"], more].concat();
        self.init_over(of, relay.address(), &self.path(), STANDBY, &more)?;
        Broker::open(&self.path())
    }
}

/// Waits until a standby has all that its primary has.
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
