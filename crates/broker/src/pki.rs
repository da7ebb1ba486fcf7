//! The CA's files, and the broker's own certificates.
//!
//! ```text
//! DIR/ca/root.pem          what everybody trusts
//! DIR/ca/issuing.pem       signed by the root, pathlen 0
//! DIR/ca/issuing.key       its key, under the passphrase
//! DIR/ca/server.pem .key   the broker's own, made again in time
//! DIR/root-key/root.key    the root's key and its passphrase: to be moved offline
//! ```

use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dnsbroker_ca::{
    CaName, CaRequest, Facts, Fingerprint, Issuer, Profile, ProfileError, Profiles, Root, SerialNumber, ServerName,
    Signer, Subject, chain, create_issuing, create_root,
};
use dnsbroker_federation::DomainName;
use dnsbroker_store::Actor;
use dnsbroker_store::act::Issue;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::committer::{CommitError, Committer};
use crate::config::Config;
use crate::key::{KeyError, SoftwareKey, entropy, read_secret, write_secret, write_whole};
use crate::tls::TlsMaterial;

const DAY: i64 = 86_400;
/// Life of a root made by `init`, in days.
const ROOT_DAYS: i64 = 20 * 365;
/// Life of an issuing CA made by `init`, in days.
const ISSUING_DAYS: i64 = 5 * 365;
/// CAs are valid from this long ago, in seconds, so that clocks may differ.
const BACKDATE: i64 = 3_600;
/// The environment variable with the passphrase of the issuing key.
pub const PASSPHRASE_VARIABLE: &str = "DNSBROKER_CA_PASSPHRASE";
/// The systemd credential with it.
pub const PASSPHRASE_CREDENTIAL: &str = "ca-passphrase";

/// Why the CA cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key or its file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Nothing says how to open the issuing key.
    #[error(
        "there is no passphrase for the issuing key: set ca.passphrase_file, {PASSPHRASE_VARIABLE}, \
         or the systemd credential {PASSPHRASE_CREDENTIAL}"
    )]
    NoPassphrase,
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory cannot be made.
    #[error("cannot make the directory {path}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate file is none.
    #[error("{path} holds no usable certificate: {reason}")]
    Certificate {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The CA would not sign.
    #[error("the CA refused")]
    Issue(#[from] dnsbroker_ca::authority::IssueError),
    /// A profile is wrong.
    #[error("certificate profile {name} is wrong")]
    Profile {
        /// Its file.
        name: String,
        /// Why.
        #[source]
        source: ProfileError,
    },
    /// A profile that is needed is not there.
    #[error("there is no certificate profile {0:?}")]
    NoProfile(String),
    /// Recording the broker's certificate failed.
    #[error("the broker's own certificate could not be recorded")]
    Commit(#[from] CommitError),
}

/// The CA, ready to issue.
pub struct Pki {
    /// The root certificate, DER.
    pub root: Vec<u8>,
    /// The issuing certificate, DER.
    pub issuing: Vec<u8>,
    /// Who signs.
    pub issuer: Arc<Issuer>,
    /// What is signed.
    profiles: Profiles,
    dir: PathBuf,
}

/// Makes a directory that only its owner can enter.
pub fn private_dir(path: &Path) -> Result<(), PkiError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| PkiError::Directory { path: path.display().to_string(), source })
}

impl Pki {
    /// Makes root and issuing CA. The root's key and its passphrase go to `root_key_dir`, apart from all else.
    pub fn create(
        ca_dir: &Path,
        root_key_dir: &Path,
        federation: &DomainName,
        passphrase: &[u8],
        now: i64,
    ) -> Result<(), PkiError> {
        private_dir(ca_dir)?;
        private_dir(root_key_dir)?;
        let ca_request = |role, days: i64| -> Result<CaRequest, PkiError> {
            Ok(CaRequest {
                name: CaName::of(federation, role)?,
                serial: SerialNumber::from_entropy(entropy()?),
                not_before: now - BACKDATE,
                not_after: now - BACKDATE + days * DAY,
                pointers: None,
            })
        };
        let root_key = SoftwareKey::generate()?;
        let root_der = create_root(&ca_request("root", ROOT_DAYS)?, &root_key)?;
        let root_passphrase = new_passphrase()?;
        write_secret(&root_key_dir.join("root.passphrase"), root_passphrase.as_bytes())?;
        root_key.write_encrypted(&root_key_dir.join("root.key"), root_passphrase.trim_end().as_bytes())?;
        let root = Root::new(root_der, Box::new(root_key))?;
        let issuing_key = SoftwareKey::generate()?;
        let issuing = create_issuing(&root, &ca_request("issuing", ISSUING_DAYS)?, issuing_key.public_key())?;
        issuing_key.write_encrypted(&ca_dir.join("issuing.key"), passphrase)?;
        write_whole(&ca_dir.join("issuing.pem"), chain::to_pem([&issuing[..]]).as_bytes(), 0o644)?;
        write_whole(&ca_dir.join("root.pem"), chain::to_pem([root.certificate()]).as_bytes(), 0o644)?;
        Ok(())
    }

