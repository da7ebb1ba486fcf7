//! Certificates as PEM (RFC 7468): bundles written, chains read.

use pem::{EncodeConfig, LineEnding, Pem};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::der::{DerError, Signed};
use crate::key::Fingerprint;

/// Why a file is not a chain of certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Over [`MAX_CHAIN_OCTETS`].
    #[error("has {octets} octets; a chain has at most {MAX_CHAIN_OCTETS}")]
    TooLong {
        /// How many there are.
        octets: usize,
    },
    /// No PEM block.
    #[error("has no certificate in PEM; it needs a block from BEGIN CERTIFICATE to END CERTIFICATE")]
    Empty,
    /// Over [`MAX_CHAIN_CERTIFICATES`].
    #[error("has over {MAX_CHAIN_CERTIFICATES} certificates; leave out those that do not belong to the chain")]
    TooMany,
    /// A block whose frame or base64 is damaged.
    #[error("has a damaged PEM block; copy the file again")]
    Pem,
    /// A private key among certificates: it would be sent to every client.
    #[error("has a private key among the certificates; keep the key in a file of its own")]
    PrivateKey,
    /// A block of another kind.
    #[error("has a PEM block of the kind {label:?} among the certificates; take it out")]
    Label {
        /// What the block says it is.
        label: String,
    },
    /// A block that is no certificate.
    #[error("has a damaged certificate, the {number}. of the file")]
    Certificate {
        /// Counted from one.
        number: usize,
        /// What is wrong with it.
        #[source]
        cause: DerError,
    },
}

/// Writes certificates in DER as PEM, in the order given, with lines of 64 characters.
pub fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let encode = |der: &[u8]| pem::encode_config(&Pem::new("CERTIFICATE", der), config);
    certificates.into_iter().map(encode).collect()
}

/// Reads certificates in PEM, in the order of the file, as DER. Text between the blocks is skipped, as many tools
/// write some.
pub fn from_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, ChainError> {
    if text.len() > MAX_CHAIN_OCTETS {
        return Err(ChainError::TooLong { octets: text.len() });
    }
    let blocks = pem::parse_many(text).map_err(|_| ChainError::Pem)?;
    let begun = text.windows(BEGIN.len()).filter(|window| *window == BEGIN).count();
    match begun {
        0 => return Err(ChainError::Empty),
        MORE_CERTIFICATES.. => return Err(ChainError::TooMany),
        _ if begun != blocks.len() => return Err(ChainError::Pem),
        _ => {}
    }
    blocks.into_iter().zip(1..).map(|(block, number)| certificate(block, number)).collect()
}

fn certificate(block: Pem, number: usize) -> Result<Vec<u8>, ChainError> {
    match block.tag() {
        "CERTIFICATE" => {}
        label if label.ends_with("PRIVATE KEY") => return Err(ChainError::PrivateKey),
        label => return Err(ChainError::Label { label: label.chars().take(MAX_LABEL_CHARS).collect() }),
    }
    Signed::read(block.contents()).map_err(|cause| ChainError::Certificate { number, cause })?;
    Ok(block.into_contents())
}

/// What others are to trust: a CA, or a server's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Whether it is a CA.
    pub is_ca: bool,
    /// SHA-256 of its public key.
    pub key: Fingerprint,
}

/// Why a file holds no anchors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// Not certificates in PEM.
    #[error("the file {0}")]
    Chain(#[from] ChainError),
    /// Not a certificate after all.
    #[error("the {number}. certificate of the file cannot be read")]
    Certificate {
        /// Counted from one.
        number: usize,
    },
    /// Over [`MAX_ANCHORS`].
    #[error("there are {count} certificates; publish {MAX_ANCHORS} at most")]
    Count {
        /// How many there are.
        count: usize,
    },
}

/// Reads certificates in PEM that others are to trust.
pub fn anchors(pem: &[u8]) -> Result<Vec<Anchor>, AnchorError> {
    let certificates = from_pem(pem)?;
    if certificates.len() > MAX_ANCHORS {
        return Err(AnchorError::Count { count: certificates.len() });
    }
    let read = |(der, number): (&Vec<u8>, usize)| {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| AnchorError::Certificate { number })?;
        Ok(Anchor { is_ca: parsed.is_ca(), key: Fingerprint::of(parsed.public_key().raw) })
    };
    certificates.iter().zip(1..).map(read).collect()
}

/// Anchors of one NetID at most: they all go into one answer.
pub const MAX_ANCHORS: usize = 8;
/// The longest file that is read.
pub const MAX_CHAIN_OCTETS: usize = 128 * 1024;
/// The most certificates in a file: no path is this long, but a bundle of anchors may be.
pub const MAX_CHAIN_CERTIFICATES: usize = 32;
const MORE_CERTIFICATES: usize = MAX_CHAIN_CERTIFICATES + 1;
const MAX_LABEL_CHARS: usize = 40;
const BEGIN: &[u8] = b"-----BEGIN ";

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate() -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        CertificateParams::default().self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn what_is_written_is_read_in_order() {
        let chain = vec![certificate(), certificate()];
        let text = to_pem(chain.iter().map(Vec::as_slice));
        assert!(text.lines().all(|line| line.len() <= 64));
        assert_eq!(from_pem(text.as_bytes()), Ok(chain.clone()));
        let commented = format!("leaf\n{}", text.replacen("-----BEGIN", "issuer\n-----BEGIN", 1));
        assert_eq!(from_pem(commented.as_bytes()), Ok(chain));
    }

    #[test]
    fn what_is_no_chain_is_refused_with_the_reason() {
        let text = to_pem([certificate().as_slice()]);
        let key = KeyPair::generate().expect("a key").serialize_pem();
        assert_eq!(from_pem(b""), Err(ChainError::Empty));
        assert_eq!(from_pem(format!("{text}{key}").as_bytes()), Err(ChainError::PrivateKey));
        assert_eq!(from_pem(&text.as_bytes()[..100]), Err(ChainError::Pem));
        assert_eq!(from_pem(text.repeat(33).as_bytes()), Err(ChainError::TooMany));
        assert_eq!(
            from_pem(&vec![b' '; MAX_CHAIN_OCTETS + 1]),
            Err(ChainError::TooLong { octets: MAX_CHAIN_OCTETS + 1 })
        );
        let cut = to_pem([&certificate()[..50]]);
        let error = ChainError::Certificate { number: 1, cause: DerError::Truncated };
        assert_eq!(from_pem(cut.as_bytes()), Err(error));
        let request = text.replace("CERTIFICATE", "X509 CRL");
        assert_eq!(from_pem(request.as_bytes()), Err(ChainError::Label { label: "X509 CRL".to_owned() }));
    }
}
