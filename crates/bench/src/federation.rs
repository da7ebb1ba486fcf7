//! A federation in a directory that is gone afterwards, served by the `dnsbroker` binary next to this one.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dnsbroker_api::client::Client;
use dnsbroker_api::message::Status;
use dnsbroker_federation::{DevEui, DomainName};
use tempfile::TempDir;

use crate::client::{Connector, Method, Target};
use crate::devices::{Random, write_list};
use crate::process::Server;
use crate::questions::Questions;

/// The federation's name.
const FEDERATION: &str = "fed.example";
/// The name in the broker's certificate.
const BROKER: &str = "broker.fed.example";
/// The one NetID.
const NETID: &str = "60002d";
/// The NetID that a primary fills.
const SOURCE_NETID: &str = "600013";
/// Bounds that a load is not to meet.
const LIMITS: &str = "\n[limits]\nnxdomain_per_minute = 0\nconnections_per_member = 4096\n\
    api_requests_per_minute_anonymous = 1000000\n";
/// How long a daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is asked meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

/// The federation and its daemon.
pub struct Federation {
    dir: TempDir,
    binary: PathBuf,
    daemon: Option<Server>,
    status: Option<Status>,
}

/// The binary to measure: as told, or else from the same build as this program.
fn binary() -> anyhow::Result<PathBuf> {
    let path = match std::env::var_os("DNSBROKER_BIN") {
        Some(path) => path.into(),
        None => std::env::current_exe()?.with_file_name("dnsbroker"),
    };
    ensure!(
        path.is_file(),
        "there is no {}: build it with `cargo build --release -p dnsbroker`, or name another one in DNSBROKER_BIN",
        path.display()
    );
    Ok(path)
}

