//! Claims: a member wants a device that another holds. Both and the administrator see it, until it is settled: the holder
//! lets go or hands over, the claimant gives up, or the administrator decides.
//!
//! A handover is one delta and one serial: there is no moment with no answer. A device that is only let go belongs to
//! nobody until somebody's next list names it: no claimant wins by having waited, unless the holder says to whom it goes.
//!
//! What a source fills can be handed over, though not let go: the next transfer would register a free device again, and
//! of one that another member has it makes a claim.

use std::collections::BTreeSet;

use dnsbroker_federation::{DevEui, MemberId, NetId, Serial};
use dnsbroker_zone::delta::{Delta, DeviceChange};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::limits::{check_quota, check_range};
use super::{Act, check_text};
use crate::engine::Table;
use crate::ownership::{MAX_CLAIMS, claim_key};
use crate::record::{Beyond, Claim, Rejection, Seconds};
use crate::refusal::{OwnershipRefusal, Refusal};
use crate::transaction::{Note, Transaction};

/// When a claim was last seen is kept to this many seconds, so that a list that is sent every minute writes nothing.
const SEEN_STEP: Seconds = 86_400;
/// Devices of one settlement at most.
pub const MAX_SETTLED: usize = 1_000_000;

/// What became of devices that changed hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Devices that went to another member.
    pub moved: u64,
    /// Devices that are nobody's now.
    pub removed: u64,
    /// Claims that ended.
    pub closed: u64,
    /// The serial of the private zones afterwards.
    pub serial: Serial,
}

/// Lets devices go: to the one who claims them, or to nobody.
pub struct Release {
    /// The devices.
    pub devices: Vec<DevEui>,
    /// The member that lets go of its own. None is an administrator, who lets go of anybody's.
    pub holder: Option<MemberId>,
    /// The claimant who gets them, under the NetID that it claims them for.
    pub to: Option<MemberId>,
    /// Why; an administrator must say it.
    pub reason: Option<String>,
}

impl Act for Release {
    type Done = Settled;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Settled, Option<Note>), Refusal> {
        let Self { devices, holder, to, reason } = self;
        match &reason {
            Some(reason) => check_text("the reason", reason)?,
            None if holder.is_none() => check_text("the reason", "")?,
            None => {}
        }
        for member in holder.iter().chain(&to) {
            transaction.active_member(member)?;
        }
        let devices = checked(devices)?;
        for device in &devices {
            transaction.check_held(*device, holder.as_ref())?;
        }
        let detail = json!({ "devices": devices.len(), "to": to, "reason": reason });
        let object = devices.first().map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let note = Note::new("devices.release", object, detail);
        let settled = match &to {
            Some(claimant) => transaction.grant(&devices, claimant)?,
            None => transaction.let_go(&devices)?,
        };
        Ok((settled, (!devices.is_empty()).then_some(note)))
    }
}

/// An administrator decides claims, for or against the claimant.
pub struct DecideClaims {
    /// Who claims.
    pub claimant: MemberId,
    /// Which devices.
    pub devices: Vec<DevEui>,
    /// Whether the claimant gets them. If not, the claims stay on record with the reason until it gives them up.
    pub grant: bool,
    /// Why.
    pub reason: String,
}

impl Act for DecideClaims {
    type Done = Settled;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Settled, Option<Note>), Refusal> {
        let Self { claimant, devices, grant, reason } = self;
        check_text("the reason", &reason)?;
        let devices = checked(devices)?;
        let Some(first) = devices.first() else { return Ok((transaction.settled(0, 0, 0), None)) };
        let detail = json!({ "devices": devices.len(), "claimant": claimant, "grant": grant, "reason": reason });
        let note = Note::new("claim.decide", first, detail);
        if grant {
            transaction.active_member(&claimant)?;
            return Ok((transaction.grant(&devices, &claimant)?, Some(note)));
        }
        let rejected = Some(Box::new(Rejection { at: transaction.now(), reason }));
        let claims = devices.iter().map(|device| Ok((*device, transaction.claim(*device, &claimant)?)));
        let claims = claims.collect::<Result<Vec<_>, Refusal>>()?;
        for (device, claim) in claims {
            transaction.write_claim(device, &claimant, Claim { rejected: rejected.clone(), ..claim })?;
        }
        Ok((transaction.settled(0, 0, 0), Some(note)))
    }
}