    /// Opens the CA that the configuration names.
    pub fn open(config: &Config) -> Result<Self, PkiError> {
        let dir = config.path(&config.ca.dir);
        let root = read_certificate(&dir.join("root.pem"))?;
        let issuing = read_certificate(&dir.join("issuing.pem"))?;
        let passphrase = passphrase(config)?;
        let key = SoftwareKey::read_encrypted(&dir.join("issuing.key"), &passphrase)?;
        let issuer = Issuer::new(issuing.clone(), Box::new(key), config.federation.clone())?;
        let profiles = read_profiles(config)?;
        Ok(Self { root, issuing, issuer: Arc::new(issuer), profiles, dir })
    }

    /// A profile by name.
    pub fn profile(&self, name: &str) -> Result<Profile, PkiError> {
        self.profiles.get(name).cloned().ok_or_else(|| PkiError::NoProfile(name.to_owned()))
    }

    /// SHA-256 of the root certificate: what an operator compares before it trusts an answer.
    pub fn pin(&self) -> Fingerprint {
        Fingerprint::of(&self.root)
    }

    /// The root, PEM.
    pub fn root_pem(&self) -> String {
        chain::to_pem([&self.root[..]])
    }

    /// The issuing CA, PEM.
    pub fn issuing_pem(&self) -> String {
        chain::to_pem([&self.issuing[..]])
    }

    /// A leaf and the issuing CA, PEM: what its holder sends.
    pub fn chain_pem(&self, leaf: &[u8]) -> String {
        chain::to_pem([leaf, &self.issuing[..]])
    }

    /// What client certificates may chain to. The issuing CA itself is an anchor too, so that clients may send their
    /// certificate alone.
    pub fn client_roots(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(self.root.clone()), CertificateDer::from(self.issuing.clone())]
    }

    /// The broker's own certificate: the one in the files while it is good, else a new one.
    pub async fn server(
        &self,
        names: &[ServerName],
        committer: &Committer,
        now: i64,
    ) -> Result<(TlsMaterial, i64), PkiError> {
        if let Some((chain, key, not_after)) = self.stored_server(names, now)? {
            return Ok((TlsMaterial { chain, key, client_roots: self.client_roots() }, not_after));
        }
        let key = SoftwareKey::generate()?;
        let issue = Issue {
            subject: Subject::Server(names.to_vec()),
            server_of: None,
            key: key.public_key().clone(),
            issuer: Arc::clone(&self.issuer),
            profile: self.profile(Profile::BROKER_SERVER)?,
            serial: SerialNumber::from_entropy(entropy()?),
        };
        let issued = committer.commit(Actor::Broker, issue).await?;
        key.write_plain(&self.dir.join("server.key"))?;
        write_whole(&self.dir.join("server.pem"), self.chain_pem(&issued.der).as_bytes(), 0o644)?;
        write_whole(&self.dir.join("server.names"), names_text(names).as_bytes(), 0o644)?;
        let chain = vec![CertificateDer::from(issued.der), CertificateDer::from(self.issuing.clone())];
        let key = PrivateKeyDer::Pkcs8(key.to_pkcs8()?.to_vec().into());
        let not_after = issued.certificate.not_after;
        Ok((TlsMaterial { chain, key, client_roots: self.client_roots() }, not_after))
    }

    /// The stored certificate, if it has these names, chains to today's issuing CA and is not yet due for renewal.
    #[allow(clippy::type_complexity)]
    fn stored_server(
        &self,
        names: &[ServerName],
        now: i64,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, i64)>, PkiError> {
        let path = self.dir.join("server.pem");
        let same_names = std::fs::read_to_string(self.dir.join("server.names")).is_ok_and(|t| t == names_text(names));
        if !same_names || !path.exists() {
            return Ok(None);
        }
        let certificates = read_certificates(&path)?;
        let [leaf, issuing] = &certificates[..] else { return Ok(None) };
        let Ok(facts) = Facts::of(leaf) else { return Ok(None) };
        let renew_at = facts.not_before + (facts.not_after - facts.not_before) * 2 / 3;
        if issuing != &self.issuing || now >= renew_at {
            return Ok(None);
        }
        let key = read_key(&self.dir.join("server.key"))?;
        Ok(Some((certificates.into_iter().map(CertificateDer::from).collect(), key, facts.not_after)))
    }

    /// When the CA's own certificates end.
    pub fn expiries(&self) -> Vec<(String, i64)> {
        let end = |der: &[u8]| Facts::of(der).map_or(0, |facts| facts.not_after);
        vec![("root CA".to_owned(), end(&self.root)), ("issuing CA".to_owned(), end(&self.issuing))]
    }
}

