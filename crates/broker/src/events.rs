//! What happens is told once, here, to whoever listens: streams of the API and webhooks.
//!
//! ```text
//! commit ──▶ audit rows ──┐
//! sources, expiry, store ─┴─▶ Events ──▶ Listener: (audit rows and notices since an id), then what comes
//! ```
//!
//! An act is in the audit, so it need not be kept here: who was away reads what it missed from there. What is no act (a source
//! that fails, a certificate that ends) is a notice; the last [`NOTICES`] are kept. Ids are in one order, see
//! [`EventId`]: a listener that gives the last one it has seen misses nothing and sees nothing twice.
//!
//! Listeners share one ring of [`RING`] events. Who is so slow that what it has not read is overwritten is told so and
//! has to come again; it costs nobody else anything.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use dnsbroker_api::Timestamp;
use dnsbroker_api::event::{Event, EventId};
use dnsbroker_federation::{MemberId, Serial};
use dnsbroker_store::audit::{self, Row};
use dnsbroker_store::engine::{Engine, EngineError};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};

use crate::committer::now;

/// Events that a listener may be behind.
const RING: usize = 4_096;
/// Notices that are kept for those who come back.
const NOTICES: usize = 1_000;
/// Audit rows that are read at once for those who come back.
const ROWS: usize = 500;

/// Whom an event is for, beside the administrators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Nobody.
    Administrators,
    /// These members.
    Members(BTreeSet<MemberId>),
    /// All members.
    Everybody,
}

impl Audience {
    /// One member.
    pub fn member(member: &MemberId) -> Self {
        Self::Members([member.clone()].into())
    }

    /// The member whose it is, if it is one's.
    pub fn of(member: Option<&MemberId>) -> Self {
        member.map_or(Self::Administrators, Self::member)
    }

    fn has(&self, member: &MemberId) -> bool {
        match self {
            Self::Administrators => false,
            Self::Members(members) => members.contains(member),
            Self::Everybody => true,
        }
    }
}

/// Something that happened, and whom it is for.
#[derive(Debug)]
pub struct Told {
    /// Its place among all.
    pub id: EventId,
    audience: Audience,
    event: Event,
}

impl Told {
    fn of_act(row: Row) -> Self {
        let id = EventId::of_act(row.number);
        let event = Event {
            id: id.to_string(),
            kind: row.act,
            at: Timestamp(row.at),
            actor: Some(row.actor),
            object: row.object,
            members: row.concerns.clone(),
            detail: row.detail,
            serial: row.serial,
        };
        Self { id, audience: Audience::Members(row.concerns.into_iter().collect()), event }
    }

    /// What it is called.
    pub fn kind(&self) -> &str {
        &self.event.kind
    }

    /// As an administrator sees it (none), or a member; nothing where it is not the member's business.
    pub fn as_seen_by(&self, member: Option<&MemberId>) -> Option<Event> {
        let Some(member) = member else { return Some(self.event.clone()) };
        if !self.audience.has(member) {
            return None;
        }
        let mut event = self.event.clone();
        event.members.retain(|concerned| concerned == member);
        // Who else did it is not for it to know: a claim's holder, for one.
        let own = format!("member:{member}");
        event.actor = event.actor.filter(|actor| *actor == own || actor.ends_with(&format!(" of {own}")));
        Some(event)
    }
}

/// Where what happens is told.
pub struct Events {
    ring: Sender<Arc<Told>>,
    last: Mutex<Last>,
}

struct Last {
    /// The last act and serial that were told.
    act: u64,
    serial: Serial,
    /// The last number of a notice: microseconds since 1970, or one more, so that ids grow over a restart too.
    beside: u64,
    notices: VecDeque<Arc<Told>>,
}

impl Events {
    /// After an act and a serial.
    pub fn new(act: u64, serial: Serial) -> Self {
        let last = Last { act, serial, beside: 0, notices: VecDeque::new() };
        Self { ring: Sender::new(RING), last: Mutex::new(last) }
    }

