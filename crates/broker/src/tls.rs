//! TLS 1.3: as server with a required certificate of the federation (DoH, XoT) or one that may be shown (the API), and as
//! client of members' primaries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dnsbroker_ca::{Facts, Fingerprint, Principal};
use dnsbroker_federation::DomainName;
use dnsbroker_store::Denial;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};

use crate::committer::now;
use crate::peer::{Identity, PeerError};
use crate::shared::Shared;

/// Server certificate and key, and what client certificates chain to.
pub struct TlsMaterial {
    /// The certificate and its issuing CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
    /// What client certificates are held against.
    pub clients: ClientTrust,
}

/// What client certificates chain to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTrust {
    /// Trust anchors.
    pub roots: Vec<CertificateDer<'static>>,
    /// The root's list of revoked issuing CAs. Those that members are issued by are not on it, and are anchors themselves, so
    /// that it costs a handshake nothing.
    pub revoked: Option<CertificateRevocationListDer<'static>>,
}

impl TlsMaterial {
    /// Whether certificate and key go together.
    pub fn check(&self) -> Result<(), TlsError> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider())?;
        Ok(())
    }

    /// The same again: keys are not `Clone`, so that copies are made on purpose.
    pub fn duplicate(&self) -> Self {
        let Self { chain, key, clients } = self;
        Self { chain: chain.clone(), key: key.clone_key(), clients: clients.clone() }
    }
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Certificate and key do not go together, or are of a kind that is not known.
    #[error("the server's certificate and key cannot be used")]
    Certificate(#[from] rustls::Error),
    /// The trust anchors are of no use.
    #[error("client certificates cannot be verified")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A configuration that can be swapped while connections go on.
pub struct TlsSwap(ArcSwap<ServerConfig>);

/// How a listener verifies and resumes.
pub struct Mutual<'a> {
    /// For admission at the handshake.
    pub shared: &'a Arc<Shared>,
    /// Whose principals are let in.
    pub federation: &'a DomainName,
    /// Sessions that can be resumed.
    pub sessions: usize,
    /// For members over HTTPS, or for members and replicas over DNS.
    pub service: Service,
}

/// What is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// DNS over HTTPS: members only.
    Doh,
    /// Zone transfers over TLS (RFC 9103): members and replicas.
    Xot,
    /// The API: whoever has a certificate of ours may show it, whoever has none comes without.
    Api,
}

impl TlsSwap {
    /// As the service wants certificates of its clients.
    pub fn mutual(material: &TlsMaterial, mutual: &Mutual<'_>) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::from_pointee(mutual_config(material, mutual)?)))
    }

    /// Takes other material; connections that are open go on as they are.
    pub fn replace_mutual(&self, material: &TlsMaterial, mutual: &Mutual<'_>) -> Result<(), TlsError> {
        self.0.store(Arc::new(mutual_config(material, mutual)?));
        Ok(())
    }

    /// The configuration for the next connection.
    pub fn load(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn mutual_config(material: &TlsMaterial, mutual: &Mutual<'_>) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in &material.clients.roots {
        roots.add(root.clone())?;
    }
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    // Leaves are looked up in the register, which knows more than a list.
    let chain = chain.with_crls(material.clients.revoked.clone()).allow_unknown_revocation_status();
    let chain = match mutual.service {
        // Browsers come here too, and ask their user for a certificate only if they have one of these CAs'.
        Service::Api => chain.allow_unauthenticated(),
        // The names of the CAs are left out: each member has one certificate for us, and the hint costs octets.
        Service::Doh | Service::Xot => chain.clear_root_hint_subjects(),
    };
    let (shared, federation) = (Arc::clone(mutual.shared), mutual.federation.clone());
    let verifier = PeerVerifier { chain: chain.build()?, shared, federation, service: mutual.service };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(material.chain.clone(), material.key.clone_key())?;
    // Ours goes out compressed, once and for all (RFC 8879); to open each client's would cost more than its octets.
    config.cert_decompressors = Vec::new();
    // One ticket of 32 octets that names a session kept here: a stateless ticket would carry the client certificate.
    config.session_storage = ServerSessionMemoryCache::new(mutual.sessions);
    config.send_tls13_tickets = usize::from(mutual.service != Service::Api);
    config.alpn_protocols = match mutual.service {
        Service::Doh | Service::Api => alpn(),
        Service::Xot => vec![DOT.to_vec()],
    };
    Ok(config)
}

/// A client of primaries (RFC 9103), with the broker's certificate. Sessions are not resumed: NSD's server fails on it.
pub fn client_config(material: &TlsMaterial, trust: Trust) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match trust {
        Trust::Roots(roots) => builder.with_root_certificates(roots),
        Trust::Pin(pin) => {
            let algorithms = provider().signature_verification_algorithms;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(PinVerifier { pin, algorithms }))
        }
    };
    let mut config = builder.with_client_auth_cert(material.chain.clone(), material.key.clone_key())?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![DOT.to_vec()];
    Ok(config)
}

