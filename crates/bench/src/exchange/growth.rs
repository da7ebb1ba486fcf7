//! `growth`: what a store and a process are after very many updates.

use anyhow::{Context, ensure};
use clap::Args;
use dnsbroker_federation::DomainName;
use dnsbroker_zone::tsig::{Algorithm, Key};
use serde::Serialize;

use super::{KEY, updates};
use crate::federation::Federation;
use crate::output;
use crate::process::resident;

/// The command `growth`.
#[derive(Args)]
pub struct Growth {
    /// Updates of one device each
    #[arg(long, default_value_t = 100_000)]
    updates: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Sizes at one moment, in octets.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sizes {
    updates: u64,
    store: u64,
    resident: u64,
}

/// How often is looked.
const LOOKS: u64 = 5;

impl Growth {
    pub async fn run(self) -> anyhow::Result<()> {
        let mut federation = Federation::make()?;
        federation.serve().await?;
        federation.furnish()?;
        let secret = federation.exchange_key(KEY)?;
        let zone: DomainName = federation.apex()?;
        let key = Key::new(KEY.parse()?, Algorithm::HmacSha256, &secret);
        let pid = federation.pid()?;
        let sizes = |federation: &Federation, updates| -> anyhow::Result<Sizes> {
            Ok(Sizes { updates, store: federation.store_octets()?, resident: resident(pid)? })
        };
        let mut found = vec![sizes(&federation, 0)?];
        let mut done = 0;
        for look in 1..=LOOKS {
            let plan = updates::Plan {
                in_flight: 256,
                records: 1,
                end: updates::End::After(self.updates * look / LOOKS - done),
                seed: look,
            };
            let updated = updates::run(federation.dns()?, &zone, key.clone(), &plan, pid).await?;
            ensure!(updated.refused == 0, "{} updates were refused", updated.refused);
            done += updated.updates;
            output::progress(&format!("{done} updates, {:.0} a second", updated.per_second));
            found.push(sizes(&federation, done)?);
        }
        federation.stop()?;
        let folded = federation.store_octets()?;
        if self.json {
            return output::report(&serde_json::json!({ "sizes": found, "stopped": folded }), true);
        }
        let mut text = String::from("| updates | store MiB | octets an update | memory MiB |\n|---|---|---|---|\n");
        let mib = |octets: u64| octets as f64 / (1 << 20) as f64;
        for Sizes { updates, store, resident } in &found {
            let each = store.saturating_sub(found[0].store) as f64 / (*updates).max(1) as f64;
            text += &format!("| {updates} | {:.1} | {each:.0} | {:.1} |\n", mib(*store), mib(*resident));
        }
        text += &format!("\nThe store of the stopped daemon has {:.1} MiB.\n", mib(folded));
        output::line(&text).context("stdout")
    }
}
