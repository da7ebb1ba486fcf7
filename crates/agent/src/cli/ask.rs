//! `status`, `lookup`, `sync`: asked of the running agent, or done here where none runs.

use anyhow::{Context as _, bail};
use clap::Args;
use dnsbroker_api::client::ClientError;
use dnsbroker_federation::DevEui;
use http::Method;

use super::Context;
use super::output::table;
use crate::daemon::Agent;
use crate::lookup::Explained;
use crate::status::Status;
use crate::sync::task::{self, Options};

pub(super) async fn status(context: &Context) -> anyhow::Result<bool> {
    let status: Status = match context.client().json(Method::GET, "/v1/status", None::<&()>).await {
        Err(ClientError::Unreachable { socket, source }) => {
            return Err(source)
                .with_context(|| format!("no agent answers at {socket}: does `dnsbroker-agent run` run?"));
        }
        answered => answered?,
    };
    context.output.print(&status, Status::text);
    Ok(status.ready)
}

pub(super) async fn lookup(context: &Context, eui: &str) -> anyhow::Result<bool> {
    let device: DevEui = eui.parse().with_context(|| format!("{eui:?} is no DevEUI"))?;
    let explained: Explained =
        match context.client().json(Method::GET, &format!("/v1/lookup/{device}"), None::<&()>).await {
            Err(ClientError::Unreachable { .. }) => {
                context.output.note("no agent runs: the brokers are asked from here");
                let agent = Agent::open(&context.config)?;
                agent.lookups.device(device).await.explain(device, agent.lookups.resolver())
            }
            answered => answered?,
        };
    context.output.print(&explained, explained_text);
    Ok(explained.outcome == "home")
}

fn explained_text(explained: &Explained) -> String {
    let mut text = format!("{}: ", explained.deveui);
    match (&explained.netid, &explained.federation) {
        (Some(netid), Some(federation)) => {
            let addresses: Vec<String> = explained.addresses.iter().map(ToString::to_string).collect();
            text.push_str(&format!("home is {netid} of {federation} at {}", addresses.join(", ")));
        }
        _ => text.push_str(&explained.outcome),
    }
    text.push_str(&format!(" ({:.2} ms)\n", explained.milliseconds));
    for step in &explained.steps {
        text.push_str(&format!("  {step}\n"));
    }
    text
}

#[derive(Args)]
pub(super) struct SyncArgs {
    /// Change nothing, and say what would be
    #[arg(long)]
    dry_run: bool,
    /// Take away more than half of a NetID's devices
    #[arg(long)]
    allow_shrink: bool,
}

pub(super) async fn sync(context: &Context, arguments: &SyncArgs) -> anyhow::Result<bool> {
    let options = Options { dry_run: arguments.dry_run, allow_shrink: arguments.allow_shrink };
    let done: Vec<task::Status> = match context.client().json(Method::POST, "/v1/sync", Some(&options)).await {
        Err(ClientError::Unreachable { .. }) => {
            let agent = Agent::open(&context.config)?;
            let mut done = Vec::new();
            for sync in &agent.syncs {
                // What failed is in the status, beside what did not.
                let _ = sync.pass(options).await;
                done.push(sync.status());
            }
            done
        }
        answered => answered?,
    };
    if done.is_empty() {
        bail!("there is no [[federation.sync]] in the configuration");
    }
    context.output.print(&done, |done| sync_text(done, options.dry_run));
    Ok(done.iter().all(|status| status.error.is_none()))
}

fn sync_text(done: &[task::Status], dry_run: bool) -> String {
    let row = |status: &task::Status| {
        let report = status.report.as_ref();
        let count = |of: fn(&dnsbroker_api::message::ImportReport) -> u64| {
            report.map_or_else(|| "-".to_owned(), |report| of(report).to_string())
        };
        vec![
            format!("{} of {}", status.netid, status.federation),
            status.source.clone(),
            status.state.clone(),
            status.devices.to_string(),
            count(|report| report.added),
            count(|report| report.moved),
            count(|report| report.removed),
            count(|report| report.claimed),
            status.rejected.to_string(),
        ]
    };
    let heads = ["NETID", "SOURCE", "STATE", "DEVICES", "ADDED", "MOVED", "REMOVED", "CLAIMED", "REJECTED"];
    let mut text = table(&heads, &done.iter().map(row).collect::<Vec<_>>());
    if dry_run {
        text.push_str("Nothing was changed: this is what would be.\n");
    }
    for status in done {
        if let Some(error) = &status.error {
            text.push_str(&format!("{}: {error}\n", status.netid));
        }
        for reject in &status.rejects {
            text.push_str(&format!("{}: row {}: {:?} {}\n", status.netid, reject.line, reject.text, reject.reason));
        }
        for claim in &status.claims {
            text.push_str(&format!("{}: {claim} is held by another member\n", status.netid));
        }
    }
    text
}
