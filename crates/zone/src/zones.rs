//! One snapshot of the three zones of a federation: what every query, export and transfer reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use dnsbroker_federation::{DevEui, DomainName, MemberId, Namespace, NetId, Serial};

use crate::delta::{Delta, Network};
use crate::policy::{Matrix, Policy, Ruling, Sight};
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
    policy: Arc<Policy>,
    /// The policy made ready; none where it hides nothing.
    matrix: Option<Arc<Matrix>>,
    /// Devices that are about to move, sorted; none where there are none.
    moving: Option<Arc<[DevEui]>>,
}

/// TTL of devices that are about to move: caches forget them as quickly as they may.
pub const MOVING_TTL: u32 = 5;

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
        Self {
            names,
            timing: Timing::default(),
            contact,
            public: Arc::default(),
            serial,
            networks: Arc::new(networks),
            devices,
            policy: Arc::default(),
            matrix: None,
            moving: None,
        }
    }

    /// The same data under another policy.
    #[must_use]
    pub fn with_policy(&self, policy: Arc<Policy>) -> Self {
        let mut next = Self { policy, ..self.clone() };
        next.compile();
        next
    }

    /// The same data, with these devices about to move.
    #[must_use]
    pub fn with_moving(&self, mut devices: Vec<DevEui>) -> Self {
        devices.sort_unstable();
        devices.dedup();
        Self { moving: (!devices.is_empty()).then(|| devices.into()), ..self.clone() }
    }

    fn compile(&mut self) {
        self.matrix = Matrix::compile(&self.policy, self.networks()).map(Arc::new);
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
        self.placed(netid).map(|(_, network)| network)
    }

    /// A NetID, with its place in the list of all.
    pub fn placed(&self, netid: NetId) -> Option<(usize, &Network)> {
        let place = self.networks.binary_search_by_key(&netid.as_u32(), |ready| ready.netid).ok()?;
        Some((place, &self.networks[place].network))
    }

    /// Who may resolve what.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What a member sees.
    pub fn sight(&self, member: &MemberId) -> Sight<'_> {
        self.matrix.as_ref().map_or(Sight::ALL, |matrix| matrix.of(member))
    }

    /// The rule that decides whether a member sees a NetID, if that is there.
    pub fn ruling(&self, member: &MemberId, netid: NetId) -> Option<Ruling> {
        self.network(netid).map(|network| self.policy.decide(member, netid, &network.member))
    }

    /// TTL of a device's record: short while it is about to move.
    pub fn device_ttl(&self, device: DevEui) -> u32 {
        match &self.moving {
            Some(moving) if moving.binary_search(&device).is_ok() => self.timing.ttl.min(MOVING_TTL),
            _ => self.timing.ttl,
        }
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
            next.compile();
        }
        Ok(next)
    }

    /// The same zones with every device in the base, ready to be stored.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self { devices: self.devices.folded(), ..self.clone() }
    }
}
