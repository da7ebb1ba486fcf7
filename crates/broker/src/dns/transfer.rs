//! Zone transfers out (RFC 5936, RFC 1995, RFC 9103): from one snapshot, however long it takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dnsbroker_api::Timestamp;
use dnsbroker_api::exchange::Fetched;
use dnsbroker_api::statistics::TransferShown;
use dnsbroker_ca::ReplicaId;
use dnsbroker_federation::{DomainName, Serial, Zone};
use dnsbroker_store::engine::Engine;
use dnsbroker_store::record::Replica;
use dnsbroker_store::{HistoryError, View};
use dnsbroker_zone::transfer::outgoing::{Changes, Extent, Outgoing};
use dnsbroker_zone::wire::message::Message;
use dnsbroker_zone::wire::{RecordType, Section};
use serde_json::json;

use super::envelope::Envelope;
use crate::committer::now;
use crate::events::Audience;
use crate::listen::Place;
use crate::metrics::{Direction, TransferKind};
use crate::shared::Shared;

/// Changes that are put together for one IXFR at most; more is sent as AXFR.
const MAX_CHANGES: usize = 200_000;

/// What a transfer ended of whose connection ended first.
const GONE: &str = "the connection ended";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The whole zone.
    Whole,
    /// What changed since this serial.
    Since(Serial),
}

impl Asked {
    /// Of a query for AXFR or IXFR; the latter has the asker's SOA as authority (RFC 1995, section 3).
    pub(super) fn of(message: Message<'_>) -> Option<Self> {
        let question = message.question().ok()??;
        if question.qtype == RecordType::AXFR {
            return Some(Self::Whole);
        }
        for record in message.records().ok()? {
            let record = record.ok()?;
            if record.section == Section::Authority && record.rtype == RecordType::SOA {
                return record.soa().map(|soa| Self::Since(Serial::new(soa.serial)));
            }
        }
        None
    }
}

/// A transfer that is allowed.
pub(super) struct Transfer {
    pub(super) _place: Place<ReplicaId>,
    pub(super) shared: Arc<Shared>,
    pub(super) view: Arc<View>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) replica: Arc<Replica>,
    /// The key it was asked with.
    pub(super) key: Option<DomainName>,
    pub(super) zone: Zone,
    pub(super) asked: Asked,
    pub(super) envelope: Envelope,
    pub(super) client: SocketAddr,
}

/// A transfer under way.
pub(super) struct Sending {
    transfer: Transfer,
    outgoing: Outgoing,
    kind: TransferKind,
    /// The generation of admissions under which it was allowed.
    generation: u64,
    started: Instant,
    messages: u64,
    octets: u64,
    /// How it ended; nobody has said so if its connection went first.
    end: Result<(), &'static str>,
}

impl Transfer {
    fn extent(&self) -> Extent {
        Extent { member: self.replica.only.clone(), viewer: self.replica.holder.clone(), names: self.replica.names }
    }

    /// The SOA alone, which over UDP says: ask again over TCP (RFC 1995, section 2).
    pub(super) fn lone_soa(mut self) -> Option<Vec<u8>> {
        let mut outgoing = Outgoing::soa(self.view.zones.clone(), self.zone, self.extent());
        let mut out = Vec::new();
        let written = outgoing.next(&self.envelope.header, &self.envelope.question, &mut out);
        self.envelope.sign(&mut out);
        written.then_some(out)
    }

    /// Works out what is to be sent. Reads the history from the store, so not for a thread that serves others.
    pub(super) fn start(self) -> Sending {
        let started = Instant::now();
        let (outgoing, kind) = self.content();
        let generation = self.view.generation;
        Sending { transfer: self, outgoing, kind, generation, started, messages: 0, octets: 0, end: Err(GONE) }
    }

