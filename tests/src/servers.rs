//! Name servers of others, each in a directory of its own on a port of 127.0.0.1: BIND, Knot, NSD, PowerDNS.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::peers::{Finished, missing, output};

/// A start, or a transfer that a test waits for, takes this long at most.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whose server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// BIND 9.
    Bind,
    /// Knot DNS.
    Knot,
    /// NSD.
    Nsd,
    /// PowerDNS Authoritative Server with SQLite.
    PowerDns,
}

impl Kind {
    /// The program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Bind => "named",
            Self::Knot => "knotd",
            Self::Nsd => "nsd",
            Self::PowerDns => "pdns_server",
        }
    }

    /// Whether it is installed; if not, that is told aloud.
    pub fn installed(self) -> bool {
        let found = ["/usr/sbin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(self.program()).exists());
        if !found {
            missing(self.program());
        }
        found
    }
}

/// A TSIG key: name and base64 secret; always hmac-sha256.
#[derive(Debug, Clone)]
pub struct TsigKey {
    /// Its name.
    pub name: String,
    /// Base64.
    pub secret: String,
}

impl TsigKey {
    /// As dig, kdig and nsupdate take it.
    pub fn argument(&self) -> String {
        format!("hmac-sha256:{}:{}", self.name, self.secret)
    }
}

/// A port that is free on UDP and TCP.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..64 {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free on both UDP and TCP")
}

/// A server that runs.
pub struct Server {
    kind: Kind,
    dir: TempDir,
    args: Vec<String>,
    port: u16,
    child: Option<Child>,
    /// BIND's statements within `options`.
    pub options: String,
}

