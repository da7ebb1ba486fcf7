//! Writing a response: question, records compressed against it, EDNS.

use dnsbroker_federation::DomainName;

use super::{EXTENDED_ERROR, Edns, Header, PADDING, PADDING_BLOCK, Rcode, RecordType, UDP_PAYLOAD};

/// An extended DNS error (RFC 8914): code and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendedError {
    /// INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT.
    pub text: &'static str,
}

/// What a response without records says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answerless {
    /// The response code.
    pub rcode: Rcode,
    /// Why, in words.
    pub error: Option<ExtendedError>,
    /// AA: set where NOTIFY and UPDATE are done.
    pub authoritative: bool,
    /// TC: ask again over TCP.
    pub truncated: bool,
}

impl From<Rcode> for Answerless {
    fn from(rcode: Rcode) -> Self {
        Self { rcode, error: None, authoritative: false, truncated: false }
    }
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
    /// A response without records.
    pub fn empty(out: &'b mut Vec<u8>, header: &Header, question: &[u8], edns: Option<Edns>, error: Answerless) {
        let Answerless { rcode, error, authoritative, truncated } = error;
        let mut response = Self::new(out, header, question, authoritative);
        response.out[2] |= u8::from(truncated) << 1;
        response.set_rcode(rcode);
        response.finish(edns, error);
    }

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
