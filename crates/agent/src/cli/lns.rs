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
use crate::{directory, hook, lns};

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
                let text = stanzas(context).await?;
                context.output.print(&Stanzas { chirpstack: text }, |stanzas| stanzas.chirpstack.clone());
            }
            Some(file) => follow(context, file, Duration::from_secs(interval)).await?,
        }
        Ok(true)
    }
}

/// From the running agent, or made here.
async fn stanzas(context: &Context) -> anyhow::Result<String> {
    match context.client().json(Method::GET, "/v1/lns-config/chirpstack", None::<&()>).await {
        Err(ClientError::Unreachable { .. }) => {
            let agent = Agent::open(&context.config)?;
            for federation in agent.federations() {
                if let Err(reason) = directory::fetch(federation).await {
                    context.output.note(&format!("warning: {}: {reason}; what is known is used", federation.name()));
                }
            }
            Ok(lns::chirpstack(&agent.ends, agent.federations()))
        }
        answered => Ok(answered?),
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
    let text = stanzas(context).await?;
    if lns::write(file, &text).with_context(|| format!("cannot write {}", file.display()))? {
        context.output.note(&format!("{} was written", file.display()));
        hook::run(&context.config.lns.hook, "lns-config", "", &context.config.dir).await;
    }
    Ok(())
}
