//! One snapshot of the three zones of a federation: what every query, export and transfer reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use dnsbroker_federation::{DomainName, Namespace, NetId, Serial};

use crate::delta::{Delta, Network};
use crate::table::Devices;
use crate::wire::{RecordType, rdata};

/// Times of the zones, in seconds (RFC 1035, section 3.3.13; RFC 2308, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// TTL of device and NetID records.
    pub ttl: u32,
    /// TTL of negative answers: the last field of the SOA.
    pub negative_ttl: u32,
    /// How often a secondary asks for the SOA.
    pub refresh: u32,
    /// How soon it asks again after a failure.
    pub retry: u32,
    /// When it stops answering without having heard from us.
    pub expire: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self { ttl: 60, negative_ttl: 60, refresh: 300, retry: 60, expire: 1_209_600 }
    }
}

/// Resource records of one owner and type in the public zone, in wire form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicRecord {
    /// The owner.
    pub owner: DomainName,
    /// The type.
    pub rtype: RecordType,
    /// Seconds.
    pub ttl: u32,
    /// RDATA without compression.
    pub rdata: Vec<u8>,
}

/// The broker's own names: few, so a sorted map of everything is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicZone {
    /// The serial of the public zone, apart from that of the private ones: what devices do must not show here.
    pub serial: u32,
    records: BTreeMap<Box<[u8]>, Vec<PublicRecord>>,
}

impl PublicZone {
    /// From records, the SOA and NS of the apex apart: those are made here.
    pub fn new(serial: u32, records: impl IntoIterator<Item = PublicRecord>) -> Self {
        let mut map: BTreeMap<Box<[u8]>, Vec<PublicRecord>> = BTreeMap::new();
        for record in records {
            map.entry(record.owner.wire().into()).or_default().push(record);
        }
        Self { serial, records: map }
    }

    /// All records of a lower-case name in wire form.
    pub fn at(&self, name: &[u8]) -> Option<&[PublicRecord]> {
        self.records.get(name).map(Vec::as_slice)
    }

    /// Whether a name has names below it and so exists without records (RFC 8020).
    pub fn has_below(&self, name: &[u8]) -> bool {
        self.records.keys().any(|owner| {
            let mut labels = dnsbroker_federation::Labels::of(owner);
            while labels.next().is_some() {
                if labels.rest() == name {
                    return true;
                }
            }
            false
        })
    }

    /// All records, owner by owner.
    pub fn iter(&self) -> impl Iterator<Item = &PublicRecord> {
        self.records.values().flatten()
    }
}

/// A NetID with what its answers need made ready.
#[derive(Debug, Clone)]
struct Ready {
    netid: u32,
    network: Network,
}

/// A snapshot of all zones. Immutable; cheap to clone.
#[derive(Debug, Clone)]
pub struct Zones {
    names: Arc<Namespace>,
    timing: Timing,
    contact: DomainName,
    public: Arc<PublicZone>,
    serial: Serial,
    networks: Arc<Vec<Ready>>,
    devices: Devices,
}

/// Why a delta cannot be applied to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the delta starts from serial {delta} and the zones are at {zones}")]
pub struct SerialMismatch {
    delta: Serial,
    zones: Serial,
}

impl Zones {
    /// Zones at a serial, with what a store has for them.
    pub fn new(
        names: Arc<Namespace>,
        serial: Serial,
        devices: Devices,
        networks: impl IntoIterator<Item = Network>,
    ) -> Self {
        let mut networks: Vec<Ready> =
            networks.into_iter().map(|network| Ready { netid: network.netid.as_u32(), network }).collect();
        networks.sort_by_key(|ready| ready.netid);
        let contact = names.apex(dnsbroker_federation::Zone::Public).clone();
        let public = Arc::default();
        Self { names, timing: Timing::default(), contact, public, serial, networks: Arc::new(networks), devices }
    }

    /// The same data with other settings: times, SOA RNAME and public records come from the configuration.
    #[must_use]
    pub fn with_settings(&self, timing: Timing, contact: DomainName, public: PublicZone) -> Self {
        Self { timing, contact, public: Arc::new(public), ..self.clone() }
    }

    /// The same data under other names: the broker's own may change.
    #[must_use]
    pub fn with_names(&self, names: Arc<Namespace>) -> Self {
        Self { names, ..self.clone() }
    }

    /// The same data under another serial.
    #[must_use]
    pub fn at(&self, serial: Serial) -> Self {
        Self { serial, ..self.clone() }
    }

    /// The names of the zones.
    pub fn names(&self) -> &Namespace {
        &self.names
    }

    /// Their times.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// The public records.
    pub fn public(&self) -> &PublicZone {
        &self.public
    }

    /// The serial of the private zones.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The devices.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The NetIDs, in order.
    pub fn networks(&self) -> impl ExactSizeIterator<Item = &Network> {
        self.networks.iter().map(|ready| &ready.network)
    }

    /// A NetID.
    pub fn network(&self, netid: NetId) -> Option<&Network> {
        let index = self.networks.binary_search_by_key(&netid.as_u32(), |ready| ready.netid).ok()?;
        Some(&self.networks[index].network)
    }

    /// The mailbox of the SOA's RNAME.
    pub fn contact(&self) -> &DomainName {
        &self.contact
    }

    /// RDATA of a zone's SOA.
    pub fn soa_rdata(&self, zone: dnsbroker_federation::Zone) -> Vec<u8> {
        let serial = if zone.is_private() { self.serial.get() } else { self.public.serial };
        rdata::soa(self.names.broker(), &self.contact, serial, &self.timing)
    }

    /// The snapshot one delta later.
    pub fn apply(&self, delta: &Delta) -> Result<Self, SerialMismatch> {
        if delta.before != self.serial {
            return Err(SerialMismatch { delta: delta.before, zones: self.serial });
        }
        let mut next = self.clone();
        next.serial = delta.after;
        next.devices = self.devices.edited(&delta.devices);
        if !delta.networks.is_empty() {
            let networks = Arc::make_mut(&mut next.networks);
            for change in &delta.networks {
                let Some(netid) = change.after.as_ref().or(change.before.as_ref()).map(|n| n.netid) else { continue };
                networks.retain(|ready| ready.netid != netid.as_u32());
                networks.extend(change.after.clone().map(|network| Ready { netid: netid.as_u32(), network }));
            }
            networks.sort_by_key(|ready| ready.netid);
        }
        Ok(next)
    }

    /// The same zones with every device in the base, ready to be stored.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self { devices: self.devices.folded(), ..self.clone() }
    }
}
