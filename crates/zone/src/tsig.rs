//! Transaction signatures (RFC 8945): HMAC over a message with a secret that both sides share.
//!
//! A [`Chain`] is one exchange: a request, and the one or many messages of its response, each signed over the MAC of the
//! one before. The asker starts it with [`Chain::request`] and verifies; the other side gets it from [`verify`] and
//! signs. Clock and secret are arguments.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use dnsbroker_federation::DomainName;

use crate::wire::message::{Message, MessageError};
use crate::wire::{HEADER, NameBuf, Rcode, RecordType, Section};

/// Seconds that the clocks of both sides may differ (RFC 8945, section 10).
pub const FUDGE: u16 = 300;
/// Unsigned messages between two signed ones of a stream, at most (RFC 8945, section 5.3.1).
const MAX_UNSIGNED: u32 = 99;
/// Octets of an SHA-512.
const MAX_MAC: usize = 64;

/// The algorithms that are taken (RFC 8945, section 6). MD5 and SHA-1 are not: no server that members run needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// `hmac-sha256`
    HmacSha256,
    /// `hmac-sha384`
    HmacSha384,
    /// `hmac-sha512`
    HmacSha512,
}

/// A text that names no algorithm that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no TSIG algorithm that is taken: hmac-sha256, hmac-sha384 and hmac-sha512 are")]
pub struct AlgorithmError;

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512];

    /// Its name, which on the wire is a domain name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        }
    }

    /// Octets of a secret that is as strong as the algorithm (RFC 8945, section 8).
    pub const fn secret_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    fn wire(self) -> Vec<u8> {
        let name = self.name();
        [&[name.len() as u8], name.as_bytes(), &[0]].concat()
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha256 => hmac::HMAC_SHA256,
            Self::HmacSha384 => hmac::HMAC_SHA384,
            Self::HmacSha512 => hmac::HMAC_SHA512,
        }
    }
}

impl std::str::FromStr for Algorithm {
    type Err = AlgorithmError;

    fn from_str(text: &str) -> Result<Self, AlgorithmError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(text)).ok_or(AlgorithmError)
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A shared secret, its name and its algorithm. The secret is in the form that HMAC works with.
#[derive(Clone)]
pub struct Key {
    name: DomainName,
    algorithm: Algorithm,
    hmac: hmac::Key,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} {})", self.name, self.algorithm)
    }
}

impl Key {
    /// A key of a secret.
    pub fn new(name: DomainName, algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { name, algorithm, hmac: hmac::Key::new(algorithm.hmac(), secret) }
    }

    /// Its name.
    pub fn name(&self) -> &DomainName {
        &self.name
    }
}

/// What the TSIG record of a message says.
pub struct Signature<'a> {
    /// Name of the key, lower case.
    pub key: NameBuf,
    algorithm: NameBuf,
    time: u64,
    fudge: u16,
    mac: &'a [u8],
    original_id: [u8; 2],
    /// What is wrong with the request that this answers; 0 is nothing.
    pub error: u16,
    other: &'a [u8],
    /// Where the record begins: what stands before is what was signed.
    start: usize,
}

/// Errors of TSIG (RFC 8945, section 3).
pub mod error {
    /// The signature is wrong.
    pub const BADSIG: u16 = 16;
    /// The key is not known.
    pub const BADKEY: u16 = 17;
    /// The clocks differ by too much.
    pub const BADTIME: u16 = 18;
    /// The signature is shorter than is taken.
    pub const BADTRUNC: u16 = 22;
}

/// Why a signature is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TsigError {
    /// The message or its TSIG record cannot be read.
    #[error("the signed message is malformed: {0}")]
    Malformed(#[from] MessageError),
    /// No key of that name and algorithm.
    #[error("the TSIG key or its algorithm is not known (BADKEY)")]
    UnknownKey,
    /// Another secret, or the message was altered.
    #[error("the TSIG signature is wrong (BADSIG)")]
    Signature,
    /// It was signed too long ago, or in the future.
    #[error("the TSIG time differs from ours by {seconds} s (BADTIME)")]
    Time {
        /// By how much.
        seconds: u64,
    },
    /// The signature has fewer octets than its algorithm makes.
    #[error("the TSIG signature is cut short (BADTRUNC)")]
    Truncated,
    /// There is none where one must be.
    #[error("the message is not signed")]
    Missing,
    /// The other side says that our signature has a fault.
    #[error("the other side refused our TSIG signature: {}", words(*.0))]
    Refused(u16),
}

