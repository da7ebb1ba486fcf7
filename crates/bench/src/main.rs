//! `dnsbroker-bench`: what a query, a handshake and a device cost, beside a floor that only speaks TLS and HTTP/2.
//!
//! Client and server share the machine, so queries a second say more about the machine than about the broker. What
//! counts is processor time of the server process for each query, and its ratio to the floor's in the same run.

mod agent;
mod answer;
mod client;
mod devices;
mod enrolments;
mod exchange;
mod federation;
mod floor;
mod handshakes;
mod latency;
mod load;
mod memory;
mod output;
mod process;
mod questions;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The broker's allocator: the floor must not lose or win by another one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures a dnsbroker: look-ups, handshakes, start and memory.
///
/// `suite` does all of it by itself; the other commands are its parts, for servers that run already.
#[derive(Parser)]
#[command(name = "dnsbroker-bench", version, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a list of realistic DevEUIs, always the same for the same count
    Devices(devices::Devices),
    /// Serve one constant answer with the TLS and HTTP/2 settings of the broker
    Floor(floor::Floor),
    /// Ask over open connections, each stream its next question as soon as it has its answer
    Load(load::Load),
    /// Open connections, ask one question on each and close them
    Handshakes(handshakes::Handshakes),
    /// Operators that enrol with tokens, many at once, each certificate durable before its answer
    Enrolments(enrolments::Enrolments),
    /// The member's agent: look-ups through it, cached ones, HomeNSReq, memory
    Agent(agent::Agent),
    /// Zone transfers and updates of the broker, BIND and NSD side by side
    Exchange(exchange::Exchange),
    /// A member's zone taken from its primary, and from NOTIFY to visible
    Inbound(exchange::Inbound),
    /// Store and memory after very many updates
    Growth(exchange::Growth),
    /// Peaks of memory while devices are imported, loaded, replaced and folded
    Memory(memory::Memory),
    /// Make a federation, measure the broker and the floor side by side, and print tables
    Suite(suite::Suite),
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Devices(command) => command.run(),
            Self::Floor(command) => server()?.block_on(command.run()),
            Self::Load(command) => client()?.block_on(command.run()),
            Self::Handshakes(command) => client()?.block_on(command.run()),
            Self::Enrolments(command) => client()?.block_on(command.run()),
            Self::Agent(command) => client()?.block_on(command.run()),
            Self::Exchange(command) => client()?.block_on(command.run()),
            Self::Inbound(command) => client()?.block_on(command.run()),
            Self::Growth(command) => client()?.block_on(command.run()),
            Self::Memory(command) => client()?.block_on(command.run()),
            Self::Suite(command) => client()?.block_on(command.run()),
        }
    }
}

/// The broker's runtime.
fn server() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Half of the processors, so that the server has the other half for itself.
fn client() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    tokio::runtime::Builder::new_multi_thread().worker_threads((processors / 2).max(1)).enable_all().build()
}
