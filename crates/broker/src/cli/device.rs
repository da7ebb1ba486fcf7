//! `device`: lists in, lists out, and why a device resolves or doesn't.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use dnsbroker_api::endpoint::query_of;
use dnsbroker_api::listed::{ImportOptions, ListDevices, LookUp};
use dnsbroker_api::message::{Device, ImportReport, Lookup, Page};
use dnsbroker_federation::{DevEui, MemberId, NetId};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

use super::output::Output;
use super::sorted::order;
use super::{Context, ownership};

#[derive(Subcommand)]
pub(super) enum DeviceCommand {
    /// Register, replace or remove a list of devices
    Import(ImportArgs),
    /// List devices by DevEUI
    List(ListArgs),
    /// Show who has a device
    Show {
        /// In any of the forms people write
        deveui: DevEui,
    },
    /// What happened to a device, oldest first
    History {
        /// In any of the forms people write
        deveui: DevEui,
    },
    /// Let devices go: to one who claims them, or to nobody
    Release(ownership::Release),
    /// Devices that one member wants and another holds
    #[command(subcommand)]
    Claim(ownership::ClaimCommand),
    /// Move devices from one operator to another, without touching them
    #[command(subcommand)]
    Transfer(ownership::TransferCommand),
    /// Resolve a device and explain each step and rule
    Lookup {
        /// In any of the forms people write
        deveui: DevEui,
        /// The member that asks; without it, anybody on plain DNS
        #[arg(long = "as")]
        member: Option<MemberId>,
    },
}

#[derive(Args)]
pub(super) struct ImportArgs {
    /// Whose devices they are
    #[arg(long)]
    member: MemberId,
    /// The NetID they resolve to
    #[arg(long)]
    netid: NetId,
    /// The list is all there is: devices of this NetID that it does not name are removed
    #[arg(long, conflicts_with = "remove")]
    full: bool,
    /// Remove the devices of the list
    #[arg(long)]
    remove: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Let a full list drop most of the devices
    #[arg(long)]
    allow_shrink: bool,
    /// The form of the list, where it is not to be guessed: plain, getdb, csv, json, ndjson
    #[arg(long)]
    format: Option<String>,
    /// The list, or - for standard input
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// Only of this member
    #[arg(long)]
    member: Option<MemberId>,
    /// Only of this NetID
    #[arg(long)]
    netid: Option<NetId>,
    /// Only those whose DevEUI begins with these hexadecimal digits
    #[arg(long)]
    prefix: Option<String>,
    /// Only devices after this one
    #[arg(long)]
    after: Option<DevEui>,
    /// Devices at most
    #[arg(long)]
    limit: Option<usize>,
    /// Descending
    #[arg(long)]
    desc: bool,
}

