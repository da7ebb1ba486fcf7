//! The one seam to storage: an ordered key-value engine with atomic, durable batches and range reads.
//!
//! Everything above this module is the same for every engine. An engine promises three things:
//!
//! 1. [`Engine::commit`] returns `Ok` only when the whole batch would survive a power cut;
//! 2. after a crash the store holds whole batches only, in order;
//! 3. a [`scan`](Engine::scan) sees one state.
//!
//! `redb` keeps all three. `sled` breaks the first, and now and then cannot be opened again: see the README's figures.

mod checked;
mod redb;
mod sled;
mod switch;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

pub use checked::Checked;
pub use switch::Switch;

/// Kinds of rows, each in key order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Single rows: format, serial, heads.
    Meta,
    /// Members by id.
    Members,
    /// Networks by NetID.
    Networks,
    /// Enrolment tokens by hash.
    Tokens,
    /// Certificates by serial number.
    Certificates,
    /// TSIG keys by name.
    Keys,
    /// Replicas by id.
    Replicas,
    /// Sources by NetID.
    Sources,
    /// Trust anchors by NetID.
    Anchors,
    /// Chunks of devices by first device.
    Blocks,
    /// Deltas by sequence number.
    Journal,
    /// Audit rows by sequence number.
    Audit,
    // New tables come last: engines may store a table's number.
    /// Claims by device and claimant.
    Claims,
    /// Moves of devices by number.
    Moves,
    /// Ranges and quotas by member.
    Limits,
    /// The serial of the last change of each NetID's devices.
    Lists,
    /// What changed of devices, by audit number.
    History,
    /// Administrators by name.
    Administrators,
    /// API tokens by hash.
    ApiTokens,
    /// Webhooks by number.
    Webhooks,
    /// Answers to requests that must not happen twice, by digest of their key.
    Requests,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 21] = [
        Self::Meta,
        Self::Members,
        Self::Networks,
        Self::Tokens,
        Self::Certificates,
        Self::Keys,
        Self::Replicas,
        Self::Sources,
        Self::Anchors,
        Self::Blocks,
        Self::Journal,
        Self::Audit,
        Self::Claims,
        Self::Moves,
        Self::Limits,
        Self::Lists,
        Self::History,
        Self::Administrators,
        Self::ApiTokens,
        Self::Webhooks,
        Self::Requests,
    ];

    /// Its name in messages and backups.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Members => "members",
            Self::Networks => "networks",
            Self::Tokens => "tokens",
            Self::Certificates => "certificates",
            Self::Keys => "keys",
            Self::Replicas => "replicas",
            Self::Sources => "sources",
            Self::Anchors => "anchors",
            Self::Blocks => "blocks",
            Self::Journal => "journal",
            Self::Audit => "audit",
            Self::Claims => "claims",
            Self::Moves => "moves",
            Self::Limits => "limits",
            Self::Lists => "lists",
            Self::History => "history",
            Self::Administrators => "administrators",
            Self::ApiTokens => "api_tokens",
            Self::Webhooks => "webhooks",
            Self::Requests => "requests",
        }
    }
}

/// One write of a batch.
#[derive(Debug, Clone)]
struct Write {
    table: Table,
    key: Vec<u8>,
    /// `None` deletes.
    value: Option<Vec<u8>>,
}

/// Writes that happen together or not at all, in order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    writes: Vec<Write>,
}

impl Batch {
    /// Writes a row.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push(Write { table, key: key.into(), value: Some(value.into()) });
    }

    /// Deletes a row, if it is there.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.writes.push(Write { table, key: key.into(), value: None });
    }

    /// How many writes it has.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The last write to a row, if there is one: its value, or that it was deleted.
    pub(crate) fn last_write(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        let write = self.writes.iter().rev().find(|write| write.table == table && write.key == key)?;
        Some(write.value.as_deref())
    }

    /// The writes, in order.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.writes.iter().map(|write| (write.table, &write.key[..], write.value.as_deref()))
    }

    /// Forgets all writes after the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.writes.truncate(len);
    }
}

/// Why an engine cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No space, no permission, a failing disk: the words of the engine.
    #[error("{engine}: {action} failed: {reason}")]
    Storage {
        /// Which engine.
        engine: &'static str,
        /// What it was doing.
        action: &'static str,
        /// What it said.
        reason: String,
        /// Whether the disk is full, as far as it can be told.
        full: bool,
    },
    /// A row is not as it was written.
    #[error("the store is damaged: row {row} is not as it was written (its checksum does not fit)")]
    Damaged {
        /// Table and key.
        row: String,
    },
    /// Another process has it.
    #[error("the store {path} is in use by another process: is dnsbroker already running?")]
    InUse {
        /// Where.
        path: String,
    },
}

impl EngineError {
    fn damaged(table: Table, key: &[u8]) -> Self {
        let key: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
        Self::Damaged { row: format!("{}/{key}", table.name()) }
    }

    /// Whether the disk is full, as far as it can be told.
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Storage { full: true, .. })
    }
}

