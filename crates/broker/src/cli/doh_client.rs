//! One look-up over DoH with a member's certificate: how the quickstart proves that what it made works.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Files of a member.
pub(super) struct Identity<'a> {
    /// What it trusts.
    pub(super) ca: &'a Path,
    /// Certificate and issuing CA.
    pub(super) certificate: &'a Path,
    /// The key.
    pub(super) key: &'a Path,
}

/// Asks for the addresses of a name.
pub(super) async fn resolve(server: SocketAddr, identity: &Identity<'_>, name: &str) -> anyhow::Result<Message> {
    let mut query = Message::new(0, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    let query = query.to_vec()?;
    let stream = TcpStream::connect(server).await.with_context(|| format!("cannot connect to {server}"))?;
    let connector = TlsConnector::from(Arc::new(client_config(identity)?));
    let tls =
        connector.connect(ServerName::IpAddress(server.ip().into()), stream).await.context("the handshake failed")?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    let request = http::Request::post(format!("https://{server}/dns-query"))
        .header(http::header::CONTENT_TYPE, "application/dns-message")
        .header(http::header::ACCEPT, "application/dns-message")
        .body(Full::new(Bytes::from(query)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("the broker answers {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(Message::from_vec(&body)?)
}

fn client_config(identity: &Identity<'_>) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for root in certificates(identity.ca)? {
        roots.add(root)?;
    }
    let key = PrivateKeyDer::from_pem_file(identity.key)
        .map_err(|error| anyhow!("cannot read the key {}: {error}", identity.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(identity.certificate)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| anyhow!("cannot read the certificates {}: {error}", file.display()))
}
