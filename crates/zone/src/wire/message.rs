//! Reading messages of any opcode, record by record: what primaries, updaters and notifiers send.
//!
//! Counts in the header are hints: nothing is reserved for them, and a message ends where its octets do.

use super::{Edns, HEADER, Header, NameBuf, Rcode, RecordType, Section, expand_name, read_name, skip_name};

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MessageError(pub &'static str);

/// A message whose header has been read.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    octets: &'a [u8],
}

/// The one question of a message, or the zone section of an update.
pub struct Question<'a> {
    /// As it came, so that its case is echoed.
    pub octets: &'a [u8],
    /// The name, lower case.
    pub name: NameBuf,
    /// The type.
    pub qtype: RecordType,
    /// The class; 1 is IN.
    pub qclass: u16,
}

/// A resource record.
pub struct Record<'a> {
    /// Where it stands.
    pub section: Section,
    /// The offset of its first octet.
    pub start: usize,
    /// Its owner, lower case.
    pub owner: NameBuf,
    /// The type.
    pub rtype: RecordType,
    /// The class, which UPDATE, TSIG and OPT use for other ends.
    pub class: u16,
    /// Seconds.
    pub ttl: u32,
    /// The RDATA, where names may be compressed.
    pub rdata: &'a [u8],
    message: &'a [u8],
    rdata_at: usize,
}

impl<'a> Message<'a> {
    /// A message with at least a header.
    pub fn new(octets: &'a [u8]) -> Result<Self, MessageError> {
        if octets.len() < HEADER { Err(MessageError("shorter than a DNS header")) } else { Ok(Self { octets }) }
    }

    /// What a response to it repeats.
    pub fn header(&self) -> Header {
        let head = self.octets;
        Header {
            id: [head[0], head[1]],
            opcode: head[2] >> 3 & 15,
            recursion_desired: head[2] & 1 != 0,
            checking_disabled: head[3] & 0x10 != 0,
        }
    }

    /// Whether it is a response.
    pub fn is_response(&self) -> bool {
        self.octets[2] & 0x80 != 0
    }

    /// Whether it was cut to fit a datagram.
    pub fn is_truncated(&self) -> bool {
        self.octets[2] & 2 != 0
    }

    /// Whether who sent it has authority over the name.
    pub fn is_authoritative(&self) -> bool {
        self.octets[2] & 4 != 0
    }

    /// The response code, without its extension in EDNS.
    pub fn rcode(&self) -> Rcode {
        Rcode(u16::from(self.octets[3] & 15))
    }

    /// The octets.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// The count of a section in the header; 0 is the question.
    pub fn count(&self, section: usize) -> u16 {
        u16::from_be_bytes([self.octets[4 + 2 * section], self.octets[5 + 2 * section]])
    }

    /// Its question, if it has one; more than one is an error.
    pub fn question(&self) -> Result<Option<Question<'a>>, MessageError> {
        match self.count(0) {
            0 => return Ok(None),
            1 => {}
            _ => return Err(MessageError("more than one question")),
        }
        let (name, end) = read_name(self.octets, HEADER).ok_or(MessageError("the question's name is malformed"))?;
        let fixed: &[u8; 4] =
            self.octets.get(end..).and_then(<[u8]>::first_chunk).ok_or(MessageError("the question is cut off"))?;
        Ok(Some(Question {
            octets: &self.octets[HEADER..end + 4],
            name,
            qtype: RecordType(u16::from_be_bytes([fixed[0], fixed[1]])),
            qclass: u16::from_be_bytes([fixed[2], fixed[3]]),
        }))
    }

    /// What EDNS says in it, if there is any. Options are not looked at.
    pub fn edns(&self) -> Result<Option<Edns>, MessageError> {
        for record in self.records()? {
            if let Some(edns) = record?.edns() {
                return Ok(Some(edns));
            }
        }
        Ok(None)
    }

    /// What EDNS says in it, as far as it can be read: who is told that a message is malformed is to be told in EDNS if
    /// it asked in EDNS (RFC 6891, section 7).
    pub fn edns_so_far(&self) -> Option<Edns> {
        let mut at = HEADER;
        for _ in 0..self.count(0) {
            at = skip_name(self.octets, at)?.1 + 4;
        }
        let left = [self.count(1), self.count(2), self.count(3)];
        let records = Records { message: self.octets, at, left, failed: false };
        records.map_while(Result::ok).find_map(|record| record.edns())
    }

    /// Its records, section by section. Octets after the last are an error.
    pub fn records(&self) -> Result<Records<'a>, MessageError> {
        let at = HEADER + self.question()?.map_or(0, |question| question.octets.len());
        let left = [self.count(1), self.count(2), self.count(3)];
        Ok(Records { message: self.octets, at, left, failed: false })
    }
}

/// The records of a message.
pub struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: [u16; 3],
    failed: bool,
}

