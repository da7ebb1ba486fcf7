//! `lns-config`: what a network server needs to roam with all members.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use dnsbroker_api::client::ClientError;
use http::Method;
use serde::Serialize;

use super::Context;
use crate::daemon::Agent;
use crate::upstream::federation::Federation;
use crate::{directory, hook, lns, server_certificate};

#[derive(Subcommand)]
pub(super) enum LnsCommand {
    /// ChirpStack v4: [roaming] with a server for each member, [[join_server.servers]], [backend_interfaces]
    Chirpstack(Chirpstack),
}

#[derive(Args)]
pub(super) struct Chirpstack {
    /// Write this file, and again whenever members change; its hook is `[lns] hook`
    #[arg(long, value_name = "FILE")]
    watch: Option<PathBuf>,
    /// Seconds between looks at the members with --watch
    #[arg(long, value_name = "SECONDS", requires = "watch", default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interval: u64,
}

#[derive(Serialize)]
struct Stanzas {
    chirpstack: String,
}

impl LnsCommand {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<bool> {
        let Self::Chirpstack(Chirpstack { watch, interval }) = self;
        match watch {
            None => {
                let text = stanzas(context, false).await?.text;
                for warning in lns::warnings(&text) {
                    context.output.note(&format!("warning: {warning}"));
                }
                context.output.print(&Stanzas { chirpstack: text }, |stanzas| stanzas.chirpstack.clone());
            }
            Some(file) => follow(context, file, Duration::from_secs(interval)).await?,
        }
        Ok(true)
    }
}

/// The text, and whether there is a new certificate.
struct Made {
    text: String,
    new: bool,
}

/// From the running agent, or made here; where there is none to get the network server's certificate, that is done here too.
async fn stanzas(context: &Context, keep: bool) -> anyhow::Result<Made> {
    match context.client().json(Method::GET, "/v1/lns-config/chirpstack", None::<&()>).await {
        Err(ClientError::Unreachable { .. }) => {
            let agent = Agent::open(&context.config)?;
            let mut new = false;
            for federation in agent.federations() {
                if let Err(reason) = directory::fetch(federation).await {
                    context.output.note(&format!("warning: {}: {reason}; what is known is used", federation.name()));
                }
                if keep && context.config.lns.gets_certificate() {
                    new |= certificate(context, federation).await;
                }
            }
            Ok(Made { text: lns::chirpstack(&agent.ends, agent.federations()), new })
        }
        answered => Ok(Made { text: answered?, new: false }),
    }
}

/// Tells whether there is a new certificate of the network server.
async fn certificate(context: &Context, federation: &Federation) -> bool {
    match server_certificate::pass(federation, &mut server_certificate::Asked::default()).await {
        Ok((_, new)) => new,
        Err(reason) => {
            context.output.note(&format!("warning: {}: the network server's certificate: {reason}", federation.name()));
            false
        }
    }
}

/// Until it is stopped. What fails is told, and tried again: a network server goes on with what it has.
async fn follow(context: &Context, file: PathBuf, interval: Duration) -> anyhow::Result<()> {
    loop {
        if let Err(error) = write(context, &file).await {
            context.output.note(&format!("error: {error:#}"));
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(interval) => {}
        }
    }
}

async fn write(context: &Context, file: &Path) -> anyhow::Result<()> {
    let Made { text, new } = stanzas(context, true).await?;
    if lns::write(file, &text).with_context(|| format!("cannot write {}", file.display()))? {
        context.output.note(&format!("{} was written", file.display()));
        hook::run(&context.config.lns.hook, "lns-config", "", &context.config.dir).await;
    } else if new {
        hook::run(&context.config.lns.hook, "lns-certificate", "", &context.config.dir).await;
    }
    Ok(())
}
