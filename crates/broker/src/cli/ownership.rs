//! `device claim`, `device release`, `device transfer`, `device history`: who has a device, and how it changes hands.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use dnsbroker_api::Timestamp;
use dnsbroker_api::client::Client;
use dnsbroker_api::listed::{ListClaims, ListMoves, SortClaims, SortMoves};
use dnsbroker_api::message::Page;
use dnsbroker_api::ownership::{
    AcceptMove, CancelMove, Claim, DecideClaims, DeviceEvent, Move, Moved, NewMove, ReleaseDevices, Settled,
    WithdrawClaims,
};
use dnsbroker_federation::{DevEui, MemberId, NetId};

use super::certificate::duration;
use super::output::table;
use super::sorted::Sorted;
use super::{Context, all};
use crate::committer::now;

/// Devices on the command line, or in a file.
#[derive(Args)]
pub(super) struct Devices {
    /// DevEUIs, in any of the forms people write
    devices: Vec<DevEui>,
    /// A file with one DevEUI a line, or - for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Devices {
    fn read(self) -> anyhow::Result<Vec<DevEui>> {
        let Self { mut devices, file } = self;
        if let Some(file) = file {
            let mut text = String::new();
            let read = match file.as_os_str() == "-" {
                true => std::io::stdin().read_to_string(&mut text),
                false => std::fs::File::open(&file).and_then(|mut file| file.read_to_string(&mut text)),
            };
            read.with_context(|| format!("cannot read {}", file.display()))?;
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let device = line.trim().parse();
                devices.push(device.with_context(|| format!("line {} of {}", number + 1, file.display()))?);
            }
        }
        if devices.is_empty() {
            bail!("no device is named: give DevEUIs, or a file with --file");
        }
        Ok(devices)
    }
}