fn words(error: u16) -> &'static str {
    match error {
        error::BADSIG => "BADSIG: it has another secret for this key",
        error::BADKEY => "BADKEY: it does not know this key or its algorithm",
        error::BADTIME => "BADTIME: its clock differs from ours",
        error::BADTRUNC => "BADTRUNC",
        _ => "an error that RFC 8945 does not name",
    }
}

impl TsigError {
    /// The TSIG error to answer with; none where the message is malformed.
    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::UnknownKey => Some(error::BADKEY),
            Self::Signature => Some(error::BADSIG),
            Self::Time { .. } => Some(error::BADTIME),
            Self::Truncated => Some(error::BADTRUNC),
            Self::Malformed(_) | Self::Missing | Self::Refused(_) => None,
        }
    }
}

impl<'a> Signature<'a> {
    /// The TSIG record of a message, if it has one. It must be the last (RFC 8945, section 5.1).
    pub fn of(message: Message<'a>) -> Result<Option<Self>, MessageError> {
        let mut found = None;
        for record in message.records()? {
            let record = record?;
            if found.is_some() {
                return Err(MessageError("TSIG is not the last record"));
            }
            if record.rtype == RecordType::TSIG {
                if record.section != Section::Additional || record.class != 255 || record.ttl != 0 {
                    return Err(MessageError("TSIG stands in the wrong place"));
                }
                found = Some((record.start, record.owner, record.rdata));
            }
        }
        let Some((start, key, rdata)) = found else { return Ok(None) };
        Self::read(start, key, rdata).map(Some).ok_or(MessageError("TSIG is malformed"))
    }

    fn read(start: usize, key: NameBuf, rdata: &'a [u8]) -> Option<Self> {
        let (algorithm, at) = crate::wire::read_name(rdata, 0)?;
        let fixed: &[u8; 10] = rdata.get(at..)?.first_chunk()?;
        let time = fixed[..6].iter().fold(0, |time, octet| time << 8 | u64::from(*octet));
        let mac_len = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let mac = rdata.get(at + 10..at + 10 + mac_len)?;
        let tail: &[u8; 6] = rdata.get(at + 10 + mac_len..)?.first_chunk()?;
        let other = rdata.get(at + 16 + mac_len..)?;
        if other.len() != usize::from(u16::from_be_bytes([tail[4], tail[5]])) {
            return None;
        }
        Some(Self {
            key,
            algorithm,
            time,
            fudge: u16::from_be_bytes([fixed[6], fixed[7]]),
            mac,
            original_id: [tail[0], tail[1]],
            error: u16::from_be_bytes([tail[2], tail[3]]),
            other,
            start,
        })
    }

    /// Feeds the message as it was before it was signed.
    fn feed_message(&self, message: &[u8], context: &mut hmac::Context) {
        let additional = u16::from_be_bytes([message[10], message[11]]).wrapping_sub(1);
        context.update(&self.original_id);
        context.update(&message[2..10]);
        context.update(&additional.to_be_bytes());
        context.update(&message[HEADER..self.start]);
    }

    fn check_mac(&self, context: hmac::Context, key: &Key) -> Result<(), TsigError> {
        let full = context.sign();
        let full = full.as_ref();
        if self.mac.len() < full.len() {
            // RFC 8945, section 5.2.2.1: what is shorter than half, or than 10 octets, is malformed.
            let least = (full.len() / 2).max(10);
            return Err(if self.mac.len() < least {
                MessageError("the MAC is too short").into()
            } else {
                TsigError::Truncated
            });
        }
        // The same section: longer than the algorithm makes it is malformed as well.
        if self.mac.len() > full.len() {
            return Err(MessageError("the MAC is too long").into());
        }
        debug_assert_eq!(key.hmac.algorithm().digest_algorithm().output_len(), full.len());
        verify_slices_are_equal(self.mac, full).map_err(|_| TsigError::Signature)
    }

