//! The default engine: redb, a copy-on-write B-tree in one file, synced at each commit.
//!
//! redb refuses all work after an I/O error until the file is opened again. That is right, since what is in memory may
//! not be what is on disk; so after an error this engine drops the database and opens it anew at the next call.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use redb::{Database, ReadableDatabase, StorageError, TableDefinition, TableError};

use super::{Batch, Engine, EngineError, EngineKind, Table, Visit};

/// redb's own cache. Devices are held in memory by the table, so little is needed beyond one commit's pages.
const CACHE_OCTETS: usize = 16 * 1024 * 1024;

pub(super) struct Redb {
    path: PathBuf,
    /// `None` after an I/O error.
    database: RwLock<Option<Database>>,
}

type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn rows(table: Table) -> Rows {
    TableDefinition::new(table.name())
}

fn failed<E: Into<redb::Error>>(action: &'static str) -> impl Fn(E) -> EngineError {
    move |error| {
        let error = error.into();
        let full = matches!(&error, redb::Error::Io(io) if is_full(io));
        EngineError::Storage { engine: "redb", action, reason: error.to_string(), full }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

impl Redb {
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        let database = Self::open_database(path)?;
        Ok(Self { path: path.to_owned(), database: RwLock::new(Some(database)) })
    }

    fn open_database(path: &Path) -> Result<Database, EngineError> {
        let opened = Database::builder().set_cache_size(CACHE_OCTETS).create(path);
        opened.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => EngineError::InUse { path: path.display().to_string() },
            error => failed("opening")(error),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, EngineError>) -> Result<T, EngineError> {
        {
            let held = self.database.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(database) = held.as_ref() {
                return work(database);
            }
        }
        let mut held = self.database.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let database = match held.take() {
            Some(database) => database,
            None => Self::open_database(&self.path)?,
        };
        work(held.insert(database))
    }

    fn scan_range<'a>(
        &self,
        table: Table,
        range: (std::ops::Bound<&'a [u8]>, std::ops::Bound<&'a [u8]>),
        backwards: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(failed("reading"))?;
            let table = match transaction.open_table(rows(table)) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(()),
                opened => opened.map_err(failed("reading"))?,
            };
            let mut range = table.range::<&[u8]>(range).map_err(failed::<StorageError>("reading"))?;
            while let Some(row) = if backwards { range.next_back() } else { range.next() } {
                let (key, value) = row.map_err(failed("reading"))?;
                if visit(key.value(), value.value()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

impl Engine for Redb {
    fn kind(&self) -> EngineKind {
        EngineKind::Redb
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let mut found = None;
        self.scan(table, key, &mut |row, value| {
            if row == key {
                found = Some(value.to_vec());
            }
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.scan_range(table, (std::ops::Bound::Included(from), std::ops::Bound::Unbounded), false, visit)
    }

    fn scan_back(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.scan_range(table, (std::ops::Bound::Unbounded, std::ops::Bound::Included(from)), true, visit)
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let result = self.with(|database| {
            let transaction = database.begin_write().map_err(failed("beginning a commit"))?;
            for table in Table::ALL {
                let mut writes = batch.writes.iter().filter(|write| write.table == table).peekable();
                if writes.peek().is_none() {
                    continue;
                }
                let mut open = transaction.open_table(rows(table)).map_err(failed("writing"))?;
                for write in writes {
                    match &write.value {
                        Some(value) => open.insert(&write.key[..], &value[..]).map(drop),
                        None => open.remove(&write.key[..]).map(drop),
                    }
                    .map_err(failed::<StorageError>("writing"))?;
                }
            }
            transaction.commit().map_err(failed("committing"))
        });
        if result.is_err() {
            *self.database.write().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        }
        result
    }
}
