//! What a replica gets: a zone, or what changed in it, from one snapshot however long that takes.
//!
//! Messages are at most [`MESSAGE`] octets long, so that every name in one can be pointed to (a compression pointer
//! reaches 16 KiB). Devices come in order of their number; neighbours share their upper digits, which are the end of
//! their names, so a name is the digits in which it differs and a pointer into the name before: some 13 octets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dnsbroker_federation::{DevEui, MemberId, NetId, Serial, Zone};

use super::NameForm;
use crate::delta::{Delta, DeviceChange, Network};
use crate::wire::{HEADER, Header, RecordType, rdata};
use crate::zones::Zones;

/// Octets of a message at most, its signature apart.
const MESSAGE: usize = 16 * 1024 - 256;
/// Octets that one device can take, in both forms and with a target that was not named before.
const DEVICE_ROOM: usize = 160;

/// What of the zones a replica may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// One member's devices and NetIDs; everybody's where it is none.
    pub member: Option<MemberId>,
    /// The member for whom it is, and who may see it: policy hides from it what it hides in answers. An administrator's
    /// copy where it is none.
    pub viewer: Option<MemberId>,
    /// How devices are named.
    pub names: NameForm,
}

impl Extent {
    /// Whether it is a part of the zones only.
    pub fn is_partial(&self) -> bool {
        self.member.is_some() || self.viewer.is_some()
    }

    /// Whether a NetID is in it, one of the present or one that was there before.
    fn has(&self, zones: &Zones, network: &Network) -> bool {
        self.member.as_ref().is_none_or(|member| network.member == *member)
            && self
                .viewer
                .as_ref()
                .is_none_or(|viewer| zones.policy().decide(viewer, network.netid, &network.member).is_seen())
    }

    /// Of the NetIDs there are, in order, which are in it; none where all are.
    fn shown(&self, zones: &Zones) -> Option<Vec<bool>> {
        let everything =
            self.member.is_none() && self.viewer.as_ref().is_none_or(|viewer| zones.sight(viewer).is_all());
        (!everything).then(|| zones.networks().map(|network| self.has(zones, network)).collect())
    }
}

/// What changed since a serial, put together: a device or record that came and went does not show.
#[derive(Debug, Default)]
pub struct Changes {
    devices: BTreeMap<DevEui, (Option<NetId>, Option<NetId>)>,
    networks: BTreeMap<NetId, (Option<Network>, Option<Network>)>,
}

impl Changes {
    /// Takes the next delta.
    pub fn push(&mut self, delta: &Delta) {
        for &DeviceChange { device, before, after } in &delta.devices {
            self.devices.entry(device).or_insert((before, after)).1 = after;
        }
        for change in &delta.networks {
            let Some(netid) = change.after.as_ref().or(change.before.as_ref()).map(|network| network.netid) else {
                continue;
            };
            let entry = self.networks.entry(netid).or_insert_with(|| (change.before.clone(), None));
            entry.1.clone_from(&change.after);
        }
    }

    /// How many devices are in it.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.networks.is_empty()
    }

    /// Whether a NetID went from one member to another: then what a member's replica has cannot be told from this.
    pub fn holders_changed(&self) -> bool {
        let member = |network: &Option<Network>| network.as_ref().map(|network| network.member.clone());
        self.networks.values().any(
            |(before, after)| matches!((member(before), member(after)), (Some(before), Some(after)) if before != after),
        )
    }
}

/// What is still to be sent, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Soa(Serial),
    NameServer,
    /// All devices from this number on.
    Devices(u64),
    /// All records of NetIDs from this index on.
    Networks(usize),
    /// Devices that went, from this index on.
    Gone(usize),
    /// Devices that came.
    Came(usize),
    /// Records of NetIDs that went.
    Lost(usize),
    /// Records of NetIDs that came.
    Won(usize),
}

/// A record of a NetID, apart from its zone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct NetworkRecord {
    /// Labels before the apex, in wire form.
    owner: Vec<u8>,
    rtype: u16,
    rdata: Vec<u8>,
}

/// A transfer under way.
pub struct Outgoing {
    zones: Zones,
    zone: Zone,
    extent: Extent,
    /// Of the NetIDs, by place, which go out; none where all do.
    shown: Option<Vec<bool>>,
    steps: Vec<Step>,
    gone: Vec<(DevEui, NetId)>,
    came: Vec<(DevEui, NetId)>,
    lost: Vec<NetworkRecord>,
    won: Vec<NetworkRecord>,
    /// Records written.
    pub records: u64,
}

