//! The command line: what an administrator types.
//!
//! `init`, `quickstart`, `serve` and `config check` work on files; everything else talks to the running daemon over its
//! control socket, by the same REST routes as the UI.

mod admin;
mod audit;
mod backup;
mod ca;
mod certificate;
mod device;
mod doh_client;
mod events;
mod exchange;
mod init;
mod member;
mod output;
mod ownership;
mod policy;
mod quickstart;
mod serve;
mod sorted;
mod standby;
mod status;
mod webhook;
mod zone;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use dnsbroker_api::client::{Client, ClientError};
use dnsbroker_api::endpoint::escape;
use dnsbroker_api::listed::Paged;
use dnsbroker_api::message::Page;

pub use output::Output;

/// Authoritative private DNS broker for a federation of LoRaWAN operators.
///
/// Start with `dnsbroker quickstart`, which makes a whole federation in a directory and serves it, or with
/// `dnsbroker init` for one of your own. Exit status: 0 done, 1 failed, 2 usage.
#[derive(Parser)]
#[command(name = "dnsbroker", version, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// The running daemon's control socket [default: ./control.sock, else /var/lib/dnsbroker/control.sock]
    #[arg(long, global = true, env = "DNSBROKER_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    /// Print JSON on stdout, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make a federation with two sample members, serve it, and print look-ups to paste
    Quickstart(quickstart::Quickstart),
    /// Make a federation: CA, store, configuration
    Init(init::Init),
    /// Run the daemon
    Serve(serve::Serve),
    /// What the running daemon does
    Status,
    /// The configuration
    #[command(subcommand)]
    Config(serve::ConfigCommand),
    /// Members of the federation
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// NetIDs and the addresses of their network servers
    #[command(subcommand)]
    Netid(member::NetidCommand),
    /// One-time tokens with which an operator enrols
    #[command(subcommand)]
    Token(certificate::TokenCommand),
    /// Certificates
    #[command(subcommand)]
    Cert(certificate::CertCommand),
    /// The certification authority
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Devices
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Who may resolve whose devices
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Administrators and auditors, who log in over the network
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Tokens with which programs use the API
    #[command(subcommand)]
    ApiToken(admin::ApiTokenCommand),
    /// Zones as they are served
    #[command(subcommand)]
    Zone(zone::ZoneCommand),
    /// Primaries of members that fill their NetIDs by zone transfer
    #[command(subcommand)]
    Source(exchange::SourceCommand),
    /// Servers that may hold a copy of the private zones
    #[command(subcommand)]
    Replica(exchange::ReplicaCommand),
    /// TSIG keys of transfers and updates
    #[command(subcommand)]
    Key(exchange::KeyCommand),
    /// A second broker that follows the first and can take its place
    #[command(subcommand)]
    Standby(standby::StandbyCommand),
    /// Where events are posted to
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// What happens, as it happens
    Events(events::Events),
    /// Look-ups a second, latencies, devices by member and OUI, what ends or fails, transfers
    Statistics,
    /// The record of every change, chained by hashes
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Write everything but the root's key and the passphrase into one file, while the daemon serves
    Backup(backup::Backup),
    /// Make a broker's directory from a backup; what was revoked since stays revoked
    Restore(backup::Restore),
}

/// What commands to a running daemon share.
struct Context {
    client: Client,
    output: Output,
}

/// Runs a command.
pub async fn run(cli: Cli) -> ExitCode {
    let output = Output::new(cli.global.json);
    let context = || Context { client: Client::control(control_socket(cli.global.control.as_ref())), output };
    let result = match cli.command {
        Command::Quickstart(command) => command.run(output).await,
        Command::Init(command) => command.run(output),
        Command::Serve(command) => command.run().await,
        Command::Config(command) => command.run(output),
        Command::Status => status::status(&context()).await,
        Command::Member(command) => command.run(&context()).await,
        Command::Netid(command) => command.run(&context()).await,
        Command::Token(command) => command.run(&context()).await,
        Command::Cert(command) => command.run(&context()).await,
        Command::Ca(command) => command.run(&context()).await,
        Command::Device(command) => command.run(&context()).await,
        Command::Policy(command) => command.run(&context()).await,
        Command::Admin(command) => command.run(&context()).await,
        Command::ApiToken(command) => command.run(&context()).await,
        Command::Zone(command) => command.run(&context()).await,
        Command::Source(command) => command.run(&context()).await,
        Command::Replica(command) => command.run(&context()).await,
        Command::Key(command) => command.run(&context()).await,
        Command::Audit(command) => command.run(&context()).await,
        Command::Standby(command) => command.run(&context()).await,
        Command::Webhook(command) => command.run(&context()).await,
        Command::Events(command) => command.run(&context()).await,
        Command::Statistics => events::statistics(&context()).await,
        Command::Backup(command) => command.run(&context()).await,
        Command::Restore(command) => command.run(output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

fn control_socket(named: Option<&PathBuf>) -> PathBuf {
    let here = PathBuf::from("control.sock");
    match named {
        Some(path) => path.clone(),
        None if here.exists() => here,
        None => "/var/lib/dnsbroker/control.sock".into(),
    }
}

/// All pages of a list, put together.
async fn all<Q: Paged, T>(
    mut ask: impl AsyncFnMut(&Q) -> Result<Page<T>, ClientError>,
    mut query: Q,
) -> Result<Page<T>, ClientError> {
    let mut items = Vec::new();
    loop {
        let page = ask(&query).await?;
        items.extend(page.items);
        match page.next {
            Some(next) => query.go_on(next),
            None => return Ok(Page { items, next: None }),
        }
    }
}
