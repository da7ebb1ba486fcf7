//! Reading a query (RFC 1035, section 4; RFC 6891) strictly, without allocating.

use super::{HEADER, MAX_MESSAGE, NameBuf, PADDING, RecordType, read_name, skip_name};

/// Records of a query that are looked at; a query has one OPT and maybe a TSIG.
const MAX_ADDITIONAL: u16 = 16;

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
