//! What the end-to-end tests share: a daemon of one's own, its PKI, and the programs that talk to it.

mod agent;
mod broker;
mod browser;
pub mod ca;
mod hook;
mod keyring;
pub mod liar;
pub mod memory;
mod peers;
mod postgres;
pub mod rest;
pub mod roaming;
mod servers;
pub mod standby;
pub mod tls;
pub mod ui;

pub use agent::{Agent, Host, Relay, http};
pub use broker::{Broker, Options};
pub use browser::Browser;
pub use hook::Hook;
pub use keyring::{CertificateDoor, Keyring};
pub use peers::{Finished, decode, missing, nibble_name, output, peer, query};
pub use postgres::Postgres;
pub use servers::{Kind, PATIENCE, Server, TsigKey, eventually, free_port, serial_of, zone_of};