    fn check_time(&self, now: u64) -> Result<(), TsigError> {
        let seconds = now.abs_diff(self.time);
        if seconds <= u64::from(self.fudge) { Ok(()) } else { Err(TsigError::Time { seconds }) }
    }
}

/// The variables that the first signature of an exchange covers (RFC 8945, section 4.3.3).
fn feed_variables(context: &mut hmac::Context, key: &Key, time: u64, fudge: u16, error: u16, other: &[u8]) {
    context.update(key.name.wire());
    context.update(&[0, 255, 0, 0, 0, 0]);
    context.update(&key.algorithm.wire());
    feed_timers(context, time, fudge);
    context.update(&error.to_be_bytes());
    context.update(&(other.len() as u16).to_be_bytes());
    context.update(other);
}

fn feed_timers(context: &mut hmac::Context, time: u64, fudge: u16) {
    context.update(&time.to_be_bytes()[2..]);
    context.update(&fudge.to_be_bytes());
}

/// One exchange of signed messages.
pub struct Chain {
    key: Key,
    previous: Vec<u8>,
    /// Whether the next message is the first of the response: only that signature covers all variables.
    first: bool,
    /// What came unsigned since the last signature.
    unsigned: Option<(hmac::Context, u32)>,
    /// The last signature is accepted although its time is off: the response says so.
    late: Option<TsigError>,
}

/// Checks the signature of a request. `key_of` finds the key of a name.
///
/// A request whose time is off gets a chain all the same, with [`Chain::fault`]: the response that says so is signed.
pub fn verify(message: Message<'_>, signature: &Signature<'_>, key: Option<Key>, now: u64) -> Result<Chain, TsigError> {
    let key = key.filter(|key| {
        key.name.wire() == signature.key.as_slice() && key.algorithm.wire() == signature.algorithm.as_slice()
    });
    let key = key.ok_or(TsigError::UnknownKey)?;
    let mut context = hmac::Context::with_key(&key.hmac);
    signature.feed_message(message.octets(), &mut context);
    feed_variables(&mut context, &key, signature.time, signature.fudge, signature.error, signature.other);
    signature.check_mac(context, &key)?;
    // RFC 8945, section 5.2: the time is looked at after the signature.
    let late = signature.check_time(now).err();
    Ok(Chain { key, previous: signature.mac.to_vec(), first: true, unsigned: None, late })
}

