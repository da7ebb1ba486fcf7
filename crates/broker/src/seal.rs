//! Secrets of TSIG keys at rest: AES-256-GCM under a key of the broker's own.
//!
//! The sealing key is a file beside the CA's, so that a copy of the store alone gives nobody a secret. Name and
//! algorithm of the TSIG key are authenticated with it, so that rows cannot be exchanged.

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use dnsbroker_federation::DomainName;
use dnsbroker_store::record::TsigKey;
use dnsbroker_zone::tsig::{Algorithm, Key};
use zeroize::Zeroizing;

use crate::key::{KeyError, entropy, new_secret, read_secret, write_secret};

/// Octets of the sealing key.
const LENGTH: usize = 32;

/// Seals and opens secrets.
pub struct Sealer(LessSafeKey);

/// A secret that does not open.
#[derive(Debug, thiserror::Error)]
#[error("the secret of TSIG key {0} does not open: is ca/tsig-seal.key the file it was sealed with?")]
pub struct UnsealError(DomainName);

impl Sealer {
    /// Of a key file, which is made where there is none.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let octets = match path.try_exists() {
            Ok(false) => {
                let octets = new_secret(LENGTH)?;
                write_secret(path, &octets)?;
                octets
            }
            _ => read_secret(path)?,
        };
        let key = UnboundKey::new(&AES_256_GCM, &octets)
            .map_err(|_| KeyError::Length { path: path.display().to_string(), octets: LENGTH })?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals a secret for its row: nonce, then what AES-GCM makes.
    pub fn seal(&self, name: &DomainName, algorithm: Algorithm, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        let nonce = entropy::<NONCE_LEN>()?;
        let mut sealed = secret.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(name, algorithm), &mut sealed)
            .map_err(|_| KeyError::Provider)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Seals any secret; `purpose` is authenticated with it, so that it opens for nothing else.
    pub fn seal_for(&self, purpose: &str, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        let nonce = entropy::<NONCE_LEN>()?;
        let mut sealed = secret.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose.as_bytes()), &mut sealed)
            .map_err(|_| KeyError::Provider)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what was sealed for a purpose.
    pub fn unseal_for(&self, purpose: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut octets = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut octets).ok()?.len();
        octets.truncate(length);
        Some(octets)
    }

    /// Opens the secret of a key.
    pub fn unseal(&self, key: &TsigKey) -> Result<Key, UnsealError> {
        let failed = || UnsealError(key.name.clone());
        let (nonce, sealed) = key.sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(failed)?;
        let mut octets = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let secret = self.0.open_in_place(nonce, aad(&key.name, key.algorithm), &mut octets).map_err(|_| failed())?;
        Ok(Key::new(key.name.clone(), key.algorithm, secret))
    }
}

fn aad(name: &DomainName, algorithm: Algorithm) -> Aad<Vec<u8>> {
    Aad::from([name.wire(), algorithm.name().as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn row(sealer: &Sealer) -> TsigKey {
        let (name, algorithm): (DomainName, _) = ("k.example".parse().expect("a name"), Algorithm::HmacSha256);
        let sealed = sealer.seal(&name, algorithm, b"a secret").expect("seals");
        let holder = dnsbroker_ca::Principal::Member("alpine".parse().expect("an id"));
        TsigKey { name, algorithm, holder, allows: BTreeSet::new(), created: 0, sealed }
    }

    #[test]
    fn a_secret_opens_for_its_own_row_under_its_own_key_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("seal.key");
        let row = row(&Sealer::open(&path).expect("made"));
        assert!(!row.sealed.windows(8).any(|octets| octets == b"a secret"));
        let sealer = Sealer::open(&path).expect("read");
        sealer.unseal(&row).expect("opens");
        let renamed = TsigKey { name: "other.example".parse().expect("a name"), ..row.clone() };
        assert!(sealer.unseal(&renamed).is_err());
        let other = TsigKey { algorithm: Algorithm::HmacSha512, ..row.clone() };
        assert!(sealer.unseal(&other).is_err());
        let stranger = Sealer::open(&dir.path().join("other.key")).expect("made");
        assert!(stranger.unseal(&row).expect_err("does not open").to_string().contains("k.example"));
    }
}