impl Server {
    /// A directory and a port for a server to come.
    pub fn new(kind: Kind) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("{}-", kind.program())).tempdir()?;
        Ok(Self { kind, dir, args: vec![], port: free_port()?, child: None, options: String::new() })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Writes a file into its directory.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Writes its configuration around what is particular to a test, and starts it.
    pub fn start(&mut self, config: &str) -> anyhow::Result<()> {
        let (dir, port) = (self.path().display().to_string(), self.port);
        let (text, args) = match self.kind {
            Kind::Bind => (
                format!(
                    "options {{ directory \"{dir}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
                     pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify explicit;\n\
                     allow-transfer {{ 127.0.0.1; }}; minimal-responses yes; serial-query-rate 1000;\n\
                     masterfile-format text; {} }};\ncontrols {{ }};\n{config}",
                    self.options
                ),
                vec!["-g".to_owned(), "-c".to_owned(), format!("{dir}/conf")],
            ),
            Kind::Knot => (
                format!(
                    "server:\n  rundir: \"{dir}\"\n  listen: 127.0.0.1@{port}\n  background-workers: 2\n  udp-workers: 1\n\
                     \x20 tcp-workers: 1\nlog:\n- target: stderr\n  any: info\ndatabase:\n  storage: \"{dir}\"\n\
                     template:\n- id: default\n  storage: \"{dir}\"\n{config}"
                ),
                vec!["-c".to_owned(), format!("{dir}/conf")],
            ),
            Kind::Nsd => (
                format!(
                    "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  zonesdir: \"{dir}\"\n  database: \"\"\n\
                     \x20 pidfile: \"{dir}/nsd.pid\"\n  xfrdfile: \"{dir}/xfrd.state\"\n  xfrdir: \"{dir}\"\n\
                     \x20 zonelistfile: \"{dir}/zone.list\"\n  server-count: 1\n  verbosity: 2\n  zonefiles-write: 0\n\
                     \x20 xfrd-reload-timeout: 0\n\
                     {config}\nremote-control:\n  control-enable: yes\n  control-interface: \"{dir}/control\"\n"
                ),
                vec!["-d".to_owned(), "-c".to_owned(), format!("{dir}/conf")],
            ),
            Kind::PowerDns => (
                format!(
                    "local-address=127.0.0.1\nlocal-port={port}\nlaunch=gsqlite3\ngsqlite3-database={dir}/pdns.sqlite3\n\
                     socket-dir={dir}\nsetuid=\nsetgid=\ndaemon=no\nguardian=no\nprimary=yes\nsecondary=yes\n\
                     cache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\nzone-cache-refresh-interval=0\n\
                     allow-axfr-ips=127.0.0.1\nxfr-cycle-interval=1\nloglevel=5\n{config}"
                ),
                vec!["--config-dir=".to_owned() + &dir],
            ),
        };
        self.write(if self.kind == Kind::PowerDns { "pdns.conf" } else { "conf" }, &text)?;
        self.args = args;
        self.run()
    }

    /// Makes PowerDNS's database with a zone and a key. `create` is the command with what it needs beside the zone.
    pub fn prepare_powerdns(
        &self,
        config: &str,
        zone: &str,
        create: &str,
        role: &str,
        key: &TsigKey,
    ) -> anyhow::Result<()> {
        let dir = self.path().display();
        let schema = ["/usr/share/pdns-backend-sqlite3/schema", "/usr/share/doc/pdns-backend-sqlite3"]
            .iter()
            .map(|dir| Path::new(dir).join("schema.sqlite3.sql"))
            .find(|path| path.exists())
            .context("no schema of PowerDNS")?;
        if !self.path().join("pdns.sqlite3").exists() {
            let made = self.tool("sqlite3", &["pdns.sqlite3", &format!(".read {}", schema.display())])?;
            ensure!(made.ok, "sqlite3: {}", made.stderr);
        }
        self.write(
            "pdns.conf",
            &format!("launch=gsqlite3\ngsqlite3-database={dir}/pdns.sqlite3\nsocket-dir={dir}\n{config}"),
        )?;
        let config = format!("--config-dir={dir}");
        let mut words = create.split(' ');
        let create: Vec<&str> = words.next().into_iter().chain([zone]).chain(words).collect();
        for args in [
            create,
            vec!["import-tsig-key", &key.name, "hmac-sha256", &key.secret],
            vec!["activate-tsig-key", zone, &key.name, role],
        ] {
            let done = self.tool("pdnsutil", &[&[config.as_str()], &args[..]].concat())?;
            ensure!(done.ok, "pdnsutil {args:?}: {}{}", done.stdout, done.stderr);
        }
        Ok(())
    }

    /// Starts it again as it was.
    pub fn run(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.path().join("log"))?;
        let program = ["/usr/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(self.kind.program()));
        let program = program.iter().find(|path| path.exists()).context("it is not installed")?;
        let child = Command::new(program)
            .args(&self.args)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let begun = Instant::now();
        while std::net::TcpStream::connect(self.address()).is_err() {
            let exited = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(exited) = exited {
                self.child = None;
                bail!("{} did not start: {exited}\n{}", self.kind.program(), self.log());
            }
            ensure!(begun.elapsed() < PATIENCE, "{} does not answer\n{}", self.kind.program(), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it in good order.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        kill_process(Pid::from_raw(i32::try_from(child.id())?).context("no process id")?, Signal::TERM)?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > PATIENCE {
                child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Has it read its zone files again.
    pub fn reload(&self) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("no process id")?;
        Ok(kill_process(pid, Signal::HUP)?)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Runs a tool in its directory.
    pub fn tool(&self, program: &str, args: &[&str]) -> anyhow::Result<Finished> {
        output(Command::new(program).args(args).current_dir(self.path()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{}: {error}", self.kind.program());
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(30)..]
                .iter()
                .for_each(|line| eprintln!("{}: {line}", self.kind.program()));
        }
    }
}

/// All records of a zone as dig shows them, sorted, the SOA once; empty if the transfer failed.
pub fn zone_of(server: SocketAddr, zone: &str, key: Option<&TsigKey>) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new("dig");
    command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+noall", "+answer", "+nocmd"]);
    if let Some(key) = key {
        command.args(["-y", &key.argument()]);
    }
    let finished = output(command.args([zone, "AXFR"]))?;
    let normal = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let records = finished.stdout.lines().filter(|line| !line.starts_with(';') && !line.contains("TSIG")).map(normal);
    let mut records: Vec<String> = records.filter(|line| !line.is_empty()).collect();
    // dig prints what it has of a transfer that is cut off: a whole one ends with the SOA that it begins with.
    if records.len() < 2 || records.first() != records.last() {
        return Ok(Vec::new());
    }
    records.sort();
    records.dedup();
    Ok(records)
}

/// The serial of a zone, if the server has it.
pub fn serial_of(server: SocketAddr, zone: &str, key: Option<&TsigKey>) -> anyhow::Result<Option<u32>> {
    let mut command = Command::new("dig");
    command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+short", "+time=2", "+tries=2"]);
    if let Some(key) = key {
        command.args(["-y", &key.argument()]);
    }
    let finished = output(command.args([zone, "SOA"]))?;
    Ok(finished.stdout.split_whitespace().nth(2).and_then(|serial| serial.parse().ok()))
}

/// Waits until something is so, and says what was waited for if it never is.
pub fn eventually(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !done()? {
        ensure!(begun.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