impl Chain {
    /// Signs a request, and is ready for the response.
    pub fn request(key: Key, message: &mut Vec<u8>, now: u64) -> Self {
        let mut chain = Self { key, previous: Vec::new(), first: true, unsigned: None, late: None };
        chain.sign(message, now);
        chain.first = true;
        chain
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What is wrong with the request's time, if anything is.
    pub fn fault(&self) -> Option<TsigError> {
        self.late
    }

    /// Signs the next message: appends its TSIG record.
    pub fn sign(&mut self, message: &mut Vec<u8>, now: u64) {
        let (error, other) = match self.late {
            // RFC 8945, section 5.2.3: our time goes along.
            Some(late) => (late.code().unwrap_or_default(), now.to_be_bytes()[2..].to_vec()),
            None => (0, Vec::new()),
        };
        let mut context = match self.unsigned.take() {
            Some((context, _)) => context,
            None => self.start(),
        };
        context.update(message);
        if self.first {
            feed_variables(&mut context, &self.key, now, FUDGE, error, &other);
        } else {
            feed_timers(&mut context, now, FUDGE);
        }
        self.first = false;
        let mac = context.sign();
        self.previous.clear();
        self.previous.extend_from_slice(mac.as_ref());
        append(message, self.key.name.wire(), &self.key.algorithm.wire(), now, mac.as_ref(), error, &other);
    }

    /// Takes a message that is sent unsigned into the next signature, as servers do that sign seldom (RFC 8945,
    /// section 5.3.1).
    pub fn cover(&mut self, message: &[u8]) {
        let (mut context, count) = self.unsigned.take().unwrap_or_else(|| (self.start(), 0));
        context.update(message);
        self.unsigned = Some((context, count + 1));
    }

    /// Octets that [`sign`](Self::sign) appends.
    pub fn signature_len(&self) -> usize {
        self.key.name.wire().len() + self.key.algorithm.wire().len() + 10 + 16 + MAX_MAC
    }

    /// Verifies the next message of the response; tells whether it was signed. Of a stream the first must be, and then
    /// at least each hundredth, and the last, which the caller checks.
    pub fn verify(&mut self, message: Message<'_>, now: u64) -> Result<bool, TsigError> {
        let Some(signature) = Signature::of(message)? else {
            let count = self.unsigned.as_ref().map_or(0, |(_, count)| *count);
            if self.first || count == MAX_UNSIGNED {
                return Err(TsigError::Missing);
            }
            self.cover(message.octets());
            return Ok(false);
        };
        if signature.key.as_slice() != self.key.name.wire() {
            return Err(TsigError::UnknownKey);
        }
        if signature.mac.is_empty() && signature.error != 0 {
            return Err(TsigError::Refused(signature.error));
        }
        let mut context = match self.unsigned.take() {
            Some((context, _)) => context,
            None => self.start(),
        };
        signature.feed_message(message.octets(), &mut context);
        if self.first {
            let Signature { time, fudge, error, other, .. } = signature;
            feed_variables(&mut context, &self.key, time, fudge, error, other);
        } else {
            feed_timers(&mut context, signature.time, signature.fudge);
        }
        signature.check_mac(context, &self.key)?;
        if signature.error != 0 {
            return Err(TsigError::Refused(signature.error));
        }
        signature.check_time(now)?;
        self.first = false;
        self.previous = signature.mac.to_vec();
        Ok(true)
    }

    /// A context that has the MAC before, with its length (RFC 8945, section 5.3).
    fn start(&self) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.key.hmac);
        if !self.previous.is_empty() {
            context.update(&(self.previous.len() as u16).to_be_bytes());
            context.update(&self.previous);
        }
        context
    }
}

/// Appends a TSIG record without a signature, which tells that a request's signature is not accepted (RFC 8945,
/// section 5.3.2).
pub fn append_unsigned(message: &mut Vec<u8>, request: &Signature<'_>, now: u64, error: u16) {
    append(message, request.key.as_slice(), request.algorithm.as_slice(), now, &[], error, &[]);
}

fn append(message: &mut Vec<u8>, key: &[u8], algorithm: &[u8], now: u64, mac: &[u8], error: u16, other: &[u8]) {
    let id = [message[0], message[1]];
    message.extend_from_slice(key);
    message.extend_from_slice(&RecordType::TSIG.0.to_be_bytes());
    message.extend_from_slice(&[0, 255, 0, 0, 0, 0]);
    message.extend_from_slice(&((algorithm.len() + 16 + mac.len() + other.len()) as u16).to_be_bytes());
    message.extend_from_slice(algorithm);
    message.extend_from_slice(&now.to_be_bytes()[2..]);
    message.extend_from_slice(&FUDGE.to_be_bytes());
    message.extend_from_slice(&(mac.len() as u16).to_be_bytes());
    message.extend_from_slice(mac);
    message.extend_from_slice(&id);
    message.extend_from_slice(&error.to_be_bytes());
    message.extend_from_slice(&(other.len() as u16).to_be_bytes());
    message.extend_from_slice(other);
    let additional = u16::from_be_bytes([message[10], message[11]]).saturating_add(1);
    message[10..HEADER].copy_from_slice(&additional.to_be_bytes());
}

