//! `memory`: how much more memory than afterwards a broker needs while it imports, loads, replaces and folds its devices.

use anyhow::Context;
use clap::Args;
use dnsbroker_federation::DevEui;
use dnsbroker_zone::tsig::{Algorithm, Key};
use serde::Serialize;

use crate::devices::devices;
use crate::exchange::{End, Plan, updates};
use crate::federation::Federation;
use crate::output;
use crate::process::{forget_peak, peak, resident};

/// The command `memory`.
#[derive(Args)]
pub struct Memory {
    /// Devices
    #[arg(long, default_value_t = 100_000)]
    devices: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One step: resident memory before, at most meanwhile, and afterwards, in octets.
#[derive(Debug, Serialize)]
struct Step {
    what: &'static str,
    before: u64,
    peak: u64,
    after: u64,
}

/// Updates after which the journal is folded into the blocks, and some more.
const FOLDED: u64 = 20_500;
const KEY: &str = "memory.example";
const START: &str = "start";

impl Memory {
    pub async fn run(self) -> anyhow::Result<()> {
        let list = devices(self.devices);
        let mut federation = Federation::make()?;
        let mut steps = Vec::new();
        federation.serve().await?;
        federation.furnish()?;
        let secret = federation.exchange_key(KEY)?;
        output::progress(&format!("importing {} devices", self.devices));
        steps.push(step("import of all", &federation, || federation.import(&list).map(drop))?);
        federation.stop()?;
        federation.serve().await?;
        let pid = federation.pid()?;
        steps.push(Step { what: START, before: 0, peak: peak(pid)?, after: settled(pid)? });
        output::progress("replacing half of them by others");
        let replaced: Vec<DevEui> = list.iter().enumerate().map(|(at, device)| other(at, *device)).collect();
        steps.push(step("half replaced by one list", &federation, || federation.replace(&replaced).map(drop))?);
        output::progress(&format!("{FOLDED} updates, so that the journal is folded"));
        let (before, zone) = (resident(pid)?, federation.apex()?);
        forget_peak(pid)?;
        let plan = Plan { in_flight: 256, records: 1, end: End::After(FOLDED), seed: 1 };
        let key = Key::new(KEY.parse()?, Algorithm::HmacSha256, &secret);
        updates::run(federation.dns()?, &zone, key, &plan, pid).await?;
        steps.push(Step { what: "checkpoint after updates", before, peak: peak(pid)?, after: settled(pid)? });
        federation.stop()?;
        if self.json {
            output::report(&steps, true)
        } else {
            output::line(&markdown(self.devices, &steps)).context("stdout")
        }
    }
}

/// Every second device is another one.
fn other(at: usize, device: DevEui) -> DevEui {
    if at.is_multiple_of(2) { device } else { DevEui::from_u64(device.as_u64() ^ 1 << 20).unwrap_or(device) }
}

/// Resident memory once what was freed has gone back to the system.
fn settled(pid: u32) -> anyhow::Result<u64> {
    let mut last = resident(pid)?;
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = resident(pid)?;
        if now.abs_diff(last) < last / 100 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

fn step(what: &'static str, federation: &Federation, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Step> {
    let pid = federation.pid()?;
    let before = resident(pid)?;
    forget_peak(pid)?;
    run()?;
    Ok(Step { what, before, peak: peak(pid)?, after: settled(pid)? })
}

fn markdown(devices: usize, steps: &[Step]) -> String {
    let mut text =
        format!("| {devices} devices | before | peak | after | peak / at rest |\n|---|---:|---:|---:|---:|\n");
    // What a broker has after a start with these devices.
    let rest = steps.iter().find(|step| step.what == START).map_or(1, |step| step.after.max(1));
    let mib = |octets: u64| octets as f64 / (1 << 20) as f64;
    for Step { what, before, peak, after } in steps {
        let ratio = *peak as f64 / rest as f64;
        text += &format!(
            "| {what} | {:.0} MiB | {:.0} MiB | {:.0} MiB | **{ratio:.2}** |\n",
            mib(*before),
            mib(*peak),
            mib(*after)
        );
    }
    text
}
