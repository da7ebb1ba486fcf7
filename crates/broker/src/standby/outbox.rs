//! The primary's ring of shipments: what standbys that are connected, or come back soon, still have to get.
//!
//! It is bounded in number and octets; what falls out at its end is had by a copy of the whole store. The writer puts each
//! commit in right after it is durable and never waits for anybody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dnsbroker_ca::ReplicaId;
use dnsbroker_store::Shipment;
use dnsbroker_store::audit::Head;
use tokio::sync::watch;

/// Octets of shipments that are kept.
const OCTETS: usize = 64 * 1024 * 1024;
/// Shipments that are kept.
const SHIPMENTS: usize = 50_000;

/// What standbys still have to get.
pub struct Outbox {
    ring: Mutex<Ring>,
    wake: watch::Sender<u64>,
    /// Standbys that are or were connected.
    followers: Mutex<BTreeMap<ReplicaId, Follower>>,
}

/// A standby that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// The number of its connection; one that came back has a higher one.
    line: u64,
    /// The last act it was sent; none while it gets a copy.
    pub sent: Option<u64>,
    /// The last act that it has, as it says itself.
    pub has: Option<u64>,
    /// Why it could not take the primary's place as it should, as it says.
    pub unready: Option<String>,
    /// When it last said that.
    heard: Instant,
    /// Whether the connection stands.
    connected: bool,
}

struct Ring {
    /// The number of the first shipment; numbers are this process's own.
    first: u64,
    shipments: VecDeque<Arc<Shipment>>,
    octets: usize,
    /// The audit's head after the last commit.
    head: Head,
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.shipments.len() as u64
    }

    fn clear(&mut self) {
        self.first = self.end();
        self.shipments.clear();
        self.octets = 0;
    }
}

/// A place in the ring that is no longer there.
#[derive(Debug, PartialEq, Eq)]
pub struct Overrun;

impl Outbox {
    /// Empty, after an act.
    pub fn new(head: Head) -> Self {
        let ring = Ring { first: 0, shipments: VecDeque::new(), octets: 0, head };
        Self { ring: Mutex::new(ring), wake: watch::Sender::new(0), followers: Mutex::default() }
    }