impl DeviceCommand {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Context { client, output } = context;
        match self {
            Self::Import(args) => import(context, args).await?,
            Self::List(args) => list(context, args).await?,
            Self::Show { deveui } => {
                let device: Device = client.device_show(&deveui).await?;
                output.print(&device, line);
            }
            Self::History { deveui } => ownership::history(deveui, context).await?,
            Self::Release(release) => ownership::release(release, context).await?,
            Self::Claim(command) => ownership::claims(command, context).await?,
            Self::Transfer(command) => ownership::transfers(command, context).await?,
            Self::Lookup { deveui, member } => {
                let lookup: Lookup = client.device_lookup(&deveui, &LookUp { r#as: member }).await?;
                output.print(&lookup, lookup_text);
            }
        }
        Ok(())
    }
}

fn line(device: &Device) -> String {
    format!("{}  {}  {}\n", device.deveui, device.netid, device.member)
}

fn lookup_text(lookup: &Lookup) -> String {
    let mut text = String::new();
    for (number, step) in lookup.steps.iter().enumerate() {
        text.push_str(&format!("{}. {step}\n", number + 1));
    }
    for record in &lookup.answer {
        text.push_str(&format!("   {record}\n"));
    }
    text
}

/// Rows of one request.
const PAGE: usize = 10_000;

async fn list(Context { client, output }: &Context, args: ListArgs) -> anyhow::Result<()> {
    let ListArgs { member, netid, prefix, mut after, limit, desc } = args;
    let mut left = limit.unwrap_or(usize::MAX);
    let mut items = Vec::new();
    while left > 0 {
        let query = ListDevices {
            member: member.clone(),
            netid,
            prefix: prefix.clone(),
            after: after.map(|after| after.to_string()),
            limit: Some(left.min(PAGE)),
            order: Some(order(desc)),
            sort: None,
        };
        let page: Page<Device> = client.device_list(&query).await?;
        left = left.saturating_sub(page.items.len());
        after = page.items.last().map(|device| device.deveui);
        if output.is_json() {
            items.extend(page.items);
        } else {
            output.text(&page.items.iter().map(line).collect::<String>());
        }
        if page.next.is_none() {
            break;
        }
    }
    if output.is_json() {
        output.print(&Page { items, next: None }, |_| String::new());
    }
    Ok(())
}

async fn import(Context { client, output }: &Context, args: ImportArgs) -> anyhow::Result<()> {
    let ImportArgs { member, netid, full, remove, dry_run, allow_shrink, format, file } = args;
    let mode = match (full, remove) {
        (true, _) => "full",
        (_, true) => "remove",
        _ => "add",
    };
    let options = ImportOptions { mode: Some(mode.to_owned()), format, dry_run, allow_shrink };
    let path = format!("/api/v1/members/{member}/netids/{netid}/devices{}", query_of(&options));
    let report: ImportReport = if file.as_os_str() == "-" {
        let bar = Arc::new(progress(None));
        client.upload(&path, OCTETS, watched(tokio::io::stdin(), bar)).await?
    } else {
        let cannot = || format!("cannot read the list {}", file.display());
        let opened = tokio::fs::File::open(&file).await.with_context(cannot)?;
        let metadata = opened.metadata().await.with_context(cannot)?;
        if metadata.is_dir() {
            bail!("{} is a directory: name a file with a list of devices", file.display());
        }
        let bar = Arc::new(progress(Some(metadata.len())));
        client.upload(&path, OCTETS, watched(opened, bar)).await?
    };
    output.print(&report, report_text);
    name_trouble(*output, &report);
    let took = report.added
        + report.moved
        + report.removed
        + report.unchanged
        + report.absent
        + report.claimed
        + report.filled;
    if took == 0 && report.rejected > 0 {
        bail!("no row of the list names a device: is it of another format? see --format");
    }
    Ok(())
}

const OCTETS: &str = "application/octet-stream";

/// A bar on stderr; hidden where that is no terminal.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn watched(reader: impl AsyncRead + Send + 'static, bar: Arc<ProgressBar>) -> impl AsyncRead + Send + 'static {
    InspectReader::new(reader, move |octets| {
        bar.inc(octets.len() as u64);
        if bar.length().is_some_and(|length| bar.position() >= length) {
            bar.set_message("read; now it is made durable");
        }
    })
}

pub(super) fn report_text(report: &ImportReport) -> String {
    let ImportReport { added, moved, removed, unchanged, absent, repeated, claimed, rejected, serial, .. } = report;
    let did = if report.dry_run { "would be: " } else { "" };
    let mut text = format!("{did}{added} added, {moved} moved, {removed} removed, {unchanged} unchanged");
    for (count, what) in [
        (absent, "not there"),
        (repeated, "repeated in the list"),
        (claimed, "held by another member"),
        (&report.outside, "outside the member's ranges"),
        (&report.filled, "on a NetID that a source fills"),
        (rejected, "rows refused"),
    ] {
        if *count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text.push_str(&format!("; serial {serial}\n"));
    text
}

/// Names each row that was not taken, on stderr: nothing is lost silently.
pub(super) fn name_trouble(output: Output, report: &ImportReport) {
    for reject in &report.rejects {
        output.note(&format!("line {}: {:?}: {}", reject.line, reject.text, reject.reason));
    }
    let unnamed = report.rejected.saturating_sub(report.rejects.len() as u64);
    if unnamed > 0 {
        output.note(&format!("and {unnamed} more rows"));
    }
    for deveui in &report.claims {
        output.note(&format!("{deveui}: another member holds it; it was left as it is"));
    }
    for deveui in &report.outsiders {
        output.note(&format!("{deveui}: outside the ranges that the member may register; it was left out"));
    }
    for deveui in &report.filled_shown {
        output.note(&format!("{deveui}: the member's own name server has it, for another NetID; it was left there"));
    }
    let unnamed = report.filled.saturating_sub(report.filled_shown.len() as u64);
    if unnamed > 0 {
        output.note(&format!("and {unnamed} more devices of the member's own name server"));
    }
    let unnamed = report.claimed.saturating_sub(report.claims.len() as u64);
    if unnamed > 0 {
        output.note(&format!("and {unnamed} more devices that other members hold"));
    }
}
