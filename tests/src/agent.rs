//! A real agent in a directory of its own, and what it takes to make a broker look down, slow, or doubled.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::peers::{Finished, output};

/// A start or stop takes this long at most, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// A member's machine: the directory of an agent that is not running yet.
pub struct Host {
    dir: Option<TempDir>,
    path: PathBuf,
}

/// An agent that runs.
pub struct Agent {
    /// Where it lives.
    pub host: Host,
    child: Option<Child>,
    /// What it said when it was up.
    pub status: Value,
}

impl Host {
    /// A new directory.
    pub fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("agent-").tempdir()?;
        Ok(Self { path: dir.path().to_owned(), dir: Some(dir) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The program under test: `DNSBROKER_AGENT_BIN`, or what cargo built beside the tests.
    pub fn program() -> anyhow::Result<PathBuf> {
        if let Some(named) = std::env::var_os("DNSBROKER_AGENT_BIN") {
            return Ok(named.into());
        }
        let test = std::env::current_exe()?;
        let built = test.parent().and_then(Path::parent).context("where are the tests?")?.join("dnsbroker-agent");
        ensure!(built.exists(), "{} is missing: run `cargo build -p dnsbroker-agent` first", built.display());
        Ok(built)
    }

    /// Runs a command of the program with the configuration of this directory.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<Finished> {
        let config = self.path.join("agent.toml");
        output(
            Command::new(Self::program()?)
                .args(args)
                .env("DNSBROKER_AGENT_CONFIG", config)
                .env_remove("RUNTIME_DIRECTORY")
                .current_dir(&self.path),
        )
    }

    /// Runs a command that must succeed, and reads its JSON.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let finished = self.run(&[args, &["--json"]].concat())?;
        ensure!(finished.ok, "{args:?} failed: {}{}", finished.stderr, finished.stdout);
        Ok(serde_json::from_str(&finished.stdout)?)
    }

