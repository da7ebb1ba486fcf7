//! What comes from a member's primary: messages in, a list of devices or what changed in it out.
//!
//! Nothing is taken before the closing SOA. The broker keeps of the member's zone only which devices it names, so a
//! difference can be applied only where each device has one record: where names have more (A and AAAA, two addresses),
//! or a difference does not fit what is there, the whole zone is asked for instead.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dnsbroker_federation::{DevEui, DomainName, Serial};

use crate::wire::message::{Message, MessageError, Record, Soa};
use crate::wire::{Rcode, RecordType, Section};

/// Names that are no device, named one by one; all are counted.
pub const STRANGERS_SHOWN: usize = 100;
/// Changes of differences at most: a primary that sends more is asked for the whole zone.
const MAX_CHANGES: usize = 4_000_000;

/// Bounds of one transfer.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Records of the zone, all types.
    pub records: u64,
    /// Octets of all messages.
    pub octets: u64,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The whole zone.
    Whole,
    /// What changed since this serial.
    Since(Serial),
}

/// Why a transfer cannot be taken. What was served before is served still.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The message cannot be read.
    #[error("message {message} is malformed: {reason}")]
    Malformed {
        /// Counted from 1.
        message: u64,
        /// Why.
        reason: MessageError,
    },
    /// It is not the answer to the question.
    #[error("message {message} {problem}")]
    Unfit {
        /// Counted from 1.
        message: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The primary says no.
    #[error("the primary answers {}", .0.mnemonic())]
    Refused(Rcode),
    /// A record does not belong there.
    #[error("record {record} {problem}")]
    Record {
        /// Counted from 1.
        record: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More than a source may send.
    #[error("the transfer has more than {limit} {what}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The most.
        limit: u64,
    },
    /// The primary's zone is older than what we have of it.
    #[error("the primary's serial {theirs} is older than {ours}, which we have: was its zone set back?")]
    Backwards {
        /// Of the primary.
        theirs: Serial,
        /// Of the last transfer.
        ours: Serial,
    },
    /// Names that have several records.
    #[error("the difference cannot be applied: {0}")]
    Difference(&'static str),
    /// The stream ended too early.
    #[error("the transfer ended after {records} records without the closing SOA")]
    Cut {
        /// Records until then.
        records: u64,
    },
}

impl TransferError {
    /// Whether asking for the whole zone may help.
    pub fn wants_whole(&self) -> bool {
        matches!(self, Self::Difference(_) | Self::Refused(Rcode::NOTIMP | Rcode::FORMERR | Rcode::REFUSED))
    }
}

/// What a transfer came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// The primary has nothing newer.
    Current,
    /// All devices, sorted.
    Whole(Vec<DevEui>),
    /// What changed: devices that came and went, sorted.
    Difference {
        /// Those that are there now.
        came: Vec<DevEui>,
        /// Those that are no longer there.
        gone: Vec<DevEui>,
    },
}

/// A finished transfer.
#[derive(Debug)]
pub struct Received {
    /// The SOA it ends with.
    pub soa: Soa,
    /// Devices.
    pub content: Content,
    /// What else there was.
    pub tally: Tally,
}

/// Counts of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages.
    pub messages: u64,
    /// Records of all types.
    pub records: u64,
    /// Octets.
    pub octets: u64,
    /// Names with an address or CNAME that are no device.
    pub strangers: u64,
    /// The first of them.
    pub strangers_shown: Vec<String>,
    /// Devices whose address is not one of the NetID's.
    pub mismatches: u64,
    /// The first of them.
    pub mismatches_shown: Vec<DevEui>,
    /// Whether a device has more than one record: then differences cannot be applied to what we keep.
    pub several: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing has come.
    Start,
    /// The first SOA has come; the next record tells a difference from a whole zone.
    First(Soa),
    /// A whole zone.
    Whole { soa: Soa },
    /// A difference: records that go.
    Gone { soa: Soa },
    /// A difference: records that come; from which serial to which.
    Came { soa: Soa, to: u32 },
    /// The closing SOA has come.
    Closed(Soa),
    /// The SOA alone, which is not newer than what we have.
    Current(Soa),
}

