//! DNS messages in wire form (RFC 1035, section 4; RFC 6891): reading a query strictly, writing a response.
//!
//! The answers of this broker are few in kind and must cost little, so the hot path reads and writes octets itself;
//! hickory-proto reads every one of these messages in the tests and the fuzz targets.

use std::net::{Ipv4Addr, Ipv6Addr};

use dnsbroker_federation::DomainName;

use crate::zones::Timing;

/// The largest message: the length of a TCP or DoH message has 16 bits.
pub const MAX_MESSAGE: usize = 65_535;
/// The UDP payload we offer (RFC 9715, section 3: no fragments).
pub const UDP_PAYLOAD: u16 = 1_232;
/// Octets of a message header.
pub const HEADER: usize = 12;
/// Records of a query that are looked at; a query has one OPT and maybe a TSIG.
const MAX_ADDITIONAL: u16 = 16;

/// A record type (RFC 1035, section 3.2.2, and the IANA registry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordType(pub u16);

/// The types this broker serves, and those it must know to refuse.
impl RecordType {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Canonical name.
    pub const CNAME: Self = Self(5);
    /// Start of authority.
    pub const SOA: Self = Self(6);
    /// IPv6 address (RFC 3596).
    pub const AAAA: Self = Self(28);
    /// Service (RFC 2782).
    pub const SRV: Self = Self(33);
    /// Naming authority pointer (RFC 3403).
    pub const NAPTR: Self = Self(35);
    /// EDNS (RFC 6891).
    pub const OPT: Self = Self(41);
    /// Service binding (RFC 9460).
    pub const SVCB: Self = Self(64);
    /// Transaction signature (RFC 8945).
    pub const TSIG: Self = Self(250);
    /// Incremental transfer (RFC 1995).
    pub const IXFR: Self = Self(251);
    /// Transfer (RFC 5936).
    pub const AXFR: Self = Self(252);
    /// Any type (RFC 8482).
    pub const ANY: Self = Self(255);
    /// Certification authority authorisation (RFC 8659).
    pub const CAA: Self = Self(257);
    /// SIG(0) has this type and covers 0 (RFC 2931).
    pub const SIG: Self = Self(24);
}

/// Response codes (RFC 1035, section 4.1.1; RFC 6895, section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

/// The response codes this broker gives.
impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// Format error.
    pub const FORMERR: Self = Self(1);
    /// Server failure.
    pub const SERVFAIL: Self = Self(2);
    /// No such name.
    pub const NXDOMAIN: Self = Self(3);
    /// Not implemented.
    pub const NOTIMP: Self = Self(4);
    /// Refused.
    pub const REFUSED: Self = Self(5);
    /// Not authoritative or not authorised.
    pub const NOTAUTH: Self = Self(9);
    /// EDNS version not known (RFC 6891, section 6.1.3).
    pub const BADVERS: Self = Self(16);

    /// The mnemonic of the IANA registry.
    pub fn mnemonic(self) -> &'static str {
        match self {
            Self::NOERROR => "NOERROR",
            Self::FORMERR => "FORMERR",
            Self::SERVFAIL => "SERVFAIL",
            Self::NXDOMAIN => "NXDOMAIN",
            Self::NOTIMP => "NOTIMP",
            Self::REFUSED => "REFUSED",
            Self::NOTAUTH => "NOTAUTH",
            Self::BADVERS => "BADVERS",
            _ => "OTHER",
        }
    }
}

/// A name in wire form, folded to lower case, on the stack.
#[derive(Clone)]
pub struct NameBuf {
    octets: [u8; 255],
    len: u8,
}

impl NameBuf {
    /// The octets.
    pub fn as_slice(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// What EDNS says in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Zero is the only one there is.
    pub version: u8,
    /// DNSSEC OK, echoed (RFC 3225).
    pub dnssec_ok: bool,
    /// Payload the asker takes over UDP.
    pub payload: u16,
    /// Whether it padded its query, and so wants a padded response (RFC 8467, section 4).
    pub padded: bool,
}

/// Header fields of a query that its response repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// DNS ID.
    pub id: [u8; 2],
    /// Opcode, 0 to 15.
    pub opcode: u8,
    /// Recursion desired, echoed.
    pub recursion_desired: bool,
    /// Checking disabled, echoed (RFC 4035, section 3.1.6).
    pub checking_disabled: bool,
}

/// A well-formed query of one question.
pub struct Query<'a> {
    /// What its response repeats.
    pub header: Header,
    /// Question section as it came, so that its case is echoed (0x20).
    pub question: &'a [u8],
    /// The name, lower case.
    pub name: NameBuf,
    /// The type asked for.
    pub qtype: RecordType,
    /// The class asked for; 1 is IN.
    pub qclass: u16,
    /// EDNS, if there is any.
    pub edns: Option<Edns>,
    /// Whether it is signed by TSIG or SIG(0).
    pub signed: Option<RecordType>,
}

