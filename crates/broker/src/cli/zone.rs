//! `zone`: the zones as they are served.

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use dnsbroker_api::message::{Page, ZoneCheck, ZoneInfo};

use super::Context;
use super::output::table;

#[derive(Subcommand)]
pub(super) enum ZoneCommand {
    /// List the zones with serials and sizes
    List,
    /// Print a zone as RFC 1035 text
    Export {
        /// `public`, `deveuis`, `netids`, or the zone's name
        zone: String,
        /// How devices are named
        #[arg(long, value_enum, default_value_t = Names::Nibble)]
        names: Names,
    },
    /// Look for mistakes in the served zones
    Check,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Names {
    /// One label a hexadecimal digit, the least significant first
    Nibble,
    /// One label of 16 hexadecimal digits
    Flat,
    /// Each device under both
    Both,
}

impl Names {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Nibble => "nibble",
            Self::Flat => "flat",
            Self::Both => "both",
        }
    }
}

impl ZoneCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::List => {
                let zones: Page<ZoneInfo> = client.get("/api/v1/zones").await?;
                output.print(&zones, |zones| zone_table(&zones.items));
            }
            Self::Export { zone, names } => {
                let path = format!("/api/v1/zones/{}/export?names={}", super::escape(&zone), names.text());
                client.download(&path, |octets| output.octets(octets)).await?;
            }
            Self::Check => {
                let check: ZoneCheck = client.get("/api/v1/zones/check").await?;
                output.print(&check, check_text);
                if !check.ok {
                    bail!("the zones have {} mistakes", check.errors.len());
                }
            }
        }
        Ok(())
    }
}

fn zone_table(zones: &[ZoneInfo]) -> String {
    let rows: Vec<Vec<String>> = zones
        .iter()
        .map(|zone| {
            let reach = if zone.private { "private" } else { "public" };
            vec![
                zone.id.clone(),
                zone.name.to_string(),
                reach.to_owned(),
                zone.serial.to_string(),
                zone.names.to_string(),
            ]
        })
        .collect();
    table(&["ZONE", "NAME", "REACH", "SERIAL", "NAMES"], &rows)
}

fn check_text(check: &ZoneCheck) -> String {
    let mut text = String::new();
    for error in &check.errors {
        text.push_str(&format!("error: {error}\n"));
    }
    for warning in &check.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    if text.is_empty() { "the zones are sound\n".to_owned() } else { text }
}