/// A transfer that comes in.
pub struct Inbound<'a> {
    zone: &'a DomainName,
    asked: Asked,
    addresses: &'a [IpAddr],
    bounds: Bounds,
    id: [u8; 2],
    state: State,
    /// Devices of a whole zone, in the order they came.
    devices: Vec<DevEui>,
    /// Net count of records by device, of a difference.
    changes: BTreeMap<DevEui, i32>,
    /// The serial that the differences so far lead to; none of a whole zone.
    at: Option<u32>,
    tally: Tally,
}

impl<'a> Inbound<'a> {
    /// A transfer of a zone, asked for under a DNS ID. `addresses` are the NetID's, to be compared with.
    pub fn new(zone: &'a DomainName, asked: Asked, id: [u8; 2], addresses: &'a [IpAddr], bounds: Bounds) -> Self {
        Self {
            zone,
            asked,
            addresses,
            bounds,
            id,
            state: State::Start,
            devices: Vec::new(),
            changes: BTreeMap::new(),
            at: None,
            tally: Tally::default(),
        }
    }

    /// Takes the next message; tells whether the transfer is complete.
    pub fn take(&mut self, octets: &[u8]) -> Result<bool, TransferError> {
        self.tally.messages += 1;
        self.tally.octets += octets.len() as u64;
        if self.tally.octets > self.bounds.octets {
            return Err(TransferError::TooLarge { what: "octets", limit: self.bounds.octets });
        }
        let message = self.tally.messages;
        let malformed = |reason| TransferError::Malformed { message, reason };
        let read = Message::new(octets).map_err(malformed)?;
        self.check_header(read)?;
        for record in read.records().map_err(malformed)? {
            let record = record.map_err(malformed)?;
            match record.section {
                Section::Answer => self.record(&record)?,
                // OPT, TSIG, and what a server likes to add.
                Section::Authority | Section::Additional => {}
            }
        }
        if let State::First(soa) = self.state {
            self.lone_soa(soa)?;
        }
        Ok(matches!(self.state, State::Closed(_) | State::Current(_)))
    }

    fn check_header(&self, message: Message<'_>) -> Result<(), TransferError> {
        let number = self.tally.messages;
        let unfit = |problem| Err(TransferError::Unfit { message: number, problem });
        if !message.is_response() || message.header().opcode != 0 {
            return unfit("is not a response to a query");
        }
        if message.header().id != self.id {
            return unfit("has another DNS ID than the question");
        }
        if message.is_truncated() {
            return unfit("is truncated, in a stream");
        }
        if message.rcode() != Rcode::NOERROR {
            return Err(TransferError::Refused(message.rcode()));
        }
        let question = message.question().map_err(|reason| TransferError::Malformed { message: number, reason })?;
        let wanted = if self.asked == Asked::Whole { RecordType::AXFR } else { RecordType::IXFR };
        match question {
            None if number > 1 => Ok(()),
            Some(question) if question.name.as_slice() == self.zone.wire() && question.qtype == wanted => Ok(()),
            _ => unfit("answers another question"),
        }
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), TransferError> {
        self.tally.records += 1;
        if self.tally.records > self.bounds.records {
            return Err(TransferError::TooLarge { what: "records", limit: self.bounds.records });
        }
        let number = self.tally.records;
        let wrong = |problem| TransferError::Record { record: number, problem };
        if record.class != 1 {
            return Err(wrong("is not of class IN"));
        }
        if matches!(self.state, State::Closed(_) | State::Current(_)) {
            return Err(wrong("comes after the closing SOA"));
        }
        let below = below(record.owner.as_slice(), self.zone.wire()).ok_or(wrong("lies outside of the zone"))?;
        if record.rtype == RecordType::SOA {
            if !below.is_empty() {
                return Err(wrong("is an SOA below the zone's apex"));
            }
            let soa = record.soa().ok_or(wrong("is an SOA that cannot be read"))?;
            return self.soa(soa, number);
        }
        match self.state {
            State::Start => Err(wrong("comes before the first SOA")),
            State::First(soa) => {
                self.state = State::Whole { soa };
                self.content(record, below)
            }
            _ => self.content(record, below),
        }
    }

