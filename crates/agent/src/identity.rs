//! Who we are in one federation: key, certificate and trust anchor, as files in the directory that `enroll` made.
//!
//! ```text
//! DIR/ca.pem                      the federation's root: what brokers are trusted by
//! DIR/client.pem -> live/...      certificate and issuing CA
//! DIR/client.key -> live/...      its key; nobody else can read it, but for the group that `key_group` names
//! DIR/live -> issued-<serial>     turned in one step when a new certificate is in place
//! DIR/pending.key                 the key of a request whose answer has not come yet
//! DIR/enrolment.json              where we enrolled
//! DIR/directory.json              brokers and members, as they were last told
//! DIR/anchors/                    what members' servers are trusted by
//! DIR/lns.pem, lns.key            the network server's certificate and key, with links of their own (`server_certificate`)
//! ```
//!
//! Certificate and key change together or not at all (`slot`).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dnsbroker_api::message::Issued;
use dnsbroker_api::operator::Directory;
use dnsbroker_federation::{DomainName, MemberId};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::files::{self, FileError};
use crate::slot::CLIENT;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No such directory, or nothing in it.
    #[error("{dir} has no certificate: `dnsbroker-agent enroll --dir {dir} ...` gets one")]
    NotEnrolled {
        /// Which directory.
        dir: String,
    },
    /// Certificates that cannot be read.
    #[error("{path} holds no certificate that can be read: {reason}")]
    Certificate {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A key that cannot be read.
    #[error("{path} holds no private key (PKCS#8, PEM)")]
    Key {
        /// Which file.
        path: String,
    },
    /// A certificate that names no member, or several.
    #[error("the certificate in {path} names no single member of a federation (spiffe://FEDERATION/member/ID)")]
    Member {
        /// Which file.
        path: String,
    },
    /// Certificate and key do not go together.
    #[error("TLS cannot be set up with the certificate and key in {dir}")]
    Tls {
        /// Which directory.
        dir: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// No entropy, or a broken library.
    #[error("no key or request could be made")]
    Request(#[from] rcgen::Error),
    /// A file of ours that was damaged.
    #[error("{path} is damaged: {source}")]
    Json {
        /// Which file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Who we are.
pub struct Identity {
    /// The federation.
    pub federation: DomainName,
    /// The member.
    pub member: MemberId,
    /// First and last second of the certificate.
    pub life: (i64, i64),
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Which CA has issued the certificate.
    pub issuer: Option<KeyId>,
    /// For connections to brokers.
    pub tls: Arc<ClientConfig>,
}

/// The identifier of a CA's key (RFC 5280, section 4.2.1.1), hexadecimal.
pub type KeyId = String;

/// What a certificate says.
pub struct Facts {
    /// First and last second.
    pub life: (i64, i64),
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SubjectPublicKeyInfo, DER.
    pub key: Vec<u8>,
    /// Which CA has issued it.
    pub issuer: Option<KeyId>,
    /// URIs among its names.
    pub uris: Vec<String>,
    /// DNS names among them, in lower case.
    pub names: BTreeSet<String>,
    /// Whether it is good for a TLS server (RFC 5280, section 4.2.1.12).
    pub server: bool,
}

impl Facts {
    /// Of a certificate.
    pub fn of(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let names = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(names),
            _ => None,
        });
        let uri = |name: &GeneralName<'_>| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        };
        let dns = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        let server = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::ExtendedKeyUsage(usage) => Some(usage.server_auth || usage.any),
            _ => None,
        });
        let issuer = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(of) => of.key_identifier.as_ref().map(|id| hexadecimal(id.0)),
            _ => None,
        });
        let validity = certificate.validity();
        Ok(Self {
            life: (validity.not_before.timestamp(), validity.not_after.timestamp()),
            serial: serial_text(certificate.raw_serial()),
            key: certificate.public_key().raw.to_vec(),
            issuer,
            uris: names.map_or_else(Vec::new, |names| names.general_names.iter().filter_map(uri).collect()),
            names: names.map_or_else(BTreeSet::new, |names| names.general_names.iter().filter_map(dns).collect()),
            server: server.unwrap_or(true),
        })
    }

    /// The one member that it names.
    pub fn member(&self) -> Option<(DomainName, MemberId)> {
        let [uri] = &self.uris[..] else { return None };
        let (federation, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        Some((federation.parse().ok()?, path.strip_prefix("member/")?.parse().ok()?))
    }
}

/// As the broker writes it: without the octet that only says that the number is positive (X.690, section 8.3).
fn serial_text(octets: &[u8]) -> String {
    hexadecimal(octets.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(octets))
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Where we enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The API.
    pub api_url: String,
    /// Addresses that were given for it.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// SHA-256 of the root.
    pub ca_pin: String,
}