impl Federation {
    /// Makes one, without members.
    pub fn make() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("dnsbroker-bench-").tempdir()?;
        let federation = Self { dir, binary: binary()?, daemon: None, status: None };
        federation.command(&["init", "--dir", ".", "--federation", FEDERATION, "--port-base", "0"])?;
        let mut configuration = OpenOptions::new().append(true).open(federation.path("dnsbroker.toml"))?;
        configuration.write_all(LIMITS.as_bytes())?;
        Ok(federation)
    }

    /// A file of its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path(name)
    }

    /// Where operators enrol.
    pub fn api(&self) -> anyhow::Result<SocketAddr> {
        let addresses = self.status.as_ref().map(|status| status.listeners.api.as_slice()).unwrap_or_default();
        addresses.first().copied().context("the daemon has no API")
    }

    /// Runs a command of the broker's binary in the directory, where it finds the control socket.
    fn command(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.ask(arguments).map(drop)
    }

    /// The same, and gives what it printed.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .current_dir(self.dir.path())
            .env("DNSBROKER_CONTROL", self.path("control.sock"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "dnsbroker {}: {}", arguments.join(" "), error.trim());
        Ok(output.stdout)
    }

    /// Starts the daemon and waits until it is ready.
    pub async fn serve(&mut self) -> anyhow::Result<()> {
        let log = File::create(self.path("log"))?;
        let child = Command::new(&self.binary)
            .args(["serve", "--config", "dnsbroker.toml"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        let daemon = self.daemon.insert(Server::new(child, "the daemon"));
        let client = Client::control(self.dir.path().join("control.sock"));
        let began = Instant::now();
        loop {
            // Until it listens there is nobody to ask.
            if let Ok(status) = client.status().await
                && status.ready
            {
                self.status = Some(status);
                return Ok(());
            }
            if let Some(ended) = daemon.ended()? {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                bail!("the daemon ended with {ended}: {}", log.trim());
            }
            ensure!(began.elapsed() < PATIENCE, "the daemon is not ready after {} seconds", PATIENCE.as_secs());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts the daemon; gives the time until a first question had its right answer.
    pub async fn serve_until_answer(&mut self, questions: &Arc<Questions>) -> anyhow::Result<Duration> {
        let mut message = Vec::new();
        questions.write(&mut Random::new(0), &mut message);
        let began = Instant::now();
        self.serve().await?;
        let mut connection = self.doh()?.connect().await?;
        connection.sender.ask(Method::Get, &message, 0).await.context("the first question")?;
        let took = began.elapsed();
        connection.close().await;
        Ok(took)
    }

    /// Stops the daemon.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.status = None;
        self.daemon.take().map_or(Ok(()), Server::stop)
    }

    /// A member with a NetID and a certificate.
    pub fn furnish(&self) -> anyhow::Result<()> {
        self.command(&["member", "add", "a"])?;
        self.command(&["netid", "set", NETID, "--member", "a", "--address", "192.0.2.1"])?;
        self.command(&["cert", "issue", "--member", "a", "--new-key", "--out", "m"])
    }

    /// Imports devices with one command; gives the time that took.
    pub fn import(&self, devices: &[DevEui]) -> anyhow::Result<Duration> {
        write_list(devices, File::create(self.path("devices"))?)?;
        let began = Instant::now();
        self.command(&["device", "import", "--member", "a", "--netid", NETID, "devices"])?;
        Ok(began.elapsed())
    }

    /// The same as a full list, however much that drops.
    pub fn replace(&self, devices: &[DevEui]) -> anyhow::Result<Duration> {
        write_list(devices, File::create(self.path("devices"))?)?;
        let began = Instant::now();
        let list = ["device", "import", "--member", "a", "--netid", NETID, "--full", "--allow-shrink", "devices"];
        self.command(&list)?;
        Ok(began.elapsed())
    }

    /// Another member with a TSIG key for its primary; gives the secret.
    pub fn source_key(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        self.command(&["member", "add", "b"])?;
        self.command(&["netid", "set", SOURCE_NETID, "--member", "b", "--address", "192.0.2.2"])?;
        let key = self.ask(&["key", "create", name, "--member", "b", "--allow", "source", "--json"])?;
        let key: dnsbroker_api::exchange::Key = serde_json::from_slice(&key)?;
        Ok(STANDARD.decode(key.secret.context("the key has no secret")?)?)
    }

    /// Has its NetID filled from a primary.
    pub fn add_source(&self, primary: SocketAddr, zone: &str, key: &str) -> anyhow::Result<()> {
        let primary = primary.to_string();
        let to = ["source", "add", SOURCE_NETID, "--member", "b", "--primary", &primary, "--zone", zone, "--key", key];
        self.command(&to)
    }

    /// How many devices have come.
    pub fn source_devices(&self) -> anyhow::Result<u64> {
        let shown = self.ask(&["source", "show", SOURCE_NETID, "--json"])?;
        Ok(serde_json::from_slice::<dnsbroker_api::exchange::Source>(&shown)?.devices)
    }

    /// A TSIG key of the member that may transfer everything in clear text and update; gives its secret.
    pub fn exchange_key(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        self.command(&["replica", "add", "mirror", "--holder", "a", "--all", "--allow-clear-text"])?;
        let key = self.ask(&["key", "create", name, "--member", "a", "--allow", "transfer,update", "--json"])?;
        let key: dnsbroker_api::exchange::Key = serde_json::from_slice(&key)?;
        Ok(STANDARD.decode(key.secret.context("the key has no secret")?)?)
    }

    /// A secret as peers read it.
    pub fn key_text(&self, secret: &[u8]) -> String {
        STANDARD.encode(secret)
    }

    /// Writes the zone of devices as text; gives the file.
    pub fn export(&self) -> anyhow::Result<PathBuf> {
        let zone = self.ask(&["zone", "export", "deveuis", "--names", "nibble"])?;
        let path = self.path("deveuis.zone");
        fs::write(&path, zone)?;
        Ok(path)
    }

    /// The daemon's plain DNS.
    pub fn dns(&self) -> anyhow::Result<SocketAddr> {
        let addresses = self.status.as_ref().map(|status| status.listeners.dns.as_slice()).unwrap_or_default();
        addresses.first().copied().context("the daemon has no plain DNS")
    }

    /// Octets of the files of the store.
    pub fn store_octets(&self) -> anyhow::Result<u64> {
        let mut octets = 0;
        let mut left = vec![self.path("data")];
        while let Some(path) = left.pop() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() { left.push(entry.path()) } else { octets += metadata.len() }
            }
        }
        Ok(octets)
    }

    /// Starts the floor with the broker's certificate; gives its address.
    pub fn floor(&self) -> anyhow::Result<(Server, SocketAddr)> {
        // The same anchors as the broker's: members send their certificate alone.
        let anchors = self.path("anchors.pem");
        fs::write(&anchors, [fs::read(self.path("ca/root.pem"))?, fs::read(self.path("ca/issuing.pem"))?].concat())?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("floor")
            .arg("--cert")
            .arg(self.path("ca/server.pem"))
            .arg("--key")
            .arg(self.path("ca/server.key"))
            .arg("--ca")
            .arg(anchors)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take();
        let server = Server::new(child, "the floor");
        let mut line = String::new();
        BufReader::new(stdout.context("the floor has no stdout")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the floor has not said where it listens")?;
        Ok((server, address))
    }

    /// Reaches a server with the broker's certificate, as the member.
    pub fn connector(&self, connect: SocketAddr) -> anyhow::Result<Connector> {
        Connector::new(&Target {
            connect,
            server_name: BROKER.to_owned(),
            ca: self.path("m/ca.pem"),
            cert: self.path("m/client.pem"),
            key: self.path("m/client.key"),
        })
    }

    /// Reaches the daemon's DoH front as the member.
    pub fn doh(&self) -> anyhow::Result<Connector> {
        let addresses = self.status.as_ref().map(|status| status.listeners.doh.as_slice()).unwrap_or_default();
        self.connector(*addresses.first().context("the daemon has no DoH front")?)
    }

    /// The daemon's process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.daemon.as_ref().context("the daemon does not run")?.pid())
    }

    /// The zone of devices.
    pub fn apex(&self) -> anyhow::Result<DomainName> {
        Ok(format!("deveuis.{FEDERATION}").parse()?)
    }

    /// Version of the daemon.
    pub fn version(&self) -> &str {
        self.status.as_ref().map_or("", |status| &status.version)
    }

    /// Engine of its store.
    pub fn engine(&self) -> &str {
        self.status.as_ref().map_or("", |status| &status.store)
    }
}