impl Outgoing {
    /// The whole zone (RFC 5936).
    pub fn whole(zones: Zones, zone: Zone, extent: Extent) -> Self {
        let serial = zones.serial();
        let content = if zone == Zone::DevEui { Step::Devices(0) } else { Step::Networks(0) };
        let mut transfer =
            Self::new(zones, zone, extent, vec![Step::Soa(serial), Step::NameServer, content, Step::Soa(serial)]);
        if zone == Zone::NetId {
            transfer.won = transfer.networks();
        }
        transfer
    }

    /// The SOA alone: the replica has the newest, or asked over a transport that holds no more (RFC 1995, section 2).
    pub fn soa(zones: Zones, zone: Zone, extent: Extent) -> Self {
        let serial = zones.serial();
        Self::new(zones, zone, extent, vec![Step::Soa(serial)])
    }

    /// What changed since a serial (RFC 1995, section 4), put together into one difference (section 5).
    pub fn difference(zones: Zones, zone: Zone, extent: Extent, since: Serial, changes: &Changes) -> Self {
        let serial = zones.serial();
        let steps = vec![
            Step::Soa(serial),
            Step::Soa(since),
            if zone == Zone::DevEui { Step::Gone(0) } else { Step::Lost(0) },
            Step::Soa(serial),
            if zone == Zone::DevEui { Step::Came(0) } else { Step::Won(0) },
            Step::Soa(serial),
        ];
        let mut transfer = Self::new(zones, zone, extent, steps);
        if zone == Zone::DevEui {
            transfer.devices_changed(changes);
        } else {
            transfer.networks_changed(changes);
        }
        transfer
    }

    fn new(zones: Zones, zone: Zone, extent: Extent, mut steps: Vec<Step>) -> Self {
        steps.reverse();
        let shown = extent.shown(&zones);
        Self { zones, zone, extent, shown, steps, gone: vec![], came: vec![], lost: vec![], won: vec![], records: 0 }
    }

    fn devices_changed(&mut self, changes: &Changes) {
        // A NetID that is no longer there was its member's until the end.
        let has = |netid: NetId| match changes.networks.get(&netid) {
            Some((Some(before), _)) => self.extent.has(&self.zones, before),
            _ => self.zones.network(netid).is_some_and(|network| self.extent.has(&self.zones, network)),
        };
        for (&device, &(before, after)) in &changes.devices {
            let (before, after) = (before.filter(|netid| has(*netid)), after.filter(|netid| has(*netid)));
            if before != after {
                self.gone.extend(before.map(|netid| (device, netid)));
                self.came.extend(after.map(|netid| (device, netid)));
            }
        }
    }

    fn networks_changed(&mut self, changes: &Changes) {
        let records = |network: &Option<Network>| {
            let shown = network.as_ref().filter(|network| self.extent.has(&self.zones, network));
            shown.map_or_else(Vec::new, |network| network_records(&self.zones, network))
        };
        for (before, after) in changes.networks.values() {
            let (before, after) = (records(before), records(after));
            self.lost.extend(before.iter().filter(|record| !after.contains(record)).cloned());
            self.won.extend(after.iter().filter(|record| !before.contains(record)).cloned());
        }
    }

    /// Whether the devices of a NetID go out.
    fn has(&self, netid: NetId) -> bool {
        let Some(shown) = &self.shown else { return true };
        self.zones.placed(netid).is_some_and(|(place, _)| shown[place])
    }

    fn networks(&self) -> Vec<NetworkRecord> {
        let shown = self.zones.networks().filter(|network| self.has(network.netid));
        shown.flat_map(|network| network_records(&self.zones, network)).collect()
    }

    /// The serial it leads to.
    pub fn serial(&self) -> Serial {
        self.zones.serial()
    }

    /// Devices and records of a difference: a measure of how long it will be.
    pub fn difference_len(&self) -> usize {
        self.gone.len() + self.came.len() + self.lost.len() + self.won.len()
    }

    /// Writes the next message, the question first; false when there is no more.
    pub fn next(&mut self, header: &Header, question: &[u8], out: &mut Vec<u8>) -> bool {
        if self.steps.is_empty() {
            return false;
        }
        let mut scribe = Scribe::new(out, header, question, self.zones.names().apex(self.zone).wire().len());
        while let Some(step) = self.steps.pop() {
            if let Some(rest) = self.write(step, &mut scribe) {
                self.steps.push(rest);
                break;
            }
        }
        self.records += u64::from(scribe.finish());
        true
    }

