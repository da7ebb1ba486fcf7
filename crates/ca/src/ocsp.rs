//! Online certificate status (RFC 6960, in the short form of RFC 5019): requests read, responses signed by the CA.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use yasna::models::{GeneralizedTime, ObjectIdentifier};
use yasna::{DERWriter, Tag};

use crate::authority::{IssueError, Issuer, RevocationReason};
use crate::der::{self, DerError, Reader};
use crate::serial::SerialNumber;

/// What somebody wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspRequest {
    asked: Vec<Asked>,
    nonce: Option<Vec<u8>>,
}

/// One certificate, as the request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// The whole `CertID`, which is repeated in the response.
    id: Vec<u8>,
    sha256: bool,
    name_hash: Vec<u8>,
    key_hash: Vec<u8>,
    serial: Option<SerialNumber>,
}

/// What is known of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Issued here, and not revoked.
    Good,
    /// Revoked.
    Revoked {
        /// When, in seconds since 1970-01-01 UTC.
        at: i64,
        /// Why.
        reason: RevocationReason,
    },
    /// Not issued here.
    Unknown,
}

/// A response that is an error and has no signature (RFC 6960, section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OcspError {
    /// The request cannot be read.
    Malformed,
    /// The signing key cannot be reached.
    TryLater,
    /// Another CA's certificates are asked for.
    Unauthorized,
}

/// Why octets are not a request that is answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspRequestError {
    /// Not the structure of RFC 6960.
    #[error("the OCSP request is damaged")]
    Structure(#[from] DerError),
    /// None, or over [`MAX_ASKED`].
    #[error("the OCSP request asks for {count} certificates; 1 to {MAX_ASKED} are answered")]
    Count {
        /// How many there are.
        count: usize,
    },
    /// A nonce of no or over 32 octets (RFC 8954, section 2.1).
    #[error("the OCSP request has a nonce of {octets} octets; a nonce has 1 to 32")]
    Nonce {
        /// How many there are.
        octets: usize,
    },
    /// A digest that names no CA of ours.
    #[error("the OCSP request names the CA by a digest that is neither SHA-1 nor SHA-256")]
    Digest,
}

impl OcspRequest {
    /// Reads a request in DER. A signature on it is ignored: everybody may ask.
    pub fn read(request: &[u8]) -> Result<Self, OcspRequestError> {
        let mut outer = Reader::new(request);
        let mut parts = outer.sequence()?;
        outer.finish()?;
        let mut message = parts.sequence()?;
        if message.peek() == Some(der::CONTEXT_0) {
            message.any()?;
        }
        if message.peek() == Some(CONTEXT_1) {
            message.any()?;
        }
        let mut list = message.sequence()?;
        let mut asked = Vec::new();
        while list.peek().is_some() {
            let mut request = list.sequence()?;
            if asked.len() == MAX_ASKED {
                return Err(OcspRequestError::Count { count: MAX_ASKED + 1 });
            }
            asked.push(Asked::read(request.expect(der::SEQUENCE)?.raw)?);
        }
        if asked.is_empty() {
            return Err(OcspRequestError::Count { count: 0 });
        }
        let mut nonce = None;
        if message.peek() == Some(CONTEXT_2) {
            let mut extensions = Reader::new(message.any()?.content).sequence()?;
            while extensions.peek().is_some() {
                let mut extension = extensions.sequence()?;
                let oid = extension.expect(der::OID)?.content;
                if extension.peek() == Some(BOOLEAN) {
                    extension.any()?;
                }
                let value = extension.expect(OCTET_STRING)?.content;
                if oid == NONCE_OID {
                    let octets = Reader::new(value).expect(OCTET_STRING)?.content;
                    if !(1..=32).contains(&octets.len()) {
                        return Err(OcspRequestError::Nonce { octets: octets.len() });
                    }
                    nonce = Some(octets.to_vec());
                }
            }
        }
        Ok(Self { asked, nonce })
    }

    /// Whether the response can be given to others who ask the same.
    pub fn is_cacheable(&self) -> bool {
        self.nonce.is_none()
    }

    /// Whether all certificates asked for are named as those of this CA.
    pub fn is_for(&self, issuer: &Issuer) -> bool {
        let hash = |algorithm: &'static Algorithm| {
            let hashed = |octets: &[u8]| digest(algorithm, octets).as_ref().to_vec();
            (hashed(issuer.subject()), hashed(issuer.public_key().key_bits()))
        };
        let (sha1, sha256) = (hash(&SHA1_FOR_LEGACY_USE_ONLY), hash(&SHA256));
        self.asked.iter().all(|asked| {
            let (name, key) = if asked.sha256 { &sha256 } else { &sha1 };
            asked.name_hash == *name && asked.key_hash == *key
        })
    }
}

