//! `exchange`: zone transfers and updates of the broker, BIND and NSD side by side, by one client that signs (TSIG).
//!
//! All servers have the same zone of the same devices, and each is measured in turn, several rounds in one run. Every
//! message of the client is signed, and every response verified: there is no unsigned way in for a benchmark.

mod fetch;
mod growth;
mod inbound;
mod peers;
mod primary;
pub mod updates;

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use clap::Args;
use dnsbroker_federation::DomainName;
use dnsbroker_zone::tsig::{Algorithm, Key};
use serde::Serialize;

use crate::devices::devices;
use crate::federation::Federation;
use crate::output;
use fetch::Fetched;
pub use growth::Growth;
pub use inbound::Inbound;
use peers::{Bind, Nsd};
use updates::Updated;
pub use updates::{End, Plan};

#[derive(Args)]
pub struct Exchange {
    /// Devices in the zone
    #[arg(long, default_value_t = 100_000)]
    devices: usize,
    /// Rounds; medians are printed
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of updates in each measurement
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A server under measurement.
struct Target {
    name: String,
    address: SocketAddr,
    pid: u32,
}

/// Updates in flight and records a message, as they are measured.
const LOADS: [(usize, usize); 4] = [(1, 1), (16, 1), (256, 1), (1, 100)];
/// The key's name, in all servers.
const KEY: &str = "bench.example";

/// What one server came to.
#[derive(Debug, Serialize)]
struct Figures {
    server: String,
    transfer: Vec<Fetched>,
    updates: Vec<Vec<Updated>>,
}

impl Exchange {
    pub async fn run(self) -> anyhow::Result<()> {
        let list = devices(self.devices);
        let mut federation = Federation::make()?;
        federation.serve().await?;
        federation.furnish()?;
        output::progress(&format!("importing {} devices", self.devices));
        federation.import(&list)?;
        let secret = federation.exchange_key(KEY)?;
        let name: DomainName = KEY.parse()?;
        let key = || Key::new(name.clone(), Algorithm::HmacSha256, &secret);
        let zone: DomainName = federation.apex()?;
        let file = federation.export()?;
        let encoded = federation.key_text(&secret);
        output::progress("starting BIND and NSD");
        let bind = Bind::start(&zone, &file, KEY, &encoded)?;
        let nsd = Nsd::start(&zone, &file, KEY, &encoded)?;
        let mut targets =
            vec![Target { name: "dnsbroker".to_owned(), address: federation.dns()?, pid: federation.pid()? }];
        targets.extend(bind.iter().map(|server| Target {
            name: server.name(),
            address: server.address(),
            pid: server.pid(),
        }));
        targets.extend(nsd.iter().map(|server| Target {
            name: server.name(),
            address: server.address(),
            pid: server.pid(),
        }));
        let mut figures: Vec<Figures> = targets
            .iter()
            .map(|target| Figures { server: target.name.clone(), transfer: vec![], updates: vec![vec![]; LOADS.len()] })
            .collect();
        for round in 1..=self.rounds {
            for (target, figures) in targets.iter().zip(&mut figures) {
                output::progress(&format!("round {round}: AXFR from {}", target.name));
                figures.transfer.push(fetch::whole(target.address, &zone, key(), target.pid).await?);
            }
        }
        // Updates come after all transfers, so that those are of the same zone.
        for round in 1..=self.rounds {
            for (load, (in_flight, records)) in LOADS.into_iter().enumerate() {
                // NSD takes no updates.
                for (target, figures) in targets.iter().zip(&mut figures).filter(|(t, _)| !t.name.starts_with("NSD")) {
                    output::progress(&format!("round {round}: updates to {}, {in_flight} in flight", target.name));
                    let plan = Plan { in_flight, records, end: End::Seconds(self.seconds), seed: round as u64 };
                    let updated = updates::run(target.address, &zone, key(), &plan, target.pid).await?;
                    ensure!(updated.refused == 0, "{} refused {} updates", target.name, updated.refused);
                    figures.updates[load].push(updated);
                }
            }
        }
        federation.stop()?;
        if self.json { output::report(&figures, true) } else { output::line(&markdown(&figures)).context("stdout") }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn markdown(figures: &[Figures]) -> String {
    let mut text =
        String::from("| AXFR out | s | CPU µs a record | octets a record | records |\n|---|---|---|---|---|\n");
    for Figures { server, transfer, .. } in figures {
        let of = |value: fn(&Fetched) -> f64| median(transfer.iter().map(value));
        text += &format!(
            "| {server} | {:.2} | {:.2} | {:.1} | {:.0} |\n",
            of(|fetched| fetched.seconds),
            of(|fetched| fetched.cpu_microseconds),
            of(|fetched| fetched.octets as f64 / fetched.records.max(1) as f64),
            of(|fetched| fetched.records as f64),
        );
    }
    text += "\n| updates, signed and durable | in flight | records a message | updates/s | CPU µs an update | median ms | 99 % ms |\n\
             |---|---|---|---|---|---|---|\n";
    for (load, (in_flight, records)) in LOADS.into_iter().enumerate() {
        for Figures { server, updates, .. } in figures.iter().filter(|figures| !figures.updates[load].is_empty()) {
            let of = |value: fn(&Updated) -> f64| median(updates[load].iter().map(value));
            text += &format!(
                "| {server} | {in_flight} | {records} | {:.0} | {:.1} | {:.2} | {:.2} |\n",
                of(|updated| updated.per_second),
                of(|updated| updated.cpu_microseconds),
                of(|updated| updated.median_milliseconds),
                of(|updated| updated.p99_milliseconds),
            );
        }
    }
    text
}
