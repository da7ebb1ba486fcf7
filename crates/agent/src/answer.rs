//! An answer as it is kept: the records behind the question, and little else.
//!
//! The records' compression pointers lead into the question, which is as long whoever asks and in whatever case; so an answer
//! fits behind each of them, and a hundred thousand take some megabytes.

use std::net::IpAddr;

use dnsbroker_federation::{Namespace, NetId, Owner};
use dnsbroker_zone::wire::message::{Message, Record};
use dnsbroker_zone::wire::{Edns, HEADER, Header, Rcode, RecordType, Section, UDP_PAYLOAD};

/// EDNS option code of extended errors (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
/// The extended error of what policy forbids (RFC 8914, section 4.19).
pub const PROHIBITED: u16 = 18;
/// The extended error of stale answers, and of stale denials (RFC 8914, sections 4.4 and 4.20).
pub const STALE: u16 = 3;
const STALE_NXDOMAIN: u16 = 19;
/// Types that come beside what was asked for.
const DNAME: RecordType = RecordType(39);
const RRSIG: RecordType = RecordType(46);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    records: Box<[u8]>,
    counts: [u16; 3],
    /// The response code.
    pub rcode: Rcode,
    /// The extended error, if there was one.
    pub error: Option<u16>,
    /// Seconds for which it may be kept.
    pub ttl: u32,
}

/// Why a response is no answer to what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub &'static str);

impl Answer {
    /// An answer without records.
    pub fn empty(rcode: Rcode, error: Option<u16>) -> Self {
        Self { records: Box::default(), counts: [0; 3], rcode, error, ttl: 0 }
    }

    /// Reads the response to a question. Each record is to be about a name that the question leads to, and below `within`,
    /// a name in wire form: nobody may speak of what is not theirs.
    pub fn read(question: &[u8], response: &[u8], within: &[u8]) -> Result<Self, Unfit> {
        let message = Message::new(response).map_err(|error| Unfit(error.0))?;
        if !message.is_response() || message.header().opcode != 0 {
            return Err(Unfit("it is not a response to a query"));
        }
        let asked = message.question().map_err(|error| Unfit(error.0))?.ok_or(Unfit("it repeats no question"))?;
        if asked.octets != question {
            return Err(Unfit("it answers another question"));
        }
        let mut name = asked.name;
        let (mut counts, mut rcode, mut error) = ([0; 3], message.rcode(), None);
        let (mut ttl, mut negative, mut end) = (u32::MAX, None, response.len());
        let (mut final_type, mut aliases) = (false, Vec::new());
        for record in message.records().map_err(|error| Unfit(error.0))? {
            let record = record.map_err(|error| Unfit(error.0))?;
            if record.rtype == RecordType::OPT {
                rcode = Rcode(rcode.0 | (record.ttl >> 24 << 4) as u16);
                error = extended_error(record.rdata);
                // What follows OPT is a signature, if anything.
                end = record.start;
                break;
            }
            if record.class != 1 {
                return Err(Unfit("a record is not of class IN"));
            }
            if !is_within(record.owner.as_slice(), within) {
                return Err(Unfit("a record is about a name of somebody else"));
            }
            match record.section {
                Section::Answer => {
                    counts[0] += 1;
                    ttl = ttl.min(record.ttl);
                    if record.owner.as_slice() != name.as_slice() {
                        // RFC 6672, section 3: with a CNAME comes the DNAME, of a name above, that it was made of.
                        if [DNAME, RRSIG].contains(&record.rtype) && is_within(name.as_slice(), record.owner.as_slice())
                        {
                            continue;
                        }
                        return Err(Unfit("a record is about a name that was not asked for"));
                    }
                    if record.rtype == RecordType::CNAME && asked.qtype != RecordType::CNAME {
                        let target = record.target().ok_or(Unfit("a CNAME cannot be read"))?;
                        aliases.push(std::mem::replace(&mut name, target));
                        if aliases.iter().any(|alias| alias.as_slice() == name.as_slice()) {
                            return Err(Unfit("its CNAMEs lead back to where they began"));
                        }
                    } else if !suits(record.rtype, asked.qtype) {
                        return Err(Unfit("a record is of a type that was not asked for"));
                    } else {
                        final_type = true;
                    }
                }
                Section::Authority => {
                    counts[1] += 1;
                    if let Some(soa) = record.soa().filter(|_| record.rtype == RecordType::SOA) {
                        negative = Some(record.ttl.min(soa.minimum));
                    }
                }
                Section::Additional => counts[2] += 1,
            }
        }
        let start = HEADER + question.len();
        let ttl = match rcode {
            Rcode::NOERROR if final_type => ttl,
            // RFC 2308, section 5: without a SOA it is not kept.
            Rcode::NOERROR | Rcode::NXDOMAIN => negative.map_or(0, |negative| negative.min(ttl)),
            _ => 0,
        };
        let records = response.get(start..end).unwrap_or_default().into();
        Ok(Self { records, counts, rcode, error, ttl })
    }

