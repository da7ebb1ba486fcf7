//! TLS 1.3 as client of brokers, with and without a certificate, and of servers that are not of the federation.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::files;
use crate::identity::certificates;
use crate::limits::SESSIONS;

/// The provider of all TLS here.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// For brokers: with our certificate; sessions are resumed.
pub fn mutual(
    roots: RootCertStore,
    mut chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    // Brokers know the CAs that issued it, which would cost a third of a handshake's octets.
    chain.truncate(1);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// For enrolment: nothing to show yet.
pub fn one_sided(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// For one public request, before there is anything to trust: `GET /api/v1/ca`. What comes is compared with the pin.
pub fn blind() -> Result<ClientConfig, rustls::Error> {
    let algorithms = provider().signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Blind(algorithms))).with_no_client_auth())
}

/// For servers that are not of the federation: Join Servers, APIs of network servers, databases.
pub fn foreign(ca: Option<&Path>, identity: Option<(&Path, &Path)>, alpn: &[&[u8]]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for root in certificates(path).map_err(|error| dnsbroker_api::problem::chain(&error))? {
                roots.add(root).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        None => {
            // A system certificate that rustls does not read is no reason to trust none of the others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate).map_err(|error| dnsbroker_api::problem::chain(&error))?;
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| error.to_string())?
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The key in a file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let octets = files::read_secret(path).map_err(|error| dnsbroker_api::problem::chain(&error))?;
    PrivateKeyDer::from_pem_slice(&octets).map_err(|error| format!("{} holds no private key: {error}", path.display()))
}

/// For our own TS002 endpoint; clients show a certificate of `client_ca`, if there is one.
pub fn server(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<rustls::ServerConfig, String> {
    let chain = certificates(certificate).map_err(|error| dnsbroker_api::problem::chain(&error))?;
    let builder = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for anchor in certificates(path).map_err(|error| dnsbroker_api::problem::chain(&error))? {
                roots.add(anchor).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| format!("{}: {error}", path.display()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, private_key(key)?).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// SHA-256 of a certificate, as pins are written.
pub fn pin(certificate: &[u8]) -> String {
    let digest = digest(&SHA256, certificate);
    let digits: String = digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    format!("sha256:{digits}")
}

/// Believes anybody, and so is used for nothing but what is compared with a pin afterwards.
#[derive(Debug)]
struct Blind(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// How a refusal of our certificate begins, in words.
pub const REFUSES: &str = "it refuses ";

/// What is heard of a connection that ends without a word.
pub const CUT_OFF: &str = "the connection was cut off";

/// A TLS failure in words that say what to do.
pub fn words(error: &std::io::Error) -> String {
    use rustls::AlertDescription as Alert;
    use rustls::CertificateError as Bad;
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(AlertReceived(Alert::CertificateRevoked)) => {
            "it refuses our certificate: revoked; ask the federation's administrator for a token and enrol again"
                .to_owned()
        }
        Some(AlertReceived(Alert::CertificateExpired)) => {
            "it refuses our certificate: expired; ask the federation's administrator for a token and enrol again"
                .to_owned()
        }
        Some(AlertReceived(alert)) => format!("it refuses us with alert {alert:?}: its log has the reason"),
        Some(InvalidCertificate(Bad::UnknownIssuer)) => {
            "its certificate is not of the federation's CA: somebody else answers there".to_owned()
        }
        Some(InvalidCertificate(bad)) => format!("its certificate is no good: {bad}"),
        Some(error) => error.to_string(),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => CUT_OFF.to_owned(),
        None => error.to_string(),
    }
}
