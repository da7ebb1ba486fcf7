//! A checksum on every row, so that a disk that gives back other octets than it was given is noticed and not believed.
//!
//! CRC-32 over key and value, 4 octets behind the value. It is against accidents; against people there is the audit.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Batch, Engine, EngineError, EngineKind, Table, Visit};

const CHECKSUM: usize = 4;

/// An engine whose rows carry checksums.
pub struct Checked(Arc<dyn Engine>);

impl Checked {
    /// Around an engine that stores octets as they are.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self(engine)
    }
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_be_bytes()
}

fn verified<'a>(table: Table, key: &[u8], row: &'a [u8]) -> Result<&'a [u8], EngineError> {
    match row.split_last_chunk() {
        Some((value, sum)) if *sum == checksum(key, value) => Ok(value),
        _ => Err(EngineError::damaged(table, key)),
    }
}

fn verifying(
    table: Table,
    visit: &mut Visit<'_>,
    scan: impl FnOnce(&mut Visit<'_>) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let mut damaged = Ok(());
    scan(&mut |key, row| match verified(table, key, row) {
        Ok(value) => visit(key, value),
        Err(error) => {
            damaged = Err(error);
            ControlFlow::Break(())
        }
    })?;
    damaged
}

impl Engine for Checked {
    fn kind(&self) -> EngineKind {
        self.0.kind()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(mut row) = self.0.get(table, key)? else { return Ok(None) };
        let length = verified(table, key, &row)?.len();
        row.truncate(length);
        Ok(Some(row))
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        verifying(table, visit, |visit| self.0.scan(table, from, visit))
    }

    fn scan_back(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        verifying(table, visit, |visit| self.0.scan_back(table, from, visit))
    }

    fn commit(&self, mut batch: Batch) -> Result<(), EngineError> {
        for write in &mut batch.writes {
            if let Some(value) = &mut write.value {
                value.extend_from_slice(&checksum(&write.key, value));
            }
        }
        self.0.commit(batch)
    }
}