/// Why a message is not a query we can answer properly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than a header, or a response: nothing to send back.
    Ignore(&'static str),
    /// An opcode other than QUERY.
    Opcode(Header),
    /// FORMERR, and why.
    Format(Header, &'static str),
}

impl<'a> Query<'a> {
    /// Reads a message.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let Some(head) = message.first_chunk::<HEADER>() else {
            return Err(Malformed::Ignore("shorter than a DNS header"));
        };
        if head[2] & 0x80 != 0 {
            return Err(Malformed::Ignore("a response, not a query"));
        }
        let header = Header {
            id: [head[0], head[1]],
            opcode: head[2] >> 3 & 15,
            recursion_desired: head[2] & 1 != 0,
            checking_disabled: head[3] & 0x10 != 0,
        };
        if header.opcode != 0 {
            return Err(Malformed::Opcode(header));
        }
        let fail = |why| Malformed::Format(header, why);
        let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        if message.len() > MAX_MESSAGE {
            return Err(fail("longer than 65535 octets"));
        }
        // RFC 9619: a QUERY has exactly one question.
        if count(4) != 1 {
            return Err(fail("a query has exactly one question"));
        }
        if count(6) != 0 {
            return Err(fail("a query has no answers"));
        }
        let (name, end) = read_name(message, HEADER).ok_or_else(|| fail("the question's name is malformed"))?;
        let fixed: &[u8; 4] =
            message.get(end..).and_then(<[u8]>::first_chunk).ok_or_else(|| fail("the question is cut off"))?;
        let mut query = Query {
            header,
            question: &message[HEADER..end + 4],
            name,
            qtype: RecordType(u16::from_be_bytes([fixed[0], fixed[1]])),
            qclass: u16::from_be_bytes([fixed[2], fixed[3]]),
            edns: None,
            signed: None,
        };
        // An IXFR carries the asker's SOA as authority; it is read past, to be refused by its type.
        let authority = count(8);
        if authority > 1 || (authority == 1 && query.qtype != RecordType::IXFR) {
            return Err(fail("a query has no authority records"));
        }
        query.read_records(message, end + 4, authority, count(10)).map_err(fail)?;
        Ok(query)
    }

    fn read_records(
        &mut self,
        message: &[u8],
        mut at: usize,
        authority: u16,
        additional: u16,
    ) -> Result<(), &'static str> {
        if additional > MAX_ADDITIONAL {
            return Err("too many additional records");
        }
        for index in 0..authority + additional {
            let (is_root, fixed) = skip_name(message, at).ok_or("a record's name is malformed")?;
            let head: &[u8; 10] = message.get(fixed..).and_then(<[u8]>::first_chunk).ok_or("a record is cut off")?;
            let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
            let rdata = message.get(fixed + 10..fixed + 10 + length).ok_or("a record is cut off")?;
            at = fixed + 10 + length;
            match RecordType(u16::from_be_bytes([head[0], head[1]])) {
                _ if self.signed == Some(RecordType::TSIG) => return Err("TSIG is not the last record"),
                RecordType::OPT if index < authority => return Err("OPT is not an authority record"),
                RecordType::OPT => self.read_opt(is_root, head, rdata)?,
                signature @ (RecordType::TSIG | RecordType::SIG) => self.signed = Some(signature),
                _ => {}
            }
        }
        if at == message.len() { Ok(()) } else { Err("octets follow the last record") }
    }

    fn read_opt(&mut self, is_root: bool, head: &[u8; 10], rdata: &[u8]) -> Result<(), &'static str> {
        if !is_root {
            return Err("OPT's owner is not the root");
        }
        if self.edns.is_some() {
            return Err("two OPT records");
        }
        let mut padded = false;
        let mut rest = rdata;
        while !rest.is_empty() {
            let option: &[u8; 4] = rest.first_chunk().ok_or("an EDNS option is cut off")?;
            let length = usize::from(u16::from_be_bytes([option[2], option[3]]));
            padded |= option[..2] == PADDING.to_be_bytes();
            rest = rest.get(4 + length..).ok_or("an EDNS option is cut off")?;
        }
        self.edns = Some(Edns {
            version: head[5],
            dnssec_ok: head[6] & 0x80 != 0,
            payload: u16::from_be_bytes([head[2], head[3]]),
            padded,
        });
        Ok(())
    }
}

/// EDNS option code of padding (RFC 7830).
const PADDING: u16 = 12;
/// EDNS option code of extended errors (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
/// Responses are padded to a multiple of this (RFC 8467, section 4.1).
const PADDING_BLOCK: usize = 468;

