//! Private keys in memory and on disk: made here, encrypted at rest, wiped after use.
//!
//! On disk a CA's key is PKCS#8 under a passphrase (PBES2 with scrypt and AES-256-CBC, RFC 8018), so that OpenSSL reads
//! it too: `openssl pkey -in issuing.key`. Files with keys are opened only if nobody else can read them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use dnsbroker_ca::{PublicKey, SignError, Signer, TokenKind, TokenSecret};
use pkcs8::der::pem::PemLabel;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

/// Key files are at most this long, in octets.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be opened, read or written.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("{path} is readable by others (mode {mode:o}): `chmod 600 {path}`")]
    Mode {
        /// Which file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// The passphrase does not open it.
    #[error("{path} cannot be decrypted: is the passphrase right?")]
    Passphrase {
        /// Which file.
        path: String,
    },
    /// It is no key, or one of a kind that is not used here.
    #[error("{path} is no P-256 private key in PKCS#8")]
    Format {
        /// Which file.
        path: String,
    },
    /// A symmetric key that is too long or too short.
    #[error("{path} does not have the {octets} octets of a key")]
    Length {
        /// Which file.
        path: String,
        /// How many it must have.
        octets: usize,
    },
    /// The provider failed, which it does when there is no entropy.
    #[error("no key could be made: the cryptographic provider failed")]
    Provider,
}

/// A P-256 key in memory.
pub struct SoftwareKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl SoftwareKey {
    /// A new key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyError::Provider)?;
        Self::from_pair(pair)
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let spki = pair.public_key().as_der().map_err(|_| KeyError::Provider)?;
        let public = PublicKey::from_spki_der(spki.as_ref()).map_err(|_| KeyError::Provider)?;
        Ok(Self { pair, public })
    }

    fn from_pkcs8(der: &[u8], path: &Path) -> Result<Self, KeyError> {
        let format = || KeyError::Format { path: path.display().to_string() };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map_err(|_| format())?;
        Self::from_pair(pair)
    }

    /// PKCS#8 in DER.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.pair.to_pkcs8v1().map_err(|_| KeyError::Provider)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Writes it in clear, for its owner only: keys of servers and operators, which must start unattended.
    pub fn write_plain(&self, path: &Path) -> Result<(), KeyError> {
        let der = self.to_pkcs8()?;
        let document = SecretDocument::try_from(&der[..]).map_err(|_| KeyError::Provider)?;
        let pem = document.to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).map_err(|_| KeyError::Provider)?;
        write_secret(path, pem.as_bytes())
    }

    /// Writes it under a passphrase: keys of CAs.
    pub fn write_encrypted(&self, path: &Path, passphrase: &[u8]) -> Result<(), KeyError> {
        let der = self.to_pkcs8()?;
        let info = PrivateKeyInfoRef::try_from(&der[..]).map_err(|_| KeyError::Provider)?;
        let encrypted = info.encrypt(passphrase).map_err(|_| KeyError::Provider)?;
        let label = EncryptedPrivateKeyInfoRef::PEM_LABEL;
        let pem = encrypted.to_pem(label, LineEnding::LF).map_err(|_| KeyError::Provider)?;
        write_secret(path, pem.as_bytes())
    }

    /// Reads what [`write_encrypted`](Self::write_encrypted), or OpenSSL, wrote.
    pub fn read_encrypted(path: &Path, passphrase: &[u8]) -> Result<Self, KeyError> {
        let pem = read_secret(path)?;
        let format = || KeyError::Format { path: path.display().to_string() };
        let text = std::str::from_utf8(&pem).map_err(|_| format())?;
        let (label, document) = SecretDocument::from_pem(text).map_err(|_| format())?;
        if label != EncryptedPrivateKeyInfoRef::PEM_LABEL {
            return Err(format());
        }
        let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| format())?;
        let wrong = |_| KeyError::Passphrase { path: path.display().to_string() };
        let plain = encrypted.decrypt(passphrase).map_err(wrong)?;
        Self::from_pkcs8(plain.as_bytes(), path)
    }
}

impl Signer for SoftwareKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let refused = |_| SignError::Refused { reason: "the cryptographic provider failed".to_owned() };
        Ok(self.pair.sign(&SystemRandom::new(), message).map_err(refused)?.as_ref().to_vec())
    }
}

/// Random octets from the operating system.
pub fn entropy<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut octets = [0; N];
    SystemRandom::new().fill(&mut octets).map_err(|_| KeyError::Provider)?;
    Ok(octets)
}

/// Random octets that are a secret: made where they stay, so that nothing is left where they were moved from.
pub fn new_secret(octets: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut secret = Zeroizing::new(vec![0; octets]);
    SystemRandom::new().fill(&mut secret).map_err(|_| KeyError::Provider)?;
    Ok(secret)
}

/// A new one-time or API token.
pub fn new_token(kind: TokenKind) -> Result<TokenSecret, KeyError> {
    let mut octets = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(&mut octets[..]).map_err(|_| KeyError::Provider)?;
    Ok(TokenSecret::from_entropy(kind, &octets))
}

/// Writes a new file that only its owner can read, whole or not at all: beside it first, synced, then renamed.
pub fn write_secret(path: &Path, octets: &[u8]) -> Result<(), KeyError> {
    write_whole(path, octets, 0o600)
}

/// Writes a file whole or not at all, with the mode given.
pub fn write_whole(path: &Path, octets: &[u8], mode: u32) -> Result<(), KeyError> {
    let failed = |source| KeyError::File { action: "cannot write", path: path.display().to_string(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let write = || {
        // A rest of an earlier attempt may have another mode.
        match std::fs::remove_file(beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
        file.write_all(octets)?;
        file.sync_all()?;
        std::fs::rename(beside, path)?;
        match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(failed)
}

/// Reads a file that nobody else may read.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    read_closed(path, 0o077)
}

/// Reads a credential of systemd. It lets the service's user in by an access control list where the file system has
/// them, and the mode then shows the list's mask where the group's rights would stand.
pub fn read_credential(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    read_closed(path, 0o037)
}

/// Reads a file whose mode has none of these bits.
fn read_closed(path: &Path, to: u32) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |source| KeyError::File { action: "cannot read", path: path.display().to_string(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & to != 0 {
        return Err(KeyError::Mode { path: path.display().to_string(), mode });
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE as usize));
    file.take(MAX_KEY_FILE).read_to_end(&mut octets).map_err(failed)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_with_its_passphrase_only() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("issuing.key");
        let key = SoftwareKey::generate().expect("made");
        key.write_encrypted(&path, b"correct horse").expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        let back = SoftwareKey::read_encrypted(&path, b"correct horse").expect("read");
        assert_eq!(back.public_key().spki_der(), key.public_key().spki_der());
        assert!(matches!(SoftwareKey::read_encrypted(&path, b"battery"), Err(KeyError::Passphrase { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("server.key");
        SoftwareKey::generate().expect("made").write_plain(&path).expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        read_secret(&path).expect("its owner may");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        assert!(matches!(read_secret(&path), Err(KeyError::Mode { mode: 0o640, .. })));
        // What systemd's credentials look like.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).expect("set");
        assert!(read_secret(&path).is_err() && read_credential(&path).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).expect("set");
        assert!(read_credential(&path).is_err());
    }
}
