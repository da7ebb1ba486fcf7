//! The CA's files, and the broker's own certificates.
//!
//! ```text
//! DIR/ca/root.pem          what everybody trusts
//! DIR/ca/root.crl          issuing CAs that the root has revoked
//! DIR/ca/issuing.pem       signed by the root, pathlen 0
//! DIR/ca/issuing.key       its key, under the passphrase
//! DIR/ca/next.key          the key of an issuing CA that is not signed yet
//! DIR/ca/lns.pem .key      the issuing CA for network servers alone, where there is one
//! DIR/ca/lns-next.key      as next.key
//! DIR/ca/previous/         issuing CAs of before, by id, whose certificates are still good
//! DIR/ca/server.pem .key   the broker's own, made again in time
//! DIR/root-key/root.key    the root's key and its passphrase: to be moved offline
//! ```

pub mod ceremony;
mod files;
mod handed;
mod place;
pub mod published;

use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dnsbroker_ca::authority::IssueError;
use dnsbroker_ca::{
    Facts, Fingerprint, Issuer, Pointers, Profile, ProfileError, Profiles, SerialNumber, ServerName, Signer, Subject,
    chain, check_issuing, constrained_to, request_issuing,
};
use dnsbroker_federation::{DomainName, Zone};
use dnsbroker_store::Actor;
use dnsbroker_store::act::Issue;
use dnsbroker_store::record::LnsAuthority;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio::sync::watch;

use crate::committer::{CommitError, Committer};
use crate::config::Config;
use crate::key::{KeyError, SoftwareKey, entropy, write_whole};
use crate::tls::{ClientTrust, TlsMaterial};
pub use files::{new_passphrase, read_certificate};
use files::{passphrase, read, read_certificates, read_key, read_profiles};
use place::Place;
pub use place::{Office, agree};

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
    Issue(#[from] IssueError),
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
    /// Others may enter a directory with keys.
    #[error("{path} can be entered by others (mode {mode:o}): `chmod 700 {path}`")]
    DirectoryMode {
        /// Which.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// A request or certificate of an issuing CA that does not read.
    #[error("the issuing CA's file cannot be used: {reason}")]
    Request {
        /// Why.
        reason: String,
    },
    /// A list that is not the root's.
    #[error("the root's list of revoked CAs cannot be used")]
    List(#[from] dnsbroker_ca::CrlError),
    /// An issuing CA that nobody asked for.
    #[error("the certificate is neither for the issuing key in use nor for one made by `dnsbroker ca request`")]
    NoRequest,
    /// Recording the broker's certificate failed.
    #[error("the broker's own certificate could not be recorded")]
    Commit(#[from] CommitError),
}

/// The CA, ready to issue.
pub struct Pki {
    /// The root certificate, DER.
    pub root: Vec<u8>,
    /// Who signs, and who did.
    authorities: ArcSwap<Authorities>,
    /// What is signed.
    profiles: Profiles,
    dir: PathBuf,
    federation: DomainName,
    /// The domain of the names of NetIDs.
    netids: DomainName,
    /// Below which lists and OCSP are published, if they are.
    base: Option<String>,
    /// Wakes whoever shows certificates of the issuing CA.
    changed: watch::Sender<()>,
    /// One change of the files at a time.
    files: Mutex<()>,
}

/// The issuing CAs.
pub struct Authorities {
    /// The one that signs certificates.
    pub issuer: Arc<Issuer>,
    /// The one that signs those of network servers, where that is another.
    pub lns: Option<Arc<Issuer>>,
    /// Those of before: they sign lists of what they have issued, and nothing else.
    pub previous: Vec<Arc<Issuer>>,
}

impl Authorities {
    /// All of them, those that sign certificates first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.in_use().chain(&self.previous)
    }

    /// Those that sign certificates.
    pub fn in_use(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        std::iter::once(&self.issuer).chain(&self.lns)
    }

    /// Who signs certificates of a profile.
    pub fn of_profile(&self, profile: &str) -> &Arc<Issuer> {
        self.lns.as_ref().filter(|_| profile == Profile::LNS).unwrap_or(&self.issuer)
    }

    fn of(&self, office: Office) -> Option<&Arc<Issuer>> {
        match office {
            Office::General => Some(&self.issuer),
            Office::Lns => self.lns.as_ref(),
        }
    }

    /// The one with this id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Issuer>> {
        self.all().find(|issuer| issuer.id() == id)
    }
}

/// Makes a directory that only its owner can enter.
pub fn private_dir(path: &Path) -> Result<(), PkiError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| PkiError::Directory { path: path.display().to_string(), source })
}