/// The response code that goes with a TSIG error (RFC 8945, sections 5.2 and 5.3.2).
pub fn rcode(error: TsigError) -> Rcode {
    if error.code().is_some() { Rcode::NOTAUTH } else { Rcode::FORMERR }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(secret: &[u8]) -> Key {
        Key::new("k.example".parse().expect("a name"), Algorithm::HmacSha256, secret)
    }

    fn query() -> Vec<u8> {
        b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x06\x00\x01".to_vec()
    }

    fn response(number: u8) -> Vec<u8> {
        let mut octets = query();
        octets[2] |= 0x80;
        octets[13] = number;
        octets
    }

    fn verified(octets: &[u8], key: Key, now: u64) -> Result<Chain, TsigError> {
        let message = Message::new(octets)?;
        let signature = Signature::of(message)?.ok_or(TsigError::Missing)?;
        verify(message, &signature, Some(key), now)
    }

    #[test]
    fn a_request_verifies_with_its_key_and_nothing_else() {
        let mut octets = query();
        Chain::request(key(b"secret"), &mut octets, NOW);
        assert!(verified(&octets, key(b"secret"), NOW + 300).expect("good").fault().is_none());
        let late = verified(&octets, key(b"secret"), NOW + 301).expect("good but late");
        assert_eq!(late.fault(), Some(TsigError::Time { seconds: 301 }));
        assert_eq!(verified(&octets, key(b"other"), NOW).err(), Some(TsigError::Signature));
        let sha512 = Key::new("k.example".parse().expect("a name"), Algorithm::HmacSha512, b"secret");
        assert_eq!(verified(&octets, sha512, NOW).err(), Some(TsigError::UnknownKey));
        for at in 2..octets.len() {
            let mut altered = octets.clone();
            altered[at] ^= 1;
            let accepted = verified(&altered, key(b"secret"), NOW);
            // The case of the key's name and algorithm is of no consequence, and folded.
            let folded = altered.eq_ignore_ascii_case(&octets);
            assert_eq!(accepted.is_ok(), folded, "octet {at}");
        }
        // A forwarder may have changed the DNS ID: the original is signed.
        octets[0] ^= 1;
        assert!(verified(&octets, key(b"secret"), NOW).is_ok());
    }

    #[test]
    fn a_stream_verifies_with_unsigned_messages_between() {
        for unsigned in [0, 1, 98, 99, 100] {
            let mut request = query();
            let mut asker = Chain::request(key(b"secret"), &mut request, NOW);
            let mut server = verified(&request, key(b"secret"), NOW).expect("good");
            let mut send = |asker: &mut Chain, number: u8, signed: bool| {
                let mut octets = response(number);
                if signed {
                    server.sign(&mut octets, NOW);
                } else {
                    server.cover(&octets);
                }
                asker.verify(Message::new(&octets)?, NOW)
            };
            assert_eq!(send(&mut asker, 0, true), Ok(true));
            let between: Result<Vec<_>, _> = (0..unsigned).map(|number| send(&mut asker, number, false)).collect();
            assert_eq!(between.is_ok(), unsigned <= 99, "{unsigned} unsigned messages");
        }
    }

    #[test]
    fn a_response_that_is_unsigned_replayed_or_of_another_exchange_is_refused() {
        let mut request = query();
        let mut asker = Chain::request(key(b"secret"), &mut request, NOW);
        let mut server = verified(&request, key(b"secret"), NOW).expect("good");
        assert_eq!(asker.verify(Message::new(&response(0)).expect("a header"), NOW), Err(TsigError::Missing));
        let mut first = response(0);
        server.sign(&mut first, NOW);
        assert_eq!(asker.verify(Message::new(&first).expect("a header"), NOW), Ok(true));
        assert_eq!(asker.verify(Message::new(&first).expect("a header"), NOW), Err(TsigError::Signature));
        let mut other = query();
        let mut stranger = Chain::request(key(b"secret"), &mut other, NOW + 1);
        assert_eq!(stranger.verify(Message::new(&first).expect("a header"), NOW), Err(TsigError::Signature));
    }
}
