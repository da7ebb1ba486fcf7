//! sled 0.34, to choose for trials: a log-structured tree in a directory.
//!
//! Its `flush()` returns before the file is synced, so the durability that [`Engine::commit`] promises is not kept at a
//! power cut. `serve` warns; the README has the figures.

use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Batch, Engine, EngineError, EngineKind, Table, Visit};

/// How long a lock is waited for, and how often it is tried.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Sled {
    database: sled::Db,
}

fn failed(action: &'static str) -> impl Fn(sled::Error) -> EngineError {
    move |error| {
        let full = matches!(&error, sled::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull);
        EngineError::Storage { engine: "sled", action, reason: error.to_string(), full }
    }
}

/// One tree, so that a batch over all tables is atomic: the key begins with the table's number.
fn prefixed(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8], key].concat()
}

impl Sled {
    /// Opens the directory. sled's threads let go of its lock a while after it was dropped, so a lock is waited for.
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match Self::open_once(path) {
                Err(EngineError::InUse { .. }) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                opened => return opened,
            }
        }
    }

    fn open_once(path: &Path) -> Result<Self, EngineError> {
        // What a power cut left behind can make sled panic.
        let opened = std::panic::catch_unwind(|| sled::Config::new().path(path).open());
        let opened = opened.map_err(|_| EngineError::Storage {
            engine: "sled",
            action: "opening",
            reason: "it gave up over what it found in the files, which are damaged".to_owned(),
            full: false,
        })?;
        let database = opened.map_err(|error| match error {
            sled::Error::Io(io) if io.to_string().contains("lock") => {
                EngineError::InUse { path: path.display().to_string() }
            }
            error => failed("opening")(error),
        })?;
        Ok(Self { database })
    }

    fn scan_rows(
        rows: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        for row in rows {
            let (key, value) = row.map_err(failed("reading"))?;
            if visit(&key[1..], &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Engine for Sled {
    fn kind(&self) -> EngineKind {
        EngineKind::Sled
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let value = self.database.get(prefixed(table, key)).map_err(failed("reading"))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        Self::scan_rows(self.database.range(prefixed(table, from)..vec![table as u8 + 1]), visit)
    }

    fn scan_back(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        let range = (Bound::Included(vec![table as u8]), Bound::Included(prefixed(table, from)));
        Self::scan_rows(self.database.range::<Vec<u8>, _>(range).rev(), visit)
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let mut writes = sled::Batch::default();
        for write in &batch.writes {
            let key = prefixed(write.table, &write.key);
            match &write.value {
                Some(value) => writes.insert(key, &value[..]),
                None => writes.remove(key),
            }
        }
        self.database.apply_batch(writes).map_err(failed("writing"))?;
        self.database.flush().map_err(failed("syncing")).map(drop)
    }
}
