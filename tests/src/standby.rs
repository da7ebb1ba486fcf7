//! A second broker that follows a first one: what it is made from, and how far it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::broker::Broker;
use crate::peers::output;
use crate::servers::{eventually, free_port};

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
        let address = of.api()?;
        let url = format!("https://{}:{}", of.status()?.broker.to_string().trim_end_matches('.'), address.port());
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
}

/// Waits until a standby has all that its primary has, and answers.
pub fn follows(standby: &Broker, primary: &Broker) -> anyhow::Result<()> {
    eventually("the standby has what the primary has", || {
        let (ours, theirs) = (standby.json(&["standby", "status"])?, primary.json(&["standby", "status"])?);
        Ok(ours["act"] == theirs["act"] && ours["following"]["answers"] == true)
    })
    .with_context(|| standby.log())
}