/// Reads an uncompressed name; gives it and where it ends.
fn read_name(message: &[u8], mut at: usize) -> Option<(NameBuf, usize)> {
    let mut name = NameBuf { octets: [0; 255], len: 0 };
    let mut len = 0_usize;
    loop {
        let length = usize::from(*message.get(at)?);
        if length > 63 {
            return None;
        }
        let label = message.get(at..=at + length)?;
        // The root's octet must still fit.
        let place = name.octets.get_mut(len..len + label.len())?;
        place.copy_from_slice(label);
        place[1..].make_ascii_lowercase();
        len += label.len();
        at += label.len();
        if length == 0 {
            name.len = len as u8;
            return Some((name, at));
        }
    }
}

/// Steps over a name that may end in a pointer; tells whether it is the root.
fn skip_name(message: &[u8], start: usize) -> Option<(bool, usize)> {
    let mut at = start;
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some((at == start, at + 1)),
            1..=63 => at += 1 + usize::from(length),
            192..=255 => return (at + 2 <= message.len()).then_some((false, at + 2)),
            _ => return None,
        }
        if at - start > 255 {
            return None;
        }
    }
}

/// An extended DNS error (RFC 8914): code and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendedError {
    /// INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT.
    pub text: &'static str,
}

/// Writes one response message.
pub struct Response<'b> {
    out: &'b mut Vec<u8>,
    counts: [u16; 4],
    rcode: Rcode,
    /// Where the federation's name stands in the question, for compression.
    suffix: Option<u16>,
    suffix_len: usize,
    /// The least TTL of what was written.
    pub ttl: Option<u32>,
}

/// The sections a record can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Answer.
    Answer = 1,
    /// Authority.
    Authority = 2,
    /// Additional.
    Additional = 3,
}

impl<'b> Response<'b> {
    /// Starts a response with the question (if it could be read).
    pub fn new(out: &'b mut Vec<u8>, header: &Header, question: &[u8], authoritative: bool) -> Self {
        out.clear();
        let flags = 0x80 | header.opcode << 3 | u8::from(authoritative) << 2 | u8::from(header.recursion_desired);
        out.extend_from_slice(&[header.id[0], header.id[1], flags, u8::from(header.checking_disabled) << 4]);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(question);
        let counts = [u16::from(!question.is_empty()), 0, 0, 0];
        Self { out, counts, rcode: Rcode::NOERROR, suffix: None, suffix_len: 0, ttl: None }
    }

    /// Names that end in `suffix`, which is how the question's name ends, point there from now on.
    pub fn compress_with(&mut self, suffix: &DomainName) {
        let name_end = self.out.len() - 4;
        self.suffix_len = suffix.wire().len();
        self.suffix = Some((name_end - self.suffix_len) as u16);
    }

    /// Sets the response code.
    pub fn set_rcode(&mut self, rcode: Rcode) {
        self.rcode = rcode;
    }

    /// Where the next octet goes.
    pub fn position(&self) -> u16 {
        self.out.len() as u16
    }

    /// A name that may be compressed.
    pub fn name(&mut self, name: &DomainName) {
        let wire = name.wire();
        match self.suffix {
            Some(at) if wire.len() >= self.suffix_len && self.ends_in_suffix(wire, at) => {
                self.out.extend_from_slice(&wire[..wire.len() - self.suffix_len]);
                self.pointer(at);
            }
            _ => self.out.extend_from_slice(wire),
        }
    }

    fn ends_in_suffix(&self, wire: &[u8], at: u16) -> bool {
        let at = usize::from(at);
        wire[wire.len() - self.suffix_len..].eq_ignore_ascii_case(&self.out[at..at + self.suffix_len])
    }

    /// A compression pointer.
    pub fn pointer(&mut self, at: u16) {
        self.out.extend_from_slice(&(0xc000 | at).to_be_bytes());
    }

