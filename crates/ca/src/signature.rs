//! Signatures over requests, certificates and CRLs: which algorithms are taken, and their verification.
//!
//! SHA-256, SHA-384 and SHA-512 are taken with each of P-256, P-384 and RSA, whichever of them a tool picked: the
//! digest of a request says nothing of the key. Other digests are refused by name. x509-parser's verifier is not
//! used: it lacks ECDSA with SHA-512, takes SHA-1, and does not compare the algorithm with the key.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::der::{self, DerError, Reader, Signed};
use crate::key::{KeyKind, KeyType, PublicKey};

/// Why the algorithm of a signature is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlgorithmError {
    /// Not an `AlgorithmIdentifier`.
    #[error("the signature algorithm is damaged; make the request again")]
    Structure(#[from] DerError),
    /// A digest that is weak, or that few verify.
    #[error("it is signed with {found}; sign it with SHA-256, SHA-384 or SHA-512 (openssl req -sha256)")]
    Digest {
        /// The algorithm's name.
        found: &'static str,
    },
    /// An algorithm for another kind of key.
    #[error("it is signed with {found}, which does not go with its {key} key; let the tool that made the key sign")]
    Mismatch {
        /// The algorithm's name.
        found: &'static str,
        /// The key.
        key: KeyType,
    },
    /// Parameters that the algorithm does not have.
    #[error("the parameters of {found} are not those of its RFC; make the request with another tool")]
    Parameters {
        /// The algorithm's name.
        found: &'static str,
    },
    /// RSASSA-PSS with two digests, or another salt than is usual (RFC 4055, section 3.1).
    #[error(
        "the RSASSA-PSS parameters are not one of SHA-256, SHA-384, SHA-512 throughout with a salt of the digest's \
         length; use -sigopt rsa_pss_saltlen:-1, or PKCS#1 v1.5"
    )]
    Pss,
    /// No algorithm that we know.
    #[error("it is signed with the unknown algorithm {oid}; sign it with SHA-256 (openssl req -sha256)")]
    Unknown {
        /// Its object identifier.
        oid: String,
    },
}

/// Verifies with the key that the algorithm is told to be for. The outer error says why the algorithm is not taken,
/// the inner result whether the signature is good.
pub(crate) fn verify(key: &PublicKey, signed: &Signed<'_>) -> Result<bool, AlgorithmError> {
    let algorithm = algorithm(key.key_type(), signed.algorithm)?;
    let key = UnparsedPublicKey::new(algorithm, key.key_bits());
    Ok(key.verify(signed.message.raw, signed.signature).is_ok())
}

/// The `AlgorithmIdentifier`, in DER, of what a [`Signer`](crate::Signer) with this key makes.
pub(crate) fn identifier(key: &PublicKey) -> Vec<u8> {
    let content: &[u8] = match key.key_type().kind() {
        KeyKind::P256 => &[0x06, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02],
        KeyKind::P384 => &[0x06, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03],
        KeyKind::Ed25519 => &[0x06, 3, 0x2B, 0x65, 0x70],
        KeyKind::Rsa => &[0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B, 0x05, 0x00],
    };
    [&[der::SEQUENCE, content.len() as u8], content].concat()
}

fn algorithm(key: KeyType, identifier: &[u8]) -> Result<&'static dyn VerificationAlgorithm, AlgorithmError> {
    let mut identifier = Reader::new(identifier).sequence()?;
    let oid = der::dotted(identifier.expect(der::OID)?.content);
    let &(_, found, family, digest) = ALGORITHMS
        .iter()
        .find(|(known, ..)| *known == oid)
        .ok_or_else(|| AlgorithmError::Unknown { oid: oid.clone() })?;
    let digest = match family {
        Family::Pss => pss_digest(&identifier)?,
        _ => digest.ok_or(AlgorithmError::Digest { found })?,
    };
    check_parameters(family, found, identifier)?;
    match (key.kind(), family) {
        (KeyKind::P256, Family::Ecdsa) => Ok(match digest {
            Digest::Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
            Digest::Sha384 => &signature::ECDSA_P256_SHA384_ASN1,
            Digest::Sha512 => &signature::ECDSA_P256_SHA512_ASN1,
        }),
        (KeyKind::P384, Family::Ecdsa) => Ok(match digest {
            Digest::Sha256 => &signature::ECDSA_P384_SHA256_ASN1,
            Digest::Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
            Digest::Sha512 => &signature::ECDSA_P384_SHA512_ASN1,
        }),
        (KeyKind::Rsa, Family::Pkcs1) => Ok(match digest {
            Digest::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Digest::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Digest::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        }),
        (KeyKind::Rsa, Family::Pss) => Ok(match digest {
            Digest::Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Digest::Sha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Digest::Sha512 => &signature::RSA_PSS_2048_8192_SHA512,
        }),
        (KeyKind::Ed25519, Family::Ed25519) => Ok(&signature::ED25519),
        _ => Err(AlgorithmError::Mismatch { found, key }),
    }
}

