//! Devices: a member's list for one of its NetIDs becomes a delta.
//!
//! A DevEUI that another member holds is a *claim*: it is counted, recorded and reported to the one who sent it, without
//! saying who holds it, and nothing is overwritten. A DevEUI of the member's own other NetID moves, unless a source fills
//! that one: the next transfer would undo it, so the device stays, counted and named. So is one outside the ranges that the
//! member may register; the rest of the list is taken.

use dnsbroker_federation::{DevEui, MemberId, NetId, Serial};
use dnsbroker_zone::delta::DeviceChange;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Act;
use super::claim::ClaimList;
use super::limits::check_quota;
use crate::ownership::MAX_CLAIMS;
use crate::record::Limits;
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};
use crate::view::View;

/// A full list that drops more than this share of the devices held is taken for a mistake until it is confirmed.
pub const SHRINK_PERCENT: u64 = 50;
/// Lists held below this number may shrink as they like, though not to nothing.
const SHRINK_FLOOR: u64 = 20;
/// A full list with a larger share of rows that hold no DevEUI removes nothing until it is confirmed.
pub const REJECTED_PERCENT: u64 = 1;
/// Claims, devices out of range and devices of a source that are named one by one in a report; all are counted.
pub const CLAIMS_SHOWN: usize = 1_000;

/// What a list means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// These devices are there too.
    Add,
    /// These devices and no others are there.
    Full,
    /// These devices are no longer there.
    Remove,
}

/// A list of devices of one NetID.
pub struct Import {
    /// Whose: from the connection's identity, or from an administrator.
    pub member: MemberId,
    /// The NetID the devices resolve to.
    pub netid: NetId,
    /// What the list means.
    pub mode: Mode,
    /// The devices, in any order, repeats allowed.
    pub devices: Vec<DevEui>,
    /// Rows of the list that hold no DevEUI: each may stand for a device that is there.
    pub rejected: u64,
    /// Whether a full list may drop most devices.
    pub allow_shrink: bool,
    /// Only say what would happen.
    pub dry_run: bool,
}

/// What a list did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Imported {
    /// Registered for the first time.
    pub added: u64,
    /// Moved from another NetID of the same member.
    pub moved: u64,
    /// No longer registered.
    pub removed: u64,
    /// As before.
    pub unchanged: u64,
    /// To be removed, but not there or not this member's on this NetID.
    pub absent: u64,
    /// Repeats within the list.
    pub repeated: u64,
    /// Held by another member, so left as they were.
    pub claimed: u64,
    /// The first of those.
    pub claims: Vec<DevEui>,
    /// Outside the ranges that the member may register, so not registered.
    pub outside: u64,
    /// The first of those.
    pub outsiders: Vec<DevEui>,
    /// On another NetID of the member that a source fills, so left there.
    pub filled: u64,
    /// The first of those.
    pub filled_shown: Vec<DevEui>,
    /// Claims that were not on record before.
    pub claims_opened: u64,
    /// Claims that this list no longer upholds.
    pub claims_closed: u64,
    /// The serial of the private zones afterwards.
    pub serial: Option<Serial>,
    /// Nothing was changed: this is what would have been.
    pub dry_run: bool,
}

