//! Devices: a member's list for one of its NetIDs becomes a delta.
//!
//! A DevEUI that another member holds is a *claim*: it is counted and reported to the one who sent it, without saying
//! who holds it, and nothing is overwritten. A DevEUI of the member's own other NetID moves.

use dnsbroker_federation::{DevEui, MemberId, NetId, Serial};
use dnsbroker_zone::delta::DeviceChange;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Act;
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};
use crate::view::View;

/// A full list that drops more than this share of the devices held is taken for a mistake until it is confirmed.
pub const SHRINK_PERCENT: u64 = 50;
/// Lists held below this number may shrink as they like.
const SHRINK_FLOOR: u64 = 20;
/// Claims that are named one by one in a report; all are counted.
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
            mode => devices.iter().for_each(|&device| planner.apply(mode, device)),
        }
        if self.mode == Mode::Full && !self.allow_shrink {
            planner.check_shrink()?;
        }
        let (changes, mut report) = planner.finish();
        report.dry_run = self.dry_run;
        if self.dry_run || changes.is_empty() {
            report.serial = Some(transaction.view.zones.serial());
            return Ok((report, None));
        }
        transaction.change_zones(changes, vec![])?;
        report.serial = Some(transaction.view.zones.serial());
        let detail = json!({
            "member": self.member, "mode": self.mode, "added": report.added, "moved": report.moved,
            "removed": report.removed, "claimed": report.claimed,
        });
        Ok((report, Some(Note::new("devices.import", self.netid, detail))))
    }
}

/// Works out what a list changes.
pub(super) struct Planner<'a> {
    view: &'a View,
    member: &'a MemberId,
    netid: NetId,
    changes: Vec<DeviceChange>,
    report: Imported,
}

impl<'a> Planner<'a> {
    pub(super) fn new(view: &'a View, member: &'a MemberId, netid: NetId) -> Self {
        Self { view, member, netid, changes: Vec::new(), report: Imported::default() }
    }

    /// A full list that drops most devices looks like a mistake.
    pub(super) fn check_shrink(&self) -> Result<(), Refusal> {
        let (held, removed) = (self.view.zones.devices().count(self.netid), self.report.removed);
        if held >= SHRINK_FLOOR && removed * 100 > held * SHRINK_PERCENT {
            return Err(Refusal::Shrink { netid: self.netid, removed, held, percent: SHRINK_PERCENT });
        }
        Ok(())
    }

    /// The changes, and what they come to.
    pub(super) fn finish(self) -> (Vec<DeviceChange>, Imported) {
        (self.changes, self.report)
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
            None => {
                self.report.added += 1;
                self.change(device, None, Some(self.netid));
            }
            Some(netid) if self.is_own(netid) => {
                self.report.moved += 1;
                self.change(device, Some(netid), Some(self.netid));
            }
            Some(_) => {
                self.report.claimed += 1;
                if self.report.claims.len() < CLAIMS_SHOWN {
                    self.report.claims.push(device);
                }
            }
        }
    }

    fn remove(&mut self, device: DevEui) {
        if self.view.zones.devices().get(device) == Some(self.netid) {
            self.report.removed += 1;
            self.change(device, Some(self.netid), None);
        } else {
            self.report.absent += 1;
        }
    }

    /// One pass over the sorted list and the whole table.
    pub(super) fn full(&mut self, devices: &[DevEui]) {
        let view = self.view;
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
