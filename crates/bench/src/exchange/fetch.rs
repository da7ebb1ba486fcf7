//! A whole zone over TCP, signed and verified.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use dnsbroker_federation::DomainName;
use dnsbroker_zone::tsig::{Chain, Key};
use dnsbroker_zone::wire::message::Message;
use dnsbroker_zone::wire::{RecordType, Section};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::process::CpuTime;

/// What a transfer came to.
#[derive(Debug, Clone, Serialize)]
pub struct Fetched {
    pub seconds: f64,
    pub records: u64,
    pub messages: u64,
    pub octets: u64,
    /// Of the server, for each record.
    pub cpu_microseconds: f64,
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// A question's header and question section.
pub fn question(id: u16, opcode: u8, zone: &DomainName, rtype: RecordType, records: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([opcode << 3, 0, 0, 1, 0, 0]);
    message.extend(records.to_be_bytes());
    message.extend([0, 0]);
    message.extend(zone.wire());
    message.extend(rtype.0.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// A message behind its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

pub async fn whole(server: SocketAddr, zone: &DomainName, key: Key, pid: u32) -> anyhow::Result<Fetched> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    let mut query = question(7, 0, zone, RecordType::AXFR, 0);
    let mut chain = Chain::request(key, &mut query, now());
    let (cpu, began) = (CpuTime::of_family(pid)?, Instant::now());
    stream.write_all(&framed(&query)).await?;
    let (mut records, mut messages, mut octets, mut soas) = (0, 0, 0, 0);
    let mut message = Vec::new();
    while soas < 2 {
        let length = stream.read_u16().await.context("the transfer was cut off")?;
        message.resize(usize::from(length), 0);
        stream.read_exact(&mut message).await?;
        let read = Message::new(&message)?;
        ensure!(read.rcode().0 == 0, "the server answers {}", read.rcode().mnemonic());
        chain.verify(read, now())?;
        for record in read.records()? {
            let record = record?;
            if record.section == Section::Answer {
                records += 1;
                soas += u32::from(record.rtype == RecordType::SOA);
            }
        }
        messages += 1;
        octets += u64::from(length) + 2;
    }
    let seconds = began.elapsed().as_secs_f64();
    let used = CpuTime::of_family(pid)?.since(&cpu).as_secs_f64();
    Ok(Fetched { seconds, records, messages, octets, cpu_microseconds: used * 1e6 / records as f64 })
}
