//! DNS messages in wire form (RFC 1035, section 4; RFC 6891): reading a query strictly, writing a response.
//!
//! The answers of this broker are few in kind and must cost little, so the hot path reads and writes octets itself;
//! hickory-proto reads every one of these messages in the tests and the fuzz targets.

pub mod message;
mod query;
pub mod rdata;
mod response;

pub use query::{Edns, Header, Malformed, Query};
pub use response::{Answerless, ExtendedError, Response, Section};

/// The largest message: the length of a TCP or DoH message has 16 bits.
pub const MAX_MESSAGE: usize = 65_535;
/// The UDP payload we offer (RFC 9715, section 3: no fragments).
pub const UDP_PAYLOAD: u16 = 1_232;
/// Octets of a message header.
pub const HEADER: usize = 12;

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
    /// What a TLS server is trusted by (RFC 6698).
    pub const TLSA: Self = Self(52);
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
    /// A name exists that should not (RFC 2136, section 2.2).
    pub const YXDOMAIN: Self = Self(6);
    /// An RRset exists that should not.
    pub const YXRRSET: Self = Self(7);
    /// An RRset that should exist does not.
    pub const NXRRSET: Self = Self(8);
    /// Not authoritative or not authorised.
    pub const NOTAUTH: Self = Self(9);
    /// A name is not within the zone.
    pub const NOTZONE: Self = Self(10);
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
            Self::YXDOMAIN => "YXDOMAIN",
            Self::YXRRSET => "YXRRSET",
            Self::NXRRSET => "NXRRSET",
            Self::NOTAUTH => "NOTAUTH",
            Self::NOTZONE => "NOTZONE",
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
    /// An uncompressed name in wire form, if it is one.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        read_name(wire, 0).and_then(|(name, end)| (end == wire.len()).then_some(name))
    }

    /// The octets.
    pub fn as_slice(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// Reads an uncompressed name; gives it and where it ends.
pub(crate) fn read_name(message: &[u8], mut at: usize) -> Option<(NameBuf, usize)> {
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

/// Reads a name that may be compressed (RFC 1035, section 4.1.4); gives it, lower case, and where it ends. Pointers lead
/// strictly backwards, so that there is no loop.
pub fn expand_name(message: &[u8], start: usize) -> Option<(NameBuf, usize)> {
    let mut name = NameBuf { octets: [0; 255], len: 0 };
    let (mut at, mut len, mut end) = (start, 0_usize, None);
    let mut before = start;
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0..=63 => {
                let label = message.get(at..=at + length)?;
                let place = name.octets.get_mut(len..len + label.len())?;
                place.copy_from_slice(label);
                place[1..].make_ascii_lowercase();
                len += label.len();
                at += label.len();
                if length == 0 {
                    name.len = len as u8;
                    return Some((name, end.unwrap_or(at)));
                }
            }
            192..=255 => {
                let target = (length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                if target >= before {
                    return None;
                }
                end = end.or(Some(at + 2));
                (at, before) = (target, target);
            }
            _ => return None,
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

/// EDNS option code of padding (RFC 7830).
const PADDING: u16 = 12;
/// EDNS option code of extended errors (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
/// Responses are padded to a multiple of this (RFC 8467, section 4.1).
const PADDING_BLOCK: usize = 468;