impl Act for Import {
    type Done = Imported;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Imported, Option<Note>), Refusal> {
        transaction.active_member(&self.member)?;
        transaction.own_network(self.netid, &self.member)?;
        transaction.check_not_filled(self.netid)?;
        let mut planner = Planner::new(&transaction.view, &self.member, self.netid);
        let mut devices = self.devices;
        let listed = devices.len();
        devices.sort_unstable();
        devices.dedup();
        planner.report.repeated = (listed - devices.len()) as u64;
        match self.mode {
            Mode::Full => planner.full(&devices),
            mode => {
                planner.expect(devices.len());
                devices.iter().for_each(|&device| planner.apply(mode, device));
            }
        }
        if self.mode == Mode::Full && !self.allow_shrink {
            planner.check_rejected(self.rejected, listed as u64)?;
            planner.check_shrink()?;
        }
        planner.check_quota()?;
        let plan = planner.finish();
        // Millions of devices need not be there beside their changes.
        drop(devices);
        if self.dry_run {
            let serial = Some(transaction.view.zones.serial());
            return Ok((Imported { dry_run: true, serial, ..plan.report }, None));
        }
        let unchanged = plan.changes.is_empty();
        let (report, claims) = transaction.carry_out(&self.member, self.netid, plan, self.mode == Mode::Full)?;
        if unchanged && claims == 0 {
            return Ok((report, None));
        }
        let detail = json!({
            "member": self.member, "mode": self.mode, "added": report.added, "moved": report.moved,
            "removed": report.removed, "claimed": report.claimed, "outside": report.outside, "filled": report.filled,
        });
        Ok((report, Some(Note::new("devices.import", self.netid, detail))))
    }
}

/// Works out what a list changes.
pub(super) struct Planner<'a> {
    view: &'a View,
    member: &'a MemberId,
    netid: NetId,
    /// The list is all there is.
    whole: bool,
    limits: Option<&'a Limits>,
    changes: Vec<DeviceChange>,
    report: Imported,
    disputed: Vec<DevEui>,
    withdrawn: Vec<DevEui>,
}

/// What a list comes to, before it is done.
pub(super) struct Plan {
    /// What changes in the zones, sorted by device.
    pub changes: Vec<DeviceChange>,
    /// What it comes to.
    pub report: Imported,
    /// Devices that other members hold: as many as are kept of claims.
    pub disputed: Vec<DevEui>,
    /// Claimed devices that the member no longer wants.
    pub withdrawn: Vec<DevEui>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(view: &'a View, member: &'a MemberId, netid: NetId) -> Self {
        let limits = view.ownership.limits.get(member).map(|limits| &**limits);
        let (changes, report, disputed, withdrawn) = Default::default();
        Self { view, member, netid, whole: false, limits, changes, report, disputed, withdrawn }
    }

    /// A full list that drops most devices looks like a mistake, and so does an empty one, however few it drops.
    pub(super) fn check_shrink(&self) -> Result<(), Refusal> {
        let Imported { added, moved, removed, unchanged, claimed, outside, filled, .. } = self.report;
        let held = self.view.zones.devices().count(self.netid);
        let names = added + moved + unchanged + claimed + outside + filled;
        let empty = self.whole && removed > 0 && names == 0;
        if empty || held >= SHRINK_FLOOR && removed * 100 > held * SHRINK_PERCENT {
            return Err(Refusal::Shrink { netid: self.netid, removed, held, percent: SHRINK_PERCENT });
        }
        Ok(())
    }

    /// A full list of which many rows do not read would remove the devices that these rows mean.
    fn check_rejected(&self, rejected: u64, listed: u64) -> Result<(), Refusal> {
        let (netid, removed, rows) = (self.netid, self.report.removed, listed + rejected);
        if removed > 0 && rejected * 100 > rows * REJECTED_PERCENT {
            return Err(Refusal::Unread { netid, removed, rejected, rows, percent: REJECTED_PERCENT });
        }
        Ok(())
    }

    /// A list that would give the member more than it may have is refused whole: which of them it would do without,
    /// nobody but the member can say.
    pub(super) fn check_quota(&self) -> Result<(), Refusal> {
        let gain = self.report.added.saturating_sub(self.report.removed);
        check_quota(self.view, self.member, gain)
    }

    /// So many changes may come. At once: a vector that grows to millions is there twice while it is copied. What is not used
    /// is not touched before it is given back.
    pub(super) fn expect(&mut self, changes: usize) {
        self.changes.reserve_exact(changes);
    }

    /// The changes, and what they come to.
    pub(super) fn finish(self) -> Plan {
        let Self { changes, report, disputed, withdrawn, .. } = self;
        Plan { changes, report, disputed, withdrawn }
    }