/// Refuses a directory with keys that others can enter.
fn check_dir(path: &Path) -> Result<(), PkiError> {
    let shown = || path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(|source| PkiError::Read { path: shown(), source })?;
    match metadata.permissions().mode() & 0o7777 {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => Err(PkiError::DirectoryMode { path: shown(), mode }),
    }
}

impl Pki {
    /// Opens the CA that the configuration names. `base` is the URL below which lists and OCSP are published.
    pub fn open(config: &Config, base: Option<String>) -> Result<Self, PkiError> {
        let dir = config.path(&config.ca.dir);
        check_dir(&dir)?;
        let root = read_certificate(&dir.join("root.pem"))?;
        let passphrase = passphrase(config)?;
        let federation = config.federation.clone();
        let names = config.namespace().map_err(|error| PkiError::Request { reason: error.to_string() })?;
        let netids = names.apex(Zone::NetId).clone();
        let open = |certificate: &Path, key: &Path| -> Result<Arc<Issuer>, PkiError> {
            let key = SoftwareKey::read_encrypted(key, &passphrase)?;
            let issuer = Issuer::new(read_certificate(certificate)?, Box::new(key), federation.clone())?;
            let pointers = base.as_ref().map(|base| Pointers::below(base, &issuer.id()));
            Ok(Arc::new(issuer.with_pointers(pointers)))
        };
        let in_office = |office: Office| -> Result<Arc<Issuer>, PkiError> {
            let place = Place::of(office, &dir);
            let opened = open(&place.certificate, &place.key);
            let cut_off = match &opened {
                Err(PkiError::Issue(IssueError::OtherKey)) => true,
                Err(PkiError::Key(_)) => !place.key.exists(),
                _ => false,
            };
            let issuer = if cut_off && place.next.exists() {
                // An installation was cut off between certificate and key.
                let issuer = open(&place.certificate, &place.next)?;
                place.finish()?;
                issuer
            } else {
                opened?
            };
            check_constraint(office, issuer.permitted(), &netids)?;
            if office == Office::Lns {
                check_issuing(issuer.certificate(), &root, issuer.public_key())?;
            }
            Ok(issuer)
        };
        let issuer = in_office(Office::General)?;
        let lns = Place::of(Office::Lns, &dir).certificate.exists().then(|| in_office(Office::Lns)).transpose()?;
        let mut previous = Vec::new();
        for certificate in previous_certificates(&dir)? {
            let old = open(&certificate, &certificate.with_extension("key"))?;
            // Its last certificates ended before it did.
            let in_use = [Some(&issuer), lns.as_ref()].into_iter().flatten().any(|one| one.id() == old.id());
            if old.facts().not_after >= crate::committer::now() && !in_use {
                previous.push(old);
            }
        }
        let (authorities, profiles) =
            (ArcSwap::from_pointee(Authorities { issuer, lns, previous }), read_profiles(config)?);
        let (changed, files) = (watch::Sender::new(()), Mutex::default());
        Ok(Self { root, authorities, profiles, dir, federation, netids, base, changed, files })
    }

    /// The issuing CAs as of now.
    pub fn authorities(&self) -> Arc<Authorities> {
        self.authorities.load_full()
    }

    /// Who signs certificates of a profile.
    pub fn issuer_of(&self, profile: &Profile) -> Arc<Issuer> {
        Arc::clone(self.authorities.load().of_profile(profile.name()))
    }

    /// What the issuing CA for network servers alone is, as the files have it.
    pub fn lns_authority(&self) -> Option<LnsAuthority> {
        let authorities = self.authorities.load();
        let issuer = authorities.lns.as_ref()?;
        Some(LnsAuthority { ca: issuer.id(), permitted: issuer.permitted()?.clone() })
    }

    /// The domain to whose names the CA of this office is constrained.
    pub fn permitted(&self, office: Office) -> Option<&DomainName> {
        (office == Office::Lns).then_some(&self.netids)
    }

