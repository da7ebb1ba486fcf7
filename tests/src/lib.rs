//! What the end-to-end tests share: a daemon of one's own, its PKI, and the programs that talk to it.

mod agent;
mod broker;
mod browser;
pub mod ca;
pub mod memory;
mod peers;
mod postgres;
pub mod rest;
mod servers;
pub mod tls;

pub use agent::{Agent, Host, Relay, http};
pub use broker::{Broker, Options};
pub use browser::{Browser, CertificateDoor};
pub use peers::{Finished, decode, missing, nibble_name, output, peer, query};
pub use postgres::Postgres;
pub use servers::{Kind, PATIENCE, Server, TsigKey, eventually, free_port, serial_of, zone_of};