/// A certificate chain and key that the administrator brought.
pub fn brought(
    certificate: &Path,
    key: &Path,
    client_roots: Vec<CertificateDer<'static>>,
) -> Result<(TlsMaterial, i64), PkiError> {
    let chain = read_certificates(certificate)?;
    let not_after = match chain.first().map(|leaf| Facts::of(leaf)) {
        Some(Ok(facts)) => facts.not_after,
        Some(Err(error)) => {
            return Err(PkiError::Certificate { path: certificate.display().to_string(), reason: error.to_string() });
        }
        None => {
            let reason = "it has no certificate".to_owned();
            return Err(PkiError::Certificate { path: certificate.display().to_string(), reason });
        }
    };
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    Ok((TlsMaterial { chain, key: read_key(key)?, client_roots }, not_after))
}

/// The names a server certificate needs: the broker's, and the addresses it is published under.
pub fn server_names(broker: &DomainName, addresses: &[IpAddr]) -> Vec<ServerName> {
    let name = ServerName::Dns(broker.clone());
    std::iter::once(name).chain(addresses.iter().copied().map(ServerName::Ip)).collect()
}

fn names_text(names: &[ServerName]) -> String {
    let mut text = String::new();
    for name in names {
        match name {
            ServerName::Dns(name) => text.push_str(&name.to_string()),
            ServerName::Ip(address) => text.push_str(&address.to_string()),
        }
        text.push('\n');
    }
    text
}

fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    std::fs::read(path).map_err(|source| PkiError::Read { path: path.display().to_string(), source })
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, PkiError> {
    chain::from_pem(&read(path)?)
        .map_err(|error| PkiError::Certificate { path: path.display().to_string(), reason: error.to_string() })
}

fn read_certificate(path: &Path) -> Result<Vec<u8>, PkiError> {
    let mut certificates = read_certificates(path)?;
    match (certificates.pop(), certificates.is_empty()) {
        (Some(certificate), true) => Ok(certificate),
        _ => {
            let reason = "it must hold exactly one".to_owned();
            Err(PkiError::Certificate { path: path.display().to_string(), reason })
        }
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, PkiError> {
    let pem = read_secret(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| KeyError::Format { path: path.display().to_string() }.into())
}

fn passphrase(config: &Config) -> Result<Zeroizing<Vec<u8>>, PkiError> {
    let trimmed = |octets: &[u8]| Zeroizing::new(octets.trim_ascii_end().to_vec());
    if let Some(file) = &config.ca.passphrase_file {
        return Ok(trimmed(&read_secret(&config.path(file))?));
    }
    if let Ok(text) = std::env::var(PASSPHRASE_VARIABLE) {
        return Ok(trimmed(Zeroizing::new(text).as_bytes()));
    }
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(dir) => Ok(trimmed(&read_secret(&Path::new(&dir).join(PASSPHRASE_CREDENTIAL))?)),
        None => Err(PkiError::NoPassphrase),
    }
}

/// A passphrase of 192 random bits, with a line end.
pub fn new_passphrase() -> Result<Zeroizing<String>, PkiError> {
    use base64::Engine;
    let octets = Zeroizing::new(entropy::<24>()?);
    let mut text = Zeroizing::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*octets));
    text.push('\n');
    Ok(text)
}

fn read_profiles(config: &Config) -> Result<Profiles, PkiError> {
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