    fn soa(&mut self, soa: Soa, record: u64) -> Result<(), TransferError> {
        let wrong = |problem| TransferError::Record { record, problem };
        self.state = match self.state {
            State::Start => State::First(soa),
            State::First(first) => match self.asked {
                // A zone without any other record.
                _ if soa.serial == first.serial && self.asked == Asked::Whole => State::Closed(first),
                Asked::Whole => return Err(wrong("is an SOA of another serial")),
                Asked::Since(ours) if soa.serial == ours.get() => {
                    self.at = Some(soa.serial);
                    State::Gone { soa: first }
                }
                // An empty zone, sent whole in answer to IXFR.
                Asked::Since(_) if soa.serial == first.serial => State::Closed(first),
                Asked::Since(_) => {
                    return Err(TransferError::Difference("it does not start from the serial that we have"));
                }
            },
            State::Whole { soa: first } if soa == first => State::Closed(first),
            State::Whole { .. } => {
                return Err(wrong("is an SOA in the middle of the zone that differs from the first"));
            }
            State::Gone { soa: first } => {
                let order = self.at.and_then(|at| Serial::new(soa.serial).partial_cmp(&Serial::new(at)));
                if order != Some(std::cmp::Ordering::Greater) {
                    return Err(wrong("is an SOA that goes back"));
                }
                State::Came { soa: first, to: soa.serial }
            }
            State::Came { soa: first, to } if soa.serial == to && to == first.serial => State::Closed(first),
            State::Came { soa: first, to } if soa.serial == to => {
                self.at = Some(to);
                State::Gone { soa: first }
            }
            State::Came { .. } => {
                return Err(TransferError::Difference("its steps do not follow each other"));
            }
            State::Closed(_) | State::Current(_) => return Err(wrong("comes after the closing SOA")),
        };
        Ok(())
    }

    /// The first message had the SOA alone: either it is not newer than ours, or more is to come.
    fn lone_soa(&mut self, soa: Soa) -> Result<(), TransferError> {
        let Asked::Since(ours) = self.asked else { return Ok(()) };
        let theirs = Serial::new(soa.serial);
        match theirs.partial_cmp(&ours) {
            Some(std::cmp::Ordering::Greater) => Ok(()),
            Some(std::cmp::Ordering::Equal) => {
                self.state = State::Current(soa);
                Ok(())
            }
            _ => Err(TransferError::Backwards { theirs, ours }),
        }
    }

    /// A record of the zone: what matters is the device that its owner names.
    fn content(&mut self, record: &Record<'_>, below: &[u8]) -> Result<(), TransferError> {
        if !matches!(record.rtype, RecordType::A | RecordType::AAAA | RecordType::CNAME) {
            return Ok(());
        }
        let Some(device) = device(below) else {
            self.tally.strangers += 1;
            if self.tally.strangers_shown.len() < STRANGERS_SHOWN {
                self.tally.strangers_shown.push(text(below));
            }
            return Ok(());
        };
        match self.state {
            State::Gone { .. } => self.change(device, -1),
            State::Came { .. } => {
                self.compare(device, record);
                self.change(device, 1)
            }
            _ => {
                self.compare(device, record);
                self.devices.push(device);
                Ok(())
            }
        }
    }

