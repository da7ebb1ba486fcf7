//! Sources: a member's own primary fills one of its NetIDs, and nothing else does.

use std::net::SocketAddr;
use std::sync::Arc;

use dnsbroker_ca::Principal;
use dnsbroker_federation::{DomainName, MemberId, NetId};
use dnsbroker_zone::transfer::inbound::{Content, Received, Tally};
use serde_json::{Value, json};

use super::devices::{Imported, Planner};
use super::{Act, Mode};
use crate::engine::Table;
use crate::record::{OnExpiry, Permission, Progress, Source, SourceTls};
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// Claims of a transfer that are kept to be shown.
const CLAIMS_KEPT: usize = 100;

/// Binds a NetID to a primary.
pub struct SetSource {
    /// The NetID.
    pub netid: NetId,
    /// Who holds it.
    pub member: MemberId,
    /// Where the primary answers.
    pub primary: SocketAddr,
    /// The zone the devices are in.
    pub zone: DomainName,
    /// The TSIG key.
    pub key: Option<DomainName>,
    /// How its TLS is verified.
    pub tls: Option<SourceTls>,
    /// What becomes of its devices when it is not heard any more.
    pub on_expiry: OnExpiry,
}

impl Act for SetSource {
    type Done = Arc<Source>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        transaction.active_member(&self.member)?;
        transaction.own_network(self.netid, &self.member)?;
        if let Some(key) = &self.key {
            transaction.check_key_of(key, &Principal::Member(self.member.clone()), Permission::Source)?;
        }
        if self.key.is_none() && self.tls.is_none() {
            return Err(Refusal::SourceProof(self.netid));
        }
        let known = transaction.view.sources.get(&self.netid).cloned();
        let Self { netid, member, primary, zone, key, tls, on_expiry } = self;
        // Another zone starts anew.
        let same_zone = known.as_ref().filter(|known| known.zone == zone && known.primary == primary);
        let progress = same_zone.and_then(|known| known.progress.clone());
        let since = known.as_ref().map_or(transaction.now(), |known| known.since);
        let source = Source { netid, member, primary, zone, key, tls, on_expiry, since, progress };
        if known.is_some_and(|known| *known == source) {
            return Ok((Arc::new(source), None));
        }
        let detail = json!({
            "member": source.member, "primary": source.primary, "zone": source.zone, "key": source.key,
            "tls": source.tls.is_some(), "on_expiry": source.on_expiry,
        });
        let note = Note::new("source.set", netid, detail);
        Ok((transaction.write_source(source)?, Some(note)))
    }
}

/// Lets go of a primary. The devices stay.
pub struct RemoveSource {
    /// Of which NetID.
    pub netid: NetId,
}

impl Act for RemoveSource {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        transaction.source(self.netid)?;
        transaction.view.sources.remove(&self.netid);
        transaction.batch.delete(Table::Sources, self.netid.as_u32().to_be_bytes());
        Ok(((), Some(Note::new("source.remove", self.netid, Value::Null))))
    }
}

/// Takes what a primary has sent, as one delta.
pub struct TakeTransfer {
    /// Of which NetID.
    pub netid: NetId,
    /// The zone that was asked for, so that an answer to an earlier setting is not taken.
    pub zone: DomainName,
    /// The transfer.
    pub received: Received,
    /// Whether an administrator has said that most devices may go.
    pub allow_shrink: bool,
}

