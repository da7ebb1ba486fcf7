//! `dnsbroker`: the authoritative private DNS broker of one federation of LoRaWAN operators.
//!
//! One binary is the daemon and its administration: see `cli` for the commands and `daemon` for what runs.

mod account;
mod announce;
mod api;
mod app;
mod cli;
mod committer;
mod config;
mod control;
mod daemon;
mod dns;
mod doh;
mod events;
mod expiry;
mod explain;
mod handshake;
mod histogram;
mod https;
mod key;
mod limits;
mod listen;
mod logging;
mod metrics;
mod moves;
mod ops;
mod peer;
mod pki;
mod public_zone;
mod publication;
mod seal;
mod shared;
mod source;
mod standby;
mod statistics;
mod tls;
mod ui;
mod webhook;
mod zone_file;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use zeroizing_alloc::ZeroAlloc;

/// Less CPU a query and steadier memory than the system's allocator. Memory that is given back is wiped: a secret goes through
/// buffers of TLS, HTTP and JSON before it comes to anything of ours that would wipe it.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

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
