//! Connections that are opened for one question: what a handshake costs, full or resumed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use dnsbroker_federation::DomainName;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::client::{Connector, Method, Target};
use crate::devices::{Random, devices};
use crate::latency::Latencies;
use crate::output;
use crate::process::CpuTime;
use crate::questions::Questions;

/// Clients that connect at once.
const CLIENTS: usize = 8;

/// The command `handshakes`.
#[derive(Args)]
pub struct Handshakes {
    #[command(flatten)]
    target: Target,
    /// Resume the session of the connection before
    #[arg(long)]
    resumed: bool,
    /// How long to measure
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// File of DevEUIs or whole names to ask for [default: the first DevEUI of `devices`, expected not to be there]
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Zone of the DevEUIs
    #[arg(long, default_value = "deveuis.fed.example")]
    zone: DomainName,
    /// RCODE of a right answer [default: 0 with --names, else 3]
    #[arg(long)]
    rcode: Option<u8>,
    /// Process of the server, on this machine, for its processor time
    #[arg(long)]
    server_pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What connections are made for.
pub struct Task {
    /// Where.
    pub connector: Connector,
    /// Whether sessions are resumed.
    pub resumed: bool,
    /// How long.
    pub time: Duration,
    /// What is asked on each connection.
    pub questions: Arc<Questions>,
    /// RCODE of a right answer.
    pub rcode: u8,
    /// Process of the server.
    pub server_pid: Option<u32>,
}

/// What it came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Connections that were answered.
    pub handshakes: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Connections a second.
    pub handshakes_per_second: f64,
    /// Half of them took this many milliseconds from connecting to the answer.
    pub p50_ms: f64,
    /// 99 percent did.
    pub p99_ms: f64,
    /// Octets the client sent on a connection, from its first to its last.
    pub sent: f64,
    /// Octets it received.
    pub received: f64,
    /// Connections without a right answer, or not resumed where they were to be.
    pub errors: u64,
    /// The first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// Processor time of the server a connection, its one query included, in milliseconds.
    pub cpu_ms_each: Option<f64>,
}

impl Handshakes {
    /// Makes connections and prints the report.
    pub async fn run(self) -> anyhow::Result<()> {
        let rcode = self.rcode.unwrap_or(if self.names.is_some() { 0 } else { 3 });
        let questions = match self.names {
            Some(names) => Questions::from_file(&names, self.zone)?,
            None => Questions::of_devices(self.zone, devices(1)),
        };
        let task = Task {
            connector: Connector::new(&self.target)?,
            resumed: self.resumed,
            time: Duration::try_from_secs_f64(self.seconds)?,
            questions: Arc::new(questions),
            rcode,
            server_pid: self.server_pid,
        };
        output::report(&run(&task).await?, self.json)
    }
}

#[derive(Default)]
struct Record {
    stop: AtomicBool,
    latencies: Latencies,
    sent: AtomicU64,
    received: AtomicU64,
    errors: AtomicU64,
    first_error: OnceLock<String>,
}

/// Makes connections for a while.
pub async fn run(task: &Task) -> anyhow::Result<Report> {
    let record = Arc::new(Record::default());
    let mut clients = JoinSet::new();
    let mut ready = Vec::new();
    for number in 0..CLIENTS {
        let connector = if task.resumed { task.connector.resuming() } else { task.connector.clone() };
        let client = Client {
            connector,
            resumed: task.resumed,
            questions: Arc::clone(&task.questions),
            rcode: task.rcode,
            random: Random::new(number as u64),
        };
        ready.push(client);
    }
    // The first connection of each brings the ticket for the second, and shows at once when something is wrong.
    for client in &mut ready {
        client.once(false).await?;
    }
    let cpu = || task.server_pid.map(CpuTime::of).transpose();
    let (before, began) = (cpu()?, Instant::now());
    for client in ready {
        clients.spawn(client.run(Arc::clone(&record)));
    }
    tokio::time::sleep(task.time).await;
    record.stop.store(true, Ordering::Relaxed);
    while clients.join_next().await.is_some() {}
    let (after, took) = (cpu()?, began.elapsed());
    let handshakes = record.latencies.count();
    ensure!(handshakes > 0, "no connection was answered: {}", record.first_error.get().map_or("?", String::as_str));
    let each = |sum: &AtomicU64| sum.load(Ordering::Relaxed) as f64 / handshakes as f64;
    let milliseconds = |share| record.latencies.percentile(share).as_secs_f64() * 1e3;
    let used = after.zip(before).map(|(after, before)| after.since(&before));
    Ok(Report {
        handshakes,
        seconds: took.as_secs_f64(),
        handshakes_per_second: handshakes as f64 / took.as_secs_f64(),
        p50_ms: milliseconds(0.5),
        p99_ms: milliseconds(0.99),
        sent: each(&record.sent),
        received: each(&record.received),
        errors: record.errors.load(Ordering::Relaxed),
        first_error: record.first_error.get().cloned(),
        cpu_ms_each: used.map(|used| used.as_secs_f64() * 1e3 / handshakes as f64),
    })
}

/// One that connects again and again.
struct Client {
    connector: Connector,
    resumed: bool,
    questions: Arc<Questions>,
    rcode: u8,
    random: Random,
}

impl Client {
    /// One connection with one question; gives the octets sent and received.
    async fn once(&mut self, resumed: bool) -> anyhow::Result<(u64, u64)> {
        let mut connection = self.connector.connect().await?;
        let mut message = Vec::with_capacity(128);
        self.questions.write(&mut self.random, &mut message);
        connection.sender.ask(Method::Get, &message, self.rcode).await?;
        ensure!(connection.resumed == resumed, "the handshake was {}", if resumed { "full" } else { "resumed" });
        Ok(connection.close().await)
    }

    async fn run(mut self, record: Arc<Record>) {
        while !record.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            match self.once(self.resumed).await {
                Ok((sent, received)) => {
                    record.latencies.record(began.elapsed());
                    record.sent.fetch_add(sent, Ordering::Relaxed);
                    record.received.fetch_add(received, Ordering::Relaxed);
                }
                Err(error) => {
                    record.errors.fetch_add(1, Ordering::Relaxed);
                    let _ = record.first_error.set(format!("{error:#}"));
                    // Whatever it is, it need not be met a million times.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}
