//! Closed-loop load: each stream asks its next question as soon as it has its answer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use dnsbroker_federation::DomainName;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::client::{Connector, Method, Sender, Target};
use crate::devices::Random;
use crate::latency::Latencies;
use crate::output;
use crate::process::{CpuTime, resident};
use crate::questions::Questions;

/// Time for buffers to grow and queues to fill before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long streams may take for their last answer.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// The command `load`.
#[derive(Args)]
pub struct Load {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    shape: Shape,
    /// How long to measure
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How questions are sent
    #[arg(long, value_enum, default_value_t = Method::Get)]
    method: Method,
    /// File of DevEUIs or whole names, one a line, asked for at random
    #[arg(long, value_name = "FILE")]
    names: PathBuf,
    /// Zone of the DevEUIs
    #[arg(long, default_value = "deveuis.fed.example")]
    zone: DomainName,
    /// RCODE of a right answer; 3 for names that are not registered
    #[arg(long, default_value_t = 0)]
    rcode: u8,
    /// Process of the server, on this machine, for its processor time and memory
    #[arg(long)]
    server_pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How many ask at once.
#[derive(Args, Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Connections
    #[arg(long, default_value_t = 10)]
    pub connections: usize,
    /// Streams of each connection
    #[arg(long, default_value_t = 10)]
    pub streams: usize,
}

/// What is asked of a server, and for how long.
pub struct Task {
    /// Where.
    pub connector: Connector,
    /// How many at once.
    pub shape: Shape,
    /// How long.
    pub time: Duration,
    /// How questions are sent.
    pub method: Method,
    /// What for.
    pub questions: Arc<Questions>,
    /// RCODE of a right answer.
    pub rcode: u8,
    /// Process of the server.
    pub server_pid: Option<u32>,
}

/// What a load came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Right answers.
    pub queries: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Right answers a second.
    pub queries_per_second: f64,
    /// Half of the answers came within this many microseconds.
    pub p50_us: f64,
    /// 99 percent did.
    pub p99_us: f64,
    /// 99.9 percent did.
    pub p999_us: f64,
    /// Wrong or missing answers, and connections that broke.
    pub errors: u64,
    /// The first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// Processor time of the server a query, in microseconds.
    pub cpu_us_per_query: Option<f64>,
    /// Resident memory of the server at the end, in octets.
    pub server_rss: Option<u64>,
}

impl Load {
    /// Runs the load and prints its report.
    pub async fn run(self) -> anyhow::Result<()> {
        ensure!(self.shape.connections > 0 && self.shape.streams > 0, "there is at least 1 connection with 1 stream");
        let task = Task {
            connector: Connector::new(&self.target)?,
            shape: self.shape,
            time: Duration::try_from_secs_f64(self.seconds)?,
            method: self.method,
            questions: Arc::new(Questions::from_file(&self.names, self.zone)?),
            rcode: self.rcode,
            server_pid: self.server_pid,
        };
        let report = run(&task).await?;
        output::report(&report, self.json)
    }
}

/// What the streams share.
#[derive(Default)]
struct Record {
    measuring: AtomicBool,
    stop: AtomicBool,
    latencies: Latencies,
    errors: AtomicU64,
    first_error: OnceLock<String>,
}

/// Runs a load.
pub async fn run(task: &Task) -> anyhow::Result<Report> {
    let record = Arc::new(Record::default());
    let mut connections = Vec::new();
    for number in 1..=task.shape.connections {
        let connection = task.connector.connect().await;
        connections.push(connection.with_context(|| format!("connection {number} of {}", task.shape.connections))?);
    }
    let mut streams = JoinSet::new();
    for (number, connection) in connections.iter().enumerate() {
        for stream in 0..task.shape.streams {
            let seed = (number * task.shape.streams + stream) as u64;
            let stream = Stream {
                sender: connection.sender.clone(),
                random: Random::new(seed << 32),
                record: Arc::clone(&record),
                questions: Arc::clone(&task.questions),
                method: task.method,
                rcode: task.rcode,
            };
            streams.spawn(stream.run());
        }
    }
    tokio::time::sleep(WARM_UP).await;
    let report = measure(task, &record).await;
    record.stop.store(true, Ordering::Relaxed);
    // A stream that gets no answer any more is dropped with the set; its errors show in the report.
    let _ = tokio::time::timeout(LAST_ANSWER, async { while streams.join_next().await.is_some() {} }).await;
    drop(streams);
    for connection in connections {
        let _ = tokio::time::timeout(LAST_ANSWER, connection.close()).await;
    }
    report
}

async fn measure(task: &Task, record: &Record) -> anyhow::Result<Report> {
    let cpu = || task.server_pid.map(CpuTime::of).transpose();
    let (before, began) = (cpu()?, Instant::now());
    record.measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(task.time).await;
    record.measuring.store(false, Ordering::Relaxed);
    let (after, took) = (cpu()?, began.elapsed());
    let queries = record.latencies.count();
    let microseconds = |share| record.latencies.percentile(share).as_secs_f64() * 1e6;
    let used = after.zip(before).map(|(after, before)| after.since(&before));
    Ok(Report {
        queries,
        seconds: took.as_secs_f64(),
        queries_per_second: queries as f64 / took.as_secs_f64(),
        p50_us: microseconds(0.5),
        p99_us: microseconds(0.99),
        p999_us: microseconds(0.999),
        errors: record.errors.load(Ordering::Relaxed),
        first_error: record.first_error.get().cloned(),
        cpu_us_per_query: used.filter(|_| queries > 0).map(|used| used.as_secs_f64() * 1e6 / queries as f64),
        server_rss: task.server_pid.map(resident).transpose()?,
    })
}

/// One stream: a question, its answer, the next question.
struct Stream {
    sender: Sender,
    random: Random,
    record: Arc<Record>,
    questions: Arc<Questions>,
    method: Method,
    rcode: u8,
}

impl Stream {
    async fn run(mut self) {
        let mut message = Vec::with_capacity(128);
        while !self.record.stop.load(Ordering::Relaxed) {
            self.questions.write(&mut self.random, &mut message);
            let began = Instant::now();
            match self.sender.ask(self.method, &message, self.rcode).await {
                Ok(()) if self.record.measuring.load(Ordering::Relaxed) => {
                    self.record.latencies.record(began.elapsed())
                }
                Ok(()) => {}
                Err(error) => {
                    self.record.errors.fetch_add(1, Ordering::Relaxed);
                    let _ = self.record.first_error.set(format!("{error:#}"));
                    // The connection is gone: there will be no more answers on it.
                    if error.downcast_ref::<h2::Error>().is_some_and(|error| !error.is_reset()) {
                        return;
                    }
                }
            }
        }
    }
}
