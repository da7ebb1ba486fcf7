//! Deltas by sequence number: what a restart replays, and the history that IXFR is answered from.
//!
//! Serials wrap; sequence numbers do not, so they are the keys.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use dnsbroker_zone::delta::Delta;

use crate::engine::{Batch, Engine, Table};
use crate::store::OpenError;

/// The journal keeps at most this many octets of history...
pub(crate) const MAX_OCTETS: usize = 64 * 1024 * 1024;
/// ...and this many entries.
pub(crate) const MAX_ENTRIES: usize = 100_000;
/// A delta of more octets than this is not kept: it goes straight into the blocks, and secondaries get AXFR.
pub(crate) const MAX_ENTRY_OCTETS: usize = 8 * 1024 * 1024;

/// What the journal holds, by sequence number and size.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal {
    /// The number of the last delta, kept or not.
    pub last: u64,
    entries: VecDeque<(u64, usize)>,
    octets: usize,
}

impl Journal {
    /// Reads the index, and hands the deltas after `checkpoint` to `replay`.
    pub fn open(
        engine: &dyn Engine,
        last: u64,
        checkpoint: u64,
        mut replay: impl FnMut(Delta) -> Result<(), OpenError>,
    ) -> Result<Self, OpenError> {
        let mut journal = Self { last, ..Self::default() };
        let mut failure = None;
        engine.scan(Table::Journal, &[], &mut |key, value| {
            let Some(number) = key.try_into().ok().map(u64::from_be_bytes) else { return ControlFlow::Continue(()) };
            journal.entries.push_back((number, value.len()));
            journal.octets += value.len();
            if number > checkpoint {
                let replayed = Delta::decode(value).map_err(OpenError::from).and_then(&mut replay);
                if let Err(error) = replayed {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        match failure {
            Some(error) => Err(error),
            None => Ok(journal),
        }
    }

    /// Writes the next delta. Returns whether it is kept; one that is too large must go into the blocks.
    pub fn append(&mut self, delta: &Delta, batch: &mut Batch) -> Result<bool, serde_json::Error> {
        self.last += 1;
        if delta.device_octets() > MAX_ENTRY_OCTETS {
            // The chain is broken here: older history leads nowhere.
            self.trim(batch, 0);
            return Ok(false);
        }
        let row = delta.encode()?;
        self.entries.push_back((self.last, row.len()));
        self.octets += row.len();
        batch.put(Table::Journal, self.last.to_be_bytes(), row);
        Ok(true)
    }

    /// Deletes the oldest entries until the journal is within its bounds. Entries after `checkpoint` stay: a restart
    /// needs them.
    pub fn bound(&mut self, batch: &mut Batch, checkpoint: u64) {
        while let Some(&(number, octets)) = self.entries.front()
            && number <= checkpoint
            && (self.octets > MAX_OCTETS || self.entries.len() > MAX_ENTRIES)
        {
            batch.delete(Table::Journal, number.to_be_bytes());
            self.octets -= octets;
            self.entries.pop_front();
        }
    }

    fn trim(&mut self, batch: &mut Batch, keep: usize) {
        while self.entries.len() > keep {
            if let Some((number, octets)) = self.entries.pop_front() {
                batch.delete(Table::Journal, number.to_be_bytes());
                self.octets -= octets;
            }
        }
    }

    /// Octets of history.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Entries of history.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