/// A claimant gives its claims up.
pub struct WithdrawClaims {
    /// Who claimed.
    pub claimant: MemberId,
    /// Which devices; those it does not claim are passed over.
    pub devices: Vec<DevEui>,
}

impl Act for WithdrawClaims {
    type Done = Settled;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Settled, Option<Note>), Refusal> {
        transaction.member(&self.claimant)?;
        let devices = checked(self.devices)?;
        let closed = devices.iter().filter(|device| transaction.close_claim(**device, &self.claimant)).count() as u64;
        let note = Note::new("claim.withdraw", &self.claimant, json!({ "closed": closed }));
        Ok((transaction.settled(0, 0, closed), (closed > 0).then_some(note)))
    }
}

/// Sorted, each once, and not too many.
pub(super) fn checked(mut devices: Vec<DevEui>) -> Result<Vec<DevEui>, Refusal> {
    if devices.len() > MAX_SETTLED {
        let refusal = OwnershipRefusal::TooMany { what: "devices", count: devices.len(), limit: MAX_SETTLED };
        return Err(refusal.into());
    }
    devices.sort_unstable();
    devices.dedup();
    Ok(devices)
}

/// What a list says about claims.
pub(super) struct ClaimList<'a> {
    /// The list is all that the member has there: earlier claims that it does not name end.
    pub whole: bool,
    /// Devices that other members hold, sorted; as many as are kept.
    pub disputed: &'a [DevEui],
    /// Devices that it no longer wants.
    pub withdrawn: &'a [DevEui],
    /// How many it has that others hold.
    pub claimed: u64,
}

/// What a list did to claims.
#[derive(Default)]
pub(super) struct Upheld {
    pub opened: u64,
    pub closed: u64,
    /// Rows that were written.
    pub written: usize,
}

/// Claims that an act has opened beside what it was for: those against whom they are hear of them, and of nothing else
/// that the act did.
pub(crate) struct ClaimsOpened {
    first: DevEui,
    claimant: MemberId,
    netid: NetId,
    count: u64,
    pub(crate) holders: BTreeSet<MemberId>,
}

impl ClaimsOpened {
    fn new(first: DevEui, claimant: &MemberId, netid: NetId) -> Self {
        Self { first, claimant: claimant.clone(), netid, count: 0, holders: BTreeSet::new() }
    }

    pub(crate) fn note(&self) -> Note {
        let detail = json!({ "claimant": self.claimant, "netid": self.netid, "devices": self.count });
        Note::new("claim.open", self.first, detail)
    }
}

