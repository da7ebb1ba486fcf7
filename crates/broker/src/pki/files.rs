//! Reading the CA's files: certificates, keys, passphrases, profiles.

use std::path::Path;

use dnsbroker_ca::{Profile, Profiles, chain};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::{PASSPHRASE_CREDENTIAL, PASSPHRASE_VARIABLE, PkiError};
use crate::config::Config;
use crate::key::{KeyError, new_secret, read_credential, read_secret};

pub(super) fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    std::fs::read(path).map_err(|source| PkiError::Read { path: path.display().to_string(), source })
}

pub(super) fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, PkiError> {
    chain::from_pem(&read(path)?)
        .map_err(|error| PkiError::Certificate { path: path.display().to_string(), reason: error.to_string() })
}

pub fn read_certificate(path: &Path) -> Result<Vec<u8>, PkiError> {
    let mut certificates = read_certificates(path)?;
    match (certificates.pop(), certificates.is_empty()) {
        (Some(certificate), true) => Ok(certificate),
        _ => {
            let reason = "it must hold exactly one".to_owned();
            Err(PkiError::Certificate { path: path.display().to_string(), reason })
        }
    }
}

pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, PkiError> {
    let pem = read_secret(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| KeyError::Format { path: path.display().to_string() }.into())
}

pub(super) fn passphrase(config: &Config) -> Result<Zeroizing<Vec<u8>>, PkiError> {
    let trimmed = |octets: &[u8]| Zeroizing::new(octets.trim_ascii_end().to_vec());
    if let Some(file) = &config.ca.passphrase_file {
        return Ok(trimmed(&read_secret(&config.path(file))?));
    }
    if let Ok(text) = std::env::var(PASSPHRASE_VARIABLE) {
        return Ok(trimmed(Zeroizing::new(text).as_bytes()));
    }
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(dir) => Ok(trimmed(&read_credential(&Path::new(&dir).join(PASSPHRASE_CREDENTIAL))?)),
        None => Err(PkiError::NoPassphrase),
    }
}

/// A passphrase of 192 random bits, with a line end.
pub fn new_passphrase() -> Result<Zeroizing<String>, PkiError> {
    use base64::Engine;
    let octets = new_secret(24)?;
    let mut text = Zeroizing::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&*octets));
    text.push('\n');
    Ok(text)
}

pub(super) fn read_profiles(config: &Config) -> Result<Profiles, PkiError> {
    let failed = |name: &str| {
        let name = name.to_owned();
        move |source| PkiError::Profile { name, source }
    };
    let mut profiles = Profiles::builtin().map_err(failed("built in"))?;
    let Some(dir) = &config.ca.profiles else { return Ok(profiles) };
    let dir = config.path(dir);
    let entries = std::fs::read_dir(&dir)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(|source| PkiError::Read { path: dir.display().to_string(), source })?;
    for path in entries.into_iter().map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == "toml")) {
        let text = String::from_utf8_lossy(&read(&path)?).into_owned();
        profiles.insert(Profile::from_toml(&text).map_err(failed(&path.display().to_string()))?);
    }
    Ok(profiles)
}
