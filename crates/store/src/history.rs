//! What happened to each device: where it came from and went to, when, by which act of whom.
//!
//! Each act that changes devices leaves one row under its audit number, so *when*, *who*, *what* and the serial are in the
//! audit and are not stored twice. The row has the changes one by one, 16 octets each; they are appended in the order of
//! time and never sorted by device, so that keeping them costs a commit as little as the journal does. The price is that
//! asking reads them all, which are at most [`MAX_OCTETS`].
//!
//! **What is not kept one by one:** lists of more than [`BULK`] changes. Of such a list one entry stands for all
//! devices that changed alike: how many, the first and the last. A million devices would else take 16 MB beside the 13 MB
//! of their blocks. [`of_device`] puts such an entry into a device's history where its other entries leave a gap that
//! the list explains.
//!
//! ```text
//! row = section*      section = u8 kind | u32 N | N x entry          (all big-endian; ffffffff is "none")
//! kind 1: u64 device | u32 before | u32 after
//! kind 2: u32 before | u32 after | u64 count | u64 first device | u64 last device
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

/// The section of one delta.
pub(crate) fn encode(changes: &[DeviceChange]) -> Vec<u8> {
    let number = |netid: Option<NetId>| netid.map_or(NONE, NetId::as_u32).to_be_bytes();
    let mut row = Vec::new();
    if changes.len() <= BULK {
        row.push(SINGLE);
        row.extend((changes.len() as u32).to_be_bytes());
        for change in changes {
            row.extend(change.device.as_u64().to_be_bytes());
            row.extend(number(change.before));
            row.extend(number(change.after));
        }
        return row;
    }
    let mut alike = BTreeMap::new();
    for change in changes {
        let device = change.device.as_u64();
        let entry = alike.entry((change.before, change.after)).or_insert((0_u64, device, device));
        (entry.0, entry.2) = (entry.0 + 1, device);
    }
    row.push(LIST);
    row.extend((alike.len() as u32).to_be_bytes());
    for ((before, after), (count, first, last)) in alike {
        row.extend(number(before));
        row.extend(number(after));
        for value in [count, first, last] {
            row.extend(value.to_be_bytes());
        }
    }
    row
}

/// Looks for a device in a row; none where the row is damaged.
fn search(number: u64, mut row: &[u8], device: u64, found: &mut Vec<Found>) -> Option<()> {
    let long =
        |entry: &[u8], at: usize| entry.get(at..).and_then(|rest| rest.first_chunk()).map(|o| u64::from_be_bytes(*o));
    let netid = |entry: &[u8], at: usize| {
        let value = entry.get(at..).and_then(|rest| rest.first_chunk()).map(|octets| u32::from_be_bytes(*octets))?;
        Some(if value == NONE { None } else { NetId::from_u32(value).ok() })
    };
    while let Some((kind, rest)) = row.split_first() {
        let (count, rest) = rest.split_first_chunk()?;
        let size = if *kind == SINGLE { 16 } else { 32 };
        let (entries, rest) = rest.split_at_checked(u32::from_be_bytes(*count) as usize * size)?;
        for entry in entries.chunks_exact(size) {
            if *kind == SINGLE {
                if long(entry, 0)? == device {
                    found.push(Found { number, from: netid(entry, 8)?, to: netid(entry, 12)?, among: None });
                }
            } else if (long(entry, 16)?..=long(entry, 24)?).contains(&device) {
                found.push(Found { number, from: netid(entry, 0)?, to: netid(entry, 4)?, among: long(entry, 8) });
            }
        }
        row = rest;
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
    use super::*;

    fn netid(value: u32) -> Option<NetId> {
        Some(NetId::from_u32(value).expect("valid"))
    }

    fn entry(number: u64, from: Option<NetId>, to: Option<NetId>, among: Option<u64>) -> Found {
        Found { number, from, to, among }
    }

    #[test]
    fn changes_are_found_one_by_one_and_in_lists_as_ranges() {
        let change = |device: u64, before, after| DeviceChange {
            device: DevEui::from_u64(device).expect("valid"),
            before,
            after,
        };
        let few = encode(&[change(5, None, netid(7)), change(9, netid(7), None)]);
        let many: Vec<_> = (0..BULK as u64 + 1).map(|n| change(100 + 2 * n, None, netid(7))).collect();
        let row = [few, encode(&many)].concat();
        let of = |device| {
            let mut found = Vec::new();
            search(3, &row, device, &mut found).expect("sound");
            found
        };
        assert_eq!(of(5), [entry(3, None, netid(7), None)]);
        assert_eq!(of(9), [entry(3, netid(7), None, None)]);
        assert_eq!(of(102), [entry(3, None, netid(7), Some(BULK as u64 + 1))]);
        assert_eq!(of(99), []);
        for cut in 1..row.len() {
            let mut found = Vec::new();
            let whole = search(3, &row[..cut], 5, &mut found);
            assert!(whole.is_none() || cut == 37, "a row cut at {cut} is damaged");
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
