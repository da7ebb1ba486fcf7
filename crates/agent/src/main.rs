//! `dnsbroker-agent`: the member's side of a LoRaWAN federation.
//!
//! One process beside a network server: a resolver and a TS002 endpoint that look devices up in all federations, certificates
//! that renew themselves, and device lists that follow the network server's own. See `cli` for the commands and `daemon` for
//! what runs.

mod answer;
mod api;
mod broker_answer;
mod cache;
mod cli;
mod clock;
mod config;
mod control;
mod daemon;
mod directory;
mod dns;
mod enroll;
mod files;
mod hook;
mod http_client;
mod http_server;
mod identity;
mod limits;
mod lns;
mod logging;
mod lookup;
mod metrics;
mod ops;
mod places;
mod renew;
mod resolver;
mod route;
mod server_certificate;
mod slot;
mod starter;
mod status;
mod sync;
mod tls;
mod ts002;
mod upstream;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    dnsbroker_api::protection::deny_dumps();
    let cli = cli::Cli::parse();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
