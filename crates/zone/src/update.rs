//! Dynamic updates (RFC 2136) of the DevEUI zone, read into what they ask of devices.
//!
//! A device has one record, a CNAME to its NetID, under two names: nibble and flat. So an update comes down to
//! conditions on devices and changes of them; who may make them is decided where they are applied.

use dnsbroker_federation::{DevEui, NetId, Owner, Zone};

use crate::wire::message::{Message, MessageError, Record};
use crate::wire::{Rcode, RecordType, Section};
use crate::zones::Zones;

/// A condition (RFC 2136, section 2.4). `netid` is the one whose name is the CNAME's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prerequisite {
    /// "Name is in use", or "RRset exists", maybe with this value.
    Registered {
        /// Which device.
        device: DevEui,
        /// With this NetID, if one is named.
        netid: Option<NetId>,
        /// What the response says if it does not hold.
        otherwise: Rcode,
    },
    /// "Name is not in use", or "RRset does not exist".
    Absent {
        /// Which device.
        device: DevEui,
        /// What the response says if it does not hold.
        otherwise: Rcode,
    },
    /// A condition that no device can decide: it holds or not whatever is registered.
    Constant(Result<(), Rcode>),
}

/// A change (RFC 2136, section 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Register the device under the NetID; a CNAME replaces the one that is there (section 3.4.2.2).
    Set(DevEui, NetId),
    /// Remove it, if it is there; if a NetID is named, only from that.
    Remove(DevEui, Option<NetId>),
}

/// What an update asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// What must hold for anything to be done.
    pub prerequisites: Vec<Prerequisite>,
    /// What is to be done, in order.
    pub changes: Vec<Change>,
}

/// Why an update is not taken, before anything registered is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}: {words}", rcode.mnemonic())]
pub struct UpdateError {
    /// The response code.
    pub rcode: Rcode,
    /// The rule, in words.
    pub words: &'static str,
}

/// Records of one update at most, prerequisites and changes together.
pub const MAX_RECORDS: usize = 4_096;
/// Records about one name at most: a device has one record, and a replacement takes two and a condition or two.
pub const MAX_RECORDS_OF_NAME: usize = 16;

const IN: u16 = 1;
const NONE: u16 = 254;
const ANY: u16 = 255;

const fn refused(words: &'static str) -> UpdateError {
    UpdateError { rcode: Rcode::REFUSED, words }
}

const fn malformed(words: &'static str) -> UpdateError {
    UpdateError { rcode: Rcode::FORMERR, words }
}

impl From<MessageError> for UpdateError {
    fn from(error: MessageError) -> Self {
        malformed(error.0)
    }
}

/// Reads an update.
pub fn parse(message: Message<'_>, zones: &Zones) -> Result<Update, UpdateError> {
    let zone = message.question()?.ok_or(malformed("the zone section is empty"))?;
    if zone.qtype != RecordType::SOA {
        return Err(malformed("the zone section does not ask for SOA"));
    }
    if zone.qclass != IN {
        return Err(UpdateError { rcode: Rcode::NOTAUTH, words: "only class IN is served" });
    }
    match zones.names().owner(zone.name.as_slice()) {
        Owner::Apex(Zone::DevEui) => {}
        Owner::Apex(Zone::NetId) => return Err(refused("NetIDs are set by the federation's administrator")),
        Owner::Apex(Zone::Public) => return Err(refused("the public zone comes from the broker's configuration")),
        _ => return Err(UpdateError { rcode: Rcode::NOTAUTH, words: "not a zone of this broker" }),
    }
    if usize::from(message.count(1)) + usize::from(message.count(2)) > MAX_RECORDS {
        return Err(refused("an update has 4096 records at most"));
    }
    let mut update = Update::default();
    for record in message.records()? {
        let record = record?;
        match record.section {
            Section::Answer => update.prerequisites.push(prerequisite(&record, zones)?),
            Section::Authority => update.changes.push(change(&record, zones)?),
            Section::Additional => {}
        }
    }
    check_names(&update)?;
    Ok(update)
}

/// Heaps of records about one name are no update of a device (CVE-2024-1737).
fn check_names(update: &Update) -> Result<(), UpdateError> {
    let conditions = update.prerequisites.iter().filter_map(|prerequisite| match prerequisite {
        Prerequisite::Registered { device, .. } | Prerequisite::Absent { device, .. } => Some(*device),
        Prerequisite::Constant(_) => None,
    });
    let changes = update.changes.iter().map(|change| match change {
        Change::Set(device, _) | Change::Remove(device, _) => *device,
    });
    let mut devices: Vec<DevEui> = conditions.chain(changes).collect();
    if devices.len() <= MAX_RECORDS_OF_NAME {
        return Ok(());
    }
    devices.sort_unstable();
    match devices.chunk_by(|one, next| one == next).all(|of_one| of_one.len() <= MAX_RECORDS_OF_NAME) {
        true => Ok(()),
        false => Err(refused("an update has 16 records about one name at most")),
    }
}