    fn change(&mut self, device: DevEui, by: i32) -> Result<(), TransferError> {
        if self.changes.len() >= MAX_CHANGES {
            return Err(TransferError::Difference("it is longer than a whole zone is likely to be"));
        }
        let count = self.changes.entry(device).or_default();
        *count += by;
        // More than one step away from what one record a device can do.
        if count.abs() > 1 {
            return Err(TransferError::Difference("a device has several records, of which one came or went"));
        }
        Ok(())
    }

    fn compare(&mut self, device: DevEui, record: &Record<'_>) {
        let address = match (record.rtype, record.rdata) {
            (RecordType::A, octets) => <[u8; 4]>::try_from(octets).map(IpAddr::from).ok(),
            (RecordType::AAAA, octets) => <[u8; 16]>::try_from(octets).map(IpAddr::from).ok(),
            _ => return,
        };
        if !address.is_some_and(|address| self.addresses.contains(&address)) {
            self.tally.mismatches += 1;
            if self.tally.mismatches_shown.len() < STRANGERS_SHOWN {
                self.tally.mismatches_shown.push(device);
            }
        }
    }

    /// Whether a difference was asked for, and all that came is an SOA that is newer than ours.
    pub fn is_lone(&self) -> bool {
        matches!(self.state, State::First(_)) && self.asked != Asked::Whole
    }

    /// What has come, once it is complete.
    pub fn finish(mut self) -> Result<Received, TransferError> {
        let (soa, content) = match self.state {
            State::Current(soa) => (soa, Content::Current),
            State::Closed(soa) if self.at.is_some() => (soa, self.difference()),
            State::Closed(soa) => {
                let named = self.devices.len();
                self.devices.sort_unstable();
                self.devices.dedup();
                self.tally.several = self.devices.len() < named;
                (soa, Content::Whole(std::mem::take(&mut self.devices)))
            }
            _ => return Err(TransferError::Cut { records: self.tally.records }),
        };
        Ok(Received { soa, content, tally: self.tally })
    }

    fn difference(&self) -> Content {
        let of = |wanted: i32| {
            let devices = self.changes.iter().filter(|(_, count)| **count == wanted);
            devices.map(|(device, _)| *device).collect()
        };
        Content::Difference { came: of(1), gone: of(-1) }
    }

    /// Counts so far, also of a transfer that fails.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// The labels of a name above a zone's apex; none if it is not in the zone.
pub fn below<'n>(name: &'n [u8], zone: &[u8]) -> Option<&'n [u8]> {
    let at = name.len().checked_sub(zone.len())?;
    if name[at..] != *zone {
        return None;
    }
    // The apex must begin where a label does.
    let mut place = 0;
    while place < at {
        place += 1 + usize::from(name[place]);
    }
    (place == at).then(|| &name[..at])
}

/// The device that labels stand for: 16 digits in one label, or 16 labels of one digit, the last first.
pub fn device(labels: &[u8]) -> Option<DevEui> {
    let digit = |octet: u8| char::from(octet).to_digit(16).map(u64::from);
    let value = match labels.len() {
        17 if labels[0] == 16 => labels[1..].iter().try_fold(0, |value, octet| Some(value << 4 | digit(*octet)?)),
        32 if labels.iter().step_by(2).all(|length| *length == 1) => {
            let digits = labels.iter().skip(1).step_by(2).rev();
            digits.copied().try_fold(0, |value, octet| Some(value << 4 | digit(octet)?))
        }
        _ => None,
    };
    DevEui::from_u64(value?).ok()
}

/// Labels for people, and for logs: printable, and not too long.
fn text(labels: &[u8]) -> String {
    let mut text = String::new();
    for label in dnsbroker_federation::Labels::of(&[labels, &[0]].concat()) {
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|octet| if octet.is_ascii_graphic() { char::from(*octet) } else { '?' }));
    }
    if text.is_empty() { "@".to_owned() } else { text.chars().take(80).collect() }
}
