//! `inbound`: what it costs to take a member's zone, from a primary of this program's and from NSD, and how soon a change
//! of one record is visible.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use dnsbroker_federation::{DevEui, DomainName};
use dnsbroker_zone::tsig::{Algorithm, Chain, Key};
use dnsbroker_zone::wire::RecordType;
use dnsbroker_zone::wire::message::Message;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fetch::{framed, now, question};
use super::peers::Nsd;
use super::primary::Primary;
use super::{KEY, median};
use crate::devices::devices;
use crate::federation::Federation;
use crate::output;
use crate::process::{CpuTime, forget_peak, peak, resident};

/// The command `inbound`.
#[derive(Args)]
pub struct Inbound {
    /// Devices in the member's zone
    #[arg(long, default_value_t = 100_000)]
    devices: usize,
    /// Changes of one record, each with its NOTIFY
    #[arg(long, default_value_t = 50)]
    changes: usize,
    /// Leave NSD out: it needs some 2 kB of memory a device
    #[arg(long)]
    without_nsd: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const ZONE: &str = "inbound.example";
const SOURCE_KEY: &str = "source.example";
/// How long a transfer may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Changes come one by one: of several that come at once the broker takes the later ones together, a little later.
const BETWEEN: Duration = Duration::from_millis(200);
/// A change that takes longer was not noticed.
const UNSEEN: Duration = Duration::from_secs(30);

/// One zone taken.
#[derive(Debug, Serialize)]
struct Taken {
    primary: String,
    seconds: f64,
    cpu_microseconds: f64,
    /// Resident memory of the broker: before, at most meanwhile, afterwards.
    before: u64,
    peak: u64,
    after: u64,
}

/// What it came to.
#[derive(Debug, Serialize)]
struct Figures {
    devices: usize,
    taken: Vec<Taken>,
    /// From NOTIFY to the new serial, in milliseconds.
    visible: Vec<f64>,
}

impl Inbound {
    pub async fn run(self) -> anyhow::Result<()> {
        let list = devices(self.devices);
        let mut taken = Vec::new();
        let mut visible = Vec::new();
        for from_nsd in [true, false] {
            if from_nsd && self.without_nsd {
                continue;
            }
            let mut federation = Federation::make()?;
            federation.serve().await?;
            federation.furnish()?;
            let watch = Key::new(KEY.parse()?, Algorithm::HmacSha256, &federation.exchange_key(KEY)?);
            let secret = federation.source_key(SOURCE_KEY)?;
            if from_nsd {
                output::progress(&format!("NSD reads {} devices", self.devices));
                let file = federation.path("inbound.zone");
                write_zone(&list, &file)?;
                let zone: DomainName = ZONE.parse()?;
                let Some(nsd) = Nsd::start(&zone, &file, SOURCE_KEY, &federation.key_text(&secret))? else { continue };
                taken.push(self.take(&federation, nsd.name(), nsd.address()).await?);
            } else {
                let key = Key::new(SOURCE_KEY.parse()?, Algorithm::HmacSha256, &secret);
                let primary = Primary::start(ZONE.parse()?, key, list.clone()).await?;
                taken.push(self.take(&federation, "this program".to_owned(), primary.address).await?);
                output::progress(&format!("{} changes of one record", self.changes));
                let mut watcher = Watcher::connect(federation.dns()?, federation.apex()?, watch).await?;
                for _ in 0..self.changes {
                    tokio::time::sleep(BETWEEN).await;
                    visible.push(watcher.until_visible(&primary, federation.dns()?).await?.as_secs_f64() * 1e3);
                }
            }
            federation.stop()?;
        }
        let figures = Figures { devices: self.devices, taken, visible };
        if self.json { output::report(&figures, true) } else { output::line(&markdown(&figures)).context("stdout") }
    }

    /// Binds the NetID to a primary, and waits until all devices are there.
    async fn take(&self, federation: &Federation, primary: String, at: SocketAddr) -> anyhow::Result<Taken> {
        output::progress(&format!("taking {} devices from {primary}", self.devices));
        let pid = federation.pid()?;
        let (cpu, before) = (CpuTime::of(pid)?, resident(pid)?);
        forget_peak(pid)?;
        let began = Instant::now();
        federation.add_source(at, ZONE, SOURCE_KEY)?;
        while federation.source_devices()? < self.devices as u64 {
            ensure!(began.elapsed() < PATIENCE, "the zone has not come in");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seconds = began.elapsed().as_secs_f64();
        let used = CpuTime::of(pid)?.since(&cpu).as_secs_f64();
        let cpu_microseconds = used * 1e6 / self.devices as f64;
        Ok(Taken { primary, seconds, cpu_microseconds, before, peak: peak(pid)?, after: resident(pid)? })
    }
}

/// A zone file of flat names.
fn write_zone(devices: &[DevEui], path: &std::path::Path) -> anyhow::Result<()> {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    writeln!(file, "$ORIGIN {ZONE}.\n$TTL 60\n@ SOA ns host 1 3600 60 86400 60\n@ NS ns\nns A 127.0.0.1")?;
    devices.iter().try_for_each(|device| writeln!(file, "{device} A 192.0.2.2"))?;
    Ok(file.flush()?)
}

/// Asks for the serial of the broker's zone, signed, over one connection.
struct Watcher {
    stream: TcpStream,
    zone: DomainName,
    key: Key,
}

impl Watcher {
    async fn connect(broker: SocketAddr, zone: DomainName, key: Key) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(broker).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, zone, key })
    }

    async fn serial(&mut self) -> anyhow::Result<u32> {
        let mut query = question(3, 0, &self.zone, RecordType::SOA, 0);
        let mut chain = Chain::request(self.key.clone(), &mut query, now());
        self.stream.write_all(&framed(&query)).await?;
        let mut octets = vec![0; usize::from(self.stream.read_u16().await?)];
        self.stream.read_exact(&mut octets).await?;
        let message = Message::new(&octets)?;
        chain.verify(message, now())?;
        message.records()?.flatten().find_map(|record| record.soa()).map(|soa| soa.serial).context("no SOA")
    }

    /// The time from a change, which is told by NOTIFY, until it is in the broker's zone.
    async fn until_visible(&mut self, primary: &Primary, broker: SocketAddr) -> anyhow::Result<Duration> {
        let before = self.serial().await?;
        let began = Instant::now();
        primary.change(broker).await?;
        while self.serial().await? == before {
            ensure!(began.elapsed() < UNSEEN, "a change was not seen");
        }
        Ok(began.elapsed())
    }
}

fn markdown(figures: &Figures) -> String {
    let mut text = format!(
        "| {} devices in from | s | CPU µs a record | memory before | peak | after |\n|---|---|---|---|---|---|\n",
        figures.devices
    );
    let mib = |octets: u64| octets as f64 / (1 << 20) as f64;
    for Taken { primary, seconds, cpu_microseconds, before, peak, after } in &figures.taken {
        text += &format!(
            "| {primary} | {seconds:.2} | {cpu_microseconds:.2} | {:.0} MiB | {:.0} MiB | {:.0} MiB |\n",
            mib(*before),
            mib(*peak),
            mib(*after)
        );
    }
    let mut sorted = figures.visible.clone();
    sorted.sort_by(f64::total_cmp);
    let most = sorted.last().copied().unwrap_or_default();
    text += &format!(
        "\nOne record changed in a zone of {} devices: visible {:.2} ms after the NOTIFY (median of {}; at most {most:.2} ms).\n",
        figures.devices,
        median(sorted.iter().copied()),
        sorted.len(),
    );
    text
}
