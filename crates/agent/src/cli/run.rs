//! `run`: the daemon; `config check`: what it would do.

use std::path::Path;

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Context, Output};
use crate::config::{Config, advice};
use crate::daemon::{self, Agent};
use crate::{control, lns, places};

/// Runs until SIGTERM or SIGINT.
pub(super) async fn run(config: Config) -> anyhow::Result<bool> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be heard")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be heard")?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });
    daemon::run(config, stop).await?;
    Ok(true)
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Read the configuration and what it names, and say what would be done
    Check,
}

#[derive(Serialize)]
struct Checked {
    ok: bool,
    resolver: Vec<String>,
    ts002: Vec<String>,
    federations: Vec<String>,
    syncs: Vec<String>,
    /// Who would write; the files are tried as this user.
    user: String,
    /// What cannot be written or shared.
    problems: Vec<String>,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl ConfigCommand {
    /// Tells whether the configuration can be run.
    pub(super) fn run(&self, Context { config, output }: &Context, file: &Path) -> bool {
        let Self::Check = self;
        let addresses = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect();
        let user = places::user();
        let problems = places::trouble(config, &user);
        let mut checked = Checked {
            ok: problems.is_empty(),
            resolver: addresses(&config.resolver.listen),
            ts002: addresses(&config.ts002.listen),
            federations: vec![],
            syncs: vec![],
            warnings: advice(config),
            problems,
            user,
            error: None,
        };
        checked.warnings.extend(control::trouble(config, &checked.user));
        if places::is_root() {
            let command = "`sudo -u dnsbroker-agent dnsbroker-agent config check`";
            checked.warnings.push(format!("root may write everywhere; what the unit's user may is told by {command}"));
        }
        match Agent::open(config) {
            Ok(agent) => {
                checked.warnings.extend(agent.trouble().filter(|trouble| !trouble.contains("answered yet")));
                checked
                    .warnings
                    .extend(lns::warnings(&lns::chirpstack(&agent.ends, agent.federations())).map(str::to_owned));
                checked.federations = agent.federations().iter().map(|federation| federation.name()).collect();
                let sync = |status: crate::sync::task::Status| {
                    format!("{} of {} from {}", status.netid, status.federation, status.source)
                };
                checked.syncs = agent.syncs.iter().map(|status| sync(status.status())).collect();
            }
            Err(error) => {
                checked.ok = false;
                checked.error = Some(format!("{error:#}"));
            }
        }
        print(*output, &checked, file);
        checked.ok
    }
}

fn print(output: Output, checked: &Checked, file: &Path) {
    output.print(checked, |checked| {
        let list = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
        let state = match (&checked.error, checked.problems.len()) {
            (Some(error), _) => format!("cannot be run: {error}"),
            (None, 0) => "ok".to_owned(),
            (None, _) => "not all of it can be done".to_owned(),
        };
        let mut text = format!(
            "{}: {state}\nchecked as  {}\nresolver    {}\nTS002       {}\nfederations {}\nsync        {}\n",
            file.display(),
            checked.user,
            list(&checked.resolver),
            list(&checked.ts002),
            list(&checked.federations),
            list(&checked.syncs),
        );
        for problem in &checked.problems {
            text.push_str(&format!("problem: {problem}\n"));
        }
        for warning in &checked.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        text
    });
}