impl Transaction<'_> {
    pub(super) fn settled(&self, moved: u64, removed: u64, closed: u64) -> Settled {
        Settled { moved, removed, closed, serial: self.view.zones.serial() }
    }

    /// That a device is registered, and if a member asks, that it is this one's.
    fn check_held(&self, device: DevEui, holder: Option<&MemberId>) -> Result<(), Refusal> {
        match (self.view.holder(device), holder) {
            (found, Some(member)) if found != Some(member) => {
                Err(OwnershipRefusal::NotHeld { device, member: member.clone() }.into())
            }
            (None, _) => Err(OwnershipRefusal::NoDevice(device).into()),
            _ => Ok(()),
        }
    }

    fn claim(&self, device: DevEui, claimant: &MemberId) -> Result<Claim, Refusal> {
        let claims = self.view.ownership.claims.get(claimant);
        let claim = claims.and_then(|claims| claims.kept.get(&device)).cloned();
        claim.ok_or_else(|| OwnershipRefusal::NoClaim { device, claimant: claimant.clone() }.into())
    }

    /// Gives claimed devices to the claimant, each under the NetID it is claimed for.
    fn grant(&mut self, devices: &[DevEui], claimant: &MemberId) -> Result<Settled, Refusal> {
        let targets = devices.iter().map(|device| Ok((*device, self.claim(*device, claimant)?.netid)));
        let targets = targets.collect::<Result<Vec<_>, Refusal>>()?;
        self.hand_over(&targets, claimant)
    }

    /// Puts devices under NetIDs of a member, whoever had them, in one serial.
    pub(super) fn hand_over(&mut self, targets: &[(DevEui, NetId)], to: &MemberId) -> Result<Settled, Refusal> {
        let netids: BTreeSet<NetId> = targets.iter().map(|(_, netid)| *netid).collect();
        netids.into_iter().try_for_each(|netid| self.own_network(netid, to))?;
        let mut changes = Vec::with_capacity(targets.len());
        let mut gain = 0;
        for &(device, netid) in targets {
            let before = self.view.zones.devices().get(device);
            if before == Some(netid) {
                continue;
            }
            if self.view.holder(device) != Some(to) {
                check_range(&self.view, to, device)?;
                gain += 1;
            }
            changes.push(DeviceChange { device, before, after: Some(netid) });
        }
        check_quota(&self.view, to, gain)?;
        let claims = |transaction: &Self| transaction.view.claim_counts(to).0 as u64;
        let (moved, open) = (changes.len() as u64, claims(self));
        self.change_zones(changes, vec![])?;
        Ok(self.settled(moved, 0, open - claims(self)))
    }

    fn let_go(&mut self, devices: &[DevEui]) -> Result<Settled, Refusal> {
        let mut changes = Vec::with_capacity(devices.len());
        let mut last = None;
        for &device in devices {
            let before = self.view.zones.devices().get(device);
            if let Some(netid) = before.filter(|netid| last != Some(*netid)) {
                self.check_not_filled(netid)?;
                last = Some(netid);
            }
            changes.push(DeviceChange { device, before, after: None });
        }
        let removed = changes.len() as u64;
        self.change_zones(changes, vec![])?;
        Ok(self.settled(0, removed, 0))
    }

    /// Brings the claims of a member to a NetID up to date with a list of its.
    pub(super) fn uphold_claims(
        &mut self,
        member: &MemberId,
        netid: NetId,
        list: ClaimList<'_>,
    ) -> Result<Upheld, Refusal> {
        let (batch, mut upheld) = (self.batch.len(), Upheld::default());
        if let Some(claims) = self.view.ownership.claims.get(member).filter(|_| list.whole) {
            let over = claims
                .kept
                .iter()
                .filter(|(device, claim)| claim.netid == netid && list.disputed.binary_search(device).is_err());
            let over: Vec<DevEui> = over.map(|(device, _)| *device).collect();
            upheld.closed = over.iter().filter(|device| self.close_claim(**device, member)).count() as u64;
        }
        upheld.closed += list.withdrawn.iter().filter(|device| self.close_claim(**device, member)).count() as u64;
        let mut kept = 0;
        for &device in list.disputed {
            let opened = self.open_claim(device, member, netid)?;
            if opened == Opened::New {
                upheld.opened += 1;
                let holder = self.view.holder(device).cloned();
                let told = self.claims_opened.get_or_insert_with(|| ClaimsOpened::new(device, member, netid));
                told.count += 1;
                told.holders.extend(holder);
            }
            kept += u64::from(opened != Opened::Full);
        }
        self.count_beyond(member, netid, list.whole, list.claimed - kept)?;
        upheld.written = self.batch.len() - batch;
        Ok(upheld)
    }

    /// Records that a member wants a device.
    fn open_claim(&mut self, device: DevEui, claimant: &MemberId, netid: NetId) -> Result<Opened, Refusal> {
        let (now, claims) = (self.now(), self.view.ownership.claims.get(claimant));
        let known = claims.and_then(|claims| claims.kept.get(&device));
        match known {
            Some(claim) if claim.netid == netid && now - claim.seen < SEEN_STEP => return Ok(Opened::Known),
            None if claims.is_some_and(|claims| claims.kept.len() >= MAX_CLAIMS) => return Ok(Opened::Full),
            _ => {}
        }
        let (since, rejected) = known.map_or((now, None), |claim| (claim.since, claim.rejected.clone()));
        let opened = if known.is_none() { Opened::New } else { Opened::Known };
        self.write_claim(device, claimant, Claim { netid, since, seen: now, rejected })?;
        Ok(opened)
    }

    fn write_claim(&mut self, device: DevEui, claimant: &MemberId, claim: Claim) -> Result<(), Refusal> {
        self.put(Table::Claims, claim_key(Some(device), claimant), &claim)?;
        self.view.ownership.claims.entry(claimant.clone()).or_default().kept.insert(device, claim);
        Ok(())
    }

    /// Ends a claim; tells whether there was one.
    fn close_claim(&mut self, device: DevEui, claimant: &MemberId) -> bool {
        let claims = &mut self.view.ownership.claims;
        if !claims.get(claimant).is_some_and(|of| of.kept.contains_key(&device)) {
            return false;
        }
        let Some(of) = claims.get_mut(claimant) else { return false };
        of.kept.remove(&device);
        if of.kept.is_empty() && of.beyond.is_empty() {
            claims.remove(claimant);
        }
        self.batch.delete(Table::Claims, claim_key(Some(device), claimant));
        true
    }

    /// Counts claims that are not kept. A full list says how many there are, another how many more.
    fn count_beyond(&mut self, member: &MemberId, netid: NetId, whole: bool, count: u64) -> Result<(), Refusal> {
        let claims = self.view.ownership.claims.get(member);
        let known = claims.and_then(|of| of.beyond.iter().find(|beyond| beyond.netid == netid));
        let known = known.map_or(0, |beyond| beyond.count);
        let count = if whole { count } else { known + count };
        if count == known {
            return Ok(());
        }
        let of = self.view.ownership.claims.entry(member.clone()).or_default();
        of.beyond.retain(|beyond| beyond.netid != netid);
        if count > 0 {
            of.beyond.push(Beyond { netid, count });
        }
        let (beyond, over) = (of.beyond.clone(), of.beyond.is_empty() && of.kept.is_empty());
        if over {
            self.view.ownership.claims.remove(member);
        }
        if beyond.is_empty() {
            self.batch.delete(Table::Claims, claim_key(None, member));
            return Ok(());
        }
        self.put(Table::Claims, claim_key(None, member), &beyond)
    }

    /// Records what an act was refused for, if it was refused because another member holds a device.
    pub(crate) fn record_dispute(&mut self) -> Result<Option<Note>, Refusal> {
        let Some((member, netid, device)) = self.disputed.take() else { return Ok(None) };
        let opened = self.open_claim(device, &member, netid)?;
        let detail = json!({ "claimant": member, "netid": netid });
        Ok((opened == Opened::New).then(|| Note::new("claim.open", device, detail)))
    }

    /// What a change of devices does beside the zones: who got a device claims it no more, lists have a new revision, and
    /// nobody claims anything for a NetID that went.
    pub(crate) fn devices_changed(&mut self, delta: &Delta) -> Result<(), Refusal> {
        let mut touched = BTreeSet::new();
        let mut last = None;
        for change in &delta.devices {
            if last != Some((change.before, change.after)) {
                last = Some((change.before, change.after));
                touched.extend(change.before.into_iter().chain(change.after));
            }
        }
        self.view.ownership.lists.extend(touched.into_iter().map(|netid| (netid, delta.after)));
        if self.view.ownership.claims.is_empty() {
            return Ok(());
        }
        // Devices of a list go to one NetID: its holder is looked up once.
        let mut last: Option<(NetId, Option<MemberId>)> = None;
        for change in &delta.devices {
            let Some(netid) = change.after else { continue };
            if last.as_ref().is_none_or(|(known, _)| *known != netid) {
                let holder = self.view.zones.network(netid).map(|network| network.member.clone());
                last = Some((netid, holder.filter(|holder| self.view.ownership.claims.contains_key(holder))));
            }
            if let Some((_, Some(holder))) = &last {
                self.close_claim(change.device, holder);
            }
        }
        for change in &delta.networks {
            if let (Some(before), None) = (&change.before, &change.after) {
                let list = ClaimList { whole: true, disputed: &[], withdrawn: &[], claimed: 0 };
                self.uphold_claims(&before.member, before.netid, list)?;
            }
        }
        Ok(())
    }
}

/// What became of a claim that was made.
#[derive(PartialEq, Eq)]
enum Opened {
    /// It is on record now.
    New,
    /// It was on record.
    Known,
    /// The claimant has too many: it is counted only.
    Full,
}
