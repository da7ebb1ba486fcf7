//! The answer to one query, on one snapshot: synchronous, without locks, clock or store.
//!
//! ```text
//! query -> well formed? -> opcode, class, EDNS version -> the door -> owner of the name -> records, NODATA or NXDOMAIN
//! ```
//!
//! **The door.** Names of devices and NetIDs leave only to a member. On plain DNS every query for a private name is
//! REFUSED in one place, before the table is looked at, so that neither an answer nor its time tells what is registered.
//!
//! **No walking.** 1 to 15 nibble labels below the DevEUI zone are an empty non-terminal whatever is registered, so
//! the tree cannot be searched digit by digit (as RFC 8020 would else allow).
//!
//! **Policy.** What a member may not see is answered as what is not registered, by the same searches, so that neither the
//! answer nor its time tells; unless the policy opts in to say so.

use std::net::IpAddr;

use dnsbroker_federation::{DevEui, MemberId, NetId, Owner, Zone};

use crate::delta::Network;
use crate::policy::Sight;
use crate::wire::message::Message;
use crate::wire::{ExtendedError, HEADER, Header, Malformed, Query, Rcode, RecordType, Response, Section, rdata};
use crate::zones::Zones;

/// Who asks, as the transport proved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker<'a> {
    /// Plain DNS: anybody.
    Public,
    /// Plain DNS, by a TSIG signature that was verified. It opens no look-ups: TSIG signs and does not hide.
    Signed,
    /// A replica, by key or certificate, that may refresh: it gets the SOA of the private zones.
    Secondary,
    /// DoH: a member of the federation, by its certificate.
    Member(&'a MemberId),
}

impl Asker<'_> {
    fn may_see(self, owner: Owner, qtype: RecordType) -> bool {
        match self {
            Self::Public | Self::Signed => false,
            Self::Secondary => matches!(owner, Owner::Apex(_)) && qtype == RecordType::SOA,
            Self::Member(_) => true,
        }
    }
}

/// What kind of answer it was, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Records were found.
    Found,
    /// The name exists, the type does not.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// A private name on plain DNS, a foreign name, class or type.
    Refused,
    /// Malformed, or of an opcode or EDNS version that is not implemented.
    Rejected,
}

impl Outcome {
    /// All of them, in the order they are counted.
    pub const ALL: [Self; 5] = [Self::Found, Self::NoData, Self::NxDomain, Self::Refused, Self::Rejected];

    /// The label in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NoData => "nodata",
            Self::NxDomain => "nxdomain",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
        }
    }
}

/// What was written to the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Its response code.
    pub rcode: Rcode,
    /// Its kind.
    pub outcome: Outcome,
    /// The least TTL in it, for `Cache-Control` (RFC 8484, section 5.1); none where nothing may be cached.
    pub ttl: Option<u32>,
}

