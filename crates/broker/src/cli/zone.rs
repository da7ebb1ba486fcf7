//! `zone`: the zones as they are served, and zone files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use dnsbroker_api::client::Client;
use dnsbroker_api::message::{ImportReport, Page, ZoneCheck, ZoneInfo};
use dnsbroker_federation::{DomainName, MemberId, Namespace, NetId, ZoneLabels};

use super::Context;
use super::output::{Output, table};
use crate::config::Config;
use crate::zone_file::{self, DeviceFile};

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
    /// Look for mistakes: in the served zones, or in a zone file before it is used
    Check {
        /// A zone file (RFC 1035); without it the served zones are looked at
        file: Option<PathBuf>,
        /// Read the file as the public zone of this federation, not as a member's devices
        #[arg(long, value_name = "FEDERATION", requires = "file")]
        public: Option<DomainName>,
        /// The same, with the federation, labels and broker's name of this configuration
        #[arg(long, requires = "file", conflicts_with_all = ["public", "origin"])]
        config: Option<PathBuf>,
        /// The name that relative names stand below, where the file has no $ORIGIN
        #[arg(long)]
        origin: Option<DomainName>,
    },
    /// Register the devices that a member's zone file (RFC 1035) names, flat or as nibbles
    Import(ImportArgs),
}

#[derive(Args)]
pub(super) struct ImportArgs {
    /// The zone file
    file: PathBuf,
    /// Whose devices they are
    #[arg(long)]
    member: MemberId,
    /// The NetID they resolve to
    #[arg(long)]
    netid: NetId,
    /// The name that relative names stand below, where the file has no $ORIGIN
    #[arg(long)]
    origin: Option<DomainName>,
    /// The file names all there are: others are removed
    #[arg(long)]
    full: bool,
    /// Let a full list drop most devices
    #[arg(long, requires = "full")]
    allow_shrink: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
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
                let zones: Page<ZoneInfo> = client.zone_list().await?;
                output.print(&zones, |zones| zone_table(&zones.items));
            }
            Self::Export { zone, names } => {
                let path = format!("/api/v1/zones/{}/export?names={}", super::escape(&zone), names.text());
                client.download(&path, |octets| output.octets(octets)).await?;
            }
            Self::Check { file: Some(file), public, config, origin } => {
                let text = read(&file)?;
                let checked = match (public, config) {
                    (Some(federation), _) => checked_public(&text, &default_names(federation)?)?,
                    (None, Some(config)) => checked_public(&text, &Config::read(&config)?.namespace()?)?,
                    (None, None) => checked_devices(&zone_file::devices(&text, origin.as_ref())?),
                };
                output.print(&checked, |checked| format!("{}\n", checked["summary"].as_str().unwrap_or_default()));
            }
            Self::Import(args) => import(args, client, *output).await?,
            Self::Check { file: None, .. } => {
                let check: ZoneCheck = client.zone_check().await?;
                output.print(&check, check_text);
                if !check.ok {
                    bail!("the zones have {} mistakes", check.errors.len());
                }
            }
        }
        Ok(())
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    zone_file::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn checked_devices(found: &DeviceFile) -> serde_json::Value {
    let DeviceFile { devices, strangers, shown } = found;
    let first: Vec<&str> = shown.iter().take(5).map(String::as_str).collect();
    let others = if *strangers == 0 { String::new() } else { format!(": {}", first.join(", ")) };
    let summary = format!("{} records of devices; {strangers} names are no DevEUI{others}", devices.len());
    serde_json::json!({ "devices": devices.len(), "strangers": strangers, "shown": shown, "summary": summary })
}

/// The names of a federation that has chosen none of its own.
fn default_names(federation: DomainName) -> anyhow::Result<Namespace> {
    let broker = federation.child("broker")?;
    Ok(Namespace::new(federation, broker, &ZoneLabels::default())?)
}

fn checked_public(text: &str, names: &Namespace) -> anyhow::Result<serde_json::Value> {
    let records = zone_file::public(text, names)?.len();
    Ok(serde_json::json!({ "records": records, "summary": format!("{records} records can be served") }))
}

/// Sends the devices of a file as a list.
async fn import(args: ImportArgs, client: &Client, output: Output) -> anyhow::Result<()> {
    let ImportArgs { file, member, netid, origin, full, allow_shrink, dry_run } = args;
    let found = zone_file::devices(&read(&file)?, origin.as_ref())
        .with_context(|| format!("nothing of {} is imported", file.display()))?;
    if found.strangers > 0 {
        output.note(checked_devices(&found)["summary"].as_str().unwrap_or_default());
    }
    let list: String = found.devices.iter().map(|device| format!("{device}\n")).collect();
    let mode = if full { "full" } else { "add" };
    let path = format!(
        "/api/v1/members/{member}/netids/{netid}/devices?mode={mode}&allow_shrink={allow_shrink}&dry_run={dry_run}"
    );
    let report: ImportReport = client.upload(&path, "text/plain", std::io::Cursor::new(list.into_bytes())).await?;
    output.print(&report, super::device::report_text);
    super::device::name_trouble(output, &report);
    Ok(())
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
