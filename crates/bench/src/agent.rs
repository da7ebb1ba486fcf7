//! `agent`: what a look-up through the agent costs beside one over a warm connection to the broker, what a cached one
//! costs, and how much memory a full cache takes.
//!
//! Direct questions, questions through the agent, cached ones and HomeNSReq take turns, one at a time, so that a neighbour's
//! noise meets all alike. Each device is asked for once directly and once through the agent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use dnsbroker_federation::DevEui;
use serde::Serialize;
use serde_json::Value;

use crate::client::Method;
use crate::devices::devices;
use crate::federation::Federation;
use crate::latency::Latencies;
use crate::output;
use crate::process::{Server, resident};
use crate::questions::Questions;

#[derive(Args)]
pub struct Agent {
    /// Names in the cache
    #[arg(long, default_value_t = 100_000)]
    names: usize,
    /// Look-ups of each kind
    #[arg(long, default_value_t = 5_000)]
    lookups: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How long the agent may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Questions on their way at once while the cache is filled.
const WINDOW: usize = 32;
/// Octets of a datagram that is expected.
const DATAGRAM: usize = 1_232;

/// Milliseconds of look-ups of one kind.
#[derive(Debug, Serialize)]
struct Kind {
    p50: f64,
    p90: f64,
    p99: f64,
}

impl Kind {
    fn of(latencies: &Latencies) -> Self {
        let at = |share: f64| latencies.percentile(share).as_secs_f64() * 1_000.0;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    /// Over a warm connection to the broker, HTTP/2 POST.
    direct_ms: Kind,
    /// Through the agent's resolver, not in its cache.
    agent_ms: Kind,
    /// The same, from its cache.
    cached_ms: Kind,
    /// HomeNSReq over a kept connection, not in the cache.
    home_ns_ms: Kind,
    /// The same, from the cache.
    home_ns_cached_ms: Kind,
    /// What the agent adds to the broker's own round trip, medians.
    added_ms: f64,
    cached_names: u64,
    /// Resident memory of the agent at the start, and with that many names.
    started_mib: f64,
    resident_mib: f64,
}

impl Agent {
    /// Runs it.
    pub async fn run(self) -> anyhow::Result<()> {
        // Two devices a look-up of each kind that must not be in the cache.
        ensure!(self.names >= 2 * self.lookups, "--names is at least twice --lookups");
        output::progress("making a federation and an agent");
        let mut federation = Federation::make()?;
        federation.serve().await?;
        federation.furnish()?;
        let devices = devices(self.names);
        federation.import(&devices)?;
        let agent = Running::start(&federation, self.names)?;
        let started = resident(agent.process.pid())?;
        let questions = Questions::of_devices(federation.apex()?, devices.clone());
        let mut direct = federation.doh()?.connect().await?;
        let (udp, mut http) = (Udp::new(agent.resolver)?, Http::new(agent.ts002)?);
        let latencies: [Latencies; 5] = std::array::from_fn(|_| Latencies::default());
        output::progress("asking in turn: directly, through the agent, cached, HomeNSReq");
        let mut message = Vec::new();
        for (index, pair) in devices.chunks_exact(2).take(self.lookups).enumerate() {
            questions.nth(2 * index, &mut message);
            let begun = Instant::now();
            direct.sender.ask(Method::Post, &message, 0).await?;
            latencies[0].record(begun.elapsed());
            for kind in [&latencies[1], &latencies[2]] {
                let begun = Instant::now();
                udp.ask(&message)?;
                kind.record(begun.elapsed());
            }
            for kind in [&latencies[3], &latencies[4]] {
                let begun = Instant::now();
                http.ask(pair[1])?;
                kind.record(begun.elapsed());
            }
        }
        direct.close().await;
        output::progress("filling the cache");
        let cached = self.fill(&agent, &udp, &questions)?;
        let resident = resident(agent.process.pid())?;
        let kinds = latencies.each_ref().map(Kind::of);
        let added = kinds[1].p50 - kinds[0].p50;
        let [direct_ms, agent_ms, cached_ms, home_ns_ms, home_ns_cached_ms] = kinds;
        let mib = |octets: u64| octets as f64 / 1_048_576.0;
        let figures = Figures {
            direct_ms,
            agent_ms,
            cached_ms,
            home_ns_ms,
            home_ns_cached_ms,
            added_ms: added,
            cached_names: cached,
            started_mib: mib(started),
            resident_mib: mib(resident),
        };
        agent.process.stop()?;
        if self.json { output::report(&figures, true) } else { print(&figures) }
    }
}

impl Agent {
    /// Asks for names until the cache has as many as it shall have, and none more: devices by two names, and the NetIDs that are
    /// kept with them, are there already.
    fn fill(&self, agent: &Running, udp: &Udp, questions: &Questions) -> anyhow::Result<u64> {
        let (wanted, mut next) = (self.names as u64, 2 * self.lookups);
        loop {
            let cached = agent.cached()?;
            let missing = wanted.saturating_sub(cached) as usize;
            if missing == 0 {
                ensure!(cached == wanted, "{cached} names are in the cache: give more --names or fewer --lookups");
                return Ok(cached);
            }
            ensure!(
                next < questions.len(),
                "all {} names were asked for, and {cached} are in the cache",
                questions.len()
            );
            let end = (next + missing).min(questions.len());
            udp.fill(questions, next..end)?;
            next = end;
        }
    }
}

fn print(figures: &Figures) -> anyhow::Result<()> {
    output::line("| look-up, one at a time, ms | p50 | p90 | p99 |\n| --- | ---: | ---: | ---: |")?;
    for (name, kind) in [
        ("directly, warm connection to the broker", &figures.direct_ms),
        ("through the agent's resolver", &figures.agent_ms),
        ("the same, cached", &figures.cached_ms),
        ("HomeNSReq", &figures.home_ns_ms),
        ("the same, cached", &figures.home_ns_cached_ms),
    ] {
        output::line(&format!("| {name} | {:.3} | {:.3} | {:.3} |", kind.p50, kind.p90, kind.p99))?;
    }
    output::line(&format!("\nThe agent adds {:.3} ms to the broker's round trip (medians).", figures.added_ms))?;
    output::line(&format!(
        "Memory of the agent: {:.1} MiB at the start, {:.1} MiB with {} names in the cache.",
        figures.started_mib, figures.resident_mib, figures.cached_names
    ))?;
    Ok(())
}

/// The agent's binary: as told, or else from the same build as this program.
fn binary() -> anyhow::Result<PathBuf> {
    let path = match std::env::var_os("DNSBROKER_AGENT_BIN") {
        Some(path) => path.into(),
        None => std::env::current_exe()?.with_file_name("dnsbroker-agent"),
    };
    ensure!(path.is_file(), "there is no {}: build it with `cargo build --release -p dnsbroker-agent`", path.display());
    Ok(path)
}

/// An agent that runs.
struct Running {
    process: Server,
    dir: PathBuf,
    resolver: SocketAddr,
    ts002: SocketAddr,
}

impl Running {
    fn start(federation: &Federation, names: usize) -> anyhow::Result<Self> {
        let dir = federation.path("agent");
        std::fs::create_dir(&dir)?;
        let token: Value = serde_json::from_slice(&federation.ask(&["token", "create", "--member", "a", "--json"])?)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("the token is of another form");
        let (secret, url) = (text(&token["token"])?, text(&token["instructions"]["url"])?);
        let pin = text(&token["instructions"]["ca_pin"])?;
        command(
            &dir,
            &["enroll", "--url", &url, "--token", &secret, "--ca-pin", &pin, "--address", "127.0.0.1", "--dir", "fed"],
        )?;
        // Half of the places are for what was not asked for of late, so that all names stay.
        let config = format!(
            "[[federation]]\ndir = \"fed\"\n[resolver]\nlisten = [\"127.0.0.1:0\"]\n[ts002]\nlisten = [\"127.0.0.1:0\"]\n\
             [cache]\nnames = {}\n",
            2 * names
        );
        std::fs::write(dir.join("agent.toml"), config)?;
        let log = std::fs::File::create(dir.join("log"))?;
        let mut run = Command::new(binary()?);
        run.args(["run", "--config", "agent.toml"]).current_dir(&dir).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Server::new(run.stderr(log).spawn()?, "the agent");
        let begun = Instant::now();
        loop {
            if let Ok(status) = command(&dir, &["status"]) {
                let address =
                    |name: &str| -> anyhow::Result<SocketAddr> { Ok(text(&status["listeners"][name][0])?.parse()?) };
                return Ok(Self { resolver: address("resolver")?, ts002: address("ts002")?, process, dir });
            }
            if begun.elapsed() > PATIENCE {
                bail!("the agent is not ready: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn cached(&self) -> anyhow::Result<u64> {
        command(&self.dir, &["status"])?["cache"][0].as_u64().context("the status is of another form")
    }
}

/// Runs a command of the agent; gives its JSON.
fn command(dir: &Path, arguments: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::new(binary()?);
    command.args(arguments).env("DNSBROKER_AGENT_CONFIG", "agent.toml").arg("--json").current_dir(dir);
    let done = command.stdin(Stdio::null()).output()?;
    ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(serde_json::from_slice(&done.stdout)?)
}

/// Plain DNS over UDP.
struct Udp(UdpSocket);

impl Udp {
    fn new(server: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self(socket))
    }

    fn ask(&self, message: &[u8]) -> anyhow::Result<()> {
        self.0.send(message)?;
        self.receive()
    }

    /// An answer with an address.
    fn receive(&self) -> anyhow::Result<()> {
        let mut octets = [0; DATAGRAM];
        let length = self.0.recv(&mut octets)?;
        ensure!(length > 12 && octets[3] & 15 == 0 && octets[7] > 0, "no address: {:?}", &octets[..length]);
        Ok(())
    }

    /// Asks for many names at once.
    fn fill(&self, questions: &Questions, which: std::ops::Range<usize>) -> anyhow::Result<()> {
        let (mut message, mut waiting) = (Vec::new(), 0);
        for index in which {
            questions.nth(index, &mut message);
            self.0.send(&message)?;
            waiting += 1;
            if waiting >= WINDOW {
                self.receive()?;
                waiting -= 1;
            }
        }
        (0..waiting).try_for_each(|_| self.receive())
    }
}

/// HomeNSReq over a connection that is kept, as ChirpStack keeps it.
struct Http {
    stream: BufReader<TcpStream>,
    transaction: u32,
}

impl Http {
    fn new(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self { stream: BufReader::new(stream), transaction: 0 })
    }

    fn ask(&mut self, device: DevEui) -> anyhow::Result<()> {
        self.transaction += 1;
        let body = format!(
            "{{\"ProtocolVersion\":\"1.0\",\"SenderID\":\"600013\",\"ReceiverID\":\"6895a4b3c2d1beef\",\
             \"TransactionID\":{},\"MessageType\":\"HomeNSReq\",\"DevEUI\":\"{device}\"}}",
            self.transaction
        );
        let head = format!(
            "POST / HTTP/1.1\r\ncontent-type: application/json\r\naccept: */*\r\nhost: agent\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.get_mut().write_all((head + &body).as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the agent closed the connection");
            if line == "\r\n" {
                break;
            }
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse()?;
            }
        }
        let mut octets = vec![0; length];
        self.stream.read_exact(&mut octets)?;
        ensure!(octets.windows(8).any(|eight| eight == b"\"HNetID\""), "{}", String::from_utf8_lossy(&octets));
        Ok(())
    }
}