impl Act for TakeTransfer {
    type Done = Imported;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Imported, Option<Note>), Refusal> {
        let source = transaction.source(self.netid)?;
        if source.zone != self.zone {
            return Err(Refusal::NoSource(self.netid));
        }
        transaction.active_member(&source.member)?;
        let Received { soa, content, tally } = self.received;
        let mut planner = Planner::new(&transaction.view, &source.member, self.netid);
        // A device that a difference brings and that is here already has two records from now on.
        let mut doubled = false;
        let incremental = match &content {
            Content::Current => return Ok((Imported::default(), None)),
            Content::Whole(devices) => {
                planner.full(devices);
                false
            }
            Content::Difference { came, gone } => {
                let devices = transaction.view.zones.devices();
                doubled = came.iter().any(|device| devices.get(*device) == Some(self.netid));
                planner.difference(came, gone);
                true
            }
        };
        if !self.allow_shrink {
            planner.check_shrink()?;
        }
        planner.check_quota()?;
        let plan = planner.finish();
        drop(content);
        let (report, _) = transaction.carry_out(&source.member, self.netid, plan, !incremental)?;
        let before = source.progress.as_ref();
        // A difference tells of new claims only; the old ones still stand.
        let earlier = before.filter(|_| incremental);
        let Tally { records, strangers, strangers_shown, mismatches, mismatches_shown, several, .. } = tally;
        let progress = Progress {
            serial: dnsbroker_federation::Serial::new(soa.serial),
            refresh: soa.refresh,
            retry: soa.retry,
            expire: soa.expire,
            at: transaction.now(),
            incremental,
            several: several || doubled || (incremental && before.is_some_and(|before| before.several)),
            records,
            strangers,
            strangers_shown,
            mismatches,
            mismatches_shown,
            claimed: earlier.map_or(0, |before| before.claimed) + report.claimed,
            claims_shown: report.claims.iter().take(CLAIMS_KEPT).copied().collect(),
            filled: earlier.map_or(0, |before| before.filled) + report.filled,
            filled_shown: report.filled_shown.iter().take(CLAIMS_KEPT).copied().collect(),
            outside: earlier.map_or(0, |before| before.outside) + report.outside,
            outside_shown: report.outsiders.iter().take(CLAIMS_KEPT).copied().collect(),
        };
        let detail = json!({
            "member": source.member, "zone": source.zone, "theirs": soa.serial, "incremental": incremental,
            "added": report.added, "moved": report.moved, "removed": report.removed, "claimed": report.claimed, "outside": report.outside,
            "filled": report.filled,
        });
        transaction.write_source(Source { progress: Some(progress), ..Source::clone(&source) })?;
        Ok((report, Some(Note::new("source.transfer", self.netid, detail))))
    }
}

/// Takes out the devices of a primary that has not been heard for as long as its SOA says.
pub struct Withdraw {
    /// Of which NetID.
    pub netid: NetId,
}

impl Act for Withdraw {
    type Done = Imported;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Imported, Option<Note>), Refusal> {
        let source = transaction.source(self.netid)?;
        let mut planner = Planner::new(&transaction.view, &source.member, self.netid);
        planner.full(&[]);
        let (report, _) = transaction.carry_out(&source.member, self.netid, planner.finish(), true)?;
        // What was transferred is no longer there: the next transfer is a whole one.
        transaction.write_source(Source { progress: None, ..Source::clone(&source) })?;
        let note = Note::new("source.expire", self.netid, json!({ "removed": report.removed }));
        Ok((report, Some(note)))
    }
}

impl Transaction<'_> {
    fn source(&self, netid: NetId) -> Result<Arc<Source>, Refusal> {
        self.view.sources.get(&netid).cloned().ok_or(Refusal::NoSource(netid))
    }

    fn write_source(&mut self, source: Source) -> Result<Arc<Source>, Refusal> {
        self.put(Table::Sources, source.netid.as_u32().to_be_bytes(), &source)?;
        let source = Arc::new(source);
        self.view.sources.insert(source.netid, Arc::clone(&source));
        Ok(source)
    }

    /// What a source fills nobody else changes: the next transfer would undo it.
    pub(super) fn check_not_filled(&self, netid: NetId) -> Result<(), Refusal> {
        match self.view.sources.get(&netid) {
            Some(source) => Err(Refusal::Filled { netid, zone: source.zone.clone(), primary: source.primary }),
            None => Ok(()),
        }
    }

    /// That a NetID is there, and this member's.
    pub(super) fn own_network(&self, netid: NetId, member: &MemberId) -> Result<(), Refusal> {
        let network = self.view.zones.network(netid).ok_or(Refusal::NoNetwork(netid))?;
        if network.member == *member { Ok(()) } else { Err(Refusal::ForeignNetwork { netid, member: member.clone() }) }
    }
}

/// How a list is meant that a source has sent; for [`Planner`].
impl Planner<'_> {
    fn difference(&mut self, came: &[dnsbroker_federation::DevEui], gone: &[dnsbroker_federation::DevEui]) {
        // A device in both lists does not occur: they are net changes.
        gone.iter().for_each(|&device| self.apply(Mode::Remove, device));
        came.iter().for_each(|&device| self.apply(Mode::Add, device));
        self.sort();
    }
}
