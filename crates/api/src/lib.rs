//! REST messages, error codes, device list formats and the typed client.
//!
//! What goes over `/api/v1` is here and nowhere else: the daemon, the admin commands and the agent share these types.

pub mod account;
pub mod client;
pub mod endpoint;
pub mod endpoints;
pub mod event;
pub mod exchange;
pub mod line;
pub mod listed;
pub mod listing;
pub mod message;
pub mod operator;
pub mod ownership;
pub mod problem;
pub mod protection;
pub mod standby;
pub mod statistics;
mod timestamp;
pub mod webhook;

pub use timestamp::Timestamp;
