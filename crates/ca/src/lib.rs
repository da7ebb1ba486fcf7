//! The federation's certification authority, without I/O: what a certificate request must satisfy, what a profile
//! puts into a certificate, who a certificate speaks for, and how one is issued or revoked.
//!
//! Time is an argument (seconds since 1970-01-01 UTC, `i64`), and so are entropy (octets) and signing ([`Signer`]).
//! There is no clock, source of randomness, file or socket here, so that all of it can be fuzzed and replayed; keys
//! are made, kept and wiped by the caller.
//!
//! | module | what it decides |
//! |---|---|
//! | [`key`] | which public keys are taken, kept octet for octet |
//! | [`csr`] | whether a request is whole, and its sender holds the key |
//! | [`profile`] | everything in a certificate but the key |
//! | [`identity`] | the one principal a certificate speaks for |
//! | [`authority`] | root, issuing CA, leaves and CRLs |
//! | [`serial`] | serial numbers of certificates |
//! | [`token`] | one-time enrolment tokens |
//! | [`ocsp`] | online certificate status |
//! | [`pkcs7`] | certificates as EST sends them |
//! | [`chain`] | certificates as PEM |
//! | [`signer`] | where the private key is: in memory, or in a module (PKCS#11) |

pub mod authority;
pub mod chain;
pub mod csr;
mod der;
pub mod identity;
pub mod key;
pub mod ocsp;
pub mod pkcs7;
pub mod profile;
pub mod serial;
mod signature;
pub mod signer;
pub mod token;

pub use authority::{
    CaName, CaRequest, Issued, Issuer, Pointers, Request, RevocationReason, Revoked, Root, ServerName, Subject, ca_id,
    certified_key, check_issuing, constrained_to, create_issuing, create_root, published_below, request_issuing,
};
pub use authority::{CrlError, crl_times, read_crl};
pub use chain::{Anchor, AnchorError, anchors};
pub use csr::{CsrError, MAX_CSR_OCTETS, VerifiedCsr};
pub use der::DerError;
pub use identity::{Facts, IdentityError, Principal, ReplicaId, ReplicaIdError, principal};
pub use key::{Fingerprint, KeyKind, KeyPolicy, KeyType, PublicKey};
pub use profile::{Profile, ProfileError, Profiles};
pub use serial::SerialNumber;
pub use signature::AlgorithmError;
pub use signer::{SignError, Signer};
pub use token::{TokenHash, TokenKind, TokenSecret};

/// Implements `Serialize` as the `Display` text and `Deserialize` through `FromStr`, so that a wrong value in a row
/// or a message is refused with the same words as one typed by a person.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