    /// Tells of acts that are durable and visible, in order, and of the serial they led to.
    pub fn acts(&self, rows: Vec<Row>, serial: Serial) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            last.act = row.number;
            // Nobody listening is no fault.
            let _ = self.ring.send(Arc::new(Told::of_act(row)));
        }
        if last.serial != serial {
            last.serial = serial;
            self.notice_in(&mut last, "zone.serial", &serial.to_string(), Audience::Everybody, Value::Null);
        }
    }

    /// The state is another one altogether, as of an act: a copy was taken.
    pub fn jump(&self, act: u64, serial: Serial) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (last.act, last.serial) = (act, serial);
    }

    /// Tells of something that is no act.
    pub fn notice(&self, kind: &str, object: &str, audience: Audience, detail: Value) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.notice_in(&mut last, kind, object, audience, detail);
    }

    fn notice_in(&self, last: &mut Last, kind: &str, object: &str, audience: Audience, detail: Value) {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        last.beside = clock.map_or(0, |elapsed| elapsed.as_micros() as u64).max(last.beside + 1);
        let id = EventId { act: last.act, beside: last.beside };
        let members = match &audience {
            Audience::Members(members) => members.iter().cloned().collect(),
            Audience::Administrators | Audience::Everybody => vec![],
        };
        let event = Event {
            id: id.to_string(),
            kind: kind.to_owned(),
            at: Timestamp(now()),
            actor: None,
            object: object.to_owned(),
            members,
            detail,
            serial: last.serial,
        };
        let told = Arc::new(Told { id, audience, event });
        if last.notices.len() == NOTICES {
            last.notices.pop_front();
        }
        last.notices.push_back(Arc::clone(&told));
        let _ = self.ring.send(told);
    }

    /// Listens: to what comes, or first to what there was behind an event.
    pub fn listen(&self, after: Option<EventId>) -> Listener {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: nothing falls between what was and what comes.
        let ring = self.ring.subscribe();
        let newest = last.notices.back().map_or(0, |notice| notice.id.beside);
        let seen = after.unwrap_or(EventId { act: last.act, beside: newest });
        let notices = last.notices.iter().filter(|notice| notice.id > seen).cloned().collect();
        Listener { ring, seen, until: last.act, notices, missed: VecDeque::new() }
    }
}

/// Why there is nothing more to hear.
#[derive(Debug, thiserror::Error)]
pub enum Deaf {
    /// It was too slow.
    #[error("{0} events came faster than they were read")]
    Slow(u64),
    /// The daemon is stopping.
    #[error("the broker is stopping")]
    Stopping,
    /// What it missed cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// One who listens.
pub struct Listener {
    ring: Receiver<Arc<Told>>,
    /// The last event that was given.
    seen: EventId,
    /// Acts up to this one are read from the audit.
    until: u64,
    /// Notices that are to be given before what comes.
    notices: VecDeque<Arc<Told>>,
    /// Acts that were read from the audit.
    missed: VecDeque<Arc<Told>>,
}

impl Listener {
    /// The next event. Dropped before it is ready, it has lost nothing.
    pub async fn next(&mut self, engine: &Arc<dyn Engine>) -> Result<Arc<Told>, Deaf> {
        loop {
            if let Some(told) = self.earlier(engine).await? {
                self.seen = told.id;
                return Ok(told);
            }
            match self.ring.recv().await {
                Ok(told) if told.id <= self.seen => {}
                Ok(told) => {
                    self.seen = told.id;
                    return Ok(told);
                }
                Err(RecvError::Lagged(count)) => return Err(Deaf::Slow(count)),
                Err(RecvError::Closed) => return Err(Deaf::Stopping),
            }
        }
    }

    /// The id of the last event that was given.
    pub fn seen(&self) -> EventId {
        self.seen
    }

