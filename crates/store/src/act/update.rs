//! Dynamic updates (RFC 2136): a member changes its own devices, record by record.
//!
//! Prerequisites and changes are looked at here, inside the transaction, so that nothing happens between the two. Other
//! members' devices look absent: a prerequisite tells nobody what others hold. Only registering one that another member
//! holds is refused with that reason, as a list would be told.

use std::collections::BTreeMap;

use dnsbroker_federation::{DevEui, MemberId, NetId};
use dnsbroker_zone::delta::DeviceChange;
use dnsbroker_zone::update::{Change, Prerequisite, Update as Wanted};
use serde_json::json;

use super::Act;
use super::limits::{check_quota, check_range};
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// An update of a member.
pub struct Update {
    /// Whose: from the key or certificate that it came with.
    pub member: MemberId,
    /// What it asks for.
    pub wanted: Wanted,
}

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Updated {
    /// Devices registered.
    pub added: u64,
    /// Devices that went to another NetID of the member.
    pub moved: u64,
    /// Devices removed.
    pub removed: u64,
}

impl Act for Update {
    type Done = Updated;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Updated, Option<Note>), Refusal> {
        transaction.active_member(&self.member)?;
        let own =
            |netid: NetId| transaction.view.zones.network(netid).is_some_and(|network| network.member == self.member);
        for prerequisite in &self.wanted.prerequisites {
            let registered = |device| transaction.view.zones.devices().get(device).filter(|netid| own(*netid));
            let (holds, otherwise) = match *prerequisite {
                Prerequisite::Constant(Ok(())) => continue,
                Prerequisite::Constant(Err(otherwise)) => (false, otherwise),
                Prerequisite::Absent { device, otherwise } => (registered(device).is_none(), otherwise),
                Prerequisite::Registered { device, netid, otherwise } => {
                    let found = registered(device);
                    (found.is_some() && (netid.is_none() || found == netid), otherwise)
                }
            };
            if !holds {
                return Err(Refusal::Prerequisite(otherwise));
            }
        }
        let changes = match self.changes(transaction, own) {
            Ok(changes) => changes,
            Err(refusal) => {
                transaction.disputed = self.dispute(&refusal);
                return Err(refusal);
            }
        };
        let mut updated = Updated::default();
        for change in &changes {
            match (change.before, change.after) {
                (None, _) => updated.added += 1,
                (_, None) => updated.removed += 1,
                _ => updated.moved += 1,
            }
        }
        check_quota(&transaction.view, &self.member, updated.added.saturating_sub(updated.removed))?;
        if changes.is_empty() {
            return Ok((updated, None));
        }
        let first = changes[0].device;
        // Short, because there may be a row for each of millions of updates: what did not happen is not told.
        let mut detail = json!({ "member": self.member });
        for (what, count) in [("added", updated.added), ("moved", updated.moved), ("removed", updated.removed)] {
            if count > 0 {
                detail[what] = count.into();
            }
        }
        transaction.change_zones(changes, vec![])?;
        Ok((updated, Some(Note::new("devices.update", first, detail))))
    }
}

impl Update {
    /// What the member wants and another holds, where that is why it is refused.
    fn dispute(&self, refusal: &Refusal) -> Option<(MemberId, NetId, DevEui)> {
        let Refusal::Claimed(claimed) = refusal else { return None };
        self.wanted.changes.iter().find_map(|change| match *change {
            Change::Set(device, netid) if device == *claimed => Some((self.member.clone(), netid, device)),
            _ => None,
        })
    }

    /// The changes one after another, each on what those before have made of it.
    fn changes(
        &self,
        transaction: &Transaction<'_>,
        own: impl Fn(NetId) -> bool,
    ) -> Result<Vec<DeviceChange>, Refusal> {
        let devices = transaction.view.zones.devices();
        let mut after: BTreeMap<DevEui, Option<NetId>> = BTreeMap::new();
        for change in &self.wanted.changes {
            match *change {
                Change::Set(device, netid) => {
                    transaction.own_network(netid, &self.member)?;
                    transaction.check_not_filled(netid)?;
                    match devices.get(device) {
                        Some(held) if own(held) => transaction.check_not_filled(held)?,
                        held => {
                            check_range(&transaction.view, &self.member, device)?;
                            if held.is_some() {
                                return Err(Refusal::Claimed(device));
                            }
                        }
                    }
                    after.insert(device, Some(netid));
                }
                Change::Remove(device, named) => {
                    let held = devices.get(device).filter(|netid| own(*netid));
                    let now = after.get(&device).copied().unwrap_or(held);
                    let Some(netid) = now.filter(|netid| named.is_none_or(|named| named == *netid)) else { continue };
                    transaction.check_not_filled(netid)?;
                    after.insert(device, None);
                }
            }
        }
        let changes = after.into_iter().map(|(device, after)| {
            let before = devices.get(device);
            DeviceChange { device, before, after }
        });
        Ok(changes.filter(|change| change.before != change.after).collect())
    }
}
