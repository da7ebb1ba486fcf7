//! Devices that come and devices that go, in one delta and one serial: what a member's own system says has changed since
//! it last spoke.

use dnsbroker_federation::{DevEui, MemberId, NetId};
use serde_json::json;

use super::devices::{Imported, Planner};
use super::{Act, Mode};
use crate::refusal::{OwnershipRefusal, Refusal};
use crate::transaction::{Note, Transaction};

/// Adds devices to a NetID and removes others from it.
pub struct DeviceChanges {
    /// Whose: from the connection's identity, or from an administrator.
    pub member: MemberId,
    /// The NetID.
    pub netid: NetId,
    /// Devices that are there too, in any order, repeats allowed.
    pub add: Vec<DevEui>,
    /// Devices that are no longer there.
    pub remove: Vec<DevEui>,
    /// Whether most devices may go.
    pub allow_shrink: bool,
    /// Only say what would happen.
    pub dry_run: bool,
}

impl Act for DeviceChanges {
    type Done = Imported;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Imported, Option<Note>), Refusal> {
        transaction.active_member(&self.member)?;
        transaction.own_network(self.netid, &self.member)?;
        transaction.check_not_filled(self.netid)?;
        let ((add, twice), (remove, again)) = (sorted(self.add), sorted(self.remove));
        if let Some(both) = add.iter().find(|device| remove.binary_search(device).is_ok()) {
            return Err(OwnershipRefusal::Both(*both).into());
        }
        let mut planner = Planner::new(&transaction.view, &self.member, self.netid);
        remove.iter().for_each(|&device| planner.apply(Mode::Remove, device));
        add.iter().for_each(|&device| planner.apply(Mode::Add, device));
        planner.sort();
        if !self.allow_shrink {
            planner.check_shrink()?;
        }
        planner.check_quota()?;
        let mut plan = planner.finish();
        plan.report.repeated = twice + again;
        if self.dry_run {
            let serial = Some(transaction.view.zones.serial());
            return Ok((Imported { dry_run: true, serial, ..plan.report }, None));
        }
        let unchanged = plan.changes.is_empty();
        let (report, claims) = transaction.carry_out(&self.member, self.netid, plan, false)?;
        if unchanged && claims == 0 {
            return Ok((report, None));
        }
        let detail = json!({
            "member": self.member, "added": report.added, "moved": report.moved, "removed": report.removed,
            "claimed": report.claimed, "outside": report.outside, "filled": report.filled,
        });
        Ok((report, Some(Note::new("devices.change", self.netid, detail))))
    }
}

/// Sorted and each once, and how many there were more.
fn sorted(mut devices: Vec<DevEui>) -> (Vec<DevEui>, u64) {
    let listed = devices.len();
    devices.sort_unstable();
    devices.dedup();
    let repeated = (listed - devices.len()) as u64;
    (devices, repeated)
}
