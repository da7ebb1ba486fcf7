//! Public keys: which are taken, and how they are named. A key is kept exactly as it came, octet for octet, since a
//! certificate for a key that differs in one bit is of no use to the one who holds the private half.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::der::{self, DerError, Reader};
use crate::serde_as_text;

/// The kind of a key, with its size where sizes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// ECDSA on NIST P-256 (RFC 5480).
    P256,
    /// ECDSA on NIST P-384 (RFC 5480).
    P384,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// RSA (RFC 8017).
    Rsa {
        /// Length of the modulus in bits.
        bits: u32,
    },
}

/// The kind of a key, as profiles name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyKind {
    /// ECDSA on NIST P-256.
    #[serde(rename = "p-256")]
    P256,
    /// ECDSA on NIST P-384.
    #[serde(rename = "p-384")]
    P384,
    /// Ed25519.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// RSA of 2048 to 4096 bits.
    #[serde(rename = "rsa")]
    Rsa,
}

/// A public key, as a `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7) in DER.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    spki: Box<[u8]>,
    /// Where the key itself starts: the content of the bit string, without the octet of unused bits.
    bits_at: usize,
    key_type: KeyType,
}

/// Why octets are not a public key that a federation certifies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a `SubjectPublicKeyInfo`.
    #[error("the public key is damaged; make the request again")]
    Structure(#[from] DerError),
    /// Another algorithm or curve.
    #[error("the key is {found}; use P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits")]
    Unsupported {
        /// Its name, or its object identifier.
        found: String,
    },
    /// The parameters beside the algorithm are not those that its RFC gives.
    #[error(
        "the key's algorithm parameters are not those of {kind}; name the curve rather than spell it out \
             (openssl: -pkeyopt ec_param_enc:named_curve)"
    )]
    Parameters {
        /// The algorithm.
        kind: &'static str,
    },
    /// RFC 5480 lets software refuse compressed points, and much of it does.
    #[error("the key is a compressed point; write it uncompressed (openssl ec -conv_form uncompressed)")]
    Compressed,
    /// Not on the curve, or of the wrong length.
    #[error("the key is not a valid {kind} key; make a new one")]
    Invalid {
        /// What it claims to be.
        kind: &'static str,
    },
    /// An RSA exponent that is even, below 65537 or above 33 bits.
    #[error("the RSA exponent is not an odd number from 65537 to 2^33; make a new key with the default exponent 65537")]
    Exponent,
}

/// Why a key is not taken here though it is a good one elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The profile does not list it.
    #[error("{found} keys are not allowed here; use {allowed}")]
    Kind {
        /// What came.
        found: KeyType,
        /// What is allowed, in words.
        allowed: String,
    },
    /// Outside the bounds.
    #[error("the RSA key has {bits} bits; use {min} to {max}")]
    RsaBits {
        /// What came.
        bits: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
}

/// Which keys are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPolicy {
    kinds: Vec<KeyKind>,
}

/// The SHA-256 of something, in text `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// Why a text is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// No `sha256:` before it.
    #[error("does not start with \"sha256:\"")]
    Prefix,
    /// Not 64 digits.
    #[error("has {digits} digits after \"sha256:\"; a SHA-256 has 64")]
    Length {
        /// How many there are.
        digits: usize,
    },
    /// Not a hexadecimal digit.
    #[error("has {found:?}, which is no hexadecimal digit")]
    Character {
        /// The character.
        found: char,
    },
}

impl KeyType {
    /// Without the size.
    pub fn kind(self) -> KeyKind {
        match self {
            Self::P256 => KeyKind::P256,
            Self::P384 => KeyKind::P384,
            Self::Ed25519 => KeyKind::Ed25519,
            Self::Rsa { .. } => KeyKind::Rsa,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA-{bits}"),
            other => f.write_str(other.kind().name()),
        }
    }
}

impl KeyKind {
    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        }
    }
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`. The octets are kept as they are; whatever has two encodings is refused in all
    /// but the one that our certificates carry.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, KeyError> {
        let mut outer = Reader::new(spki);
        let mut inner = outer.sequence()?;
        outer.finish()?;
        let algorithm = inner.sequence()?;
        let bits = inner.bit_string()?;
        inner.finish()?;
        let key_type = match algorithm_kind(algorithm)? {
            KeyKind::Rsa => rsa(bits)?,
            KeyKind::Ed25519 => on_curve(KeyType::Ed25519, &signature::ED25519, bits)?,
            KeyKind::P256 => point(KeyType::P256, &signature::ECDSA_P256_SHA256_ASN1, bits, 65)?,
            KeyKind::P384 => point(KeyType::P384, &signature::ECDSA_P384_SHA384_ASN1, bits, 97)?,
        };
        Ok(Self { spki: spki.into(), bits_at: spki.len() - bits.len(), key_type })
    }

    /// The `SubjectPublicKeyInfo` as it came.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The key alone: a point, or an `RSAPublicKey`.
    pub fn key_bits(&self) -> &[u8] {
        &self.spki[self.bits_at..]
    }

    /// Its kind and size.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`, as pins are made (RFC 7469, section 2.4).
    pub fn sha256(&self) -> Fingerprint {
        Fingerprint::of(&self.spki)
    }

    /// The key identifier that our certificates carry (RFC 5280, section 4.2.1.2, method 2): 0100 and the last 60 bits of the
    /// SHA-1 of the key alone. It names a key and secures nothing. Four of them are in each handshake, and with 160 bits each
    /// what the broker sends first would not fit into one packet.
    pub(crate) fn identifier(&self) -> [u8; 8] {
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.key_bits());
        let mut identifier = [0; 8];
        identifier.copy_from_slice(&hash.as_ref()[12..]);
        identifier[0] = 0x40 | (identifier[0] & 0x0f);
        identifier
    }

    /// The same, hexadecimal.
    pub fn identifier_text(&self) -> String {
        self.identifier().iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.key_type, self.sha256())
    }
}

