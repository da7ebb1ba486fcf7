//! What the listeners share: the published state, and what is counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use dnsbroker_federation::{MemberId, Serial};
use dnsbroker_store::View;
use dnsbroker_zone::answer::Outcome;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::events::{Audience, Events};
use crate::metrics::Metrics;
use crate::standby::outbox::Outbox;
use crate::standby::{Role, Standing};
use crate::statistics::Transfers;

/// The published state, and what is counted.
pub struct Shared {
    /// The state that queries are answered from. Readers take no lock.
    pub view: ArcSwap<View>,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether this broker takes changes, and answers.
    pub standing: Standing,
    /// What standbys still have to get.
    pub outbox: Outbox,
    /// Zone transfers that have ended.
    pub transfers: Transfers,
    /// What happens is told here.
    pub events: Events,
    /// Tells live connections that admission may have changed.
    generation: watch::Sender<u64>,
    /// Tells of new serials of the private zones.
    serial: watch::Sender<Serial>,
    /// Why changes are not taken.
    trouble: Mutex<Option<String>>,
    /// Why they never will be, until a restart.
    broken: OnceLock<&'static str>,
    members: Mutex<HashMap<MemberId, Arc<Tally>>>,
}

/// What one member has and does.
#[derive(Default)]
pub struct Tally {
    /// Open connections.
    pub connections: AtomicUsize,
    /// Queries answered, by outcome.
    answers: [AtomicU64; Outcome::ALL.len()],
    /// The minute that is counted, since 1970.
    minute: AtomicU64,
    /// Names asked for in that minute that are not there.
    unknown: AtomicU32,
    /// The same since the start.
    pub unknown_total: AtomicU64,
    /// Queries refused because there were too many of those.
    pub limited: AtomicU64,
    /// The last minute in which that was logged.
    told: AtomicU64,
}

impl Tally {
    /// Counts an answer.
    pub fn answered(&self, outcome: Outcome) {
        self.answers[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Queries answered, by outcome.
    pub fn answers(&self) -> [u64; Outcome::ALL.len()] {
        std::array::from_fn(|outcome| self.answers[outcome].load(Ordering::Relaxed))
    }

    /// Counts a name that is not there.
    pub fn count_unknown(&self, now: i64) {
        let minute = (now / 60) as u64;
        if self.minute.swap(minute, Ordering::Relaxed) != minute {
            self.unknown.store(0, Ordering::Relaxed);
        }
        self.unknown.fetch_add(1, Ordering::Relaxed);
        self.unknown_total.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a query that was refused for that; true once a minute, for the log.
    pub fn count_limited(&self, now: i64) -> bool {
        self.limited.fetch_add(1, Ordering::Relaxed);
        let minute = (now / 60) as u64;
        self.told.swap(minute, Ordering::Relaxed) != minute
    }

    /// Seconds until it may ask again, if it asked for too many names that are not there.
    pub fn must_wait(&self, limit: u32, now: i64) -> Option<i64> {
        let spent = limit != 0
            && self.unknown.load(Ordering::Relaxed) >= limit
            && self.minute.load(Ordering::Relaxed) == (now / 60) as u64;
        spent.then(|| 60 - now % 60)
    }
}

impl Shared {
    /// With a first state.
    pub fn new(view: Arc<View>, role: Role) -> Arc<Self> {
        Arc::new(Self {
            standing: Standing::new(role),
            outbox: Outbox::new(view.audit.clone()),
            generation: watch::Sender::new(view.generation),
            serial: watch::Sender::new(view.zones.serial()),
            events: Events::new(view.audit.number, view.zones.serial()),
            view: ArcSwap::new(view),
            metrics: Metrics::default(),
            transfers: Transfers::default(),
            trouble: Mutex::new(None),
            broken: OnceLock::new(),
            members: Mutex::default(),
        })
    }

    /// Makes a state visible.
    pub fn publish(&self, view: Arc<View>) {
        let (generation, serial) = (view.generation, view.zones.serial());
        self.view.store(view);
        self.serial.send_if_modified(|last| std::mem::replace(last, serial) != serial);
        self.generation.send_if_modified(|last| std::mem::replace(last, generation) != generation);
    }

    /// Wakes when a certificate or member that was admitted may no longer be.
    pub fn admissions(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Wakes when the private zones have a new serial.
    pub fn serials(&self) -> watch::Receiver<Serial> {
        self.serial.subscribe()
    }

    /// A commit failed.
    pub fn store_failed(&self, reason: &str) {
        self.metrics.store_failed();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_none() {
            tracing::error!(reason, "the store takes no changes; look-ups go on from memory");
            self.events.notice("store.trouble", "store", Audience::Administrators, json!({ "reason": reason }));
        }
        *trouble = Some(reason.to_owned());
    }

    /// A commit went well.
    pub fn store_committed(&self, acts: usize, took: Duration) {
        self.metrics.store_committed(acts, took);
        if self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("the store takes changes again");
            self.events.notice("store.recovered", "store", Audience::Administrators, Value::Null);
        }
    }

    /// The writer is gone for good.
    pub fn writer_failed(&self, reason: &'static str) {
        tracing::error!("{reason}; look-ups go on from memory");
        let _ = self.broken.set(reason);
    }

    /// What only a restart cures.
    pub fn broken(&self) -> Option<&'static str> {
        self.broken.get().copied()
    }

    /// Why changes are not taken, if they aren't.
    pub fn trouble(&self) -> Option<String> {
        if let Some(broken) = self.broken() {
            return Some(broken.to_owned());
        }
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.or_else(|| self.standing.trouble(crate::committer::now()))
    }

    /// What is counted of a member.
    pub fn tally(&self, member: &MemberId) -> Arc<Tally> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(members.entry(member.clone()).or_default())
    }

    /// What is counted of each member, in order.
    pub fn tallies(&self) -> Vec<(MemberId, Arc<Tally>)> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tallies: Vec<_> = members.iter().map(|(id, tally)| (id.clone(), Arc::clone(tally))).collect();
        tallies.sort_by(|a, b| a.0.cmp(&b.0));
        tallies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_asks_for_too_many_unknown_names_waits_for_the_next_minute() {
        let tally = Tally::default();
        let now = 1_000_000_020;
        assert_eq!(tally.must_wait(2, now), None);
        tally.count_unknown(now);
        tally.count_unknown(now);
        assert_eq!(tally.must_wait(2, now), Some(60 - now % 60));
        assert!(tally.count_limited(now) && !tally.count_limited(now), "one line a minute");
        assert!(tally.count_limited(now + 60));
        assert_eq!((tally.unknown_total.load(Ordering::Relaxed), tally.limited.load(Ordering::Relaxed)), (2, 3));
        assert_eq!(tally.must_wait(0, now), None, "0 is no bound");
        assert_eq!(tally.must_wait(2, now + 60), None);
        tally.count_unknown(now + 60);
        assert_eq!(tally.must_wait(2, now + 60), None, "the last minute is forgotten");
    }
}