/// The directory of one federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// At a path.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads who we are.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        let path = self.file("client.pem");
        if !path.exists() {
            return Err(IdentityError::NotEnrolled { dir: self.0.display().to_string() });
        }
        let chain = certificates(&path)?;
        let shown = path.display().to_string();
        let wrong = |reason| IdentityError::Certificate { path: shown.clone(), reason };
        let leaf = chain.first().ok_or_else(|| wrong("it is empty".to_owned()))?;
        let facts = Facts::of(leaf).map_err(wrong)?;
        let (federation, member) = facts.member().ok_or(IdentityError::Member { path: shown.clone() })?;
        let key_path = self.file("client.key");
        let key = files::read_shared_secret(&key_path)?;
        let key = PrivateKeyDer::from_pem_slice(&key);
        let key = key.map_err(|_| IdentityError::Key { path: key_path.display().to_string() })?;
        let tls = Arc::new(self.client_config(chain, key)?);
        let Facts { life, serial, issuer, .. } = facts;
        Ok(Identity { federation, member, life, serial, issuer, tls })
    }

    fn client_config(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ClientConfig, IdentityError> {
        let tls = |source| IdentityError::Tls { dir: self.0.display().to_string(), source };
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.file("ca.pem"))? {
            roots.add(root).map_err(tls)?;
        }
        crate::tls::mutual(roots, chain, key).map_err(tls)
    }

    /// The key for the next certificate.
    pub fn pending_key(&self) -> Result<KeyPair, IdentityError> {
        CLIENT.pending_key(&self.0)
    }

    /// Puts a certificate in place of the last one, with the pending key.
    pub fn install(&self, issued: &Issued) -> Result<(), IdentityError> {
        CLIENT.install(&self.0, issued, |facts| {
            facts.member().map(drop).ok_or(IdentityError::Member { path: "the broker's answer".to_owned() })
        })
    }

    /// Where we enrolled.
    pub fn enrolment(&self) -> Result<Option<Enrolment>, IdentityError> {
        self.json("enrolment.json")
    }

    /// Brokers and members, as they were last told.
    pub fn directory(&self) -> Result<Option<Directory>, IdentityError> {
        self.json("directory.json")
    }

    /// Keeps something under a name.
    pub fn keep(&self, name: &str, value: &impl Serialize) -> Result<(), FileError> {
        // Our own messages always have a JSON form.
        let json = serde_json::to_vec_pretty(value).unwrap_or_default();
        files::write_whole(&self.file(name), &json, 0o644)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, IdentityError> {
        let path = self.file(name);
        if !path.exists() {
            return Ok(None);
        }
        let octets = files::read(&path)?;
        let read = serde_json::from_slice(&octets);
        read.map(Some).map_err(|source| IdentityError::Json { path: path.display().to_string(), source })
    }
}

/// A certificate request for a key, PEM. The CA takes nothing from it but the key.
pub fn request(key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serialize_request(key)?.pem()
}

/// The certificates of a file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let wrong = |reason: String| IdentityError::Certificate { path: path.display().to_string(), reason };
    let octets = files::read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    let certificates = read.map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() { Err(wrong("it is empty".to_owned())) } else { Ok(certificates) }
}

/// What the first certificate of a file says.
pub fn facts(path: &Path) -> Result<Facts, IdentityError> {
    let wrong = |reason| IdentityError::Certificate { path: path.display().to_string(), reason };
    let chain = certificates(path)?;
    let leaf = chain.first().ok_or_else(|| wrong("it is empty".to_owned()))?;
    Facts::of(leaf).map_err(wrong)
}

/// When a certificate is renewed: after two thirds of its life.
pub fn renew_at((from, to): (i64, i64)) -> i64 {
    from + (to - from) * 2 / 3
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa, Issuer, SanType};

    use super::*;

    fn issue(home: &Home, uri: &str, key: Option<&KeyPair>) -> Issued {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = ca.self_signed(&ca_key).expect("signed");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        let pending = home.pending_key().expect("a key");
        let leaf = params.signed_by(key.unwrap_or(&pending), &Issuer::new(ca, ca_key)).expect("signed");
        let facts = Facts::of(leaf.der()).expect("reads");
        let certificate = serde_json::json!({
            "serial": facts.serial, "profile": "operator", "issuer": "ca", "lineage": "1", "key": "",
            "not_before": "2026-11-24T00:00:00Z", "not_after": "2026-11-25T00:00:00Z",
            "renew_at": "2026-11-24T16:00:00Z", "state": "valid",
        });
        Issued {
            certificate: serde_json::from_value(certificate).expect("a certificate"),
            pem: leaf.pem(),
            chain: leaf.pem() + &root.pem(),
            ca: root.pem(),
        }
    }

    #[test]
    fn certificate_and_key_change_together() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let home = Home::new(dir.path());
        assert!(matches!(home.identity(), Err(IdentityError::NotEnrolled { .. })));
        let mut serials = vec![];
        for _ in 0..3 {
            let key = home.pending_key().expect("a key").serialize_pem();
            assert_eq!(
                home.pending_key().expect("the same").serialize_pem(),
                key,
                "a request is repeated with its key"
            );
            home.install(&issue(&home, "spiffe://fed.example/member/alpine", None)).expect("installed");
            let identity = home.identity().expect("reads");
            assert_eq!(identity.member.to_string(), "alpine");
            assert_eq!(std::fs::read_to_string(home.file("client.key")).expect("read"), key);
            assert!(!home.file("pending.key").exists());
            serials.push(identity.serial);
        }
        let kept: Vec<bool> = serials.iter().map(|serial| home.file(&format!("issued-{serial}")).exists()).collect();
        assert_eq!(kept, [false, true, true], "the last one but one stays for those who are reading it");
    }

    #[test]
    fn a_certificate_that_is_not_ours_is_not_installed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let home = Home::new(dir.path());
        let other = KeyPair::generate().expect("a key");
        let issued = issue(&home, "spiffe://fed.example/member/alpine", Some(&other));
        assert!(home.install(&issued).expect_err("refused").to_string().contains("another key"));
        let issued = issue(&home, "spiffe://fed.example/replica/alpine", None);
        assert!(matches!(home.install(&issued), Err(IdentityError::Member { .. })));
        assert!(matches!(home.identity(), Err(IdentityError::NotEnrolled { .. })), "nothing changed");
    }

    #[test]
    fn renewal_comes_after_two_thirds() {
        assert_eq!(renew_at((1_000, 4_000)), 3_000);
    }

    #[test]
    fn serial_numbers_are_written_as_the_broker_writes_them() {
        assert_eq!([&[0, 0xc2, 0x40][..], &[0x42, 0], &[0]].map(serial_text), ["c240", "4200", "00"]);
    }
}
