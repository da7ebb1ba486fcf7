//! Certificate requests (PKCS #10, RFC 2986). From a request we take its public key and the proof that the sender
//! holds the private half. Names and extensions it asks for are ignored: the profile decides those.
//!
//! The key is not read through rcgen's request type: that guesses the curve from the signature algorithm, and so
//! turns a P-384 key that signed with SHA-256 into another key.

use crate::der::{self, DerError, Reader, Signed};
use crate::key::{KeyError, KeyPolicy, PolicyError, PublicKey};
use crate::signature::{self, AlgorithmError};

/// A request whose sender holds the private key, and whose key the policy takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCsr {
    public_key: PublicKey,
}

/// Why a request is refused: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Nothing there.
    #[error("the request is empty; send what \"openssl req -new\" writes")]
    Empty,
    /// Over [`MAX_CSR_OCTETS`].
    #[error(
        "the request has {octets} octets; at most {MAX_CSR_OCTETS} are read; leave out what it asks for beside the key"
    )]
    TooLong {
        /// How many there are.
        octets: usize,
    },
    /// Neither PEM nor DER.
    #[error("this is not a certificate request in PEM or DER; send what \"openssl req -new\" writes")]
    Encoding,
    /// A PEM block of another kind.
    #[error("this is a PEM block of the kind {label:?}, not a CERTIFICATE REQUEST; send the request")]
    Label {
        /// What the block says it is.
        label: String,
    },
    /// Somebody is about to send a private key away.
    #[error("this is a private key; keep it to yourself, make a new one, and send only the CERTIFICATE REQUEST")]
    PrivateKey,
    /// Several PEM blocks.
    #[error("there are {blocks} PEM blocks; send one CERTIFICATE REQUEST alone")]
    Blocks {
        /// How many there are.
        blocks: usize,
    },
    /// The PEM block's frame or its base64 is damaged.
    #[error("the PEM block is damaged; copy the request again, from BEGIN to END")]
    Pem,
    /// Something after the request.
    #[error("there are {octets} octets after the request; send the request alone")]
    Trailing {
        /// How many.
        octets: usize,
    },
    /// Not the structure of RFC 2986.
    #[error("the request is damaged or cut short; copy it again, or make it again")]
    Structure(#[from] DerError),
    /// RFC 2986 knows version 0 only.
    #[error("the request is not of version 1 (RFC 2986); make it with another tool")]
    Version,
    /// A key that nobody certifies here.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key that this policy does not take.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The signature's algorithm.
    #[error(transparent)]
    Algorithm(#[from] AlgorithmError),
    /// No proof of possession.
    #[error("the request's signature is not by its own key; sign it with the private key that belongs to it")]
    Signature,
}

impl VerifiedCsr {
    /// Reads a request in PEM or DER, and checks its structure, its key and its signature, in this order: nothing is
    /// computed with a key before the policy has bounded it.
    pub fn new(request: &[u8], policy: &KeyPolicy) -> Result<Self, CsrError> {
        if request.len() > MAX_CSR_OCTETS {
            return Err(CsrError::TooLong { octets: request.len() });
        }
        match request.first() {
            None => Err(CsrError::Empty),
            Some(&der::SEQUENCE) => Self::from_der(request, policy),
            Some(_) => Self::from_der(&unframe(request)?, policy),
        }
    }

    /// The key, octet for octet as the request has it.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn from_der(request: &[u8], policy: &KeyPolicy) -> Result<Self, CsrError> {
        let mut outer = Reader::new(request);
        outer.expect(der::SEQUENCE)?;
        if let Err(DerError::Trailing { octets }) = outer.finish() {
            return Err(CsrError::Trailing { octets });
        }
        let signed = Signed::read(request)?;
        let public_key = PublicKey::from_spki_der(subject_public_key_info(signed.message.content)?)?;
        policy.check(&public_key)?;
        if signature::verify(&public_key, &signed)? { Ok(Self { public_key }) } else { Err(CsrError::Signature) }
    }
}

/// What a client is asked to put into its request (RFC 7030, section 4.5.2, as RFC 8951, section 3.4): a P-256 key, and a
/// signature with SHA-256. Other keys of the profile are taken as well.
pub fn attributes() -> Vec<u8> {
    use yasna::models::ObjectIdentifier;
    let oid = |writer: yasna::DERWriter<'_>, arcs: &[u64]| writer.write_oid(&ObjectIdentifier::from_slice(arcs));
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_sequence(|writer| {
                oid(writer.next(), &[1, 2, 840, 10_045, 2, 1]);
                writer.next().write_set(|writer| oid(writer.next(), &[1, 2, 840, 10_045, 3, 1, 7]));
            });
            oid(writer.next(), &[1, 2, 840, 10_045, 4, 3, 2]);
        });
    })
}

