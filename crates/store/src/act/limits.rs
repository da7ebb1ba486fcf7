//! Limits: which blocks of DevEUIs a member may register, and how many devices. What it has already stays.

use std::sync::Arc;

use dnsbroker_federation::{DevEui, DevEuiPrefix, MemberId};
use serde_json::json;

use super::Act;
use crate::engine::Table;
use crate::record::Limits;
use crate::refusal::{OwnershipRefusal, Refusal};
use crate::transaction::{Note, Transaction};
use crate::view::View;

/// Ranges of one member at most.
pub const MAX_RANGES: usize = 1_000;

/// Says what devices a member may register; with neither ranges nor a quota, any.
pub struct SetLimits {
    /// Which member.
    pub member: MemberId,
    /// Blocks of DevEUIs; all where there is none.
    pub ranges: Vec<DevEuiPrefix>,
    /// How many devices; any number where it is none.
    pub quota: Option<u64>,
}

impl Act for SetLimits {
    type Done = Arc<Limits>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        transaction.member(&self.member)?;
        let Self { member, mut ranges, quota } = self;
        ranges.sort_unstable();
        ranges.dedup();
        if ranges.len() > MAX_RANGES {
            let refusal = OwnershipRefusal::TooMany { what: "ranges", count: ranges.len(), limit: MAX_RANGES };
            return Err(refusal.into());
        }
        let limits = Arc::new(Limits { member, ranges, quota });
        let known = transaction.view.ownership.limits.get(&limits.member);
        let free = limits.ranges.is_empty() && limits.quota.is_none();
        if known == Some(&limits) || (known.is_none() && free) {
            return Ok((limits, None));
        }
        if free {
            transaction.forget_limits(&limits.member);
        } else {
            transaction.put(Table::Limits, limits.member.as_str(), &*limits)?;
            transaction.view.ownership.limits.insert(limits.member.clone(), Arc::clone(&limits));
        }
        let detail = json!({ "ranges": limits.ranges, "quota": limits.quota });
        let note = Note::new("limits.set", &limits.member, detail);
        Ok((limits, Some(note)))
    }
}

/// Whether a member may have so many devices more.
pub(super) fn check_quota(view: &View, member: &MemberId, gain: u64) -> Result<(), Refusal> {
    let Some(quota) = view.ownership.limits.get(member).and_then(|limits| limits.quota) else { return Ok(()) };
    let wanted = view.devices_of(member) + gain;
    if gain == 0 || wanted <= quota {
        return Ok(());
    }
    Err(OwnershipRefusal::Quota { member: member.clone(), quota, wanted }.into())
}

/// Whether a device is in the ranges of a member.
pub(super) fn check_range(view: &View, member: &MemberId, device: DevEui) -> Result<(), Refusal> {
    match view.ownership.limits.get(member) {
        Some(limits) if !limits.has(device) => {
            Err(OwnershipRefusal::OutOfRange { device, member: member.clone() }.into())
        }
        _ => Ok(()),
    }
}

impl Transaction<'_> {
    /// Of a member that leaves, or whose limits are lifted.
    pub(super) fn forget_limits(&mut self, member: &MemberId) {
        if self.view.ownership.limits.remove(member).is_some() {
            self.batch.delete(Table::Limits, member.as_str());
        }
    }
}
