//! Updates over TCP connections, so many in flight, each signed; an update counts when its signed response has come.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_federation::DomainName;
use dnsbroker_zone::tsig::{Chain, Key};
use dnsbroker_zone::wire::RecordType;
use dnsbroker_zone::wire::message::Message;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::fetch::{framed, now, question};
use crate::devices::Random;
use crate::latency::Latencies;
use crate::process::CpuTime;

/// What to send.
pub struct Plan {
    /// Messages that wait for their response at once, on one connection.
    pub in_flight: usize,
    /// Devices added by a message.
    pub records: usize,
    pub end: End,
    pub seed: u64,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// After so many seconds.
    Seconds(u64),
    /// After so many messages.
    After(u64),
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Updated {
    pub updates: u64,
    pub refused: u64,
    pub per_second: f64,
    /// Of the server, for each update.
    pub cpu_microseconds: f64,
    pub median_milliseconds: f64,
    pub p99_milliseconds: f64,
}

/// An update that adds random devices, most of them new.
fn update(id: u16, zone: &DomainName, target: &[u8], records: usize, random: &mut Random) -> Vec<u8> {
    let mut message = question(id, 5, zone, RecordType::SOA, records as u16);
    for _ in 0..records {
        message.push(16);
        message.extend(format!("{:016x}", random.number() >> 8 | 1 << 62).bytes());
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60]);
        message.extend((target.len() as u16).to_be_bytes());
        message.extend(target);
    }
    message
}

pub async fn run(server: SocketAddr, zone: &DomainName, key: Key, plan: &Plan, pid: u32) -> anyhow::Result<Updated> {
    let target: DomainName = "60002d.netids.fed.example".parse()?;
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(64 * 1024, reader);
    let mut random =
        Random::new(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(pid) << 20 ^ plan.in_flight as u64);
    let latencies = Latencies::default();
    let mut waiting: HashMap<u16, (Chain, Instant)> = HashMap::new();
    let (mut id, mut done, mut refused) = (0_u16, 0_u64, 0_u64);
    let (cpu, began) = (CpuTime::of_family(pid)?, Instant::now());
    let mut sent = 0_u64;
    let goes_on = |sent: u64| match plan.end {
        End::Seconds(seconds) => began.elapsed() < Duration::from_secs(seconds),
        End::After(messages) => sent < messages,
    };
    let mut message = Vec::new();
    loop {
        let mut burst = Vec::new();
        while waiting.len() < plan.in_flight && goes_on(sent) {
            sent += 1;
            id = id.wrapping_add(1);
            let mut octets = update(id, zone, target.wire(), plan.records, &mut random);
            let chain = Chain::request(key.clone(), &mut octets, now());
            burst.extend(framed(&octets));
            waiting.insert(id, (chain, Instant::now()));
        }
        if !burst.is_empty() {
            writer.write_all(&burst).await?;
        }
        if waiting.is_empty() {
            break;
        }
        // All responses that are here already, then the next messages.
        loop {
            let length = reader.read_u16().await.context("the server closed the connection")?;
            message.resize(usize::from(length), 0);
            reader.read_exact(&mut message).await?;
            let response = Message::new(&message)?;
            let answered = u16::from_be_bytes(response.header().id);
            let (mut chain, asked) = waiting.remove(&answered).context("an answer to nothing")?;
            ensure!(chain.verify(response, now())?, "an answer without a signature");
            latencies.record(asked.elapsed());
            if response.rcode().0 == 0 {
                done += plan.records as u64
            } else {
                refused += 1
            }
            if waiting.is_empty() || reader.buffer().len() < 2 {
                break;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let used = CpuTime::of_family(pid)?.since(&cpu).as_secs_f64();
    let milliseconds = |share: f64| latencies.percentile(share).as_secs_f64() * 1e3;
    Ok(Updated {
        updates: done,
        refused,
        per_second: done as f64 / seconds,
        cpu_microseconds: used * 1e6 / done.max(1) as f64,
        median_milliseconds: milliseconds(0.5),
        p99_milliseconds: milliseconds(0.99),
    })
}