/// RFC 5480, section 2.1.1; RFC 8410, section 3; RFC 3279, section 2.3.1.
fn algorithm_kind(mut algorithm: Reader<'_>) -> Result<KeyKind, KeyError> {
    let name = der::dotted(algorithm.expect(der::OID)?.content);
    let unsupported = |found: &str| KeyError::Unsupported { found: found.to_owned() };
    match name.as_str() {
        EC => {
            if algorithm.peek() != Some(der::OID) {
                return Err(KeyError::Parameters { kind: "an elliptic curve" });
            }
            let curve = der::dotted(algorithm.any()?.content);
            algorithm.finish()?;
            match curve.as_str() {
                "1.2.840.10045.3.1.7" => Ok(KeyKind::P256),
                "1.3.132.0.34" => Ok(KeyKind::P384),
                other => Err(unsupported(known_name(other))),
            }
        }
        RSA => match (algorithm.any(), algorithm.finish()) {
            (Ok(der::Element { tag: der::NULL, content: [], .. }), Ok(())) => Ok(KeyKind::Rsa),
            _ => Err(KeyError::Parameters { kind: "RSA" }),
        },
        ED25519 => match algorithm.peek() {
            None => Ok(KeyKind::Ed25519),
            Some(_) => Err(KeyError::Parameters { kind: "Ed25519" }),
        },
        other => Err(unsupported(known_name(other))),
    }
}

fn point(
    key_type: KeyType,
    algorithm: &'static signature::EcdsaVerificationAlgorithm,
    bits: &[u8],
    octets: usize,
) -> Result<KeyType, KeyError> {
    match bits {
        [2 | 3, ..] => Err(KeyError::Compressed),
        [4, ..] if bits.len() == octets => on_curve(key_type, algorithm, bits),
        _ => Err(KeyError::Invalid { kind: key_type.kind().name() }),
    }
}

fn on_curve(
    key_type: KeyType,
    algorithm: &'static dyn signature::VerificationAlgorithm,
    bits: &[u8],
) -> Result<KeyType, KeyError> {
    match ParsedPublicKey::new(algorithm, bits) {
        Ok(_) => Ok(key_type),
        Err(_) => Err(KeyError::Invalid { kind: key_type.kind().name() }),
    }
}

/// RFC 8017, appendix A.1.1. Exponents below 65537 are outside FIPS 186-5; above 33 bits AWS-LC takes none.
fn rsa(bits: &[u8]) -> Result<KeyType, KeyError> {
    let mut outer = Reader::new(bits);
    let mut inner = outer.sequence()?;
    outer.finish()?;
    let modulus = inner.positive()?;
    let exponent = inner.positive()?;
    inner.finish()?;
    if exponent.len() > 5 {
        return Err(KeyError::Exponent);
    }
    let exponent = exponent.iter().fold(0_u64, |sum, &octet| (sum << 8) | u64::from(octet));
    if exponent % 2 == 0 || !(65_537..1 << 33).contains(&exponent) {
        return Err(KeyError::Exponent);
    }
    let (first, last) = (modulus.first().copied().unwrap_or(0), modulus.last().copied().unwrap_or(0));
    let length = u32::try_from(modulus.len()).map_err(|_| DerError::Length)?;
    if last % 2 == 0 {
        return Err(KeyError::Invalid { kind: "RSA" });
    }
    Ok(KeyType::Rsa { bits: (8 * length).saturating_sub(first.leading_zeros()) })
}

fn known_name(dotted: &str) -> &str {
    UNSUPPORTED.iter().find(|(identifier, _)| *identifier == dotted).map_or(dotted, |(_, name)| name)
}

impl Default for KeyPolicy {
    /// All kinds.
    fn default() -> Self {
        Self { kinds: vec![KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa] }
    }
}

impl KeyPolicy {
    /// These kinds only.
    pub fn allowing(kinds: impl IntoIterator<Item = KeyKind>) -> Self {
        Self { kinds: kinds.into_iter().collect() }
    }

    /// Whether `key` is taken.
    pub fn check(&self, key: &PublicKey) -> Result<(), PolicyError> {
        let found = key.key_type();
        if !self.kinds.contains(&found.kind()) {
            let allowed: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
            return Err(PolicyError::Kind { found, allowed: allowed.join(", ") });
        }
        match found {
            KeyType::Rsa { bits } if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) => {
                Err(PolicyError::RsaBits { bits, min: MIN_RSA_BITS, max: MAX_RSA_BITS })
            }
            _ => Ok(()),
        }
    }
}