/// Visits rows in key order until it breaks.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered key-value store.
pub trait Engine: Send + Sync {
    /// The name in the configuration.
    fn kind(&self) -> EngineKind;

    /// One row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// Rows from a key on, in order, of one state.
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError>;

    /// Rows from a key down, in reverse order, of one state.
    fn scan_back(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError>;

    /// Writes a batch: durable and whole when this returns `Ok`; after `Err` it may have happened or not.
    fn commit(&self, batch: Batch) -> Result<(), EngineError>;
}

/// The engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// The embedded default.
    Redb,
    /// The one named for trials; loses acknowledged writes at a power cut.
    Sled,
}

/// Why a text names no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineKindError {
    /// It comes later.
    #[error("the PostgreSQL store is not built yet: choose \"redb\" (the default)")]
    Postgres,
    /// There is none of that name.
    #[error("there is no store engine {0:?}: choose \"redb\" (the default) or \"sled\"")]
    Unknown(String),
}

impl FromStr for EngineKind {
    type Err = EngineKindError;

    fn from_str(text: &str) -> Result<Self, EngineKindError> {
        match text {
            "redb" => Ok(Self::Redb),
            "sled" => Ok(Self::Sled),
            _ if text.starts_with("postgres") => Err(EngineKindError::Postgres),
            _ => Err(EngineKindError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redb => "redb",
            Self::Sled => "sled",
        })
    }
}

impl EngineKind {
    /// What an administrator should know before choosing it.
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::Redb => None,
            Self::Sled => Some(
                "the sled store can lose acknowledged changes at a power cut and may not open afterwards; \
                 it is for trials only: choose \"redb\"",
            ),
        }
    }

    /// Opens or creates the store in a directory.
    pub fn open(self, dir: &Path) -> Result<Arc<dyn Engine>, EngineError> {
        Ok(Arc::new(Checked::new(self.open_bare(dir)?)))
    }

    /// The same without checksums: rows as the engine has them.
    pub fn open_bare(self, dir: &Path) -> Result<Arc<dyn Engine>, EngineError> {
        Ok(match self {
            Self::Redb => Arc::new(redb::Redb::open(&dir.join("store.redb"))?),
            Self::Sled => Arc::new(sled::Sled::open(&dir.join("store.sled"))?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(engine: &dyn Engine, table: Table, from: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        engine
            .scan(table, from, &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .expect("scans");
        rows
    }

    #[test]
    fn every_engine_keeps_rows_in_order_and_batches_whole() {
        for kind in [EngineKind::Redb, EngineKind::Sled] {
            let dir = tempfile::tempdir().expect("temporary directory");
            let engine = kind.open(dir.path()).expect("opens");
            let mut batch = Batch::default();
            for key in [3_u8, 1, 2] {
                batch.put(Table::Audit, [key], [key, key]);
                batch.put(Table::Journal, [key], [9]);
            }
            batch.put(Table::Audit, [2], [22]);
            batch.delete(Table::Journal, [1]);
            batch.delete(Table::Journal, [77]);
            engine.commit(batch).expect("commits");
            let audit = [(vec![1], vec![1, 1]), (vec![2], vec![22]), (vec![3], vec![3, 3])];
            assert_eq!(rows(&*engine, Table::Audit, &[]), audit, "{kind}");
            assert_eq!(rows(&*engine, Table::Audit, &[2]), audit[1..]);
            assert_eq!(rows(&*engine, Table::Journal, &[]).len(), 2);
            assert_eq!(rows(&*engine, Table::Blocks, &[]), []);
            assert_eq!(engine.get(Table::Audit, &[2]).expect("reads"), Some(vec![22]));
            assert_eq!(engine.get(Table::Audit, &[4]).expect("reads"), None);
            let mut last = None;
            let mut visit = |key: &[u8], _: &[u8]| {
                last = Some(key.to_vec());
                ControlFlow::Break(())
            };
            engine.scan_back(Table::Audit, &[0xff; 8], &mut visit).expect("scans");
            assert_eq!(last, Some(vec![3]));
            drop(engine);
            let engine = kind.open(dir.path()).expect("opens again");
            assert_eq!(rows(&*engine, Table::Audit, &[]), audit, "{kind}");
        }
    }

    #[test]
    fn a_store_in_use_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let _held = EngineKind::Redb.open(dir.path()).expect("opens");
        assert!(matches!(EngineKind::Redb.open(dir.path()), Err(EngineError::InUse { .. })));
    }

    #[test]
    fn engines_are_chosen_and_refused_by_name() {
        assert_eq!("redb".parse(), Ok(EngineKind::Redb));
        assert_eq!("sled".parse(), Ok(EngineKind::Sled));
        assert_eq!("postgres://db/broker".parse::<EngineKind>(), Err(EngineKindError::Postgres));
        assert!(matches!("lmdb".parse::<EngineKind>(), Err(EngineKindError::Unknown(_))));
    }
}