    /// Writes as much of a step as there is room for; gives what is left of it.
    fn write(&self, step: Step, scribe: &mut Scribe<'_>) -> Option<Step> {
        match step {
            Step::Soa(_) | Step::NameServer if scribe.room() < 1_024 => Some(step),
            Step::Soa(serial) => {
                let zones = &self.zones;
                let soa = rdata::soa(zones.names().broker(), zones.contact(), serial.get(), zones.timing());
                scribe.apex_record(RecordType::SOA, zones.timing().ttl, &soa);
                None
            }
            Step::NameServer => {
                scribe.apex_record(RecordType::NS, self.zones.timing().ttl, self.zones.names().broker().wire());
                None
            }
            Step::Devices(from) => self.devices(from, scribe).map(Step::Devices),
            Step::Gone(from) => self.listed(&self.gone, from, scribe).map(Step::Gone),
            Step::Came(from) => self.listed(&self.came, from, scribe).map(Step::Came),
            Step::Lost(from) => self.records(&self.lost, from, scribe).map(Step::Lost),
            Step::Networks(from) | Step::Won(from) => self.records(&self.won, from, scribe).map(Step::Won),
        }
    }

    fn devices(&self, from: u64, scribe: &mut Scribe<'_>) -> Option<u64> {
        // Devices of one NetID come in runs: who holds it need not be looked up for each.
        let mut last = None;
        for (device, netid) in self.zones.devices().iter_from(from) {
            if last != Some((netid, true)) {
                let shown = last.filter(|(known, _)| *known == netid).map(|(_, shown)| shown);
                let shown = shown.unwrap_or_else(|| self.has(netid));
                last = Some((netid, shown));
                if !shown {
                    continue;
                }
            }
            if scribe.room() < DEVICE_ROOM {
                return Some(device.as_u64());
            }
            self.device(device, netid, scribe);
        }
        None
    }

    fn listed(&self, devices: &[(DevEui, NetId)], from: usize, scribe: &mut Scribe<'_>) -> Option<usize> {
        for (index, (device, netid)) in devices.iter().enumerate().skip(from) {
            if scribe.room() < DEVICE_ROOM {
                return Some(index);
            }
            self.device(*device, *netid, scribe);
        }
        None
    }

    fn device(&self, device: DevEui, netid: NetId, scribe: &mut Scribe<'_>) {
        let ttl = self.zones.timing().ttl;
        if self.extent.names != NameForm::Flat {
            scribe.nibble_owner(device.as_u64());
            scribe.cname(&self.zones, netid, ttl);
        }
        if self.extent.names != NameForm::Nibble {
            scribe.flat_owner(device.as_u64());
            scribe.cname(&self.zones, netid, ttl);
        }
    }

    fn records(&self, records: &[NetworkRecord], from: usize, scribe: &mut Scribe<'_>) -> Option<usize> {
        for (index, record) in records.iter().enumerate().skip(from) {
            if scribe.room() < record.owner.len() + record.rdata.len() + 16 {
                return Some(index);
            }
            scribe.octets(&record.owner);
            scribe.pointer(APEX);
            scribe.record(RecordType(record.rtype), self.zones.timing().ttl, &record.rdata);
        }
        None
    }
}

fn network_records(zones: &Zones, network: &Network) -> Vec<NetworkRecord> {
    let label = [b"\x06", network.netid.to_string().as_bytes()].concat();
    let record =
        |owner: &[u8], rtype: RecordType, rdata| NetworkRecord { owner: owner.to_vec(), rtype: rtype.0, rdata };
    let mut records: Vec<_> = network
        .addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(v4) => record(&label, RecordType::A, rdata::a(*v4)),
            IpAddr::V6(v6) => record(&label, RecordType::AAAA, rdata::aaaa(*v6)),
        })
        .collect();
    if let Some(port) = network.port {
        let name = [&label, zones.names().apex(Zone::NetId).wire()].concat();
        let service = [b"\x05_lwns\x04_tcp", &label[..]].concat();
        let target = network.target.as_ref().map_or(&name[..], |target| target.wire());
        let replacement = [&service[..], zones.names().apex(Zone::NetId).wire()].concat();
        records.push(record(&label, RecordType::NAPTR, rdata::naptr("S", "LWNS", &replacement)));
        records.push(record(&service, RecordType::SRV, rdata::srv(port, target)));
        let port = format!("_{port}");
        let trust = [&[port.len() as u8], port.as_bytes(), b"\x04_tcp", &label[..]].concat();
        records.extend(network.tlsa.iter().map(|tlsa| record(&trust, RecordType::TLSA, tlsa.rdata())));
    }
    // A member may have listed an address twice; a set has it once.
    records.sort();
    records.dedup();
    records
}

/// Where the question's name stands, which is the apex.
const APEX: u16 = HEADER as u16;
/// A depth of digits that is not in the message.
const ABSENT: u16 = 0;

