//! The command line: what an operator types.
//!
//! `status`, `lookup`, `sync` and `lns-config` ask the running agent over its control socket. Where none runs, all but `status`
//! do the same by themselves, from the configuration.

mod ask;
mod enroll;
mod lns;
mod output;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use dnsbroker_api::client::Client;

use crate::config::Config;
use crate::control;
use crate::logging;
pub use output::Output;

/// The member's side of a LoRaWAN federation: resolver, HomeNSReq for network servers, certificates, device lists.
///
/// Start with `dnsbroker-agent enroll` and the lines your federation's administrator gave you. Exit status: 0 done, 1 failed,
/// 2 usage.
#[derive(Parser)]
#[command(name = "dnsbroker-agent", version, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// The configuration [default: ./agent.toml, else /etc/dnsbroker-agent/agent.toml]
    #[arg(long, global = true, env = "DNSBROKER_AGENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON on stdout, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key, check the broker's CA, and get a certificate for a one-time token; also when one has expired
    Enroll(enroll::Enroll),
    /// Run the agent
    Run,
    /// What the running agent does
    Status,
    /// Whose a device is: each federation asked, and what it said
    Lookup {
        /// The DevEUI, in any form
        eui: String,
    },
    /// Look at the sources of devices now, and tell the federations
    Sync(ask::SyncArgs),
    /// The configuration of a network server
    #[command(subcommand)]
    LnsConfig(lns::LnsCommand),
    /// The configuration
    #[command(subcommand)]
    Config(run::ConfigCommand),
}

/// What commands share.
struct Context {
    config: Config,
    output: Output,
}

impl Context {
    fn client(&self) -> Client {
        Client::control(control::to_ask(&self.config))
    }
}

/// Runs a command.
pub async fn run(cli: Cli) -> ExitCode {
    let output = Output::new(cli.global.json);
    match command(cli, output).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; tells whether what it was asked for was there.
async fn command(cli: Cli, output: Output) -> anyhow::Result<bool> {
    if let Command::Enroll(command) = cli.command {
        return command.run(output).await;
    }
    let file = config_file(cli.global.config);
    let config = Config::read(&file)?;
    let context = Context { config, output };
    match cli.command {
        // Done above: it has no configuration yet.
        Command::Enroll(_) => Ok(true),
        Command::Run => {
            logging::start(&context.config.log).context("logging cannot be set up")?;
            run::run(context.config).await
        }
        Command::Config(command) => Ok(command.run(&context, &file)),
        Command::Status => ask::status(&context).await,
        Command::Lookup { eui } => ask::lookup(&context, &eui).await,
        Command::Sync(arguments) => ask::sync(&context, &arguments).await,
        Command::LnsConfig(command) => command.run(&context).await,
    }
}

fn config_file(named: Option<PathBuf>) -> PathBuf {
    let here = PathBuf::from("agent.toml");
    match named {
        Some(path) => path,
        None if here.exists() => here,
        None => "/etc/dnsbroker-agent/agent.toml".into(),
    }
}