    /// Type, class IN, TTL and a length to be filled by [`end_record`](Self::end_record); the owner stands before.
    #[must_use]
    pub fn begin_record(&mut self, section: Section, rtype: RecordType, ttl: u32) -> usize {
        self.counts[section as usize] += 1;
        self.ttl = Some(self.ttl.map_or(ttl, |least| least.min(ttl)));
        self.out.extend_from_slice(&rtype.0.to_be_bytes());
        self.out.extend_from_slice(&[0, 1]);
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&[0, 0]);
        self.out.len()
    }

    /// Raw RDATA octets.
    pub fn octets(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
    }

    /// Fills the RDATA length.
    pub fn end_record(&mut self, rdata_start: usize) {
        let length = (self.out.len() - rdata_start) as u16;
        self.out[rdata_start - 2..rdata_start].copy_from_slice(&length.to_be_bytes());
    }

    /// A whole record behind an owner that has been written.
    pub fn record(&mut self, section: Section, rtype: RecordType, ttl: u32, rdata: &[u8]) {
        let start = self.begin_record(section, rtype, ttl);
        self.octets(rdata);
        self.end_record(start);
    }

    /// Writes OPT where the query had one, and the header's counts and code.
    pub fn finish(mut self, edns: Option<Edns>, error: Option<ExtendedError>) {
        if let Some(edns) = edns {
            self.write_opt(edns, error);
        }
        self.out[3] |= (self.rcode.0 & 15) as u8;
        for (index, count) in self.counts.into_iter().enumerate() {
            self.out[4 + 2 * index..6 + 2 * index].copy_from_slice(&count.to_be_bytes());
        }
    }

    fn write_opt(&mut self, edns: Edns, error: Option<ExtendedError>) {
        self.counts[Section::Additional as usize] += 1;
        self.out.extend_from_slice(&[0, 0, 41]);
        self.out.extend_from_slice(&UDP_PAYLOAD.to_be_bytes());
        self.out.extend_from_slice(&[(self.rcode.0 >> 4) as u8, 0, u8::from(edns.dnssec_ok) << 7, 0, 0, 0]);
        let start = self.out.len();
        if let Some(error) = error {
            self.out.extend_from_slice(&EXTENDED_ERROR.to_be_bytes());
            self.out.extend_from_slice(&(2 + error.text.len() as u16).to_be_bytes());
            self.out.extend_from_slice(&error.code.to_be_bytes());
            self.out.extend_from_slice(error.text.as_bytes());
        }
        if edns.padded {
            let with_option = self.out.len() + 4;
            let padding = with_option.next_multiple_of(PADDING_BLOCK) - with_option;
            self.out.extend_from_slice(&PADDING.to_be_bytes());
            self.out.extend_from_slice(&(padding as u16).to_be_bytes());
            self.out.resize(with_option + padding, 0);
        }
        self.end_record(start);
    }
}

/// RDATA in wire form, without compression.
pub mod rdata {
    use super::{DomainName, Ipv4Addr, Ipv6Addr, Timing};

    /// A.
    pub fn a(address: Ipv4Addr) -> Vec<u8> {
        address.octets().to_vec()
    }

    /// AAAA.
    pub fn aaaa(address: Ipv6Addr) -> Vec<u8> {
        address.octets().to_vec()
    }

    /// NS, CNAME: a name.
    pub fn name(name: &DomainName) -> Vec<u8> {
        name.wire().to_vec()
    }

    /// SOA (RFC 1035, section 3.3.13): the mailbox is `hostmaster` at the contact name.
    pub fn soa(primary: &DomainName, contact: &DomainName, serial: u32, timing: &Timing) -> Vec<u8> {
        let mut rdata = [primary.wire(), b"\x0ahostmaster", contact.wire()].concat();
        for field in [serial, timing.refresh, timing.retry, timing.expire, timing.negative_ttl] {
            rdata.extend_from_slice(&field.to_be_bytes());
        }
        rdata
    }

    /// SRV (RFC 2782), priority and weight 0.
    pub fn srv(port: u16, target: &[u8]) -> Vec<u8> {
        let mut rdata = vec![0, 0, 0, 0];
        rdata.extend_from_slice(&port.to_be_bytes());
        rdata.extend_from_slice(target);
        rdata
    }

    /// NAPTR (RFC 3403) of order 10 and preference 10, without a regular expression.
    pub fn naptr(flags: &str, service: &str, replacement: &[u8]) -> Vec<u8> {
        let mut rdata = vec![0, 10, 0, 10];
        for text in [flags, service, ""] {
            rdata.push(text.len() as u8);
            rdata.extend_from_slice(text.as_bytes());
        }
        rdata.extend_from_slice(replacement);
        rdata
    }

    /// CAA (RFC 8659, section 4.1).
    pub fn caa(tag: &str, value: &str) -> Vec<u8> {
        [&[0, tag.len() as u8], tag.as_bytes(), value.as_bytes()].concat()
    }

    /// SVCB of a DoH server (RFC 9461): `alpn=h2`, `port`, `dohpath`.
    pub fn svcb_doh(target: &DomainName, port: u16, path: &str) -> Vec<u8> {
        let mut rdata = vec![0, 1];
        rdata.extend_from_slice(target.wire());
        let mut param = |key: u16, value: &[u8]| {
            rdata.extend_from_slice(&key.to_be_bytes());
            rdata.extend_from_slice(&(value.len() as u16).to_be_bytes());
            rdata.extend_from_slice(value);
        };
        param(1, b"\x02h2");
        param(3, &port.to_be_bytes());
        param(7, path.as_bytes());
        rdata
    }
}
