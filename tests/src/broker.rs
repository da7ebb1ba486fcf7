//! A real daemon in a directory of its own, on ports the system gave.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use dnsbroker_api::message::Status;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::peers::{Finished, output};
use crate::servers::TsigKey;

/// A start or stop takes this long at most, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);
const FEDERATION: &str = "fed.example";

/// How to make a broker.
#[derive(Debug, Clone)]
pub struct Options {
    /// `redb` or `sled`.
    pub store: &'static str,
    /// Its name.
    pub federation: &'static str,
    /// Labels of the private zones.
    pub labels: &'static str,
    /// Lines put at the end of the configuration.
    pub config: String,
    /// Lines put at the head of sections of the configuration that are there already.
    pub sections: Vec<(&'static str, String)>,
    /// Environment of the daemon.
    pub env: Vec<(OsString, OsString)>,
    /// More arguments of `init`.
    pub init: Vec<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            store: "redb",
            federation: FEDERATION,
            labels: "deveuis,netids",
            config: String::new(),
            sections: vec![],
            env: vec![],
            init: vec![],
        }
    }
}

/// A federation in a directory, and the daemon that serves it.
pub struct Broker {
    /// Where it lives. Kept when a test fails, so that it can be looked at.
    dir: Option<TempDir>,
    path: PathBuf,
    env: Vec<(OsString, OsString)>,
    daemon: Option<Child>,
    /// What it said when it was ready.
    pub status: Option<Status>,
}

impl Broker {
    /// A new federation, served.
    pub fn start() -> anyhow::Result<Self> {
        Self::with(Options::default())
    }

