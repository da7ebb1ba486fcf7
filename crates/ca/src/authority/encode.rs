//! The seam to rcgen: our keys and names in its terms.

use std::cell::RefCell;

use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, PublicKeyData, SignatureAlgorithm, SigningKey};
use x509_parser::asn1_rs::Tag;
use x509_parser::x509::X509Name;

use super::IssueError;
use crate::der::{self, Reader, Signed};
use crate::key::{KeyKind, PublicKey};
use crate::signer::{SignError, Signer};

/// A public key that is certified.
pub(super) struct Certified<'a>(pub(super) &'a PublicKey);

impl PublicKeyData for Certified<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.key_bits()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        algorithm(self.0)
    }
}

/// A key that signs. rcgen's error has no room for the signer's, so that it is kept here until it is asked for.
pub(super) struct Key<'a> {
    signer: &'a dyn Signer,
    failed: RefCell<Option<SignError>>,
}

impl<'a> Key<'a> {
    pub(super) fn new(signer: &'a dyn Signer) -> Self {
        Self { signer, failed: RefCell::new(None) }
    }

    /// rcgen's result, with the signer's error where that was the cause.
    pub(super) fn result<T>(&self, result: Result<T, rcgen::Error>) -> Result<T, IssueError> {
        result.map_err(|error| match self.failed.take() {
            Some(failed) => IssueError::Sign(failed),
            None => IssueError::Encode { reason: error.to_string() },
        })
    }
}

impl PublicKeyData for Key<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.signer.public_key().key_bits()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        algorithm(self.signer.public_key())
    }
}

impl SigningKey for Key<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signer.sign(message).map_err(|error| {
            self.failed.replace(Some(error));
            rcgen::Error::RemoteKeyError
        })
    }
}

/// A parsed name in rcgen's terms, if it has one attribute in each part and each attribute once.
pub(super) fn name(parsed: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut name = DistinguishedName::new();
    for attribute in parsed.iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter()?.collect();
        let text = attribute.as_str().ok()?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().ok()?),
            _ => return None,
        };
        name.push(DnType::from_oid(&oid), value);
    }
    Some(name)
}

/// The octets that rcgen writes for a name. It shows them in a request only, which is "signed" with nothing.
pub(super) fn name_octets(name: &DistinguishedName) -> Option<Vec<u8>> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name.clone();
    let request = parameters.serialize_request(&NoKey).ok()?;
    let mut fields = Reader::new(Signed::read(request.der()).ok()?.message.content);
    fields.expect(der::INTEGER).ok()?;
    Some(fields.expect(der::SEQUENCE).ok()?.raw.to_vec())
}

struct NoKey;

impl PublicKeyData for NoKey {
    fn der_bytes(&self) -> &[u8] {
        &[0]
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl SigningKey for NoKey {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![0])
    }
}

/// The key's algorithm, and the one that goes with it when it signs ([`Signer::sign`]).
fn algorithm(key: &PublicKey) -> &'static SignatureAlgorithm {
    match key.key_type().kind() {
        KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyKind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
        KeyKind::Rsa => &rcgen::PKCS_RSA_SHA256,
    }
}