    /// Tells when another CA issues, or the same under another certificate; also what happened while nobody waited.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Has the broker's own certificate looked at again.
    pub fn wake(&self) {
        self.changed.send_replace(());
    }

    /// The broker's own certificate as it lies in the files, whenever it ends: a standby's, which its primary renews.
    pub fn kept_server(&self) -> Result<(TlsMaterial, i64), PkiError> {
        brought(&self.dir.join("server.pem"), &self.dir.join("server.key"), self.client_trust())
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

    /// A leaf and the CA that issued it, PEM: what its holder sends.
    pub fn chain_pem(&self, leaf: &[u8], ca: &str) -> String {
        let authorities = self.authorities.load();
        let issuer = authorities.by_id(ca).unwrap_or(&authorities.issuer);
        chain::to_pem([leaf, issuer.certificate()])
    }

    /// What client certificates may chain to. The issuing CAs are anchors too, so that clients may send their
    /// certificate alone; but not those that the root has revoked.
    pub fn client_trust(&self) -> ClientTrust {
        let (authorities, list) = (self.authorities.load(), self.root_crl());
        let revoked = self.revoked_authorities();
        let issuing = authorities.all().filter(|issuer| !revoked.contains(&issuer.id()));
        let issuing = issuing.map(|issuer| CertificateDer::from(issuer.certificate().to_vec()));
        let roots = std::iter::once(CertificateDer::from(self.root.clone())).chain(issuing).collect();
        ClientTrust { roots, revoked: list.map(CertificateRevocationListDer::from) }
    }

    /// Issuing CAs whose certificate the root has revoked, by id.
    pub fn revoked_authorities(&self) -> Vec<String> {
        self.root_crl().map(|list| self.authorities_in(&list)).unwrap_or_default()
    }

    /// Issuing CAs whose certificate a list of the root's names, by id.
    pub fn authorities_in(&self, list: &[u8]) -> Vec<String> {
        let (_, revoked) = dnsbroker_ca::read_crl(list, &self.root).unwrap_or_default();
        let authorities = self.authorities.load();
        let is_revoked = |issuer: &&Arc<Issuer>| revoked.iter().any(|entry| entry.serial == issuer.facts().serial);
        authorities.all().filter(is_revoked).map(|issuer| issuer.id()).collect()
    }

    /// The root's list of revoked CAs, DER, if it has signed one.
    pub fn root_crl(&self) -> Option<Vec<u8>> {
        read(&self.dir.join("root.crl")).ok()
    }

    /// The root's short name, as in the URL of its list.
    pub fn root_id(&self) -> String {
        dnsbroker_ca::certified_key(&self.root).map_or_else(|_| "root".to_owned(), |key| dnsbroker_ca::ca_id(&key))
    }

    /// Reads a list of the root's: number, when it was made, when the next is there, how many CAs it names. One that is
    /// older than the one in place is refused.
    pub fn check_root_crl(&self, list: &[u8]) -> Result<(u64, i64, i64, u64), PkiError> {
        let (number, revoked) = dnsbroker_ca::read_crl(list, &self.root)?;
        let (this_update, next_update) = dnsbroker_ca::crl_times(list)?;
        let refused = |reason: String| Err(PkiError::Request { reason });
        if let Some(in_place) = self.root_crl() {
            let (last, before) = dnsbroker_ca::read_crl(&in_place, &self.root)?;
            if last > number {
                return refused(format!("list {number} is older than list {last}, which is in place"));
            }
            if last == number && in_place != list {
                return refused(format!("another list {number} is in place: sign it again with --last and that one"));
            }
            // Signed from an older list it would make a stolen CA good again.
            if let Some(lost) = before.iter().find(|entry| !revoked.iter().any(|one| one.serial == entry.serial)) {
                return refused(format!(
                    "list {number} does not name the issuing CA whose certificate is {}, which list {last} revokes: sign it \
                     again with --last and the list that is in place",
                    lost.serial
                ));
            }
        }
        let authorities = self.authorities();
        if authorities.in_use().any(|issuer| revoked.iter().any(|entry| entry.serial == issuer.facts().serial)) {
            let reason = "the list revokes an issuing CA in use: have another one in its place first, with `dnsbroker ca \
                          request` and `install`, or `rotate`";
            return Err(PkiError::Request { reason: reason.to_owned() });
        }
        Ok((number, this_update, next_update, revoked.len() as u64))
    }

    /// Takes a list of the root's, to be published.
    pub fn install_root_crl(&self, list: &[u8]) -> Result<(), PkiError> {
        self.check_root_crl(list)?;
        write_whole(&self.dir.join("root.crl"), list, 0o644)?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Below which lists and OCSP are published.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// Makes the key of the next issuing CA, or with `renew` takes the one in use, and a request (DER) to be signed where
    /// the root's key is. Asked again it gives a request for the same key.
    pub fn request(&self, config: &Config, office: Office, renew: bool) -> Result<Vec<u8>, PkiError> {
        let _one = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if renew && self.authorities.load().of(office).is_none() {
            let reason = "there is no issuing CA for network servers alone that could be renewed: ask without --renew";
            return Err(PkiError::Request { reason: reason.to_owned() });
        }
        let passphrase = passphrase(config)?;
        let place = Place::of(office, &self.dir);
        let path = if renew { place.key } else { place.next };
        let key = match path.exists() {
            true => SoftwareKey::read_encrypted(&path, &passphrase)?,
            false => {
                let key = SoftwareKey::generate()?;
                key.write_encrypted(&path, &passphrase)?;
                // Standbys get it too: who takes over can install what the root signs for it.
                self.changed.send_replace(());
                key
            }
        };
        Ok(request_issuing(&key, &self.federation)?)
    }

    /// Whose place a certificate (DER) can take, and its particulars.
    pub fn check(&self, config: &Config, certificate: &[u8]) -> Result<Candidate, PkiError> {
        let candidate = self.candidate(config, certificate)?;
        let permitted = constrained_to(certificate)?;
        check_constraint(candidate.office, permitted.as_ref(), &self.netids)?;
        Ok(candidate)
    }

    fn candidate(&self, config: &Config, certificate: &[u8]) -> Result<Candidate, PkiError> {
        let authorities = self.authorities();
        for office in Office::ALL {
            let Some(current) = authorities.of(office) else { continue };
            if let Ok(facts) = check_issuing(certificate, &self.root, current.public_key()) {
                return Ok(Candidate { office, renewed: true, facts });
            }
        }
        let mut why = PkiError::NoRequest;
        for office in Office::ALL {
            let next = Place::of(office, &self.dir).next;
            if !next.exists() {
                continue;
            }
            let key = SoftwareKey::read_encrypted(&next, &passphrase(config)?)?;
            match check_issuing(certificate, &self.root, key.public_key()) {
                Ok(facts) => return Ok(Candidate { office, renewed: false, facts }),
                Err(IssueError::OtherKey) => {}
                Err(error) => why = error.into(),
            }
        }
        Err(why)
    }

    /// Takes a certificate (DER) for an issuing CA: of the key in use, or of the next one, which then signs. The one of
    /// before goes on signing lists of what it has issued. Tells whether it is another CA.
    pub fn install(&self, config: &Config, certificate: &[u8]) -> Result<bool, PkiError> {
        let Candidate { office, renewed, .. } = self.check(config, certificate)?;
        let _one = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::of(office, &self.dir);
        if let Some(current) = self.authorities().of(office).filter(|_| !renewed) {
            place.set_aside(current)?;
        }
        place.install(certificate, renewed)?;
        self.read_again(config)?;
        Ok(!renewed)
    }

    /// Takes the issuing CA for network servers alone out of use. It goes on signing lists of what it has issued.
    pub fn retire(&self, config: &Config) -> Result<(), PkiError> {
        let _one = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::of(Office::Lns, &self.dir);
        if let Some(current) = &self.authorities().lns {
            place.set_aside(current)?;
        }
        place.clear()?;
        self.read_again(config)
    }

    fn read_again(&self, config: &Config) -> Result<(), PkiError> {
        let opened = Self::open(config, self.base.clone())?;
        self.authorities.store(opened.authorities.load_full());
        self.changed.send_replace(());
        Ok(())
    }

    /// The broker's own certificate: the one in the files while it is good, else a new one.
    pub async fn server(
        &self,
        names: &[ServerName],
        committer: &Committer,
        now: i64,
    ) -> Result<(TlsMaterial, i64), PkiError> {
        if let Some((chain, key, not_after)) = self.stored_server(names, now)? {
            return Ok((TlsMaterial { chain, key, clients: self.client_trust() }, not_after));
        }
        let profile = self.profile(Profile::BROKER_SERVER)?;
        let (key, issuer) = (SoftwareKey::generate()?, self.issuer_of(&profile));
        let issue = Issue {
            subject: Subject::Server(names.to_vec()),
            server_of: None,
            key: key.public_key().clone(),
            issuer: Arc::clone(&issuer),
            profile,
            serial: SerialNumber::from_entropy(entropy()?),
        };
        let issued = committer.commit(Actor::Broker, issue).await?;
        key.write_plain(&self.dir.join("server.key"))?;
        let chain = chain::to_pem([&issued.der[..], issuer.certificate()]);
        write_whole(&self.dir.join("server.pem"), chain.as_bytes(), 0o644)?;
        write_whole(&self.dir.join("server.names"), names_text(names).as_bytes(), 0o644)?;
        let chain = [issued.der, issuer.certificate().to_vec()].into_iter().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::Pkcs8(key.to_pkcs8()?.to_vec().into());
        let not_after = issued.certificate.not_after;
        Ok((TlsMaterial { chain, key, clients: self.client_trust() }, not_after))
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
        if issuing != self.authorities.load().issuer.certificate() || now >= facts.renew_at() {
            return Ok(None);
        }
        let key = read_key(&self.dir.join("server.key"))?;
        Ok(Some((certificates.into_iter().map(CertificateDer::from).collect(), key, facts.not_after)))
    }

    /// When the CA's own certificates end.
    pub fn expiries(&self) -> Vec<(String, i64)> {
        let end = |der: &[u8]| Facts::of(der).map_or(0, |facts| facts.not_after);
        let authorities = self.authorities.load();
        let mut ends = vec![
            ("root CA".to_owned(), end(&self.root)),
            (Office::General.name().to_owned(), authorities.issuer.facts().not_after),
        ];
        ends.extend(authorities.lns.iter().map(|lns| (Office::Lns.name().to_owned(), lns.facts().not_after)));
        let list = self.root_crl().and_then(|list| dnsbroker_ca::crl_times(&list).ok());
        ends.extend(list.map(|(_, next)| (crate::expiry::ROOT_LIST.to_owned(), next)));
        ends.extend(authorities.previous.iter().map(|old| (format!("issuing CA {}", old.id()), old.facts().not_after)));
        ends
    }
}

/// A certificate chain and key that the administrator brought.
pub fn brought(certificate: &Path, key: &Path, clients: ClientTrust) -> Result<(TlsMaterial, i64), PkiError> {
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
    Ok((TlsMaterial { chain, key: read_key(key)?, clients }, not_after))
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

/// Certificates of issuing CAs of before.
fn previous_certificates(dir: &Path) -> Result<Vec<PathBuf>, PkiError> {
    let dir = dir.join("previous");
    if !dir.exists() {
        return Ok(vec![]);
    }
    check_dir(&dir)?;
    let entries = std::fs::read_dir(&dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|source| PkiError::Read { path: dir.display().to_string(), source })?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pem"));
    paths.sort();
    Ok(paths)
}

/// A certificate that was signed for an issuing CA.
pub struct Candidate {
    /// Whose.
    pub office: Office,
    /// It is of the key in use.
    renewed: bool,
    /// Its particulars.
    pub facts: Facts,
}

/// The CA for network servers is constrained to names of NetIDs, and the other one is not.
fn check_constraint(office: Office, found: Option<&DomainName>, netids: &DomainName) -> Result<(), PkiError> {
    let reason = match (office, found) {
        (Office::General, None) => return Ok(()),
        (Office::Lns, Some(found)) if found == netids => return Ok(()),
        (Office::General, Some(found)) => format!(
            "it is constrained to {found}, and the issuing CA certifies members too: sign its request without --for lns"
        ),
        (Office::Lns, found) => format!(
            "an issuing CA for network servers is constrained to {netids}, and this one to {}: sign its request with \
             --for lns",
            found.map_or("nothing".to_owned(), ToString::to_string)
        ),
    };
    Err(PkiError::Request { reason })
}