#[derive(Subcommand)]
pub(super) enum ClaimCommand {
    /// List devices that one member wants and another holds
    List {
        /// Only claims of this member
        #[arg(long)]
        claimant: Option<MemberId>,
        /// Only claims against this member
        #[arg(long)]
        holder: Option<MemberId>,
        /// Only to this device
        #[arg(long)]
        device: Option<DevEui>,
        #[command(flatten)]
        sorted: Sorted<SortClaims>,
    },
    /// Decide claims, for or against the claimant
    Decide {
        #[command(flatten)]
        devices: Devices,
        /// Who claims
        #[arg(long)]
        claimant: MemberId,
        #[command(flatten)]
        decision: Decision,
        /// Why: for the audit, and for both
        #[arg(long)]
        reason: String,
    },
    /// Give claims up for the claimant
    Withdraw {
        #[command(flatten)]
        devices: Devices,
        /// Who claimed
        #[arg(long)]
        claimant: MemberId,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Decision {
    /// The claimant gets the devices
    #[arg(long)]
    grant: bool,
    /// The holder keeps them
    #[arg(long)]
    reject: bool,
}

#[derive(Args)]
pub(super) struct Release {
    #[command(flatten)]
    devices: Devices,
    /// The claimant who gets them; without it they are nobody's
    #[arg(long)]
    to: Option<MemberId>,
    /// Why: for the audit
    #[arg(long)]
    reason: String,
}

#[derive(Subcommand)]
pub(super) enum TransferCommand {
    /// Move devices to a NetID, whoever holds them: now, or at a time
    Start(Start),
    /// List transfers that wait for somebody or for their time
    List {
        /// Only from or to this member
        #[arg(long)]
        member: Option<MemberId>,
        #[command(flatten)]
        sorted: Sorted<SortMoves>,
    },
    /// Accept an offer for its receiver
    Accept {
        /// Its number
        id: u64,
        /// The receiver's NetID that the devices go to
        #[arg(long)]
        netid: NetId,
    },
    /// Take one back, or stop it before its time
    Cancel {
        /// Its number
        id: u64,
        /// Why: for the audit
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Args)]
pub(super) struct Start {
    #[command(flatten)]
    devices: Devices,
    /// The NetID they go to; its holder gets them
    #[arg(long)]
    to: NetId,
    /// When (RFC 3339); without it now
    #[arg(long)]
    at: Option<Timestamp>,
    /// In how long: a number with s, m, h or d
    #[arg(long = "in", value_name = "TIME", conflicts_with = "at", value_parser = duration)]
    within: Option<i64>,
    /// How long before, answers about the devices are kept in caches for seconds only: twice the TTL unless said otherwise
    #[arg(long, value_name = "TIME", value_parser = duration)]
    before: Option<i64>,
    /// Why: for the audit
    #[arg(long)]
    reason: String,
}

pub(super) async fn claims(command: ClaimCommand, Context { client, output }: &Context) -> anyhow::Result<()> {
    match command {
        ClaimCommand::List { claimant, holder, device, sorted } => {
            let query = sorted.of(ListClaims { claimant, holder, deveui: device, ..ListClaims::default() });
            let claims = all(async |query| client.claim_list(query).await, query).await?;
            output.print(&claims, |claims| claim_table(&claims.items));
        }
        ClaimCommand::Decide { devices, claimant, decision, reason } => {
            let decide = DecideClaims { claimant, devices: devices.read()?, grant: decision.grant, reason };
            output.print(&client.claim_decide(&decide).await?, settled_text);
        }
        ClaimCommand::Withdraw { devices, claimant } => {
            let withdraw = WithdrawClaims { claimant: Some(claimant), devices: devices.read()? };
            output.print(&client.claim_withdraw(&withdraw).await?, settled_text);
        }
    }
    Ok(())
}

pub(super) async fn release(release: Release, Context { client, output }: &Context) -> anyhow::Result<()> {
    let Release { devices, to, reason } = release;
    let release = ReleaseDevices { devices: devices.read()?, to, reason: Some(reason) };
    output.print(&client.device_release(&release).await?, settled_text);
    Ok(())
}

pub(super) async fn transfers(command: TransferCommand, Context { client, output }: &Context) -> anyhow::Result<()> {
    match command {
        TransferCommand::Start(Start { devices, to, at, within, before, reason }) => {
            let at = at.or_else(|| within.map(|seconds| Timestamp(now().saturating_add(seconds))));
            let new = NewMove { devices: devices.read()?, netid: Some(to), to: None, at, before, reason };
            let moved: Moved = client.move_create(&new).await?;
            let planned = planned(client, &moved, output.is_json()).await?;
            output.print(&moved, |moved| moved_text(moved, planned.as_ref()));
        }
        TransferCommand::List { member, sorted } => {
            let query = sorted.of(ListMoves { member, ..ListMoves::default() });
            let moves = all(async |query| client.move_list(query).await, query).await?;
            output.print(&moves, |moves| move_table(&moves.items));
        }
        TransferCommand::Accept { id, netid } => {
            let moved = client.move_accept(&id, &AcceptMove { netid }).await?;
            let planned = planned(client, &moved, output.is_json()).await?;
            output.print(&moved, |moved| moved_text(moved, planned.as_ref()));
        }
        TransferCommand::Cancel { id, reason } => {
            client.move_cancel(&id, &CancelMove { reason }).await?;
            output.print(&serde_json::json!({ "cancelled": id }), |_| format!("transfer {id} is off\n"));
        }
    }
    Ok(())
}

pub(super) async fn history(deveui: DevEui, Context { client, output }: &Context) -> anyhow::Result<()> {
    let events: Page<DeviceEvent> = client.device_history(&deveui).await?;
    output.print(&events, |events| history_table(&events.items));
    Ok(())
}

fn settled_text(settled: &Settled) -> String {
    let Settled { moved, removed, closed, serial } = settled;
    format!("{moved} moved, {removed} removed, {closed} claims ended; serial {serial}\n")
}

/// The transfer that waits, for those who read.
async fn planned(client: &Client, moved: &Moved, json: bool) -> anyhow::Result<Option<Move>> {
    let Some(id) = moved.waits.filter(|_| !json) else { return Ok(None) };
    let moves = all(async |query| client.move_list(query).await, ListMoves::default()).await?;
    Ok(moves.items.into_iter().find(|planned| planned.id == id))
}

fn moved_text(moved: &Moved, planned: Option<&Move>) -> String {
    let Moved { moved, stayed, filled, serial, waits } = moved;
    if let Some(id) = waits {
        let waits = planned.map_or_else(|| "until their receiver accepts it".to_owned(), waits_text);
        return format!("transfer {id} waits {waits}\n`dnsbroker device transfer cancel {id}` stops it until then\n");
    }
    let filled = filled.iter().map(|deveui| format!("{deveui} stays: the receiver's own name server has it\n"));
    format!("{moved} moved, {stayed} stayed where they are; serial {serial}\n") + &filled.collect::<String>()
}

fn waits_text(planned: &Move) -> String {
    match &planned.at {
        Some(at) if planned.state == "offered" => format!("until {} accepts it, and then for {at}", planned.to),
        Some(at) => format!("for {at} and for nobody: then the devices go to {}", receiver(planned)),
        None => format!("until {} accepts it", receiver(planned)),
    }
}

fn claim_table(claims: &[Claim]) -> String {
    let row = |claim: &Claim| {
        vec![
            claim.deveui.to_string(),
            claim.claimant.to_string(),
            claim.netid.to_string(),
            claim.holder.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            claim.since.to_string(),
            claim.rejected.as_ref().map_or_else(|| "open".to_owned(), |why| format!("rejected: {why}")),
        ]
    };
    let heads = ["DEVICE", "CLAIMANT", "FOR NETID", "HOLDER", "SINCE", "STATE"];
    table(&heads, &claims.iter().map(row).collect::<Vec<_>>())
}

fn receiver(planned: &Move) -> String {
    planned.netid.map_or_else(|| planned.to.to_string(), |netid| format!("NetID {netid} of {}", planned.to))
}

fn move_table(moves: &[Move]) -> String {
    let row = |planned: &Move| {
        let holders: Vec<String> = planned.holders.iter().map(ToString::to_string).collect();
        let from = planned.from.as_ref().map_or_else(|| holders.join(","), ToString::to_string);
        vec![
            planned.id.to_string(),
            planned.devices.to_string(),
            if from.is_empty() { "nobody".to_owned() } else { from },
            planned.to.to_string(),
            planned.netid.map_or_else(|| "-".to_owned(), |netid| netid.to_string()),
            planned.at.as_ref().map_or_else(|| "on acceptance".to_owned(), ToString::to_string),
            planned.from.as_ref().map_or_else(|| "administrator".to_owned(), ToString::to_string),
            planned.state.clone(),
        ]
    };
    let heads = ["TRANSFER", "DEVICES", "FROM", "TO", "NETID", "WHEN", "ASKED BY", "STATE"];
    table(&heads, &moves.iter().map(row).collect::<Vec<_>>())
}

fn history_table(events: &[DeviceEvent]) -> String {
    let row = |event: &DeviceEvent| {
        let place = |netid: Option<NetId>| netid.map_or_else(|| "-".to_owned(), |netid| netid.to_string());
        let among = event.among.map(|count| format!(" (one of {count} of a list)")).unwrap_or_default();
        vec![
            event.at.to_string(),
            place(event.from),
            place(event.to),
            event.act.clone() + &among,
            event.actor.clone(),
            event.number.to_string(),
        ]
    };
    table(&["WHEN", "FROM", "TO", "ACT", "WHO", "AUDIT"], &events.iter().map(row).collect::<Vec<_>>())
}
