//! Durable state of one broker: what was acknowledged is here after a power cut, and nothing half.
//!
//! ```text
//! Act ──▶ Transaction ──▶ Batch ──▶ Engine (synced) ──▶ View, published to readers
//! ```
//!
//! - An [`Act`] is one thing somebody does: add a member, import devices, enrol. It checks all its rules before it
//!   changes anything, and gets its audit row in the same batch.
//! - A [`Transaction`] runs any number of acts on a private copy of the state: a group commit. Refused acts leave no trace.
//! - [`Store::commit`] writes the batch, and only then does the new [`View`] exist.
//!
//! Layout, by [`Table`](engine::Table): devices as blocks (sorted runs, see `dnsbroker_zone::table`) plus a journal of
//! deltas by sequence number; a checkpoint folds the journal into the blocks it touches and keeps the entries, which
//! are the IXFR history, until a bound. Members, networks, tokens and certificates are one JSON row each; the audit is
//! one JSON row an act, each with the hash of the row before. What happened to devices is kept apart, by audit number: see
//! [`history`].

mod accounts;
pub mod act;
pub mod audit;
pub mod backup;
mod concern;
pub mod engine;
pub mod history;
mod identity;
mod journal;
mod ownership;
pub mod record;
mod refusal;
mod replication;
mod revision;
mod store;
mod transaction;
mod view;

pub use accounts::{Accounts, TokenDenial};
pub use act::Act;
pub use identity::{FORMAT, Identity};
pub use journal::{History, HistoryError};
pub use ownership::{ClaimFilter, MAX_CLAIMS, Ownership};
pub use refusal::{AccountRefusal, OwnershipRefusal, Refusal};
pub use replication::{ReplayError, Shipment};
pub use revision::{Edit, Edited, Object, Precondition, Revision, RevisionError};
pub use store::{OpenError, Settings, Store};
pub use transaction::{Actor, Note, Transaction};
pub use view::{Denial, View};
