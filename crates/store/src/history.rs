//! What happened to each device: where it came from and went to, when, by which act of whom.
//!
//! Each act that changes devices leaves one row under its audit number, so *when*, *who*, *what* and the serial are in the
//! audit and are not stored twice. The row has the devices of each kind of change, each as its distance from the one
//! before; rows are appended in the order of time and never sorted by device, so that keeping them costs a commit less
//! than the journal does. The price is that asking reads them all, which are at most [`MAX_OCTETS`].
//!
//! **What is not kept one by one:** lists of more than [`BULK`] changes. Of such a list one entry stands for all
//! devices that changed alike: how many, the first and the last. A million devices would else take megabytes beside the
//! 13 MB of their blocks, and a list that goes to and fro would push out what everybody else did. [`of_device`] puts such an entry into a device's history where its other entries leave a gap that
//! the list explains.
//!
//! ```text
//! row = section*     section = u8 kind | u32 before | u32 after | u32 N | u64 first device | rest
//! kind 1: rest = (N - 1) x distance to the next device, 7 bits an octet, the last with bit 7 clear
//! kind 2: rest = u64 last device                                  (all big-endian; ffffffff is "none")
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use dnsbroker_federation::{DevEui, NetId, Serial};
use dnsbroker_zone::delta::DeviceChange;
use serde::{Deserialize, Serialize};

use crate::audit;
use crate::engine::{Batch, Engine, EngineError, Table};
use crate::record::Seconds;

/// Changes of one act that are kept one by one; of more, one entry stands for all that are alike.
pub const BULK: usize = 10_000;
/// Octets of history; the oldest are forgotten.
pub const MAX_OCTETS: u64 = 64 * 1024 * 1024;

const SINGLE: u8 = 1;
const LIST: u8 = 2;
const NONE: u32 = u32::MAX;

/// One thing that happened to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The number of its audit row.
    pub number: u64,
    /// When.
    pub at: Seconds,
    /// Who, by which identity.
    pub actor: String,
    /// What was done: `devices.import`, `claim.settle`...
    pub act: String,
    /// The serial of the private zones afterwards.
    pub serial: Serial,
    /// Where it was; nowhere when it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NetId>,
    /// Where it is since; nowhere when it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NetId>,
    /// It was one of so many devices of a list that were not kept one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub among: Option<u64>,
}

/// A change as a row has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    number: u64,
    from: Option<NetId>,
    to: Option<NetId>,
    among: Option<u64>,
}

/// The sections of one delta, whose changes are sorted by device.
pub(crate) fn encode(changes: &[DeviceChange]) -> Vec<u8> {
    let bulk = changes.len() > BULK;
    let mut alike: BTreeMap<_, Alike> = BTreeMap::new();
    // Neighbours mostly change alike.
    for run in changes.chunk_by(|one, next| (one.before, one.after) == (next.before, next.after)) {
        let (kind, first) = ((run[0].before, run[0].after), run[0].device.as_u64());
        let group = alike.entry(kind).or_insert(Alike { count: 0, first, last: first, distances: Vec::new() });
        if bulk {
            group.count += run.len() as u32;
            group.last = run[run.len() - 1].device.as_u64();
        } else {
            run.iter().for_each(|change| group.push(change.device.as_u64()));
        }
    }
    let number = |netid: Option<NetId>| netid.map_or(NONE, NetId::as_u32).to_be_bytes();
    let mut row = Vec::new();
    for ((before, after), Alike { count, first, last, distances }) in alike {
        row.push(if bulk { LIST } else { SINGLE });
        row.extend(number(before));
        row.extend(number(after));
        row.extend(count.to_be_bytes());
        row.extend(first.to_be_bytes());
        if bulk {
            row.extend(last.to_be_bytes());
        } else {
            row.extend(distances);
        }
    }
    row
}

/// Devices that changed alike.
struct Alike {
    count: u32,
    first: u64,
    last: u64,
    distances: Vec<u8>,
}

impl Alike {
    fn push(&mut self, device: u64) {
        self.count += 1;
        if self.count == 1 {
            return;
        }
        let mut distance = device - std::mem::replace(&mut self.last, device);
        while distance >= 0x80 {
            self.distances.push(distance as u8 | 0x80);
            distance >>= 7;
        }
        self.distances.push(distance as u8);
    }
}

/// Reads a row; every read is none where the row is damaged.
struct Reader<'r>(&'r [u8]);

impl Reader<'_> {
    fn octets<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (octets, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*octets)
    }

    fn long(&mut self) -> Option<u64> {
        self.octets().map(u64::from_be_bytes)
    }

    fn netid(&mut self) -> Option<Option<NetId>> {
        match u32::from_be_bytes(self.octets()?) {
            NONE => Some(None),
            value => NetId::from_u32(value).ok().map(Some),
        }
    }

    fn distance(&mut self) -> Option<u64> {
        let mut distance = 0;
        for shift in (0..64).step_by(7) {
            let [octet] = self.octets()?;
            distance |= u64::from(octet & 0x7f) << shift;
            if octet < 0x80 {
                return Some(distance);
            }
        }
        None
    }
}

/// Looks for a device in a row; none where the row is damaged.
fn search(number: u64, row: &[u8], device: u64, found: &mut Vec<Found>) -> Option<()> {
    let mut row = Reader(row);
    while !row.0.is_empty() {
        let ([kind], from, to) = (row.octets()?, row.netid()?, row.netid()?);
        let (count, first) = (u32::from_be_bytes(row.octets()?), row.long()?);
        if kind == LIST {
            if (first..=row.long()?).contains(&device) {
                found.push(Found { number, from, to, among: Some(count.into()) });
            }
            continue;
        }
        let (mut at, mut here) = (first, first == device);
        for _ in 1..count {
            at = at.checked_add(row.distance()?)?;
            here |= at == device;
        }
        if here {
            found.push(Found { number, from, to, among: None });
        }
    }
    Some(())
}