impl<'a> Records<'a> {
    fn read(&mut self, section: Section) -> Option<Record<'a>> {
        let start = self.at;
        let (owner, fixed) = expand_name(self.message, start)?;
        let head: &[u8; 10] = self.message.get(fixed..)?.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let rdata = self.message.get(fixed + 10..fixed + 10 + length)?;
        self.at = fixed + 10 + length;
        Some(Record {
            section,
            start,
            owner,
            rtype: RecordType(u16::from_be_bytes([head[0], head[1]])),
            class: u16::from_be_bytes([head[2], head[3]]),
            ttl: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            rdata,
            message: self.message,
            rdata_at: fixed + 10,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let next = self.left.iter().position(|left| *left > 0);
        let result = match next {
            Some(index) => {
                self.left[index] -= 1;
                self.read(sections[index]).ok_or(MessageError("a record is malformed or cut off"))
            }
            None if self.at < self.message.len() => Err(MessageError("octets follow the last record")),
            None => return None,
        };
        self.failed = result.is_err();
        Some(result)
    }
}

/// What an SOA record says (RFC 1035, section 3.3.13), names apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soa {
    /// The version of the zone.
    pub serial: u32,
    /// Seconds between a secondary's looks.
    pub refresh: u32,
    /// Seconds until it looks again after a failure.
    pub retry: u32,
    /// Seconds after which it no longer believes what it has.
    pub expire: u32,
    /// TTL of negative answers.
    pub minimum: u32,
}

impl Record<'_> {
    /// What it says as an OPT record, if it is one. Options are not looked at.
    fn edns(&self) -> Option<Edns> {
        let [_, version, flags, _] = self.ttl.to_be_bytes();
        let opt = self.rtype == RecordType::OPT && self.section == Section::Additional;
        opt.then_some(Edns { version, dnssec_ok: flags & 0x80 != 0, payload: self.class, padded: false })
    }

    /// The name that is the whole of the RDATA, lower case: CNAME, NS.
    pub fn target(&self) -> Option<NameBuf> {
        let (name, end) = expand_name(self.message, self.rdata_at)?;
        (end == self.rdata_at + self.rdata.len()).then_some(name)
    }

    /// The SOA's numbers.
    pub fn soa(&self) -> Option<Soa> {
        let (_, mname) = expand_name(self.message, self.rdata_at)?;
        let (_, rname) = expand_name(self.message, mname)?;
        let fields: &[u8; 20] = self.message.get(rname..)?.first_chunk()?;
        if rname + 20 != self.rdata_at + self.rdata.len() {
            return None;
        }
        let field = |at: usize| u32::from_be_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
        Some(Soa { serial: field(0), refresh: field(4), retry: field(8), expire: field(12), minimum: field(16) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(counts: [u16; 4], body: &[u8]) -> Vec<u8> {
        let mut octets = vec![0, 7, 0x84, 0];
        counts.iter().for_each(|count| octets.extend(count.to_be_bytes()));
        [octets, body.to_vec()].concat()
    }

    const QUESTION: &[u8] = b"\x01a\x07EXAMPLE\x00\x00\x06\x00\x01";

    #[test]
    fn names_are_expanded_and_folded() {
        let record = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01b\xc0\x0e";
        let octets = message([1, 1, 0, 0], &[QUESTION, record].concat());
        let read = Message::new(&octets).expect("a header");
        let record = read.records().expect("a question").next().expect("one").expect("reads");
        assert_eq!(record.owner.as_slice(), b"\x01a\x07example\x00");
        assert_eq!(record.target().expect("a name").as_slice(), b"\x01b\x07example\x00");
        assert_eq!((record.rtype, record.ttl), (RecordType::CNAME, 60));
    }

    #[test]
    fn edns_is_found_in_what_is_malformed_as_far_as_it_can_be_read() {
        const OPT: &[u8] = b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";
        let found = |counts, body: &[&[u8]]| {
            Message::new(&message(counts, &body.concat())).expect("a header").edns_so_far().map(|edns| edns.payload)
        };
        assert_eq!(found([1, 0, 0, 1], &[QUESTION, OPT]), Some(1_232));
        assert_eq!(found([2, 0, 0, 1], &[QUESTION, QUESTION, OPT]), Some(1_232), "two questions");
        assert_eq!(found([1, 0, 0, 1], &[QUESTION, OPT, b"junk"]), Some(1_232), "octets behind it");
        assert_eq!(found([1, 0, 0, 2], &[QUESTION, OPT, b"\xc0"]), Some(1_232), "a broken record behind it");
        assert_eq!(found([1, 0, 0, 2], &[QUESTION, b"\x40", OPT]), None, "a broken record before it");
        assert_eq!(found([1, 0, 1, 0], &[QUESTION, OPT]), None, "in the wrong section");
        assert_eq!(found([u16::MAX; 4], &[QUESTION, OPT]), None, "forged counts");
    }

    #[test]
    fn forged_counts_loops_and_trailing_octets_are_errors() {
        let all = |octets: &[u8]| {
            Message::new(octets).expect("a header").records().map(|records| records.filter(Result::is_err).count())
        };
        assert_eq!(all(&message([1, u16::MAX, u16::MAX, u16::MAX], QUESTION)), Ok(1));
        assert_eq!(all(&message([1, 0, 0, 0], &[QUESTION, b"x"].concat())), Ok(1));
        assert!(all(&message([2, 0, 0, 0], QUESTION)).is_err());
        // A pointer to itself, and one ahead.
        for pointer in [b"\xc0\x1b", b"\xc0\x40"] {
            let record = [&pointer[..], b"\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x00"].concat();
            assert_eq!(all(&message([1, 1, 0, 0], &[QUESTION, &record].concat())), Ok(1));
        }
    }
}