/// What an owner stands for; outside of the zone nothing can be asked or changed (section 3.1.1, 3.4.1.3).
fn owner(record: &Record<'_>, zones: &Zones) -> Result<Owner, UpdateError> {
    let owner = zones.names().owner(record.owner.as_slice());
    match owner.zone() {
        Some(Zone::DevEui) => Ok(owner),
        _ => {
            Err(UpdateError { rcode: Rcode::NOTZONE, words: "a name lies outside of the zone that the update is for" })
        }
    }
}

/// The NetID that a CNAME leads to.
fn target(record: &Record<'_>, zones: &Zones) -> Result<NetId, UpdateError> {
    let name = record.target().ok_or(malformed("a CNAME's target cannot be read"))?;
    match zones.names().owner(name.as_slice()) {
        Owner::Network(netid) => Ok(netid),
        _ => Err(refused("a device's CNAME leads to the name of a NetID of this federation")),
    }
}

fn prerequisite(record: &Record<'_>, zones: &Zones) -> Result<Prerequisite, UpdateError> {
    if record.ttl != 0 {
        return Err(malformed("a prerequisite has a TTL"));
    }
    let owner = owner(record, zones)?;
    let empty = record.rdata.is_empty();
    let device = match owner {
        Owner::Device(device) => device,
        owner => return constant(record, owner == Owner::Apex(Zone::DevEui)),
    };
    let holds = |yes: bool, otherwise| Prerequisite::Constant(if yes { Ok(()) } else { Err(otherwise) });
    Ok(match (record.class, record.rtype) {
        (ANY | NONE, _) if !empty => return Err(malformed("a prerequisite without value has RDATA")),
        (ANY, RecordType::ANY) => Prerequisite::Registered { device, netid: None, otherwise: Rcode::NXDOMAIN },
        (ANY, RecordType::CNAME) => Prerequisite::Registered { device, netid: None, otherwise: Rcode::NXRRSET },
        (ANY, _) => holds(false, Rcode::NXRRSET),
        (NONE, RecordType::ANY) => Prerequisite::Absent { device, otherwise: Rcode::YXDOMAIN },
        (NONE, RecordType::CNAME) => Prerequisite::Absent { device, otherwise: Rcode::YXRRSET },
        (NONE, _) => holds(true, Rcode::NOERROR),
        (IN, RecordType::CNAME) => match target(record, zones) {
            Ok(netid) => Prerequisite::Registered { device, netid: Some(netid), otherwise: Rcode::NXRRSET },
            Err(UpdateError { rcode: Rcode::FORMERR, words }) => return Err(malformed(words)),
            Err(_) => holds(false, Rcode::NXRRSET),
        },
        (IN, _) => holds(false, Rcode::NXRRSET),
        _ => return Err(malformed("a prerequisite has a class that is not known")),
    })
}

/// The apex has SOA and NS; other names that are no device have nothing.
fn constant(record: &Record<'_>, apex: bool) -> Result<Prerequisite, UpdateError> {
    let there = apex && matches!(record.rtype, RecordType::ANY | RecordType::SOA | RecordType::NS);
    let (holds, otherwise) = match (record.class, record.rtype) {
        (ANY, RecordType::ANY) => (there, Rcode::NXDOMAIN),
        (ANY, _) => (there, Rcode::NXRRSET),
        (NONE, RecordType::ANY) => (!there, Rcode::YXDOMAIN),
        (NONE, _) => (!there, Rcode::YXRRSET),
        // Values of the apex are nobody's to ask for but a secondary's.
        (IN, _) => (false, Rcode::NXRRSET),
        _ => return Err(malformed("a prerequisite has a class that is not known")),
    };
    Ok(Prerequisite::Constant(if holds { Ok(()) } else { Err(otherwise) }))
}

fn change(record: &Record<'_>, zones: &Zones) -> Result<Change, UpdateError> {
    let owner = owner(record, zones)?;
    let Owner::Device(device) = owner else {
        return Err(refused("a name is no DevEUI: 16 labels of one digit, the last digit first, or one label of 16"));
    };
    match (record.class, record.rtype) {
        (IN, RecordType::CNAME) => Ok(Change::Set(device, target(record, zones)?)),
        (IN, RecordType(128..=255)) => Err(malformed("a record to be added is of a type that is no data")),
        (IN, _) => Err(refused("a device has a CNAME to its NetID, and no other record")),
        (ANY, _) if record.ttl != 0 || !record.rdata.is_empty() => Err(malformed("a deletion has TTL or RDATA")),
        (ANY, RecordType::ANY | RecordType::CNAME) => Ok(Change::Remove(device, None)),
        (NONE, _) if record.ttl != 0 => Err(malformed("a deletion has a TTL")),
        (NONE, RecordType::CNAME) => Ok(Change::Remove(device, Some(target(record, zones)?))),
        (ANY | NONE, _) => Err(refused("a device has a CNAME to its NetID, and no other record to delete")),
        _ => Err(malformed("a change has a class that is not known")),
    }
}