/// RFC 5758, section 3.2, and RFC 8410, section 3: absent. RFC 4055, section 5: NULL, or absent.
fn check_parameters(family: Family, found: &'static str, mut rest: Reader<'_>) -> Result<(), AlgorithmError> {
    let wrong = AlgorithmError::Parameters { found };
    match (family, rest.peek()) {
        (Family::Pss, _) | (_, None) => Ok(()),
        (Family::Pkcs1, Some(der::NULL)) => match (rest.any()?.content, rest.finish()) {
            ([], Ok(())) => Ok(()),
            _ => Err(wrong),
        },
        _ => Err(wrong),
    }
}

/// The parameters of RSASSA-PSS have many forms, of which three are in use; these are compared as octets.
fn pss_digest(identifier: &Reader<'_>) -> Result<Digest, AlgorithmError> {
    let mut rest = *identifier;
    let parameters = rest.expect(der::SEQUENCE)?;
    rest.finish()?;
    for (digest, last_arc, salt) in [(Digest::Sha256, 1, 32), (Digest::Sha384, 2, 48), (Digest::Sha512, 3, 64)] {
        let mut expected = PSS_SHA256;
        (expected[16], expected[46], expected[53]) = (last_arc, last_arc, salt);
        if parameters.raw == expected {
            return Ok(digest);
        }
    }
    match pss_digest_name(parameters.content)? {
        Some(found) => Err(AlgorithmError::Digest { found }),
        None => Err(AlgorithmError::Pss),
    }
}

