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
use super::place::{Office, Place};
use super::{Pki, PkiError, private_dir};
use crate::config::Config;
use crate::key::{SoftwareKey, read_secret, write_secret, write_whole};

/// Where files are put until they were looked at.
const STAGE: &str = "handed.new";
/// Below which those of before are.
const PREVIOUS: &str = "previous/";
const ROOT_LIST: &str = "root.crl";

impl Pki {
    /// The files of the issuing CAs, by name below the CA's directory.
    pub fn files(&self) -> Result<BTreeMap<String, Vec<u8>>, PkiError> {
        let _one = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = BTreeMap::new();
        for name in Office::ALL.into_iter().flat_map(Office::files).chain([ROOT_LIST]) {
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
        if same && ours.keys().all(|name| files.contains_key(name) || name.starts_with(PREVIOUS) || name == ROOT_LIST) {
            return Ok(false);
        }
        let wrong = |reason: String| PkiError::Request { reason };
        if let Some(name) = files.keys().find(|name| !is_ours(name)) {
            return Err(wrong(format!("the primary has sent a file {name:?}, which is none of the CA's")));
        }
        let before = self.authorities();
        let _one = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = self.dir.join(STAGE);
        self.stage(config, &stage, files)?;
        // From here on a change that is cut off is finished by the next start, or the next connection.
        private_dir(&self.dir.join("previous"))?;
        for name in files.keys().filter(|name| name.starts_with(PREVIOUS)) {
            place(&stage, &self.dir, name, files)?;
        }
        let mut rotated = false;
        for office in Office::ALL {
            let ([certificate, key, next], at) = (office.files(), Place::of(office, &self.dir));
            let there =
                files.contains_key(certificate).then(|| read_certificate(&stage.join(certificate))).transpose()?;
            let stays = |issuer: &Issuer| {
                there.as_ref().is_some_and(|there| check_issuing(there, &self.root, issuer.public_key()).is_ok())
            };
            let current = before.of(office);
            let renewed = current.is_some_and(|issuer| stays(issuer));
            if let Some(current) = current.filter(|_| !renewed) {
                // Where this broker was the primary it may be one that nobody else has, and what it has issued is to be revoked
                // by it.
                at.set_aside(current)?;
            }
            match &there {
                Some(there) => {
                    if !renewed {
                        write_secret(&at.next, &read_secret(&stage.join(key))?)?;
                    }
                    at.install(there, renewed)?;
                    place(&stage, &self.dir, key, files)?;
                    rotated |= !renewed && office == Office::General;
                }
                None => at.clear()?,
            }
            if !files.contains_key(next) && at.next.exists() {
                // Made here and never signed, or signed and in use by now.
                let path = at.next.display().to_string();
                std::fs::remove_file(&at.next).map_err(|source| PkiError::Read { path, source })?;
            }
            place(&stage, &self.dir, next, files)?;
        }
        place(&stage, &self.dir, ROOT_LIST, files)?;
        let _ = std::fs::remove_dir_all(&stage);
        self.read_again(config)?;
        Ok(rotated)
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
        let [certificate, key, _] = Office::General.files();
        for required in [certificate, key] {
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
        for office in Office::ALL {
            let [_, _, next] = office.files();
            if names.contains(next) {
                SoftwareKey::read_encrypted(&stage.join(next), &passphrase)?;
            }
        }
        if let Some(list) = files.get(ROOT_LIST) {
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
    if name == ROOT_LIST || Office::ALL.into_iter().any(|office| office.files().contains(&name)) {
        return true;
    }
    let Some((id, extension)) = name.strip_prefix(PREVIOUS).and_then(|name| name.split_once('.')) else {
        return false;
    };
    !id.is_empty() && id.bytes().all(|octet| octet.is_ascii_alphanumeric()) && ["pem", "key"].contains(&extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cas_own_files_are_taken() {
        for good in
            ["issuing.pem", "issuing.key", "next.key", "lns.pem", "root.crl", "previous/00ab.pem", "previous/00ab.key"]
        {
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