    /// The same, for so many seconds at most, whatever it says.
    #[must_use]
    pub fn for_at_most(mut self, seconds: u32) -> Self {
        self.ttl = self.ttl.min(seconds);
        set_ttls(&mut self.records, 0, self.counts, |ttl| ttl.min(seconds));
        self
    }

    /// Octets that its records take.
    pub fn size(&self) -> usize {
        self.records.len()
    }

    /// Whether it has what was asked for.
    pub fn is_positive(&self) -> bool {
        self.rcode == Rcode::NOERROR && self.counts[0] > 0
    }

    /// The same with another time to live and a word about its age.
    #[must_use]
    pub fn stale(mut self, ttl: u32) -> Self {
        self.error = Some(if self.rcode == Rcode::NXDOMAIN { STALE_NXDOMAIN } else { STALE });
        self.ttl = ttl;
        set_ttls(&mut self.records, 0, self.counts, |_| ttl);
        self
    }

    /// Writes it as the response to a question, `age` seconds after it came. Over UDP it is cut to what the asker takes.
    pub fn write(&self, header: &Header, question: &[u8], edns: Option<Edns>, age: u32, limit: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + question.len() + self.records.len() + 24);
        // QR, opcode, RD; RA, CD.
        let flags = 0x80 | header.opcode << 3 | u8::from(header.recursion_desired);
        let more = 0x80 | u8::from(header.checking_disabled) << 4 | (self.rcode.0 & 15) as u8;
        out.extend_from_slice(&[header.id[0], header.id[1], flags, more, 0, u8::from(!question.is_empty())]);
        for count in self.counts {
            out.extend_from_slice(&count.to_be_bytes());
        }
        out.extend_from_slice(question);
        let start = out.len();
        out.extend_from_slice(&self.records);
        set_ttls(&mut out, start, self.counts, |ttl| ttl.saturating_sub(age));
        if out.len() + edns.map_or(0, |_| self.opt_len()) > limit {
            out.truncate(start);
            out[6..12].fill(0);
            out[2] |= 2;
        }
        if let Some(edns) = edns {
            self.write_opt(&mut out, edns);
        }
        out
    }

    fn opt_len(&self) -> usize {
        11 + self.error.map_or(0, |_| 6)
    }

    fn write_opt(&self, out: &mut Vec<u8>, edns: Edns) {
        let additional = u16::from_be_bytes([out[10], out[11]]) + 1;
        out[10..12].copy_from_slice(&additional.to_be_bytes());
        out.extend_from_slice(&[0, 0, 41]);
        out.extend_from_slice(&UDP_PAYLOAD.to_be_bytes());
        out.extend_from_slice(&[(self.rcode.0 >> 4) as u8, 0, u8::from(edns.dnssec_ok) << 7, 0, 0]);
        match self.error {
            None => out.push(0),
            Some(code) => {
                out.push(6);
                out.extend_from_slice(&EXTENDED_ERROR.to_be_bytes());
                out.extend_from_slice(&[0, 2]);
                out.extend_from_slice(&code.to_be_bytes());
            }
        }
    }

    /// Reads its records once more, behind the question that it answers.
    fn each(&self, question: &[u8], mut each: impl FnMut(&Record<'_>)) {
        let header = Header { id: [0; 2], opcode: 0, recursion_desired: false, checking_disabled: false };
        let octets = self.write(&header, question, None, 0, usize::MAX);
        let Ok(records) = Message::new(&octets).and_then(|message| message.records()) else { return };
        records.map_while(Result::ok).for_each(|record| each(&record));
    }

    /// The home network that it names for a device, and its addresses.
    pub fn home(&self, question: &[u8], namespace: &Namespace) -> Option<(NetId, Vec<IpAddr>)> {
        let (mut netid, mut addresses) = (None, Vec::new());
        self.each(question, |record| match (record.section, record.rtype) {
            (Section::Answer, RecordType::CNAME) => {
                if let Some(Owner::Network(found)) = record.target().map(|target| namespace.owner(target.as_slice())) {
                    netid = Some(found);
                }
            }
            (Section::Answer, RecordType::A) => addresses.extend(<[u8; 4]>::try_from(record.rdata).map(IpAddr::from)),
            (Section::Answer, RecordType::AAAA) => {
                addresses.extend(<[u8; 16]>::try_from(record.rdata).map(IpAddr::from));
            }
            _ => {}
        });
        netid.map(|netid| (netid, addresses))
    }

    /// The addresses in it.
    pub fn addresses(&self, question: &[u8]) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        self.each(question, |record| match (record.section, record.rtype) {
            (Section::Answer, RecordType::A) => addresses.extend(<[u8; 4]>::try_from(record.rdata).map(IpAddr::from)),
            (Section::Answer, RecordType::AAAA) => {
                addresses.extend(<[u8; 16]>::try_from(record.rdata).map(IpAddr::from));
            }
            _ => {}
        });
        addresses
    }

    /// The answer to the question that a CNAME in this one leads to: its address records, behind that question.
    pub fn of_target(&self, question: &[u8], target: &[u8]) -> Option<Self> {
        let name = target.get(..target.len().checked_sub(4)?)?;
        let (mut records, mut count, mut ttl) = (Vec::new(), 0, u32::MAX);
        self.each(question, |record| {
            let wanted = record.section == Section::Answer && record.rtype.0.to_be_bytes() == target[name.len()..][..2];
            if wanted && record.owner.as_slice() == name {
                count += 1;
                ttl = ttl.min(record.ttl);
                records.extend_from_slice(&[0xc0, HEADER as u8]);
                records.extend_from_slice(&record.rtype.0.to_be_bytes());
                records.extend_from_slice(&[0, 1]);
                records.extend_from_slice(&record.ttl.to_be_bytes());
                records.extend_from_slice(&(record.rdata.len() as u16).to_be_bytes());
                records.extend_from_slice(record.rdata);
            }
        });
        let counts = [count, 0, 0];
        (count > 0).then(|| Self { records: records.into(), counts, rcode: self.rcode, error: None, ttl })
    }

    /// The same records as the answer to another question, whose name is not in them: the first one's owner is the question.
    pub fn behind(&self, question: &[u8], other: &[u8]) -> Self {
        let mut records = Vec::new();
        let mut counts = [0; 3];
        self.each(question, |record| {
            if record.section != Section::Answer {
                return;
            }
            counts[0] += 1;
            match counts[0] {
                1 => records.extend_from_slice(&[0xc0, HEADER as u8]),
                _ => records.extend_from_slice(record.owner.as_slice()),
            }
            records.extend_from_slice(&record.rtype.0.to_be_bytes());
            records.extend_from_slice(&[0, 1]);
            records.extend_from_slice(&record.ttl.to_be_bytes());
            let target = record.target().filter(|_| record.rtype == RecordType::CNAME);
            let rdata = target.as_ref().map_or(record.rdata, |target| target.as_slice());
            records.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
            records.extend_from_slice(rdata);
        });
        debug_assert!(!other.is_empty(), "a question has a name");
        Self { records: records.into(), counts, rcode: self.rcode, error: self.error, ttl: self.ttl }
    }
}