    fn content(&self) -> (Outgoing, TransferKind) {
        let (zones, zone, extent) = (&self.view.zones, self.zone, self.extent());
        let whole = || (Outgoing::whole(zones.clone(), zone, self.extent()), TransferKind::Whole);
        let Asked::Since(since) = self.asked else { return whole() };
        let current = zones.serial();
        if since >= current {
            return (Outgoing::soa(zones.clone(), zone, extent), TransferKind::Current);
        }
        // A difference that is longer than the zone is worth nothing.
        let length = if zone == Zone::DevEui { zones.devices().len() as usize } else { MAX_CHANGES };
        let mut changes = Changes::default();
        let limit = MAX_CHANGES.min(length.max(1_000));
        let read = self.view.history.read(&*self.engine, since, current, limit, |delta| changes.push(delta));
        match read {
            // Whose a device was cannot be told when its NetID went to another member meanwhile.
            Ok(()) if extent.is_partial() && changes.holders_changed() => whole(),
            Ok(()) => {
                let outgoing = Outgoing::difference(zones.clone(), zone, extent, since, &changes);
                (outgoing, TransferKind::Difference)
            }
            Err(HistoryError::NotKept | HistoryError::TooLong) => whole(),
            Err(error) => {
                tracing::error!(%error, "the history cannot be read: the whole zone is sent");
                whole()
            }
        }
    }
}

impl Sending {
    /// Writes the next message; none when there is no more, an error when it is no longer allowed.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, &'static str> {
        self.check()?;
        let Transfer { envelope, .. } = &mut self.transfer;
        if !self.outgoing.next(&envelope.header, &envelope.question, out) {
            return Ok(false);
        }
        envelope.sign(out);
        self.messages += 1;
        self.octets += out.len() as u64 + 2;
        Ok(true)
    }

    /// Suspension and revocation bite on transfers under way.
    fn check(&mut self) -> Result<(), &'static str> {
        let view = self.transfer.shared.view.load();
        if view.generation == self.generation {
            return Ok(());
        }
        let replica = &self.transfer.replica;
        let same = view.replicas.get(&replica.id).is_some_and(|known| **known == **replica);
        let holder = dnsbroker_ca::Principal::Replica(replica.id.clone());
        if !same || view.admit_principal(&holder).is_err() {
            return Err("the replica was changed, removed or suspended meanwhile");
        }
        if self.transfer.key.as_ref().is_some_and(|key| !view.tsig_keys.contains_key(key)) {
            return Err("the TSIG key was revoked meanwhile");
        }
        self.generation = view.generation;
        Ok(())
    }

    /// It is over, well or not.
    pub(super) fn ended(mut self, end: Result<(), &'static str>) {
        self.end = end;
    }

    /// One log line and the counters.
    fn report(&self, failure: Option<&str>) {
        let Transfer { replica, zone, client, shared, .. } = &self.transfer;
        let seconds = self.started.elapsed().as_secs_f64();
        let (records, messages, octets) = (self.outgoing.records, self.messages, self.octets);
        let took = self.started.elapsed();
        shared.metrics.transferred(Direction::Out, self.kind, failure.is_none(), records, octets, took);
        let (kind, serial) = (self.kind.label(), self.outgoing.serial());
        let zone = match zone {
            Zone::DevEui => "deveuis",
            Zone::NetId => "netids",
            Zone::Public => "public",
        };
        shared.transfers.add(TransferShown {
            at: Timestamp(now()),
            direction: "out".to_owned(),
            peer: replica.id.to_string(),
            member: replica.holder.clone(),
            zone: zone.to_owned(),
            kind: kind.to_owned(),
            records,
            octets,
            seconds,
            failure: failure.map(str::to_owned),
        });
        if let Some(reason) = failure
            && shared.transfers.is_news(replica.id.as_str(), now())
        {
            let audience = Audience::of(replica.holder.as_ref());
            let detail = json!({ "zone": zone, "kind": kind, "records": records, "reason": reason });
            shared.events.notice("transfer.failed", replica.id.as_str(), audience, detail);
        }
        if failure.is_none() {
            let (zone, kind, at) = (zone.to_owned(), kind.to_owned(), Timestamp(now()));
            shared.transfers.fetched(replica.id.as_str(), Fetched { zone, serial, kind, at });
        }
        match failure {
            None => tracing::info!(
                %client, replica = %replica.id, zone, kind, %serial, messages, records, octets, seconds, "transfer out"
            ),
            Some(cause) => tracing::warn!(
                %client, replica = %replica.id, zone, kind, %serial, messages, records, octets, seconds, cause,
                "transfer out broken off"
            ),
        }
    }
}

/// However a transfer ends, it is told: also when its connection is cut and its task with it.
impl Drop for Sending {
    fn drop(&mut self) {
        self.report(self.end.err());
    }
}
