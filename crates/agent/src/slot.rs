//! A certificate and its key, as files of a federation's directory that change together or not at all.
//!
//! A key is made for each certificate and written before it is asked for. If the answer gets lost, the same key asks again.

use std::path::{Path, PathBuf};

use dnsbroker_api::message::Issued;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::files;
use crate::identity::{Facts, IdentityError};

/// Names of the files of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The chain, PEM.
    pub certificate: &'static str,
    /// The key, PEM.
    pub key: &'static str,
    /// The link that is turned.
    live: &'static str,
    /// How the directories that it points to begin.
    issued: &'static str,
    /// The key of a request whose answer has not come yet.
    pending: &'static str,
}

/// What the operator shows to brokers and to other members' servers.
pub const CLIENT: Slot =
    Slot { certificate: "client.pem", key: "client.key", live: "live", issued: "issued-", pending: "pending.key" };

/// What the operator's network server shows to those who call it.
pub const SERVER: Slot = Slot {
    certificate: "lns.pem",
    key: "lns.key",
    live: "lns-live",
    issued: "lns-issued-",
    pending: "lns-pending.key",
};

/// As certificates' facts have it. It was once written with the octet that only says that the number is positive.
fn serial_of(name: &str) -> String {
    name.strip_prefix("00").filter(|rest| !rest.is_empty()).unwrap_or(name).to_owned()
}

impl Slot {
    /// The serial number of what is in place.
    pub fn serial(&self, dir: &Path) -> Option<String> {
        let live = std::fs::read_link(dir.join(self.live)).ok()?;
        live.to_str()?.strip_prefix(self.issued).map(serial_of)
    }

    /// The key for the next certificate: the one of a request that is still open, or a new one. It is on disk before it
    /// is used.
    pub fn pending_key(&self, dir: &Path) -> Result<KeyPair, IdentityError> {
        let path = dir.join(self.pending);
        if path.exists() {
            let pem = files::read_secret_text(&path)?;
            if let Ok(key) = KeyPair::from_pem(&pem) {
                return Ok(key);
            }
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        files::write_whole(&path, Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
        Ok(key)
    }

    /// Puts a certificate in place of the last one, with the pending key; `fits` says what is wrong with it otherwise.
    pub fn install(
        &self,
        dir: &Path,
        issued: &Issued,
        fits: impl FnOnce(&Facts) -> Result<(), IdentityError>,
    ) -> Result<(), IdentityError> {
        let pem = CertificateDer::from_pem_slice(issued.chain.as_bytes());
        let leaf = pem.map_err(|error| bad_answer(error.to_string()))?;
        let facts = Facts::of(&leaf).map_err(bad_answer)?;
        let key = self.pending_key(dir)?;
        if key.subject_public_key_info() != facts.key {
            return Err(bad_answer("it certifies another key than the one of our request".to_owned()));
        }
        fits(&facts)?;
        let name = format!("{}{}", self.issued, facts.serial);
        let place = dir.join(&name);
        files::public_dir(&place)?;
        files::write_whole(&place.join(self.key), Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
        files::write_whole(&place.join(self.certificate), issued.chain.as_bytes(), 0o644)?;
        // Two certificates of one directory may be installed at once, and have the same root.
        let root = dir.join("ca.pem");
        if std::fs::read(&root).ok().as_deref() != Some(issued.ca.as_bytes()) {
            files::write_whole(&root, issued.ca.as_bytes(), 0o644)?;
        }
        let before = std::fs::read_link(dir.join(self.live)).ok();
        files::relink(&dir.join(self.live), Path::new(&name))?;
        for file in [self.certificate, self.key] {
            files::relink(&dir.join(file), &Path::new(self.live).join(file))?;
        }
        // What is left undone here costs a few files: the certificate is in place.
        let _ = files::remove(&dir.join(self.pending));
        self.forget_old(dir, &name, before.as_deref());
        Ok(())
    }

    /// Removes certificates before the last one.
    fn forget_old(&self, dir: &Path, live: &str, before: Option<&Path>) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let kept = name.to_str().is_none_or(|name| name == live || !name.starts_with(self.issued));
            if !kept && before != Some(Path::new(&name)) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Lets a group read the key. What hinders is told in the log: the certificate is in place all the same.
    pub fn share_key(&self, dir: &Path, group: Option<&str>, federation: &str) {
        let Some(group) = group else { return };
        if let Err(error) = files::share_with(&self.key_in(dir), group) {
            let (error, key) = (dnsbroker_api::problem::chain(&error), self.key);
            tracing::error!(federation, key, error, "the network server cannot read the key");
        }
    }

    /// Where the key is.
    pub fn key_in(&self, dir: &Path) -> PathBuf {
        dir.join(self.key)
    }

    /// Where the chain is.
    pub fn certificate_in(&self, dir: &Path) -> PathBuf {
        dir.join(self.certificate)
    }
}

fn bad_answer(reason: String) -> IdentityError {
    IdentityError::Certificate { path: "the broker's answer".to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_place_is_known_however_its_number_was_once_written() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (name, serial) in [("issued-00c240", "c240"), ("issued-42", "42")] {
            std::os::unix::fs::symlink(name, dir.path().join("live")).expect("a link");
            assert_eq!(CLIENT.serial(dir.path()).as_deref(), Some(serial));
            std::fs::remove_file(dir.path().join("live")).expect("removed");
        }
        assert_eq!(CLIENT.serial(dir.path()), None);
    }
}