    /// A new federation, served.
    pub fn with(options: Options) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("dnsbroker-").tempdir()?;
        let path = dir.path().join("b");
        let Options { store, labels, federation, .. } = options;
        let init =
            ["init", "--federation", federation, "--port-base", "0", "--store", store, "--labels", labels, "--dir"];
        let made = output(Command::new(Self::program()?).args(init).arg(&path).args(&options.init))?;
        ensure!(made.ok, "init failed: {}", made.stderr);
        let file = path.join("dnsbroker.toml");
        let mut text = std::fs::read_to_string(&file)?;
        for (section, lines) in &options.sections {
            let head = format!("[{section}]\n");
            ensure!(text.contains(&head), "the configuration has no {head}");
            text = text.replace(&head, &format!("{head}{lines}\n"));
        }
        std::fs::write(&file, format!("{text}\n{}\n", options.config))?;
        let mut broker = Self { dir: Some(dir), path, env: options.env, daemon: None, status: None };
        broker.serve()?;
        Ok(broker)
    }

    /// Serves what is in a directory, for example after a crash. The directory stays when this is dropped.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut broker = Self { dir: None, path: path.to_owned(), env: vec![], daemon: None, status: None };
        broker.serve()?;
        Ok(broker)
    }

    /// The program under test: `DNSBROKER_BIN`, or what cargo built beside the tests.
    pub fn program() -> anyhow::Result<PathBuf> {
        if let Some(named) = std::env::var_os("DNSBROKER_BIN") {
            return Ok(named.into());
        }
        let test = std::env::current_exe()?;
        let built = test.parent().and_then(Path::parent).context("where are the tests?")?.join("dnsbroker");
        ensure!(built.exists(), "{} is missing: run `cargo build -p dnsbroker` first", built.display());
        Ok(built)
    }

    /// Environment of the daemon from its next start on.
    pub fn set_env(&mut self, env: Vec<(OsString, OsString)>) {
        self.env = env;
    }

    /// Starts the daemon and waits until it answers.
    pub fn serve(&mut self) -> anyhow::Result<()> {
        ensure!(self.daemon.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.path.join("log"))?;
        let child = Command::new(Self::program()?)
            .args(["serve", "--config"])
            .arg(self.path.join("dnsbroker.toml"))
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.daemon = Some(child);
        let begun = Instant::now();
        loop {
            if let Ok(status) = self.json(&["status"]) {
                self.status = Some(serde_json::from_value(status)?);
                return Ok(());
            }
            let exited = self.daemon.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(exited) = exited {
                self.daemon = None;
                bail!("the daemon did not start: {exited}\n{}", self.log());
            }
            ensure!(begun.elapsed() < PATIENCE, "the daemon is not ready\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it lives.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path.join("log")).unwrap_or_default()
    }

    /// Waits until the daemon has logged these words: a line may come after the answer it is about.
    pub fn assert_logged(&self, words: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.log().contains(words) {
            if begun.elapsed() > Duration::from_secs(5) {
                let log = self.log();
                let trouble: Vec<&str> =
                    log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
                bail!("the log lacks {words:?}:\n{}", trouble.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The daemon's process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.daemon.as_ref().context("it does not run")?.id())
    }

    /// Runs a command of the program against this daemon.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<Finished> {
        output(Command::new(Self::program()?).args(args).env("DNSBROKER_CONTROL", self.path.join("control.sock")))
    }

    /// Runs a command that must succeed, and reads its JSON.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let finished = self.run(&[args, &["--json"]].concat())?;
        ensure!(finished.ok, "{args:?} failed: {}", finished.stderr);
        Ok(serde_json::from_str(&finished.stdout)?)
    }

    /// Adds a member with a NetID at an address.
    pub fn member(&self, id: &str, netid: &str, address: &str) -> anyhow::Result<()> {
        self.json(&["member", "add", id])?;
        self.json(&["netid", "set", netid, "--member", id, "--address", address])?;
        Ok(())
    }

    /// Adds the two that most tests have: atlantic, whose network server is at 192.0.2.45, and alpine, at 198.51.100.19.
    pub fn two_members(&self) -> anyhow::Result<()> {
        self.member("atlantic", "60002d", "192.0.2.45")?;
        self.member("alpine", "600013", "198.51.100.19")
    }

    /// Registers devices of a member.
    pub fn devices(&self, id: &str, netid: &str, devices: &[&str]) -> anyhow::Result<Value> {
        let list = self.path.join(format!("{id}.txt"));
        std::fs::write(&list, devices.join("\n"))?;
        self.json(&["device", "import", "--member", id, "--netid", netid, &list.to_string_lossy()])
    }

    /// Issues a certificate with a new key, into a directory that is returned: client.pem, client.key, ca.pem.
    pub fn certificate(&self, id: &str) -> anyhow::Result<PathBuf> {
        let count = std::fs::read_dir(&self.path)?.count();
        let out = self.path.join(format!("cert-{id}-{count}"));
        self.json(&["cert", "issue", "--member", id, "--new-key", "--out", &out.to_string_lossy()])?;
        Ok(out)
    }

    /// What it said when it was ready.
    pub fn status(&self) -> anyhow::Result<&Status> {
        self.status.as_ref().context("it does not run")
    }

    /// Where members ask.
    pub fn doh(&self) -> anyhow::Result<SocketAddr> {
        self.status()?.listeners.doh.first().copied().context("no DoH listener")
    }

    /// Makes a TSIG key. `holder` is `--member=ID` or `--replica=ID`.
    pub fn key(&self, name: &str, holder: &str, allow: &str) -> anyhow::Result<TsigKey> {
        let key = self.json(&["key", "create", name, holder, "--allow", allow])?;
        let secret = key["secret"].as_str().context("no secret")?.to_owned();
        Ok(TsigKey { name: name.to_owned(), secret })
    }

    /// Issues a certificate for a replica with a new key, into a directory that is returned.
    pub fn replica_certificate(&self, id: &str) -> anyhow::Result<PathBuf> {
        let count = std::fs::read_dir(&self.path)?.count();
        let out = self.path.join(format!("replica-{id}-{count}"));
        self.json(&["cert", "issue", "--replica", id, "--new-key", "--out", &out.to_string_lossy()])?;
        Ok(out)
    }

    /// Where transfers go over TLS.
    pub fn xot(&self) -> anyhow::Result<SocketAddr> {
        self.status()?.listeners.xot.first().copied().context("no XoT listener")
    }

    /// Where operators enrol and renew.
    pub fn api(&self) -> anyhow::Result<SocketAddr> {
        self.status()?.listeners.api.first().copied().context("no API")
    }

    /// Where the CA publishes.
    pub fn pki(&self) -> anyhow::Result<SocketAddr> {
        self.status()?.listeners.pki.first().copied().context("the CA publishes nothing")
    }

    /// A one-time token of a member.
    pub fn token(&self, member: &str, args: &[&str]) -> anyhow::Result<String> {
        let token = self.json(&[&["token", "create", "--member", member], args].concat())?;
        Ok(token["token"].as_str().context("no secret")?.to_owned())
    }

    /// Where everybody asks.
    pub fn dns(&self) -> anyhow::Result<SocketAddr> {
        self.status()?.listeners.dns.first().copied().context("no plain DNS listener")
    }

    /// What a metric says; `name` with its labels.
    pub fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let at = self.status()?.listeners.metrics.first().copied().context("no metrics listener")?;
        let (_, page) = crate::http(at, "GET", "/metrics", b"")?;
        let page = String::from_utf8_lossy(&page).into_owned();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}\n{page}"))?.trim().parse::<f64>()? as u64)
    }

    /// Kills the daemon as a power switch would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut daemon = self.daemon.take().context("it does not run")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Stops the daemon as an administrator does, and expects it to be content.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let mut daemon = self.daemon.take().context("it does not run")?;
        let begun = Instant::now();
        loop {
            if let Some(status) = daemon.try_wait()? {
                ensure!(status.success(), "the daemon ended with {status}\n{}", self.log());
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                daemon.kill()?;
                bail!("the daemon did not stop\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops and starts the daemon.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop()?;
        self.serve()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself; that is what some tests are about.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            let kept = dir.keep();
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("kept: {}", kept.display());
            tail.iter().rev().for_each(|line| eprintln!("log: {line}"));
        }
    }
}