/// Writes the records of one message.
struct Scribe<'b> {
    out: &'b mut Vec<u8>,
    answers: u16,
    /// Octets of the apex in wire form.
    apex_len: usize,
    /// The last nibble name, and where its upper 0 to 16 digits begin in the message.
    last: u64,
    depth: [u16; 17],
    /// Where names of NetIDs stand, and the name of their zone.
    targets: [(u32, u16); 64],
    target_apex: u16,
}

impl<'b> Scribe<'b> {
    fn new(out: &'b mut Vec<u8>, header: &Header, question: &[u8], apex_len: usize) -> Self {
        out.clear();
        let flags = 0x84 | header.opcode << 3 | u8::from(header.recursion_desired);
        out.extend_from_slice(&[header.id[0], header.id[1], flags, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(question);
        let mut depth = [ABSENT; 17];
        depth[0] = APEX;
        Self { out, answers: 0, apex_len, last: 0, depth, targets: [(0, ABSENT); 64], target_apex: ABSENT }
    }

    fn room(&self) -> usize {
        MESSAGE.saturating_sub(self.out.len())
    }

    fn octets(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
    }

    fn pointer(&mut self, at: u16) {
        self.out.extend_from_slice(&(0xc000 | at).to_be_bytes());
    }

    fn record(&mut self, rtype: RecordType, ttl: u32, rdata: &[u8]) {
        self.head(rtype, ttl, rdata.len() as u16);
        self.octets(rdata);
    }

    fn head(&mut self, rtype: RecordType, ttl: u32, length: u16) {
        self.answers += 1;
        let [t0, t1] = rtype.0.to_be_bytes();
        let [l0, l1, l2, l3] = ttl.to_be_bytes();
        let [d0, d1] = length.to_be_bytes();
        self.out.extend_from_slice(&[t0, t1, 0, 1, l0, l1, l2, l3, d0, d1]);
    }

    fn apex_record(&mut self, rtype: RecordType, ttl: u32, rdata: &[u8]) {
        self.pointer(APEX);
        self.record(rtype, ttl, rdata);
    }

    /// 16 digits, the last first, as far as they differ from the name before.
    fn nibble_owner(&mut self, device: u64) {
        // Upper digits in common with the last name; without a last name there is none.
        let mut common = ((device ^ self.last).leading_zeros() / 4).min(15) as usize;
        if self.depth[16] == ABSENT {
            common = 0;
        }
        let start = self.out.len();
        let digits = 16 - common;
        let mut name = [1_u8; 34];
        for place in 0..digits {
            name[2 * place + 1] = b"0123456789abcdef"[(device >> (4 * place) & 15) as usize];
            self.depth[16 - place] = (start + 2 * place) as u16;
        }
        name[2 * digits..2 * digits + 2].copy_from_slice(&(0xc000 | self.depth[common]).to_be_bytes());
        self.out.extend_from_slice(&name[..2 * digits + 2]);
        self.last = device;
    }

    fn flat_owner(&mut self, device: u64) {
        let mut name = [16_u8; 17];
        for place in 0..16 {
            name[16 - place] = b"0123456789abcdef"[(device >> (4 * place) & 15) as usize];
        }
        self.octets(&name);
        self.pointer(APEX);
    }

    fn cname(&mut self, zones: &Zones, netid: NetId, ttl: u32) {
        let number = netid.as_u32();
        let slot = (number % 64) as usize;
        let known = self.targets[slot];
        if known.1 != ABSENT && known.0 == number {
            self.head(RecordType::CNAME, ttl, 2);
            self.pointer(known.1);
            return;
        }
        let at = self.out.len() + 10;
        self.targets[slot] = (number, at as u16);
        let mut label = *b"\x06000000";
        for (place, octet) in label[1..].iter_mut().enumerate() {
            *octet = b"0123456789abcdef"[(number >> (20 - 4 * place) & 15) as usize];
        }
        if self.target_apex != ABSENT {
            self.head(RecordType::CNAME, ttl, 9);
            self.octets(&label);
            self.pointer(self.target_apex);
            return;
        }
        // Both zones lie below the federation's name, which the question ends in.
        let (apex, federation) = (zones.names().apex(Zone::NetId).wire(), zones.names().apex(Zone::Public).wire());
        let own = &apex[..apex.len() - federation.len()];
        self.head(RecordType::CNAME, ttl, (label.len() + own.len() + 2) as u16);
        self.octets(&label);
        self.target_apex = self.out.len() as u16;
        self.octets(own);
        self.pointer(APEX + (self.apex_len - federation.len()) as u16);
    }

    fn finish(self) -> u16 {
        self.out[6..8].copy_from_slice(&self.answers.to_be_bytes());
        self.answers
    }
}
