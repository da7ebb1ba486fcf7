//! The rows of people and certificates, as they are stored and shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dnsbroker_ca::{Fingerprint, RevocationReason, SerialNumber, TokenHash};
use dnsbroker_federation::MemberId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds since 1970-01-01 UTC.
pub type Seconds = i64;

/// An operator of the federation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name for people.
    pub name: String,
    /// When it was added.
    pub since: Seconds,
    /// Since when, and why, it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
}

/// A member that is not answered for the time being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Since when.
    pub since: Seconds,
    /// Why.
    pub reason: String,
}

/// A one-time enrolment token. The secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the secret.
    pub hash: TokenHash,
    /// Who may enrol with it.
    pub member: MemberId,
    /// The profile of the certificate it gives.
    pub profile: String,
    /// When it was made.
    pub created: Seconds,
    /// When it ends.
    pub expires: Seconds,
    /// The only key it may be used with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pin: Option<Fingerprint>,
    /// What it was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<TokenUse>,
}

impl Token {
    /// The name people use for it in lists and logs: the first digits of its hash.
    pub fn id(&self) -> String {
        token_id(&self.hash)
    }
}

/// The first 12 hexadecimal digits of a token's hash.
pub fn token_id(hash: &TokenHash) -> String {
    hash.as_bytes()[..6].iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The one use of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// When.
    pub at: Seconds,
    /// SHA-256 of the request: the same request again gets the same certificate.
    pub request: String,
    /// The certificate it gave.
    pub certificate: SerialNumber,
}

/// A certificate that this CA has issued, without its octets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its serial number.
    pub serial: SerialNumber,
    /// The member it names; none for the broker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// The profile it was made by.
    pub profile: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub key: Fingerprint,
    /// First second of its life.
    pub not_before: Seconds,
    /// Last second of its life.
    pub not_after: Seconds,
    /// When it was issued.
    pub issued: Seconds,
    /// When and why it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

/// The end of a certificate before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    pub at: Seconds,
    /// Why (RFC 5280, section 5.3.1).
    pub reason: RevocationReason,
}

/// The row in the store: a certificate with its octets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CertificateRow {
    #[serde(flatten)]
    pub certificate: Certificate,
    /// DER, in base64.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub der: Vec<u8>,
}

fn to_base64<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(octets))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}