/// A message that gets no response: too short for a header, or itself a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is {0}")]
pub struct NoResponse(pub &'static str);

const PRIVATE: ExtendedError =
    ExtendedError { code: 18, text: "private names are answered over DoH with a client certificate" };
const FOREIGN: ExtendedError = ExtendedError { code: 20, text: "not a zone of this broker" };
const CLASS: ExtendedError = ExtendedError { code: 21, text: "only class IN is served" };
const META: ExtendedError = ExtendedError { code: 21, text: "this type cannot be queried here" };
const TRANSFER: ExtendedError = ExtendedError { code: 18, text: "no zone transfer over this transport" };
const SIGNED: ExtendedError = ExtendedError { code: 21, text: "TSIG is not accepted for queries here" };
const HIDDEN: ExtendedError = ExtendedError { code: 18, text: "the federation's policy hides this name from you" };
const SIG0: ExtendedError = ExtendedError { code: 21, text: "SIG(0) is not implemented" };

/// Answers `message` into `out`, which is cleared first.
pub fn answer(zones: &Zones, asker: Asker<'_>, message: &[u8], out: &mut Vec<u8>) -> Result<Answered, NoResponse> {
    let query = match Query::parse(message) {
        Ok(query) => query,
        Err(Malformed::Ignore(why)) => return Err(NoResponse(why)),
        Err(Malformed::Opcode(header)) => {
            return Ok(without_question(out, &header, opcode_rcode(asker, header.opcode), message));
        }
        Err(Malformed::Format(header, _)) => return Ok(without_question(out, &header, Rcode::FORMERR, message)),
    };
    let owner = zones.names().owner(query.name.as_slice());
    if let Some((rcode, error)) = refusal(asker, &query, owner, zones) {
        let mut response = Response::new(out, &query.header, query.question, false);
        response.set_rcode(rcode);
        response.finish(query.edns, error);
        let outcome = if rcode == Rcode::REFUSED { Outcome::Refused } else { Outcome::Rejected };
        return Ok(Answered { rcode, outcome, ttl: None });
    }
    let mut response = Response::new(out, &query.header, query.question, true);
    if owner != Owner::Outside {
        response.compress_with(zones.names().apex(Zone::Public));
    }
    let sight = if let Asker::Member(member) = asker { zones.sight(member) } else { Sight::ALL };
    let name_end = HEADER + query.name.as_slice().len();
    let mut scribe = Scribe { zones, sight, hidden: false, response, name_end };
    let outcome = scribe.write(&query, owner);
    let rcode = if outcome == Outcome::NxDomain { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let why = (scribe.hidden && zones.policy().tell).then_some(HIDDEN);
    let mut response = scribe.response;
    response.set_rcode(rcode);
    let ttl = response.ttl;
    response.finish(query.edns, why);
    Ok(Answered { rcode, outcome, ttl })
}

/// NOTIFY and UPDATE are known and refused on plain DNS, where transfers and updates live; nothing else is known.
fn opcode_rcode(asker: Asker<'_>, opcode: u8) -> Rcode {
    match (asker, opcode) {
        (Asker::Public | Asker::Signed | Asker::Secondary, 4 | 5) => Rcode::REFUSED,
        _ => Rcode::NOTIMP,
    }
}

fn without_question(out: &mut Vec<u8>, header: &Header, rcode: Rcode, message: &[u8]) -> Answered {
    let mut response = Response::new(out, header, &[], false);
    response.set_rcode(rcode);
    response.finish(Message::new(message).ok().and_then(|message| message.edns_so_far()), None);
    let outcome = if rcode == Rcode::REFUSED { Outcome::Refused } else { Outcome::Rejected };
    Answered { rcode, outcome, ttl: None }
}

/// Why a well-formed query is not answered from the zones, if it is not.
fn refusal(asker: Asker<'_>, query: &Query<'_>, owner: Owner, zones: &Zones) -> Option<(Rcode, Option<ExtendedError>)> {
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Some((Rcode::BADVERS, None));
    }
    if let Some(signature) =
        query.signed.filter(|kind| *kind != RecordType::TSIG || !matches!(asker, Asker::Signed | Asker::Secondary))
    {
        return Some((Rcode::NOTAUTH, Some(if signature == RecordType::TSIG { SIGNED } else { SIG0 })));
    }
    if query.qclass != 1 {
        return Some((Rcode::REFUSED, Some(CLASS)));
    }
    match owner.zone() {
        Some(zone) if zone.is_private() && !asker.may_see(owner, query.qtype) => {
            return Some((Rcode::REFUSED, Some(PRIVATE)));
        }
        None if zones.public().at(query.name.as_slice()).is_none() => return Some((Rcode::REFUSED, Some(FOREIGN))),
        _ => {}
    }
    match query.qtype {
        RecordType::AXFR | RecordType::IXFR => Some((Rcode::REFUSED, Some(TRANSFER))),
        RecordType::OPT => Some((Rcode::FORMERR, None)),
        // TKEY, TSIG, MAILB, MAILA and what else is no data type (RFC 6895, section 3.1).
        RecordType(128..255) => Some((Rcode::NOTIMP, Some(META))),
        _ => None,
    }
}

/// Writes the records of one answer.
struct Scribe<'z, 'b> {
    zones: &'z Zones,
    /// What the asker may see.
    sight: Sight<'z>,
    /// Something is there, and the asker may not see it.
    hidden: bool,
    response: Response<'b>,
    /// Where the question's name ends in the message.
    name_end: usize,
}

/// A NetID to search for where there is none.
const ANY: NetId = match NetId::from_u32(0x60_0000) {
    Ok(netid) => netid,
    Err(_) => unreachable!(),
};
/// Where the question's name stands.
const QUESTION: u16 = HEADER as u16;
/// Aliases behind the first that are followed in one answer; whoever asks goes on from there.
const MAX_ALIASES: usize = 8;

impl<'z> Scribe<'z, '_> {
    fn write(&mut self, query: &Query<'_>, owner: Owner) -> Outcome {
        match owner {
            Owner::Device(device) => self.device(device, query.qtype),
            Owner::Nibbles => self.no_data(Zone::DevEui),
            Owner::Network(netid) => match self.seen(netid) {
                Some(network) => self.network(network, query.qtype),
                None => self.nx_domain(Zone::NetId),
            },
            Owner::Protocol(netid) => match self.port(netid) {
                Some(_) => self.no_data(Zone::NetId),
                None => self.nx_domain(Zone::NetId),
            },
            Owner::Service(netid) => match self.port(netid) {
                Some(port) => self.service(netid, port, query.qtype),
                None => self.nx_domain(Zone::NetId),
            },
            Owner::Port(netid, port) => match self.seen(netid) {
                Some(network) if network.port == Some(port) && !network.tlsa.is_empty() => {
                    self.trust(network, query.qtype)
                }
                _ => self.nx_domain(Zone::NetId),
            },
            Owner::Apex(zone) => self.apex(zone, query),
            Owner::Within(Zone::Public) | Owner::Outside => self.public(query),
            Owner::Within(zone) => self.nx_domain(zone),
        }
    }

    fn port(&mut self, netid: NetId) -> Option<u16> {
        self.seen(netid).and_then(|network| network.port)
    }

    /// A NetID, if the asker may see it.
    fn seen(&mut self, netid: NetId) -> Option<&'z Network> {
        let (place, network) = self.zones.placed(netid)?;
        let sees = self.sight.sees(place);
        self.hidden = !sees;
        sees.then_some(network)
    }

    /// The NetID of a device, if the asker may see it.
    fn held(&mut self, device: DevEui) -> Option<NetId> {
        let held = self.zones.devices().get(device);
        if self.sight.is_all() {
            return held;
        }
        // A device that is not there costs the search that a hidden one costs.
        let sees = self.seen(held.unwrap_or(ANY)).is_some();
        self.hidden &= held.is_some();
        held.filter(|_| sees)
    }

    /// `CNAME` to the NetID, and what the NetID has of the type asked for: the whole chain in one answer.
    fn device(&mut self, device: DevEui, qtype: RecordType) -> Outcome {
        let Some(netid) = self.held(device) else {
            return self.nx_domain(Zone::DevEui);
        };
        let ttl = self.zones.device_ttl(device);
        self.response.pointer(QUESTION);
        let start = self.response.begin_record(Section::Answer, RecordType::CNAME, ttl);
        let target = self.response.position();
        self.network_name(netid);
        self.response.end_record(start);
        if matches!(qtype, RecordType::CNAME | RecordType::ANY) {
            return Outcome::Found;
        }
        let found = match self.zones.network(netid) {
            Some(network) => self.network_records(network, qtype, target),
            None => false,
        };
        if !found {
            // The apex of the NetID zone stands behind the NetID's label, 7 octets into the target.
            self.soa_at(Zone::NetId, target + 7);
        }
        Outcome::Found
    }

    /// `<netid>.netids.<fed>`, compressed against the federation's name in the question.
    fn network_name(&mut self, netid: NetId) {
        self.netid_label(netid);
        self.response.name(self.zones.names().apex(Zone::NetId));
    }

    fn netid_label(&mut self, netid: NetId) {
        let mut label = *b"\x06000000";
        for (place, octet) in label[1..].iter_mut().enumerate() {
            *octet = b"0123456789abcdef"[(netid.as_u32() >> (20 - 4 * place) & 15) as usize];
        }
        self.response.octets(&label);
    }

    /// The same name without compression, as SRV and NAPTR want it (RFC 2782, RFC 3597 section 4).
    fn uncompressed(&self, prefix: &[u8], netid: NetId) -> Vec<u8> {
        [prefix, b"\x06", netid.to_string().as_bytes(), self.zones.names().apex(Zone::NetId).wire()].concat()
    }

    /// Records of a NetID at an owner that stands at `owner` in the message; tells whether there were any.
    fn network_records(&mut self, network: &Network, qtype: RecordType, owner: u16) -> bool {
        let ttl = self.zones.timing().ttl;
        if qtype == RecordType::NAPTR {
            let Some(_) = network.port else { return false };
            let replacement = self.uncompressed(b"\x05_lwns\x04_tcp", network.netid);
            self.response.pointer(owner);
            let rdata = rdata::naptr("S", "LWNS", &replacement);
            self.response.record(Section::Answer, RecordType::NAPTR, ttl, &rdata);
            return true;
        }
        let mut found = false;
        for address in &network.addresses {
            match address {
                IpAddr::V4(v4) if qtype == RecordType::A => {
                    self.response.pointer(owner);
                    self.response.record(Section::Answer, qtype, ttl, &v4.octets());
                }
                IpAddr::V6(v6) if qtype == RecordType::AAAA => {
                    self.response.pointer(owner);
                    self.response.record(Section::Answer, qtype, ttl, &v6.octets());
                }
                _ => continue,
            }
            found = true;
        }
        found
    }

    fn network(&mut self, network: &Network, qtype: RecordType) -> Outcome {
        let has_v4 = network.addresses.iter().any(IpAddr::is_ipv4);
        // RFC 8482, section 4.1: one RRset stands for all.
        let qtype = match qtype {
            RecordType::ANY if has_v4 => RecordType::A,
            RecordType::ANY => RecordType::AAAA,
            other => other,
        };
        if self.network_records(network, qtype, QUESTION) { Outcome::Found } else { self.no_data(Zone::NetId) }
    }

    fn service(&mut self, netid: NetId, port: u16, qtype: RecordType) -> Outcome {
        if !matches!(qtype, RecordType::SRV | RecordType::ANY) {
            return self.no_data(Zone::NetId);
        }
        let target = self.zones.network(netid).and_then(|network| network.target.as_ref());
        let target = target.map_or_else(|| self.uncompressed(b"", netid), |name| name.wire().to_vec());
        self.response.pointer(QUESTION);
        self.response.record(Section::Answer, RecordType::SRV, self.zones.timing().ttl, &rdata::srv(port, &target));
        Outcome::Found
    }

    /// TLSA records. Nobody's DNSSEC signs them: the channel does, so that DANE clients of other makes ignore them.
    fn trust(&mut self, network: &Network, qtype: RecordType) -> Outcome {
        if !matches!(qtype, RecordType::TLSA | RecordType::ANY) {
            return self.no_data(Zone::NetId);
        }
        for tlsa in &network.tlsa {
            self.response.pointer(QUESTION);
            self.response.record(Section::Answer, RecordType::TLSA, self.zones.timing().ttl, &tlsa.rdata());
        }
        Outcome::Found
    }

    fn apex(&mut self, zone: Zone, query: &Query<'_>) -> Outcome {
        match () {
            () if self.apex_records(zone, query.qtype, QUESTION) => Outcome::Found,
            () if zone == Zone::Public => self.public(query),
            () => self.no_data(zone),
        }
    }

    /// Of an apex that stands at `owner` in the message, what every zone has; tells whether that was asked for.
    fn apex_records(&mut self, zone: Zone, qtype: RecordType, owner: u16) -> bool {
        match qtype {
            RecordType::SOA | RecordType::ANY => {
                self.soa(Section::Answer, zone, owner, self.zones.timing().ttl);
                true
            }
            RecordType::NS => {
                self.response.pointer(owner);
                let start = self.response.begin_record(Section::Answer, RecordType::NS, self.zones.timing().ttl);
                self.response.name(self.zones.names().broker());
                self.response.end_record(start);
                true
            }
            _ => false,
        }
    }

    /// A public name, and where it is an alias what the public zone has of its target (RFC 1034, section 4.3.2). An alias of
    /// a private name is not followed, whoever asks: the door looks at the question alone.
    fn public(&mut self, query: &Query<'_>) -> Outcome {
        let zones = self.zones;
        let (mut owner, mut targets) = (QUESTION, Vec::<Vec<u8>>::new());
        loop {
            let name = targets.last().map_or(query.name.as_slice(), Vec::as_slice);
            let mut records = zones.public().at(name).unwrap_or_default().iter();
            // A name with a CNAME has nothing else (RFC 1034, section 3.6.2).
            let Some(alias) = records.find(|record| record.rtype == RecordType::CNAME) else { break };
            self.response.pointer(owner);
            let start = self.response.begin_record(Section::Answer, RecordType::CNAME, alias.ttl);
            owner = self.response.position();
            self.response.octets(&alias.rdata);
            self.response.end_record(start);
            let target = alias.rdata.to_ascii_lowercase();
            let met = target == query.name.as_slice() || targets.contains(&target);
            let ours = matches!(zones.names().owner(&target), Owner::Apex(Zone::Public) | Owner::Within(Zone::Public));
            let asked = matches!(query.qtype, RecordType::CNAME | RecordType::ANY);
            if asked || met || !ours || targets.len() == MAX_ALIASES {
                return Outcome::Found;
            }
            targets.push(target);
        }
        let Some(target) = targets.last() else { return self.public_name(query.name.as_slice(), query.qtype, owner) };
        if target.as_slice() == zones.names().apex(Zone::Public).wire()
            && self.apex_records(Zone::Public, query.qtype, owner)
        {
            return Outcome::Found;
        }
        // The code is of the last name (RFC 6604, section 3).
        match self.public_name(target, query.qtype, owner) {
            Outcome::NoData => Outcome::Found,
            other => other,
        }
    }

    /// The records of a public name that is no alias and stands at `owner` in the message.
    fn public_name(&mut self, name: &[u8], qtype: RecordType, owner: u16) -> Outcome {
        let zones = self.zones;
        let records = zones.public().at(name).unwrap_or_default();
        let mut wanted = qtype;
        if wanted == RecordType::ANY {
            wanted = records.first().map_or(wanted, |record| record.rtype);
        }
        let mut found = false;
        for record in records.iter().filter(|record| record.rtype == wanted) {
            self.response.pointer(owner);
            self.response.record(Section::Answer, record.rtype, record.ttl, &record.rdata);
            found = true;
        }
        if found {
            return Outcome::Found;
        }
        // A name outside the federation's zones has no SOA of ours to give.
        if zones.names().owner(name) == Owner::Outside {
            return Outcome::NoData;
        }
        let is_apex = name == zones.names().apex(Zone::Public).wire();
        if is_apex || !records.is_empty() || zones.public().has_below(name) {
            self.no_data(Zone::Public)
        } else {
            self.nx_domain(Zone::Public)
        }
    }

    fn no_data(&mut self, zone: Zone) -> Outcome {
        self.soa_of_question(zone);
        Outcome::NoData
    }

    fn nx_domain(&mut self, zone: Zone) -> Outcome {
        self.soa_of_question(zone);
        Outcome::NxDomain
    }

    /// The SOA of a zone that the question's name ends in.
    fn soa_of_question(&mut self, zone: Zone) {
        let apex = self.name_end - self.zones.names().apex(zone).wire().len();
        self.soa_at(zone, apex as u16);
    }

    /// The SOA of a negative answer: its TTL is the negative one (RFC 2308, section 3).
    fn soa_at(&mut self, zone: Zone, owner: u16) {
        let timing = self.zones.timing();
        self.soa(Section::Authority, zone, owner, timing.negative_ttl.min(timing.ttl));
    }

    fn soa(&mut self, section: Section, zone: Zone, owner: u16, ttl: u32) {
        let zones = self.zones;
        self.response.pointer(owner);
        let start = self.response.begin_record(section, RecordType::SOA, ttl);
        self.response.name(zones.names().broker());
        self.response.octets(b"\x0ahostmaster");
        self.response.name(zones.contact());
        let timing = zones.timing();
        let serial = if zone.is_private() { zones.serial().get() } else { zones.public().serial };
        for field in [serial, timing.refresh, timing.retry, timing.expire, timing.negative_ttl] {
            self.response.octets(&field.to_be_bytes());
        }
        self.response.end_record(start);
    }
}