/// The history of a device that is `now` under a NetID or not registered, oldest first, as far as it is kept.
pub fn of_device(engine: &dyn Engine, device: DevEui, now: Option<NetId>) -> Result<Vec<Event>, EngineError> {
    let mut found = Vec::new();
    engine.scan(Table::History, &[], &mut |key, row| {
        if let Ok(number) = key.try_into().map(u64::from_be_bytes) {
            search(number, row, device.as_u64(), &mut found);
        }
        ControlFlow::Continue(())
    })?;
    let mut events = Vec::new();
    for Found { number, from, to, among } in explained(&found, now) {
        let Some(row) = engine.get(Table::Audit, &number.to_be_bytes())? else { continue };
        let Ok(audit::Row { at, actor, act, serial, .. }) = serde_json::from_slice(&row) else { continue };
        events.push(Event { number, at, actor, act, serial, from, to, among });
    }
    Ok(events)
}

/// Entries of lists only where the device's own entries need them: from the newest back, each must end where the next
/// one begins, and a list whose first and last device lie around this one need not have had it.
fn explained(found: &[Found], now: Option<NetId>) -> Vec<Found> {
    let mut chain: Vec<Found> = Vec::new();
    let mut state = now;
    for (index, entry) in found.iter().enumerate().rev() {
        // What the device's own entry before this one says it was then.
        let earlier = found[..index].iter().rev().find(|entry| entry.among.is_none());
        let needed = entry.to == state && earlier.is_none_or(|earlier| earlier.to != state);
        if entry.among.is_none() || needed {
            chain.push(*entry);
            state = entry.from;
        }
    }
    chain.reverse();
    chain
}

/// Forgets the oldest rows until at most seven eighths of the bound are left; gives the octets that are left.
pub(crate) fn trim(engine: &dyn Engine, batch: &mut Batch, mut octets: u64) -> Result<u64, EngineError> {
    if octets <= MAX_OCTETS {
        return Ok(octets);
    }
    engine.scan(Table::History, &[], &mut |key, row| {
        octets = octets.saturating_sub(row.len() as u64);
        batch.delete(Table::History, key);
        if octets > MAX_OCTETS / 8 * 7 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn netid(value: u32) -> Option<NetId> {
        Some(NetId::from_u32(value).expect("valid"))
    }

    fn entry(number: u64, from: Option<NetId>, to: Option<NetId>, among: Option<u64>) -> Found {
        Found { number, from, to, among }
    }

    fn change(device: u64, before: Option<NetId>, after: Option<NetId>) -> DeviceChange {
        DeviceChange { device: DevEui::from_u64(device).expect("valid"), before, after }
    }

    fn of(row: &[u8], device: u64) -> Vec<Found> {
        let mut found = Vec::new();
        search(3, row, device, &mut found).expect("sound");
        found
    }

    #[test]
    fn a_list_is_kept_as_the_range_of_its_devices() {
        let many: Vec<_> = (0..BULK as u64 + 1).map(|n| change(100 + 2 * n, None, netid(7))).collect();
        let row = [encode(&[change(5, netid(7), None)]), encode(&many)].concat();
        assert_eq!(of(&row, 5), [entry(3, netid(7), None, None)]);
        assert_eq!(of(&row, 102), [entry(3, None, netid(7), Some(BULK as u64 + 1))]);
        assert_eq!(of(&row, 99), []);
        assert_eq!(row.len(), 21 + 29);
    }

    proptest! {
        #[test]
        fn every_change_is_found_and_no_other_and_a_cut_row_is_damaged(
            changes in proptest::collection::btree_map(1..u64::MAX, (0..3_u32, 0..3_u32), 1..60),
            near in proptest::collection::btree_set(1..500_u64, 0..40),
            absent in 1..u64::MAX,
        ) {
            let netid = |value| if value == 0 { None } else { netid(value) };
            let mut all: BTreeMap<u64, (u32, u32)> = near.into_iter().map(|device| (device, (0, 1))).collect();
            all.extend(changes.into_iter().filter(|(_, (before, after))| before != after));
            let listed: Vec<_> =
                all.iter().map(|(device, (before, after))| change(*device, netid(*before), netid(*after))).collect();
            let row = encode(&listed);
            for (device, (before, after)) in &all {
                prop_assert_eq!(of(&row, *device), vec![entry(3, netid(*before), netid(*after), None)]);
            }
            prop_assert!(all.contains_key(&absent) || of(&row, absent).is_empty());
            let sound = (0..row.len()).filter(|cut| search(3, &row[..*cut], 1, &mut Vec::new()).is_some()).count();
            let kinds: std::collections::BTreeSet<_> = all.values().collect();
            prop_assert_eq!(sound, kinds.len(), "only between its sections");
        }

        #[test]
        fn damaged_octets_never_panic(row in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = search(1, &row, 7, &mut Vec::new());
        }
    }

    #[test]
    fn a_list_is_in_a_history_only_where_it_explains_something() {
        let (a, b) = (netid(1), netid(2));
        // It came alone; a later list around it was not about it.
        let own = entry(1, None, a, None);
        assert_eq!(explained(&[own, entry(2, None, a, Some(20_000))], a), [own]);
        // It came with a list and moved alone.
        let came = entry(1, None, a, Some(20_000));
        let moved = entry(3, a, b, None);
        assert_eq!(explained(&[came, entry(2, None, b, Some(30_000)), moved], b), [came, moved]);
        // It came alone and went with a list.
        let went = entry(4, a, None, Some(15_000));
        assert_eq!(explained(&[own, went], None), [own, went]);
    }
}