/// A client of another broker's API.
pub fn https_client(
    roots: Vec<CertificateDer<'static>>,
    identity: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
) -> Result<ClientConfig, TlsError> {
    let mut trusted = RootCertStore::empty();
    for root in roots {
        trusted.add(root)?;
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = builder.with_root_certificates(trusted).with_client_auth_cert(identity.0, identity.1)?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A client of any web server, without a certificate.
pub fn plain_https_client(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    // Others' servers may not know TLS 1.3 yet.
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The ALPN of DNS over TLS.
const DOT: &[u8] = b"dot";

/// How a primary is verified.
pub enum Trust {
    /// Its certificate chains to one of these.
    Roots(RootCertStore),
    /// Its key has this SHA-256.
    Pin(Fingerprint),
}

/// Believes one key, whoever vouches for it (RFC 7858, section 4.2).
#[derive(Debug)]
struct PinVerifier {
    pin: Fingerprint,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match Facts::of(end_entity) {
            Ok(facts) if facts.key == self.pin => Ok(ServerCertVerified::assertion()),
            Ok(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// In our order of preference, whatever the client's: some offer http/1.1 first and do better with h2.
fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// Chain, identity and admission, so that the client gets the alert that fits and the log the cause in words.
///
/// A resumed session does not come this way: the front looks at the identity again after each handshake.
struct PeerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    shared: Arc<Shared>,
    federation: DomainName,
    service: Service,
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerVerifier({:?} of {})", self.service, self.federation)
    }
}

impl PeerVerifier {
    fn identify(&self, certificate: &[u8]) -> Result<(), PeerError> {
        let view = self.shared.view.load();
        if self.service == Service::Api {
            // Servers and gateways come to have theirs renewed, and so may one that has expired, where that is allowed.
            let facts = Facts::of(certificate)?;
            view.recognise(&facts)?;
            view.admit_holder(&facts.serial, now())?;
            return Ok(());
        }
        let identity = Identity::of(certificate, &self.federation)?;
        if self.service == Service::Doh && matches!(identity.principal, Principal::Replica(_)) {
            return Err(Denial::Replica.into());
        }
        identity.admit(&view, now())
    }

    /// When the chain is verified: now; for the API within the certificate's life, since `identify` knows of graces.
    fn moment(&self, certificate: &[u8], now: UnixTime) -> UnixTime {
        match Facts::of(certificate) {
            Ok(facts) if self.service == Service::Api => {
                let end = u64::try_from(facts.not_after).unwrap_or_default();
                UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().min(end)))
            }
            _ => now,
        }
    }
}

/// The refusal with the alert that fits (RFC 8446, section 6.2).
fn refused(error: PeerError) -> rustls::Error {
    let error = match error {
        PeerError::Denied(Denial::Revoked(_)) => CertificateError::Revoked,
        PeerError::Denied(Denial::Expired(_)) => CertificateError::Expired,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    error.into()
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.chain.verify_client_cert(end_entity, intermediates, self.moment(end_entity, now))?;
        self.identify(end_entity).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Whether an error of identity means no name, several names, or a stranger.
pub fn is_identity(error: &PeerError) -> bool {
    matches!(error, PeerError::Identity(_) | PeerError::Facts(_))
}

/// The error behind a refusal of ours, if it is one.
pub fn cause(error: &CertificateError) -> Option<&PeerError> {
    match error {
        CertificateError::Other(OtherError(inner)) => inner.downcast_ref(),
        _ => None,
    }
}