/// `CertificationRequestInfo ::= SEQUENCE { version, subject, subjectPKInfo, attributes [0] }`. OpenSSL's `-asn1-kludge`
/// leaves empty attributes out, and so do old tools.
fn subject_public_key_info(info: &[u8]) -> Result<&[u8], CsrError> {
    let mut fields = Reader::new(info);
    if fields.expect(der::INTEGER)?.content != [0] {
        return Err(CsrError::Version);
    }
    fields.expect(der::SEQUENCE)?;
    let spki = fields.expect(der::SEQUENCE)?.raw;
    if fields.peek().is_some() {
        fields.expect(der::CONTEXT_0)?;
    }
    fields.finish()?;
    Ok(spki)
}

/// The octets of the one PEM block (RFC 7468). Text before it is allowed, since `openssl req -text` writes some; after
/// it only white space.
fn unframe(request: &[u8]) -> Result<Vec<u8>, CsrError> {
    let text = std::str::from_utf8(request).map_err(|_| CsrError::Encoding)?;
    match text.matches("-----BEGIN ").count() {
        0 => return Err(CsrError::Encoding),
        1 => {}
        blocks => {
            return Err(if text.contains("PRIVATE KEY-----") {
                CsrError::PrivateKey
            } else {
                CsrError::Blocks { blocks }
            });
        }
    }
    let (_, block) = text.split_once("-----BEGIN ").ok_or(CsrError::Encoding)?;
    let (label, body) = block.split_once("-----").ok_or(CsrError::Pem)?;
    if label.ends_with("PRIVATE KEY") {
        return Err(CsrError::PrivateKey);
    }
    if !matches!(label, "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err(CsrError::Label { label: label.chars().take(MAX_LABEL_CHARS).collect() });
    }
    let (_, end) = body.split_once("-----END ").ok_or(CsrError::Pem)?;
    let (_, after) = end.split_once("-----").ok_or(CsrError::Pem)?;
    match after.trim().len() {
        0 => Ok(pem::parse(text).map_err(|_| CsrError::Pem)?.into_contents()),
        octets => Err(CsrError::Trailing { octets }),
    }
}

/// The longest request that is read, PEM or DER. One with an RSA-4096 key and a page of extensions has 3,000.
pub const MAX_CSR_OCTETS: usize = 16 * 1024;
const MAX_LABEL_CHARS: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn request() -> (Vec<u8>, String) {
        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default().serialize_request(&key).expect("a request");
        (request.der().to_vec(), request.pem().expect("PEM"))
    }

    fn verify(request: impl AsRef<[u8]>) -> Result<VerifiedCsr, CsrError> {
        VerifiedCsr::new(request.as_ref(), &KeyPolicy::default())
    }

    #[test]
    fn pem_and_der_give_the_same_key() {
        let (der, pem) = request();
        let csr = verify(&der).expect("DER");
        assert_eq!(verify(&pem), Ok(csr.clone()));
        assert_eq!(verify(pem.replace("\n", "\r\n")), Ok(csr.clone()));
        assert_eq!(verify(pem.replace("CERTIFICATE REQ", "NEW CERTIFICATE REQ")), Ok(csr.clone()));
        assert_eq!(verify(format!("Certificate Request:\n    Data:\n{pem}\n\n")), Ok(csr));
    }

    #[test]
    fn one_request_alone_is_read() {
        let (der, pem) = request();
        assert_eq!(verify(b""), Err(CsrError::Empty));
        assert_eq!(verify(b"hello"), Err(CsrError::Encoding));
        assert_eq!(verify(format!("{pem}{pem}")), Err(CsrError::Blocks { blocks: 2 }));
        assert_eq!(verify(format!("{pem}junk")), Err(CsrError::Trailing { octets: 4 }));
        assert_eq!(verify([der.as_slice(), b"junk"].concat()), Err(CsrError::Trailing { octets: 4 }));
        assert_eq!(verify(vec![b'A'; 2 << 20]), Err(CsrError::TooLong { octets: 2 << 20 }));
    }

    #[test]
    fn a_private_key_sent_by_mistake_is_told_so() {
        let key = KeyPair::generate().expect("a key").serialize_pem();
        assert_eq!(verify(&key), Err(CsrError::PrivateKey));
        assert_eq!(verify(format!("{key}{}", request().1)), Err(CsrError::PrivateKey));
        let label = request().1.replace(" REQUEST", "");
        assert_eq!(verify(label), Err(CsrError::Label { label: "CERTIFICATE".to_owned() }));
    }

    #[test]
    fn damaged_pem_is_refused() {
        let (_, pem) = request();
        assert_eq!(verify(pem.replacen('M', "*", 1)), Err(CsrError::Pem));
        assert_eq!(verify(&pem[..pem.len() / 2]), Err(CsrError::Pem));
    }

    proptest! {
        #[test]
        fn no_octet_of_a_request_can_be_changed(at in 0_usize..180, bit in 0..8_u32) {
            let (mut der, _) = request();
            let at = at % der.len();
            der[at] ^= 1 << bit;
            prop_assert!(verify(&der).is_err());
        }

        #[test]
        fn no_request_can_be_cut(length in 0_usize..180) {
            let (der, _) = request();
            prop_assert!(verify(&der[..length.min(der.len() - 1)]).is_err());
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(verify(&octets).is_err());
        }
    }
}