impl Asked {
    /// `CertID ::= SEQUENCE { hashAlgorithm, issuerNameHash, issuerKeyHash, serialNumber }`.
    fn read(id: &[u8]) -> Result<Self, OcspRequestError> {
        let mut fields = Reader::new(id).sequence()?;
        let oid = der::dotted(fields.sequence()?.expect(der::OID)?.content);
        let sha256 = match oid.as_str() {
            "1.3.14.3.2.26" => false,
            "2.16.840.1.101.3.4.2.1" => true,
            _ => return Err(OcspRequestError::Digest),
        };
        let name_hash = fields.expect(OCTET_STRING)?.content.to_vec();
        let key_hash = fields.expect(OCTET_STRING)?.content.to_vec();
        // A number that no CA gives is one that we did not give.
        let serial = SerialNumber::from_der_content(fields.expect(der::INTEGER)?.content).ok();
        fields.finish()?;
        Ok(Self { id: id.to_vec(), sha256, name_hash, key_hash, serial })
    }
}

impl Issuer {
    /// The signed response. Times are in seconds since 1970-01-01 UTC; the CA itself is the responder.
    pub fn ocsp(
        &self,
        request: &OcspRequest,
        status: impl Fn(&SerialNumber) -> Status,
        this_update: i64,
        next_update: i64,
    ) -> Result<Vec<u8>, IssueError> {
        let this = generalized(this_update)?;
        let next = generalized(next_update)?;
        let mut answers = Vec::new();
        for asked in &request.asked {
            let status = asked.serial.as_ref().map_or(Status::Unknown, &status);
            let at = match status {
                Status::Revoked { at, .. } => Some(generalized(at)?),
                _ => None,
            };
            answers.push((asked, status, at));
        }
        let data = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged(Tag::context(1), |writer| writer.write_der(self.subject()));
                writer.next().write_generalized_time(&this);
                writer.next().write_sequence(|writer| {
                    for (asked, status, at) in &answers {
                        writer.next().write_sequence(|writer| {
                            writer.next().write_der(&asked.id);
                            write_status(writer.next(), *status, at.as_ref());
                            writer.next().write_generalized_time(&this);
                            writer.next().write_tagged(Tag::context(0), |writer| writer.write_generalized_time(&next));
                        });
                    }
                });
                if let Some(nonce) = &request.nonce {
                    writer.next().write_tagged(Tag::context(1), |writer| write_nonce(writer, nonce));
                }
            });
        });
        let (algorithm, signature) = self.sign(&data)?;
        let basic = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&data);
                writer.next().write_der(&algorithm);
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_enum(0);
                writer.next().write_tagged(Tag::context(0), |writer| {
                    writer.write_sequence(|writer| {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(BASIC));
                        writer.next().write_bytes(&basic);
                    });
                });
            });
        }))
    }
}

impl OcspError {
    /// The response.
    pub fn response(self) -> Vec<u8> {
        let code = match self {
            Self::Malformed => 1,
            Self::TryLater => 3,
            Self::Unauthorized => 6,
        };
        yasna::construct_der(|writer| writer.write_sequence(|writer| writer.next().write_enum(code)))
    }
}

fn write_status(writer: DERWriter<'_>, status: Status, at: Option<&GeneralizedTime>) {
    match (status, at) {
        (Status::Revoked { reason, .. }, Some(at)) => {
            writer.write_tagged_implicit(Tag::context(1), |writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_generalized_time(at);
                    if let Some(code) = reason.code() {
                        writer.next().write_tagged(Tag::context(0), |writer| writer.write_enum(code.into()));
                    }
                });
            });
        }
        (Status::Good, _) => writer.write_tagged_implicit(Tag::context(0), |writer| writer.write_null()),
        _ => writer.write_tagged_implicit(Tag::context(2), |writer| writer.write_null()),
    }
}

/// `Extensions` with the nonce alone (RFC 8954, section 2.1).
fn write_nonce(writer: DERWriter<'_>, nonce: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(NONCE));
            writer.next().write_bytes(&yasna::construct_der(|writer| writer.write_bytes(nonce)));
        });
    });
}

fn generalized(seconds: i64) -> Result<GeneralizedTime, IssueError> {
    let moment = crate::authority::moment(seconds)?;
    Ok(GeneralizedTime::from_datetime(moment))
}

/// Certificates that one request may ask for.
pub const MAX_ASKED: usize = 16;
/// The longest request that is read, in octets.
pub const MAX_REQUEST_OCTETS: usize = 4 * 1024;
const BASIC: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 1];
const NONCE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];
/// The same, encoded.
const NONCE_OID: &[u8] = &[0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02];
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const CONTEXT_1: u8 = 0xA1;
const CONTEXT_2: u8 = 0xA2;
