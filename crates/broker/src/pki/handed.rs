//! The issuing CAs' files on their way from a primary to its standbys.
//!
//! A standby has them from the backup that it was made from; when the primary's change, it gets what a backup would have now,
//! keys under the same passphrase. Nothing is replaced before all of it was opened: what does not open here, because the
//! passphrase differs, would make a promoted standby unable to issue.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::PoisonError;

use dnsbroker_ca::{Issuer, chain, check_issuing};

use super::files::{passphrase, read, read_certificate};
use super::{Pki, PkiError, finish_rotation, private_dir};
use crate::config::Config;
use crate::key::{SoftwareKey, read_secret, write_secret, write_whole};

/// Where files are put until they were looked at.
const STAGE: &str = "handed.new";

impl Pki {
    /// The files of the issuing CAs, by name below the CA's directory.
    pub fn files(&self) -> Result<BTreeMap<String, Vec<u8>>, PkiError> {
        let _one = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = BTreeMap::new();
        for name in ["issuing.pem", "issuing.key", "next.key", "root.crl"] {
            let path = self.dir.join(name);
            if path.exists() {
                files.insert(name.to_owned(), read(&path)?);
            }
        }
        for certificate in super::previous_certificates(&self.dir)? {
            for path in [certificate.with_extension("key"), certificate] {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                files.insert(format!("previous/{name}"), read(&path)?);
            }
        }
        Ok(files)
    }

    /// Takes the primary's files. Tells whether another CA issues from now on.
    pub fn take_files(&self, config: &Config, files: &BTreeMap<String, Vec<u8>>) -> Result<bool, PkiError> {
        let ours = self.files()?;
        // CAs of before that have ended there may still be here.
        let same = files.iter().all(|(name, octets)| ours.get(name) == Some(octets));
        if same && ours.contains_key("next.key") == files.contains_key("next.key") {
            return Ok(false);
        }
        let wrong = |reason: String| PkiError::Request { reason };
        if let Some(name) = files.keys().find(|name| !is_ours(name)) {
            return Err(wrong(format!("the primary has sent a file {name:?}, which is none of the CA's")));
        }
        let before = self.issuer();
        let _one = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = self.dir.join(STAGE);
        self.stage(config, &stage, files)?;
        let rotated = check_issuing(&read_certificate(&stage.join("issuing.pem"))?, &self.root, before.public_key());
        let rotated = rotated.is_err();
        // From here on a change that is cut off is finished by the next start, or the next connection.
        private_dir(&self.dir.join("previous"))?;
        if rotated {
            self.keep(&before)?;
        }
        for name in files.keys().filter(|name| name.starts_with("previous/")) {
            place(&stage, &self.dir, name, files)?;
        }
        if rotated {
            write_secret(&self.dir.join("next.key"), &read_secret(&stage.join("issuing.key"))?)?;
        }
        place(&stage, &self.dir, "issuing.pem", files)?;
        if rotated {
            finish_rotation(&self.dir)?;
        }
        place(&stage, &self.dir, "issuing.key", files)?;
        place(&stage, &self.dir, "root.crl", files)?;
        place(&stage, &self.dir, "next.key", files)?;
        if !files.contains_key("next.key") && self.dir.join("next.key").exists() {
            // Made here and never signed, or signed and in use by now.
            let path = self.dir.join("next.key");
            std::fs::remove_file(&path)
                .map_err(|source| PkiError::Read { path: path.display().to_string(), source })?;
        }
        let _ = std::fs::remove_dir_all(&stage);
        let opened = Self::open(config, self.base.clone())?;
        self.authorities.store(opened.authorities.load_full());
        self.changed.send_replace(());
        Ok(rotated)
    }

    /// Keeps the CA that issues here among those of before. Where this broker was the primary it may be one that nobody else
    /// has, and what it has issued is to be revoked by it.
    fn keep(&self, issuer: &Issuer) -> Result<(), PkiError> {
        let old = self.dir.join("previous").join(issuer.id());
        write_secret(&old.with_extension("key"), &read_secret(&self.dir.join("issuing.key"))?)?;
        let certificate = chain::to_pem([issuer.certificate()]);
        Ok(write_whole(&old.with_extension("pem"), certificate.as_bytes(), 0o644)?)
    }

    /// Puts the files aside and opens them as a start would.
    fn stage(&self, config: &Config, stage: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), PkiError> {
        let wrong = |reason: String| PkiError::Request { reason };
        if stage.exists() {
            std::fs::remove_dir_all(stage)
                .map_err(|source| PkiError::Read { path: stage.display().to_string(), source })?;
        }
        private_dir(&stage.join("previous"))?;
        for name in files.keys() {
            write_secret(&stage.join(name), &files[name])?;
        }
        let passphrase = passphrase(config)?;
        let names: BTreeSet<&str> = files.keys().map(String::as_str).collect();
        for required in ["issuing.pem", "issuing.key"] {
            if !names.contains(required) {
                return Err(wrong(format!("the primary has sent no {required}")));
            }
        }
        for certificate in names.iter().filter(|name| name.ends_with(".pem")) {
            let path = stage.join(certificate);
            let key = path.with_extension("key");
            let key = SoftwareKey::read_encrypted(&key, &passphrase).map_err(|error| {
                let error = dnsbroker_api::problem::chain(&error);
                wrong(format!("the key of {certificate} does not open with the passphrase that is here: {error}"))
            })?;
            check_issuing(&read_certificate(&path)?, &self.root, dnsbroker_ca::Signer::public_key(&key))?;
        }
        if names.contains("next.key") {
            SoftwareKey::read_encrypted(&stage.join("next.key"), &passphrase)?;
        }
        if let Some(list) = files.get("root.crl") {
            dnsbroker_ca::read_crl(list, &self.root)?;
        }
        write_whole(&stage.join("root.pem"), chain::to_pem([&self.root[..]]).as_bytes(), 0o644)?;
        let mut config = config.clone();
        config.ca.dir.push(STAGE);
        Self::open(&config, self.base.clone()).map(drop)
    }
}

/// Puts a file that was looked at in its place, if there is one.
fn place(stage: &Path, dir: &Path, name: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<(), PkiError> {
    if !files.contains_key(name) {
        return Ok(());
    }
    let octets = read(&stage.join(name))?;
    let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
    Ok(write_whole(&dir.join(name), &octets, mode)?)
}

/// Whether a file is one of those that go from a primary to its standbys.
fn is_ours(name: &str) -> bool {
    if ["issuing.pem", "issuing.key", "next.key", "root.crl"].contains(&name) {
        return true;
    }
    let Some((id, extension)) = name.strip_prefix("previous/").and_then(|name| name.split_once('.')) else {
        return false;
    };
    !id.is_empty() && id.bytes().all(|octet| octet.is_ascii_alphanumeric()) && ["pem", "key"].contains(&extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cas_own_files_are_taken() {
        for good in ["issuing.pem", "issuing.key", "next.key", "root.crl", "previous/00ab.pem", "previous/00ab.key"] {
            assert!(is_ours(good), "{good}");
        }
        for wrong in [
            "",
            "root.pem",
            "server.key",
            "../issuing.pem",
            "/etc/passwd",
            "previous/../x.pem",
            "previous/.pem",
            "previous/a.b.pem",
            "previous/a",
            "x/a.pem",
        ] {
            assert!(!is_ours(wrong), "{wrong}");
        }
    }
}