/// The digest's name if it is one that we refuse. Where none is written it is SHA-1 (RFC 4055, section 3.1).
fn pss_digest_name(parameters: &[u8]) -> Result<Option<&'static str>, AlgorithmError> {
    let mut fields = Reader::new(parameters);
    if fields.peek() != Some(der::CONTEXT_0) {
        return Ok(Some("RSASSA-PSS with SHA-1"));
    }
    let oid = Reader::new(fields.any()?.content).sequence()?.expect(der::OID)?.content;
    let oid = der::dotted(oid);
    if matches!(oid.as_str(), "2.16.840.1.101.3.4.2.1" | "2.16.840.1.101.3.4.2.2" | "2.16.840.1.101.3.4.2.3") {
        return Ok(None);
    }
    let known = PSS_DIGESTS.iter().find(|(known, _)| *known == oid);
    Ok(Some(known.map_or("RSASSA-PSS with an unusual digest", |(_, name)| name)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Pkcs1,
    Pss,
    Ecdsa,
    Ed25519,
    /// Refused whatever the digest.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

/// `RSASSA-PSS-params` of SHA-256: digest, MGF1 with it, salt of 32 octets (RFC 4055, section 3.1).
const PSS_SHA256: [u8; 54] = [
    0x30, 0x34, 0xA0, 0x0F, 0x30, 0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0xA1, 0x1C, 0x30, 0x1A, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x08, 0x30, 0x0D, 0x06, 0x09,
    0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0xA2, 0x03, 0x02, 0x01, 0x20,
];

/// Every signature algorithm that OpenSSL, GnuTLS and BouncyCastle put on requests. Ed25519 digests by itself.
const ALGORITHMS: &[(&str, &str, Family, Option<Digest>)] = &[
    ("1.2.840.113549.1.1.11", "RSA with SHA-256", Family::Pkcs1, Some(Digest::Sha256)),
    ("1.2.840.113549.1.1.12", "RSA with SHA-384", Family::Pkcs1, Some(Digest::Sha384)),
    ("1.2.840.113549.1.1.13", "RSA with SHA-512", Family::Pkcs1, Some(Digest::Sha512)),
    ("1.2.840.113549.1.1.10", "RSASSA-PSS", Family::Pss, None),
    ("1.2.840.10045.4.3.2", "ECDSA with SHA-256", Family::Ecdsa, Some(Digest::Sha256)),
    ("1.2.840.10045.4.3.3", "ECDSA with SHA-384", Family::Ecdsa, Some(Digest::Sha384)),
    ("1.2.840.10045.4.3.4", "ECDSA with SHA-512", Family::Ecdsa, Some(Digest::Sha512)),
    ("1.3.101.112", "Ed25519", Family::Ed25519, Some(Digest::Sha512)),
    ("1.2.840.113549.1.1.2", "RSA with MD2", Family::Pkcs1, None),
    ("1.2.840.113549.1.1.3", "RSA with MD4", Family::Pkcs1, None),
    ("1.2.840.113549.1.1.4", "RSA with MD5", Family::Pkcs1, None),
    ("1.2.840.113549.1.1.5", "RSA with SHA-1", Family::Pkcs1, None),
    ("1.3.14.3.2.29", "RSA with SHA-1", Family::Pkcs1, None),
    ("1.2.840.113549.1.1.14", "RSA with SHA-224", Family::Pkcs1, None),
    ("1.2.840.113549.1.1.15", "RSA with SHA-512/224", Family::Pkcs1, None),
    ("1.2.840.113549.1.1.16", "RSA with SHA-512/256", Family::Pkcs1, None),
    ("1.3.36.3.3.1.2", "RSA with RIPEMD-160", Family::Pkcs1, None),
    ("1.2.156.10197.1.504", "RSA with SM3", Family::Pkcs1, None),
    ("2.16.840.1.101.3.4.3.13", "RSA with SHA3-224", Family::Pkcs1, None),
    ("2.16.840.1.101.3.4.3.14", "RSA with SHA3-256", Family::Pkcs1, None),
    ("2.16.840.1.101.3.4.3.15", "RSA with SHA3-384", Family::Pkcs1, None),
    ("2.16.840.1.101.3.4.3.16", "RSA with SHA3-512", Family::Pkcs1, None),
    ("1.2.840.10045.4.1", "ECDSA with SHA-1", Family::Ecdsa, None),
    ("1.2.840.10045.4.3.1", "ECDSA with SHA-224", Family::Ecdsa, None),
    ("2.16.840.1.101.3.4.3.9", "ECDSA with SHA3-224", Family::Ecdsa, None),
    ("2.16.840.1.101.3.4.3.10", "ECDSA with SHA3-256", Family::Ecdsa, None),
    ("2.16.840.1.101.3.4.3.11", "ECDSA with SHA3-384", Family::Ecdsa, None),
    ("2.16.840.1.101.3.4.3.12", "ECDSA with SHA3-512", Family::Ecdsa, None),
    ("1.2.840.10040.4.3", "DSA with SHA-1", Family::Other, None),
    ("2.16.840.1.101.3.4.3.2", "DSA with SHA-256", Family::Other, None),
    ("1.3.101.113", "Ed448", Family::Other, None),
];

const PSS_DIGESTS: &[(&str, &str)] = &[
    ("1.3.14.3.2.26", "RSASSA-PSS with SHA-1"),
    ("2.16.840.1.101.3.4.2.4", "RSASSA-PSS with SHA-224"),
    ("2.16.840.1.101.3.4.2.5", "RSASSA-PSS with SHA-512/224"),
    ("2.16.840.1.101.3.4.2.6", "RSASSA-PSS with SHA-512/256"),
    ("2.16.840.1.101.3.4.2.7", "RSASSA-PSS with SHA3-224"),
    ("2.16.840.1.101.3.4.2.8", "RSASSA-PSS with SHA3-256"),
    ("2.16.840.1.101.3.4.2.9", "RSASSA-PSS with SHA3-384"),
    ("2.16.840.1.101.3.4.2.10", "RSASSA-PSS with SHA3-512"),
];