    /// From before the ring: acts and notices, whichever is first.
    async fn earlier(&mut self, engine: &Arc<dyn Engine>) -> Result<Option<Arc<Told>>, EngineError> {
        if self.missed.is_empty() && self.seen.act < self.until {
            let (engine, from) = (Arc::clone(engine), self.seen.act + 1);
            let read = move || audit::list(&*engine, from, ROWS, &|_| true);
            let rows = tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Ok(vec![]))?;
            if rows.is_empty() {
                // The audit ends before it: nothing was missed.
                self.until = self.seen.act;
            }
            self.missed = rows.into_iter().map(|row| Arc::new(Told::of_act(row))).collect();
        }
        Ok(match (self.missed.front(), self.notices.front()) {
            (Some(act), Some(notice)) if notice.id < act.id => self.notices.pop_front(),
            (Some(_), _) => self.missed.pop_front(),
            (None, _) => self.notices.pop_front(),
        })
    }
}

#[cfg(test)]
mod tests {
    use dnsbroker_store::engine::{Batch, EngineKind, Table};

    use super::*;

    fn row(number: u64, concerns: &[&str]) -> Row {
        Row {
            number,
            at: 7,
            actor: "member:alpine".to_owned(),
            act: "devices.import".to_owned(),
            object: "600013".to_owned(),
            detail: Value::Null,
            serial: Serial::FIRST,
            concerns: concerns.iter().map(|id| id.parse().expect("an id")).collect(),
            previous: String::new(),
        }
    }

    fn stored(engine: &dyn Engine, events: &Events, number: u64) {
        let mut batch = Batch::default();
        batch.put(Table::Audit, number.to_be_bytes(), serde_json::to_vec(&row(number, &[])).expect("JSON"));
        engine.commit(batch).expect("commits");
        events.acts(vec![row(number, &[])], Serial::FIRST);
    }

    #[tokio::test]
    async fn who_comes_back_misses_nothing_and_sees_nothing_twice() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = EngineKind::Redb.open(dir.path()).expect("opens");
        let events = Events::new(0, Serial::FIRST);
        let mut all = events.listen(None);
        let mut seen = Vec::new();
        for number in 1..=20 {
            stored(&*engine, &events, number);
            seen.push(all.next(&engine).await.expect("told").id);
            if number % 3 == 0 {
                events.notice("source.failed", "600013", Audience::Administrators, Value::Null);
                seen.push(all.next(&engine).await.expect("told").id);
            }
        }
        assert!(seen.is_sorted() && seen.len() == 26, "{seen:?}");
        for place in 0..26 {
            let mut again = events.listen(Some(seen[place]));
            stored(&*engine, &events, 21 + place as u64);
            seen.push(EventId::of_act(21 + place as u64));
            for expected in &seen[place + 1..] {
                assert_eq!(again.next(&engine).await.expect("told").id, *expected, "after {}", seen[place]);
            }
        }
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = EngineKind::Redb.open(dir.path()).expect("opens");
        let events = Events::new(0, Serial::FIRST);
        let mut slow = events.listen(None);
        events.acts((1..=RING as u64 + 5).map(|number| row(number, &[])).collect(), Serial::FIRST);
        assert!(matches!(slow.next(&engine).await, Err(Deaf::Slow(5))));
    }

    #[test]
    fn a_member_sees_its_own_and_not_who_else_did_it() {
        let [alpine, atlantic, alpine2] = ["alpine", "atlantic", "alp"].map(|id| id.parse::<MemberId>().expect("id"));
        let told = Told::of_act(row(1, &["alpine", "atlantic", "alp"]));
        let own = told.as_seen_by(Some(&alpine)).expect("its business");
        assert_eq!((own.members, own.actor.as_deref()), (vec![alpine.clone()], Some("member:alpine")));
        for member in [atlantic.clone(), alpine2] {
            let other = told.as_seen_by(Some(&member)).expect("its business");
            assert_eq!((other.members, other.actor), (vec![member], None));
        }
        let told = Told::of_act(row(2, &["alpine"]));
        assert!(told.as_seen_by(Some(&atlantic)).is_none());
        assert_eq!(told.as_seen_by(None).expect("an administrator").actor.as_deref(), Some("member:alpine"));
    }
}