    /// Brings changes that were not made in order into it.
    pub(super) fn sort(&mut self) {
        self.changes.sort_unstable_by_key(|change| change.device);
    }

    /// One device of a list that adds or removes.
    pub(super) fn apply(&mut self, mode: Mode, device: DevEui) {
        match mode {
            Mode::Remove => self.remove(device),
            Mode::Add | Mode::Full => self.place(device, self.view.zones.devices().get(device)),
        }
    }

    fn place(&mut self, device: DevEui, held: Option<NetId>) {
        match held {
            Some(netid) if netid == self.netid => self.report.unchanged += 1,
            Some(netid) if self.is_own(netid) && self.view.sources.contains_key(&netid) => {
                self.report.filled += 1;
                name_one(&mut self.report.filled_shown, device);
            }
            Some(netid) if self.is_own(netid) => {
                self.report.moved += 1;
                self.change(device, Some(netid), Some(self.netid));
            }
            _ if self.limits.is_some_and(|limits| !limits.has(device)) => {
                self.report.outside += 1;
                name_one(&mut self.report.outsiders, device);
            }
            None => {
                self.report.added += 1;
                self.change(device, None, Some(self.netid));
            }
            Some(_) => {
                self.report.claimed += 1;
                if self.disputed.len() < MAX_CLAIMS {
                    self.disputed.push(device);
                }
                name_one(&mut self.report.claims, device);
            }
        }
    }

    fn remove(&mut self, device: DevEui) {
        if self.view.zones.devices().get(device) == Some(self.netid) {
            self.report.removed += 1;
            self.change(device, Some(self.netid), None);
        } else {
            self.report.absent += 1;
            let claims = self.view.ownership.claims.get(self.member);
            if claims.is_some_and(|claims| claims.kept.get(&device).is_some_and(|claim| claim.netid == self.netid)) {
                self.withdrawn.push(device);
            }
        }
    }

    /// One pass over the sorted list and the whole table.
    pub(super) fn full(&mut self, devices: &[DevEui]) {
        let view = self.view;
        self.whole = true;
        self.expect(devices.len());
        let mut wanted = devices.iter().copied().peekable();
        for (device, netid) in view.zones.devices().iter() {
            while let Some(absent) = wanted.next_if(|&next| next < device) {
                self.place(absent, None);
            }
            if wanted.next_if_eq(&device).is_some() {
                self.place(device, Some(netid));
            } else if netid == self.netid {
                self.report.removed += 1;
                self.change(device, Some(netid), None);
            }
        }
        wanted.for_each(|device| self.place(device, None));
    }

    fn change(&mut self, device: DevEui, before: Option<NetId>, after: Option<NetId>) {
        self.changes.push(DeviceChange { device, before, after });
    }

    fn is_own(&self, netid: NetId) -> bool {
        self.view.zones.network(netid).is_some_and(|network| &network.member == self.member)
    }
}

/// Names a device among those that are named one by one.
fn name_one(shown: &mut Vec<DevEui>, device: DevEui) {
    if shown.len() < CLAIMS_SHOWN {
        shown.push(device);
    }
}

impl Transaction<'_> {
    /// Does what a plan says, in one serial, claims included. Gives the report and how many claims changed.
    pub(super) fn carry_out(
        &mut self,
        member: &MemberId,
        netid: NetId,
        plan: Plan,
        whole: bool,
    ) -> Result<(Imported, usize), Refusal> {
        let Plan { changes, mut report, disputed, withdrawn } = plan;
        self.change_zones(changes, vec![])?;
        report.serial = Some(self.view.zones.serial());
        let list = ClaimList { whole, disputed: &disputed, withdrawn: &withdrawn, claimed: report.claimed };
        let claims = self.uphold_claims(member, netid, list)?;
        (report.claims_opened, report.claims_closed) = (claims.opened, claims.closed);
        Ok((report, claims.written))
    }
}