/// Whether a record's type is what was asked for. Signatures come with what they sign (RFC 4035, section 3.2.1).
fn suits(rtype: RecordType, asked: RecordType) -> bool {
    rtype == asked || asked == RecordType::ANY || rtype == RRSIG
}

/// Sets the TTL of each record that stands from `at` on. What has been read once has records that can be walked.
fn set_ttls(octets: &mut [u8], mut at: usize, counts: [u16; 3], new: impl Fn(u32) -> u32) {
    for _ in 0..counts.iter().map(|count| usize::from(*count)).sum() {
        let Some(fixed) = skip_name(octets, at) else { return };
        let Some(head) = octets.get_mut(fixed..fixed + 10) else { return };
        let ttl = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        head[4..8].copy_from_slice(&new(ttl).to_be_bytes());
        at = fixed + 10 + usize::from(u16::from_be_bytes([head[8], head[9]]));
    }
}

fn skip_name(octets: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *octets.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The first extended error among EDNS options.
fn extended_error(mut options: &[u8]) -> Option<u16> {
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..length)?;
        if u16::from_be_bytes([head[0], head[1]]) == EXTENDED_ERROR {
            return value.first_chunk().map(|code| u16::from_be_bytes(*code));
        }
        options = &rest[length..];
    }
    None
}

