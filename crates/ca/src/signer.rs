//! Where the private key of a CA is: the one seam between issuing and key custody.

use crate::key::PublicKey;

/// Signs with a private key that this crate never sees: a key in memory today, a PKCS#11 module tomorrow.
pub trait Signer: Send + Sync {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs `message` (not its digest), in the form that X.509 carries, with the algorithm that goes with the key:
    ///
    /// | key | algorithm | form |
    /// |---|---|---|
    /// | P-256 | ECDSA with SHA-256 | DER `Ecdsa-Sig-Value` (RFC 3279, section 2.2.3) |
    /// | P-384 | ECDSA with SHA-384 | the same |
    /// | Ed25519 | Ed25519 (RFC 8410) | 64 octets |
    /// | RSA | PKCS#1 v1.5 with SHA-256 (RFC 8017, section 8.2) | as long as the modulus |
    ///
    /// What comes back is verified before a certificate leaves this crate.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Why a signer did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key cannot be reached now: the module is gone or locked. Worth another try.
    #[error("the signing key cannot be reached: {reason}")]
    Unavailable {
        /// In the words of the signer, without secrets.
        reason: String,
    },
    /// The key is there and does not do this.
    #[error("the signing key refused: {reason}")]
    Refused {
        /// In the words of the signer, without secrets.
        reason: String,
    },
}