impl Fingerprint {
    /// Of these octets.
    pub fn of(octets: &[u8]) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
        Self(sha256)
    }

    /// The 32 octets.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits = text.strip_prefix("sha256:").ok_or(FingerprintError::Prefix)?;
        if let Some(found) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(FingerprintError::Character { found });
        }
        if digits.len() != 64 {
            return Err(FingerprintError::Length { digits: digits.len() });
        }
        let mut sha256 = [0; 32];
        for (octet, pair) in sha256.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
            *octet = (value(pair[0]) << 4) | value(pair[1]);
        }
        Ok(Self(sha256))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

serde_as_text!(Fingerprint);

/// Shorter RSA keys are weak (NIST SP 800-131A).
pub const MIN_RSA_BITS: u32 = 2048;
/// Longer RSA keys cost every handshake more than they are worth.
pub const MAX_RSA_BITS: u32 = 4096;

const EC: &str = "1.2.840.10045.2.1";
const RSA: &str = "1.2.840.113549.1.1.1";
const ED25519: &str = "1.3.101.112";

/// What people try, so that a refusal names it.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.113549.1.1.10", "an RSA key restricted to PSS"),
    ("1.2.840.10045.3.1.1", "on the curve P-192"),
    ("1.3.132.0.33", "on the curve P-224"),
    ("1.3.132.0.35", "on the curve P-521"),
    ("1.3.132.0.10", "on the curve secp256k1"),
    ("1.3.36.3.3.2.8.1.1.7", "on the curve brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.11", "on the curve brainpoolP384r1"),
    ("1.3.36.3.3.2.8.1.1.13", "on the curve brainpoolP512r1"),
    ("1.2.156.10197.1.301", "on the curve SM2"),
    ("1.3.101.110", "X25519, which cannot sign"),
    ("1.3.101.111", "X448, which cannot sign"),
    ("1.3.101.113", "Ed448"),
    ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
    ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
    ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    fn spki(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        KeyPair::generate_for(algorithm).expect("a key").subject_public_key_info()
    }

    #[test]
    fn keys_are_known_by_kind_and_kept_octet_for_octet() {
        for (algorithm, key_type) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyType::P256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyType::P384),
            (&rcgen::PKCS_ED25519, KeyType::Ed25519),
            (&rcgen::PKCS_RSA_SHA256, KeyType::Rsa { bits: 2048 }),
        ] {
            let spki = spki(algorithm);
            let key = PublicKey::from_spki_der(&spki).expect("a key we take");
            assert_eq!((key.key_type(), key.spki_der()), (key_type, spki.as_slice()));
            assert_eq!(KeyPolicy::default().check(&key), Ok(()));
        }
    }

    #[test]
    fn points_off_the_curve_and_compressed_points_are_refused() {
        let mut spki = spki(&rcgen::PKCS_ECDSA_P256_SHA256);
        let last = spki.len() - 1;
        spki[last] ^= 1;
        assert_eq!(PublicKey::from_spki_der(&spki), Err(KeyError::Invalid { kind: "P-256" }));
        let start = spki.len() - 65;
        let mut compressed = spki[..start + 33].to_vec();
        (compressed[1], compressed[start - 2], compressed[start]) = (57, 34, 2);
        assert_eq!(PublicKey::from_spki_der(&compressed), Err(KeyError::Compressed));
    }

    #[test]
    fn a_policy_names_what_it_allows() {
        let key = PublicKey::from_spki_der(&spki(&rcgen::PKCS_ED25519)).expect("a key");
        let policy = KeyPolicy::allowing([KeyKind::P256, KeyKind::P384]);
        let error = policy.check(&key).expect_err("not listed").to_string();
        assert_eq!(error, "Ed25519 keys are not allowed here; use P-256, P-384");
    }

    #[test]
    fn fingerprints_have_one_text_form() {
        let fingerprint = Fingerprint::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(fingerprint.to_string(), text);
        assert_eq!(text.parse(), Ok(fingerprint));
        assert_eq!(text.replace("e3b0", "E3B0").parse(), Ok(fingerprint));
        assert_eq!("e3b0".parse::<Fingerprint>(), Err(FingerprintError::Prefix));
        assert_eq!("sha256:e3b0".parse::<Fingerprint>(), Err(FingerprintError::Length { digits: 4 }));
        assert_eq!("sha256:xyz".parse::<Fingerprint>(), Err(FingerprintError::Character { found: 'x' }));
    }

    proptest! {
        #[test]
        fn a_changed_octet_never_panics(at in 0..91_usize, value in any::<u8>()) {
            let mut spki = spki(&rcgen::PKCS_ECDSA_P256_SHA256);
            spki[at] = value;
            if let Ok(key) = PublicKey::from_spki_der(&spki) {
                prop_assert_eq!(key.spki_der(), spki.as_slice());
            }
        }
    }
}
