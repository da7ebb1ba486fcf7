//! Deltas by sequence number: what a restart replays, and the history that IXFR is answered from.
//!
//! Serials wrap; sequence numbers do not, so they are the keys.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use dnsbroker_federation::Serial;
use dnsbroker_zone::delta::{Delta, DeltaError};

use crate::engine::{Batch, Engine, EngineError, Table};
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

    /// Takes what a transaction has added.
    pub fn extend(&mut self, draft: Draft, batch: &mut Batch) {
        self.last = draft.last;
        for step in draft.steps {
            match step {
                Step::Kept(number, octets) => {
                    self.entries.push_back((number, octets));
                    self.octets += octets;
                }
                // The chain is broken here: older history leads nowhere.
                Step::Broken(_) => self.forget(batch),
            }
        }
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

    fn forget(&mut self, batch: &mut Batch) {
        for (number, _) in self.entries.drain(..) {
            batch.delete(Table::Journal, number.to_be_bytes());
        }
        self.octets = 0;
    }

    /// What of it readers may ask for.
    pub fn history(&self) -> History {
        History { first: self.entries.front().map_or(self.last + 1, |(number, _)| *number), last: self.last }
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

/// What a transaction adds to the journal. It is small, so that taking back a refused act costs nothing.
pub(crate) struct Draft {
    last: u64,
    steps: Vec<Step>,
    /// Whether a standby is to be told of what the journal has not.
    ship: bool,
}

pub(crate) enum Step {
    /// A delta, by number and size.
    Kept(u64, usize),
    /// A serial without a delta: what came before is no history any more.
    Broken(Leap),
}

/// What leads to a serial without a delta in the journal.
pub(crate) enum Leap {
    /// The zones are the same under this serial.
    To(Serial),
    /// A delta that is too large for the journal; empty where nobody is to be told.
    Delta(Vec<u8>),
}

impl Draft {
    /// On top of a journal.
    pub fn new(journal: &Journal, ship: bool) -> Self {
        Self { last: journal.last, steps: Vec::new(), ship }
    }

    /// What was added, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// Takes a delta of so many octets that is in the batch already, under the next number.
    pub fn keep(&mut self, octets: usize) {
        self.last += 1;
        self.steps.push(Step::Kept(self.last, octets));
    }

    /// Writes the next delta. Returns whether it is kept; one that is too large must go into the blocks.
    pub fn append(&mut self, delta: &Delta, batch: &mut Batch) -> Result<bool, serde_json::Error> {
        if delta.device_octets() > MAX_ENTRY_OCTETS {
            let told = if self.ship { delta.encode()? } else { vec![] };
            self.break_off(Leap::Delta(told));
            return Ok(false);
        }
        let row = delta.encode()?;
        self.last += 1;
        self.steps.push(Step::Kept(self.last, row.len()));
        batch.put(Table::Journal, self.last.to_be_bytes(), row);
        Ok(true)
    }

    /// The next serial has no delta.
    pub fn break_off(&mut self, leap: Leap) {
        self.last += 1;
        self.steps.push(Step::Broken(leap));
    }

    /// Where it is, to come back to.
    pub fn mark(&self) -> (u64, usize) {
        (self.last, self.steps.len())
    }

    /// Goes back to a mark.
    pub fn reset(&mut self, (last, steps): (u64, usize)) {
        self.last = last;
        self.steps.truncate(steps);
    }
}

/// The numbers of the deltas that lead to a state of the zones, one a serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    first: u64,
    last: u64,
}

/// Why there is no difference from a serial: a secondary gets the whole zone.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Too old, broken off, or never ours.
    #[error("there is no history since that serial")]
    NotKept,
    /// More than the bound that was given.
    #[error("the history since that serial is longer than the zone is worth")]
    TooLong,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An entry does not read.
    #[error(transparent)]
    Delta(#[from] DeltaError),
}

impl History {
    /// How many deltas lead from a serial to `current`, which is the serial it leads to, if all of them are kept.
    pub fn steps(&self, since: Serial, current: Serial) -> Option<u64> {
        let steps = since.steps_to(current)?;
        (steps <= self.last + 1 - self.first).then_some(steps)
    }

    /// Hands the deltas from a serial to `current`, at most `limit` changes, to `push`. Entries may be trimmed while this reads, so each must
    /// follow the one before.
    pub fn read(
        &self,
        engine: &dyn Engine,
        since: Serial,
        current: Serial,
        limit: usize,
        mut push: impl FnMut(&Delta),
    ) -> Result<(), HistoryError> {
        let steps = self.steps(since, current).ok_or(HistoryError::NotKept)?;
        if steps == 0 {
            return Ok(());
        }
        let (mut at, mut changes, mut failure) = (since, 0, None);
        engine.scan(Table::Journal, &(self.last - steps + 1).to_be_bytes(), &mut |_, row| {
            match Delta::decode(row) {
                Ok(delta) if delta.before != at => failure = Some(HistoryError::NotKept),
                Ok(delta) => {
                    changes += delta.devices.len() + delta.networks.len();
                    at = delta.after;
                    if changes > limit {
                        failure = Some(HistoryError::TooLong);
                    } else {
                        push(&delta);
                    }
                }
                Err(error) => failure = Some(error.into()),
            }
            if failure.is_some() || at == current { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match failure {
            Some(error) => Err(error),
            None if at == current => Ok(()),
            None => Err(HistoryError::NotKept),
        }
    }
}