/// Whether a lower-case name in wire form is `ancestor` or below it.
pub fn is_within(name: &[u8], ancestor: &[u8]) -> bool {
    ancestor == [0] || dnsbroker_zone::transfer::inbound::below(name, ancestor).is_some()
}

/// A question in wire form: a lower-case name, a type, class IN.
pub fn question(name: &[u8], qtype: RecordType) -> Vec<u8> {
    let mut question = Vec::with_capacity(name.len() + 4);
    question.extend_from_slice(name);
    question.extend_from_slice(&qtype.0.to_be_bytes());
    question.extend_from_slice(&[0, 1]);
    question
}

/// A query for a question: recursion desired or not, with EDNS.
pub fn query(id: [u8; 2], question: &[u8], recursion: bool, dnssec_ok: bool) -> Vec<u8> {
    let mut query = Vec::with_capacity(HEADER + question.len() + 11);
    query.extend_from_slice(&[id[0], id[1], u8::from(recursion), 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    query.extend_from_slice(question);
    query.extend_from_slice(&[0, 0, 41]);
    query.extend_from_slice(&UDP_PAYLOAD.to_be_bytes());
    query.extend_from_slice(&[0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    query
}

#[cfg(test)]
mod tests {
    use dnsbroker_federation::{DomainName, ZoneLabels};
    use hickory_proto::op::Message as Oracle;
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Header = Header { id: [1, 2], opcode: 0, recursion_desired: true, checking_disabled: false };

    fn name(text: &str) -> DomainName {
        text.parse().expect(text)
    }

    fn device_question() -> Vec<u8> {
        question(name("0.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0.deveuis.fed.example").wire(), RecordType::A)
    }

    fn record(owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
        let head =
            [&rtype.to_be_bytes()[..], &[0, 1], &ttl.to_be_bytes(), &(rdata.len() as u16).to_be_bytes()].concat();
        [owner, &head, rdata].concat()
    }

    fn response(question: &[u8], rcode: u8, counts: [u16; 3], records: &[u8]) -> Vec<u8> {
        let mut octets = vec![0, 0, 0x84, rcode, 0, 1];
        counts.iter().for_each(|count| octets.extend(count.to_be_bytes()));
        [&octets, question, records].concat()
    }

    fn good() -> (Vec<u8>, Vec<u8>) {
        let asked = device_question();
        let target = name("60002d.netids.fed.example");
        let cname = record(&[0xc0, 12], 5, 60, target.wire());
        let a = record(target.wire(), 1, 50, &[192, 0, 2, 45]);
        let whole = response(&asked, 0, [2, 0, 0], &[cname, a].concat());
        (asked, whole)
    }

    fn fed() -> DomainName {
        name("fed.example")
    }

    #[test]
    fn the_home_network_is_read_and_written_back_with_its_age() {
        let (asked, whole) = good();
        let answer = Answer::read(&asked, &whole, fed().wire()).expect("fits");
        assert_eq!(answer.ttl, 50);
        let namespace = Namespace::new(fed(), name("broker.fed.example"), &ZoneLabels::default()).expect("valid");
        let home = answer.home(&asked, &namespace).expect("a home");
        assert_eq!((home.0.to_string().as_str(), &home.1[..]), ("60002d", &["192.0.2.45".parse().expect("IP")][..]));
        let upper: Vec<u8> = asked.iter().map(u8::to_ascii_uppercase).collect();
        let edns = Edns { version: 0, dnssec_ok: false, payload: 1232, padded: false };
        let written = answer.write(&PLAIN, &upper, Some(edns), 20, 1232);
        let oracle = Oracle::from_vec(&written).expect("hickory reads it");
        let ttls: Vec<u32> = oracle.answers.iter().map(|record| record.ttl).collect();
        assert_eq!(ttls, [40, 30]);
        assert!(written[12..].starts_with(&upper), "the case of the question is the asker's");
        let cut = Oracle::from_vec(&answer.write(&PLAIN, &upper, None, 0, 80)).expect("hickory reads it");
        assert!(cut.metadata.truncation && cut.answers.is_empty());
    }

    #[test]
    fn a_lie_is_told_from_an_answer() {
        let (asked, whole) = good();
        let unfit = |octets: &[u8]| Answer::read(&asked, octets, fed().wire()).expect_err("is refused").0;
        let mut query = whole.clone();
        query[2] = 0;
        assert!(unfit(&query).contains("not a response"));
        let mut other = whole.clone();
        other[13] = b'f';
        assert!(unfit(&other).contains("another question"));
        let foreign = name("60002d.netids.other.example");
        let cname = record(&[0xc0, 12], 5, 60, foreign.wire());
        let a = record(foreign.wire(), 1, 60, &[192, 0, 2, 1]);
        assert!(unfit(&response(&asked, 0, [2, 0, 0], &[cname.clone(), a].concat())).contains("somebody else"));
        let stray = record(name("broker.fed.example").wire(), 1, 60, &[192, 0, 2, 1]);
        assert!(unfit(&response(&asked, 0, [1, 0, 0], &stray)).contains("not asked for"));
        let soa = record(name("example").wire(), 6, 60, &[0; 22]);
        assert!(unfit(&response(&asked, 3, [0, 1, 0], &soa)).contains("somebody else"));
        assert!(!unfit(&whole[..whole.len() - 1]).is_empty(), "cut off");
        let own = &asked[..asked.len() - 4];
        let to_itself = record(&[0xc0, 12], 5, 60, own);
        assert!(unfit(&response(&asked, 0, [1, 0, 0], &to_itself)).contains("lead back"));
        let target = name("60002d.netids.fed.example");
        let round = [record(&[0xc0, 12], 5, 60, target.wire()), record(target.wire(), 5, 60, own)].concat();
        assert!(unfit(&response(&asked, 0, [2, 0, 0], &round)).contains("lead back"));
        let text = record(&[0xc0, 12], 16, 60, b"\x02hi");
        assert!(unfit(&response(&asked, 0, [1, 0, 0], &text)).contains("type"));
        // A CNAME that leads out is an answer, but names no home.
        let answer = Answer::read(&asked, &response(&asked, 0, [1, 0, 0], &cname), fed().wire()).expect("fits");
        let namespace = Namespace::new(fed(), name("broker.fed.example"), &ZoneLabels::default()).expect("valid");
        assert_eq!(answer.home(&asked, &namespace), None);
    }

    #[test]
    fn a_dname_stands_beside_the_cname_that_it_makes() {
        let asked = question(name("a.old.example").wire(), RecordType::A);
        let dname = record(name("old.example").wire(), 39, 60, name("new.example").wire());
        let cname = record(&[0xc0, 12], 5, 60, name("a.new.example").wire());
        let a = record(name("a.new.example").wire(), 1, 60, &[192, 0, 2, 1]);
        let whole = response(&asked, 0, [3, 0, 0], &[dname.clone(), cname, a].concat());
        let answer = Answer::read(&asked, &whole, &[0]).expect("fits");
        assert_eq!(answer.addresses(&asked), ["192.0.2.1".parse::<IpAddr>().expect("IP")]);
        let stray = record(name("other.example").wire(), 39, 60, name("new.example").wire());
        let unfit = Answer::read(&asked, &response(&asked, 0, [1, 0, 0], &stray), &[0]).expect_err("is refused");
        assert!(unfit.0.contains("not asked for"));
    }

    #[test]
    fn no_record_lives_longer_than_it_may() {
        let (asked, mut whole) = good();
        let at = whole.len() - 10;
        whole[at..at + 4].fill(0xff);
        let answer = Answer::read(&asked, &whole, fed().wire()).expect("fits").for_at_most(55);
        assert_eq!(answer.ttl, 55);
        let oracle = Oracle::from_vec(&answer.write(&PLAIN, &asked, None, 5, usize::MAX)).expect("hickory reads it");
        assert_eq!(oracle.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [50, 50]);
    }

    #[test]
    fn what_is_not_there_is_kept_as_long_as_its_soa_says() {
        let asked = device_question();
        let zone = name("deveuis.fed.example");
        let soa = |minimum: u32| {
            let numbers = [1, 2, 3, 4, minimum].map(u32::to_be_bytes).concat();
            record(zone.wire(), 6, 60, &[zone.wire(), zone.wire(), &numbers].concat())
        };
        for (minimum, kept) in [(30, 30), (600, 60)] {
            let answer = Answer::read(&asked, &response(&asked, 3, [0, 1, 0], &soa(minimum)), fed().wire());
            let answer = answer.expect("fits");
            assert_eq!((answer.rcode, answer.ttl), (Rcode::NXDOMAIN, kept));
        }
        let bare = Answer::read(&asked, &response(&asked, 3, [0, 0, 0], &[]), fed().wire()).expect("fits");
        assert_eq!(bare.ttl, 0, "RFC 2308: without a SOA it is not kept");
        let opt = [&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6][..], &[0, 15, 0, 2, 0, 18]].concat();
        let denied = response(&asked, 3, [0, 1, 1], &[soa(60), opt].concat());
        let denied = Answer::read(&asked, &denied, fed().wire()).expect("fits");
        assert_eq!((denied.error, denied.ttl), (Some(PROHIBITED), 60));
    }

    #[test]
    fn the_address_of_the_home_network_is_an_answer_of_its_own() {
        let (asked, whole) = good();
        let answer = Answer::read(&asked, &whole, fed().wire()).expect("fits");
        let target = question(name("60002d.netids.fed.example").wire(), RecordType::A);
        let own = answer.of_target(&asked, &target).expect("there is one");
        let oracle = Oracle::from_vec(&own.write(&PLAIN, &target, None, 0, usize::MAX)).expect("hickory reads it");
        assert_eq!((oracle.answers.len(), own.ttl), (1, 50));
        assert_eq!(oracle.answers[0].name.to_string(), "60002d.netids.fed.example.");
        let other = question(name("600013.netids.fed.example").wire(), RecordType::A);
        assert_eq!(answer.of_target(&asked, &other), None);
    }

    #[test]
    fn an_answer_fits_behind_a_name_without_a_suffix() {
        let (asked, whole) = good();
        let answer = Answer::read(&asked, &whole, fed().wire()).expect("fits");
        let bare = question(name("0004a30b001c0530").wire(), RecordType::A);
        let moved = answer.behind(&asked, &bare).write(&PLAIN, &bare, None, 0, usize::MAX);
        let oracle = Oracle::from_vec(&moved).expect("hickory reads it");
        assert_eq!(oracle.answers.len(), 2);
        assert_eq!(oracle.answers[0].name.to_string(), "0004a30b001c0530.");
        assert_eq!(oracle.answers[1].name.to_string(), "60002d.netids.fed.example.");
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<(u16, u8)>()) {
            let (asked, mut whole) = good();
            let _ = Answer::read(&asked, &octets, fed().wire());
            let _ = extended_error(&octets);
            let at = usize::from(flip.0) % whole.len();
            whole[at] ^= flip.1;
            whole.extend_from_slice(&octets);
            if let Ok(answer) = Answer::read(&asked, &whole, fed().wire()) {
                let written = answer.write(&PLAIN, &asked, None, 7, usize::MAX);
                let again = Answer::read(&asked, &written, fed().wire()).expect("what was written reads back");
                prop_assert_eq!((again.counts, again.rcode.0 & 15), (answer.counts, answer.rcode.0 & 15));
            }
        }
    }
}
