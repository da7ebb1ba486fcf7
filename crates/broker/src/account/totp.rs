//! One-time codes (RFC 6238): six digits of 30 seconds, SHA-1, as every authenticator has them.

use dnsbroker_store::record::Sealed;
use totp_rs::{Algorithm, Builder, Secret, Totp};
use zeroize::Zeroizing;

use crate::key::{KeyError, new_secret};
use crate::seal::Sealer;

/// Octets of a secret: those of SHA-1 (RFC 4226, section 4).
const OCTETS: usize = 20;

/// A secret and what is computed from it.
pub struct OneTime {
    totp: Totp,
    secret: Zeroizing<Vec<u8>>,
}

impl OneTime {
    /// A new secret for an administrator of a federation.
    pub fn generate(federation: &str, name: &str) -> Result<Self, KeyError> {
        Self::of(new_secret(OCTETS)?, federation, name).ok_or(KeyError::Provider)
    }

    fn of(secret: Zeroizing<Vec<u8>>, federation: &str, name: &str) -> Option<Self> {
        // A colon would end the issuer in the URI.
        let issuer = format!("dnsbroker {}", federation.trim_end_matches('.'));
        let builder = Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(6)
            .with_skew(1)
            .with_step_duration(30)
            .with_secret(Secret::from(secret.to_vec()))
            .with_account_name(name.to_owned())
            .with_issuer(Some(issuer));
        Some(Self { totp: builder.build().ok()?, secret })
    }

    /// Opens what [`sealed`](Self::sealed) has given.
    pub fn open(sealer: &Sealer, sealed: &Sealed, federation: &str, name: &str) -> Option<Self> {
        Self::of(sealer.unseal_for(&purpose(name), &sealed.0)?, federation, name)
    }

    /// For the administrator's row.
    pub fn sealed(&self, sealer: &Sealer, name: &str) -> Result<Sealed, KeyError> {
        sealer.seal_for(&purpose(name), &self.secret).map(Sealed)
    }

    /// The time step of a code that is good at `now`: its own, the one before or the one after.
    pub fn step(&self, code: &str, now: i64) -> Option<u64> {
        let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        self.totp.check(&code, u64::try_from(now).ok()?)
    }

    /// To be typed.
    pub fn base32(&self) -> String {
        Secret::from(self.secret.to_vec()).to_base32()
    }

    /// For a QR code.
    pub fn uri(&self) -> String {
        self.totp.to_url().unwrap_or_default()
    }
}

fn purpose(name: &str) -> String {
    format!("totp of {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_6238_and_each_names_its_step() {
        // Appendix B: the secret and the last six digits of the code at 1111111109.
        let secret = Zeroizing::new(b"12345678901234567890".to_vec());
        let one = OneTime::of(secret, "fed.example.", "ada").expect("made");
        let step = one.step("081804", 1_111_111_109).expect("good");
        assert_eq!(one.step("081 804", 1_111_111_109 + 30), Some(step), "the one before is good as well");
        assert_eq!(one.step("081804", 1_111_111_109 + 90), None);
        assert_eq!(one.step("000000", 1_111_111_109), None);
        assert_eq!(one.base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert!(one.uri().starts_with("otpauth://totp/"), "{}", one.uri());
    }
}