    /// Enrols with a broker as a member, into a directory below this one.
    pub fn enroll(&self, broker: &Broker, member: &str, dir: &str) -> anyhow::Result<Value> {
        let token = broker.json(&["token", "create", "--member", member])?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("not a text");
        let (secret, pin) = (text(&token["token"])?, text(&token["instructions"]["ca_pin"])?);
        let url = text(&token["instructions"]["url"])?;
        let address = ["--address", "127.0.0.1", "--dir", dir];
        self.json(&[&["enroll", "--url", &url, "--token", &secret, "--ca-pin", &pin][..], &address].concat())
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Writes a file with a secret.
    pub fn write_secret(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.write(name, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Starts the agent with federations and other sections; listeners are on ports that the system gives.
    pub fn start(self, federations: &str, sections: &str) -> anyhow::Result<Agent> {
        let listeners = "[ts002]\nlisten = [\"127.0.0.1:0\"]\n[metrics]\nlisten = [\"127.0.0.1:0\"]\n";
        let resolver = if sections.contains("[resolver]") { "" } else { "[resolver]\nlisten = [\"127.0.0.1:0\"]\n" };
        let listeners =
            if sections.contains("[ts002]") { "[metrics]\nlisten = [\"127.0.0.1:0\"]\n" } else { listeners };
        self.write("agent.toml", &format!("{federations}\n{resolver}{listeners}{sections}\n"))?;
        self.serve()
    }

    /// Starts the agent with the configuration that is there.
    pub fn serve(self) -> anyhow::Result<Agent> {
        let mut agent = Agent { host: self, child: None, status: Value::Null };
        agent.serve()?;
        Ok(agent)
    }
}

impl Agent {
    /// Starts the program and waits until it answers.
    pub fn serve(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.host.path.join("log"))?;
        let child = Command::new(Host::program()?)
            .arg("run")
            .env("DNSBROKER_AGENT_CONFIG", self.host.path.join("agent.toml"))
            .env_remove("RUNTIME_DIRECTORY")
            .current_dir(&self.host.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let begun = Instant::now();
        loop {
            let finished = self.host.run(&["status", "--json"])?;
            if let Ok(status) = serde_json::from_str(&finished.stdout) {
                self.status = status;
                return Ok(());
            }
            if let Some(ended) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                self.child = None;
                bail!("the agent did not start: {ended}\n{}", self.log());
            }
            ensure!(begun.elapsed() < PATIENCE, "the agent is not up\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it does now. `status` fails while it is in trouble, and tells all the same.
    pub fn now(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.host.run(&["status", "--json"])?.stdout)?)
    }

    /// Waits until its status is as it shall be.
    pub fn eventually(&self, what: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let status = self.now()?;
            if done(&status) {
                return Ok(status);
            }
            ensure!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until each federation has answered.
    pub fn ready(&self) -> anyhow::Result<()> {
        self.eventually("ready", |status| status["ready"] == true).map(drop)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.host.path.join("log")).unwrap_or_default()
    }

    /// Waits until it has logged these words.
    pub fn assert_logged(&self, words: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.log().contains(words) {
            ensure!(begun.elapsed() < Duration::from_secs(10), "the log lacks {words:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn listener(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let address = self.status["listeners"][name][0].as_str();
        Ok(address.with_context(|| format!("no {name} listener"))?.parse()?)
    }

    /// Its resolver.
    pub fn resolver(&self) -> anyhow::Result<SocketAddr> {
        self.listener("resolver")
    }

    /// Its TS002 endpoint.
    pub fn ts002(&self) -> anyhow::Result<SocketAddr> {
        self.listener("ts002")
    }

    /// Its metrics page.
    pub fn metrics(&self) -> anyhow::Result<String> {
        let address = self.listener("metrics")?;
        let (status, body) = http(address, "GET", "/metrics", b"")?;
        ensure!(status == 200, "metrics: {status}");
        Ok(String::from_utf8(body)?)
    }

    /// The value of a metric, by the start of its line.
    pub fn metric(&self, start: &str) -> anyhow::Result<f64> {
        let page = self.metrics()?;
        let line = page.lines().find(|line| line.starts_with(start)).with_context(|| format!("no {start}:\n{page}"))?;
        Ok(line.rsplit(' ').next().context("no value")?.parse()?)
    }

    /// Asks whose a device is, as an unmodified ChirpStack does.
    pub fn home_ns(&self, device: &str) -> anyhow::Result<Value> {
        self.ts002_message(&json!({
            "ProtocolVersion": "1.0", "SenderID": "600013", "ReceiverID": "6895a4b3c2d1beef",
            "TransactionID": 95_595_876, "MessageType": "HomeNSReq", "DevEUI": device,
        }))
    }

    /// Sends a message to the TS002 endpoint.
    pub fn ts002_message(&self, message: &Value) -> anyhow::Result<Value> {
        let (status, body) = http(self.ts002()?, "POST", "/", message.to_string().as_bytes())?;
        ensure!(status == 200, "HTTP status {status}: {}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body)?;
        ensure!(answer["Result"]["ResultCode"].is_string(), "a Result is always there: {answer}");
        ensure!(answer["TransactionID"] == message["TransactionID"], "another transaction: {answer}");
        Ok(answer)
    }

    /// The home network that the TS002 endpoint names, or the result code.
    pub fn home(&self, device: &str) -> anyhow::Result<String> {
        let answer = self.home_ns(device)?;
        let code = answer["Result"]["ResultCode"].as_str().context("no code")?.to_owned();
        Ok(answer["HNetID"].as_str().map_or(code, str::to_owned))
    }

    /// The process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.child.as_ref().context("it does not run")?.id())
    }

    /// Stops it as systemd does, and expects it to be content.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        kill_process(Pid::from_raw(i32::try_from(child.id())?).context("no process id")?, Signal::TERM)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "the agent ended with {status}\n{}", self.log());
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                child.kill()?;
                bail!("the agent did not stop\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; that is what some tests are about.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking()
            && let Some(dir) = self.host.dir.take()
        {
            eprintln!("kept: {}\n{}", dir.keep().display(), self.log());
        }
    }
}

/// One HTTP/1.1 request over plain TCP; gives status and body.
pub fn http(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\ncontent-type: application/json\r\naccept: */*\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut octets = Vec::new();
    stream.read_to_end(&mut octets)?;
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n").context("no end of the head")?;
    let head = String::from_utf8_lossy(&octets[..end]).into_owned();
    Ok((head.split(' ').nth(1).context("no status")?.parse()?, octets[end + 4..].to_vec()))
}

/// A way to a broker that can be slow or cut: with several, one broker looks like several.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    delay: AtomicU64,
    cut: AtomicBool,
    held: AtomicBool,
    stop: AtomicBool,
    /// Connections accepted.
    accepted: AtomicU64,
}

impl Relay {
    /// To an address.
    pub fn to(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            delay: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            held: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.stop.load(Ordering::Relaxed) {
                    return;
                }
                serving.accepted.fetch_add(1, Ordering::Relaxed);
                if serving.cut.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(onward) = TcpStream::connect(target) else { continue };
                for (from, to) in [(stream.try_clone(), onward.try_clone()), (Ok(onward), Ok(stream))] {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    let shared = Arc::clone(&serving);
                    std::thread::spawn(move || carry(from, to, &shared));
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes through takes so long, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// Closes connections, and those that come; or lets them through again.
    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// Carries nothing any more and closes nothing, as a line that has gone dead; or goes on.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Relaxed);
    }

    /// Connections that came.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.cut.store(true, Ordering::Relaxed);
        // Wakes the accepting thread; if that is gone there is nothing to wake.
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut octets = [0; 16 * 1024];
    // A cut bites on connections that are silent, too.
    let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
    while !shared.cut.load(Ordering::Relaxed) {
        if shared.held.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        match from.read(&mut octets) {
            Ok(0) => break,
            Ok(length) => {
                std::thread::sleep(Duration::from_millis(shared.delay.load(Ordering::Relaxed)));
                if to.write_all(&octets[..length]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    // The other side may have closed already.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