    /// A commit is durable. Without a shipment nobody can follow over it.
    pub fn committed(&self, shipment: Option<Shipment>, head: &Head) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        match shipment {
            Some(shipment) => {
                ring.octets += shipment.octets.len();
                ring.shipments.push_back(Arc::new(shipment));
                while ring.octets > OCTETS || ring.shipments.len() > SHIPMENTS {
                    let Some(oldest) = ring.shipments.pop_front() else { break };
                    ring.octets -= oldest.octets.len();
                    ring.first += 1;
                }
            }
            None if ring.head != *head => ring.clear(),
            None => return,
        }
        ring.head = head.clone();
        self.wake.send_replace(ring.end());
    }

    /// Where to go on for somebody whose last act is this; nowhere if that is not known any more, or never was.
    pub fn resume(&self, head: &Head) -> Option<u64> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ring.shipments.iter().position(|shipment| shipment.before == *head);
        place.map(|place| ring.first + place as u64).or_else(|| (ring.head == *head).then(|| ring.end()))
    }

    /// The place of what comes next. Asked by the writer between two commits.
    pub fn end(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).end()
    }

    /// The shipment at a place; none if it is yet to come.
    pub fn at(&self, place: u64) -> Result<Option<Arc<Shipment>>, Overrun> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let index = place.checked_sub(ring.first).ok_or(Overrun)?;
        Ok(ring.shipments.get(index as usize).cloned())
    }

    /// Wakes with each commit.
    pub fn wake(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    /// A standby has connected: the number of its connection. One of before is given up.
    pub fn joined(&self, standby: &ReplicaId) -> u64 {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let line = followers.get(standby).map_or(0, |known| known.line + 1);
        let (sent, has, unready) = (None, None, followers.get(standby).and_then(|known| known.unready.clone()));
        let known = Follower { line, sent, has, unready, heard: Instant::now(), connected: true };
        followers.insert(standby.clone(), known);
        line
    }

    /// A standby was sent all up to an act.
    pub fn sent(&self, standby: &ReplicaId, line: u64, act: u64) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = followers.get_mut(standby).filter(|known| known.line == line) {
            known.sent = Some(act);
        }
    }

    /// A standby says that it has all up to an act, and what is wrong with it. Whether that is another trouble than before.
    pub fn heard(&self, standby: &ReplicaId, act: u64, unready: Option<String>) -> bool {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = followers.get_mut(standby) else { return false };
        let is_news = known.unready != unready;
        (known.has, known.unready, known.heard) = (Some(act), unready, Instant::now());
        is_news
    }

    /// Whether a standby is at the other end of a connection. One whose process is stopped, or whose line has gone dead,
    /// takes what is sent for a long time: the system's buffers do.
    pub fn alive(&self, standby: &ReplicaId, line: u64, within: Duration) -> Result<(), String> {
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        match followers.get(standby) {
            Some(known) if known.line == line && known.heard.elapsed() <= within => Ok(()),
            Some(known) if known.line == line => Err(format!("it has said nothing for {} seconds", within.as_secs())),
            _ => Err("it has connected again".to_owned()),
        }
    }

    /// A connection has ended.
    pub fn left(&self, standby: &ReplicaId, line: u64) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = followers.get_mut(standby).filter(|known| known.line == line) {
            known.connected = false;
        }
    }

    /// Whether a standby has not come back since a connection ended.
    pub fn is_gone(&self, standby: &ReplicaId, line: u64) -> bool {
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.get(standby).is_some_and(|known| known.line == line && !known.connected)
    }

    /// Standbys that are connected.
    pub fn followers(&self) -> BTreeMap<ReplicaId, Follower> {
        let followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = followers.iter().filter(|(_, known)| known.connected);
        connected.map(|(id, known)| (id.clone(), known.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: u64) -> Head {
        Head { number, hash: format!("{number:064x}") }
    }

    fn shipment(number: u64, octets: usize) -> Shipment {
        Shipment { before: head(number - 1), after: head(number), octets: vec![0; octets] }
    }

    #[test]
    fn who_comes_back_goes_on_where_it_was_or_is_told_that_it_cannot() {
        let outbox = Outbox::new(head(10));
        assert_eq!((outbox.resume(&head(10)), outbox.resume(&head(9))), (Some(0), None));
        for number in 11..=15 {
            outbox.committed(Some(shipment(number, 100)), &head(number));
        }
        let place = outbox.resume(&head(12)).expect("is there");
        assert_eq!(outbox.at(place).expect("is there").map(|shipment| shipment.after.number), Some(13));
        assert_eq!(outbox.resume(&Head { hash: "f".repeat(64), ..head(12) }), None, "another history");
        assert_eq!(outbox.at(outbox.end()), Ok(None));
        // Some commit was not shipped: nobody can follow over it.
        outbox.committed(None, &head(16));
        assert_eq!((outbox.resume(&head(15)), outbox.at(place)), (None, Err(Overrun)));
        assert_eq!(outbox.resume(&head(16)), Some(outbox.end()));
    }

    #[test]
    fn of_two_connections_of_a_standby_the_later_counts_and_one_that_says_nothing_is_not_alive() {
        let (outbox, id, long) = (Outbox::new(head(0)), "second".parse().expect("an id"), Duration::from_secs(60));
        let first = outbox.joined(&id);
        outbox.sent(&id, first, 7);
        assert!(outbox.alive(&id, first, long).is_ok() && outbox.followers()[&id].sent == Some(7));
        let second = outbox.joined(&id);
        outbox.sent(&id, first, 8);
        assert!(outbox.alive(&id, first, long).is_err() && outbox.followers()[&id].sent.is_none());
        outbox.left(&id, first);
        assert!(!outbox.heard(&id, 9, None) && outbox.heard(&id, 9, Some("why".to_owned())));
        assert!(!outbox.heard(&id, 9, Some("why".to_owned())), "it is known");
        assert!(outbox.alive(&id, second, long).is_ok() && outbox.followers()[&id].has == Some(9));
        std::thread::sleep(Duration::from_millis(2));
        assert!(outbox.alive(&id, second, Duration::from_millis(1)).is_err_and(|why| why.contains("said nothing")));
        outbox.left(&id, second);
        assert!(outbox.followers().is_empty() && outbox.is_gone(&id, second) && !outbox.is_gone(&id, first));
        assert!(outbox.joined(&id) > second && !outbox.is_gone(&id, second), "it is back");
    }

    #[test]
    fn the_ring_is_bounded() {
        let outbox = Outbox::new(head(0));
        for number in 1..=5 {
            outbox.committed(Some(shipment(number, OCTETS / 2 - 1)), &head(number));
        }
        assert_eq!((outbox.resume(&head(2)), outbox.resume(&head(3)).is_some()), (None, true));
        outbox.committed(Some(shipment(6, OCTETS + 1)), &head(6));
        assert_eq!(outbox.resume(&head(5)), None, "one that is larger than the ring is had by a copy");
        assert!(outbox.resume(&head(6)).is_some());
    }
}
