//! A standby's connection to its primary: HTTPS with its own certificate, verified by the federation's root.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use dnsbroker_api::message::Issued;
use dnsbroker_api::operator::Renew;
use dnsbroker_api::problem::Problem;
use dnsbroker_api::standby::StandbyCertificate;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::key::{read_secret, write_secret, write_whole};
use crate::tls::https_client;

/// Time to connect, shake hands, and get an answer's head.
const WITHIN: Duration = Duration::from_secs(10);
/// Octets of an answer that is not a stream.
const MAX_ANSWER: usize = 1024 * 1024;
/// The port that a URL need not name.
const HTTPS: u16 = 443;

/// Where the primary is, and with what it is spoken to.
#[derive(Debug, Clone)]
pub struct Link {
    /// URL of its API.
    pub url: String,
    /// Where to connect, if not where the URL's name leads.
    pub connect: Option<SocketAddr>,
    /// The federation's root, PEM.
    pub root: PathBuf,
    /// Directory of `client.pem` and `client.key`.
    pub credential: PathBuf,
}

/// What the primary refuses.
#[derive(Debug, thiserror::Error)]
#[error("the primary refuses: {0}")]
pub struct Refused(pub Problem);

impl Link {
    /// The way to the primary, for a broker that was made as a standby.
    pub fn of(config: &Config) -> Option<Self> {
        let standby = config.standby.as_ref()?;
        Some(Self {
            url: standby.primary.clone(),
            connect: standby.connect,
            root: config.path(&config.ca.dir).join("root.pem"),
            credential: config.path(&standby.credential),
        })
    }

    /// Host and port of the URL.
    fn authority(&self) -> anyhow::Result<(String, u16)> {
        let rest = self.url.strip_prefix("https://").context("the primary's URL begins with https://")?;
        let authority = rest.split('/').next().unwrap_or_default();
        match authority.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !port.contains(']') => {
                Ok((host.to_owned(), port.parse().with_context(|| format!("{port:?} is no port"))?))
            }
            _ if !authority.is_empty() => Ok((authority.to_owned(), HTTPS)),
            _ => bail!("the primary's URL {:?} names no host", self.url),
        }
    }

    /// Certificate and key that are shown to the primary.
    fn identity(&self) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let file = self.credential.join("client.pem");
        let chain = CertificateDer::pem_file_iter(&file).and_then(Iterator::collect);
        let chain = chain.map_err(|error| anyhow!("cannot read {}: {error}", file.display()))?;
        let file = self.credential.join("client.key");
        let key = PrivateKeyDer::from_pem_slice(&read_secret(&file)?);
        Ok((chain, key.map_err(|error| anyhow!("cannot read {}: {error}", file.display()))?))
    }

    /// A request and the head of its answer.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let (host, port) = self.authority()?;
        let root = CertificateDer::from_pem_file(&self.root)
            .map_err(|error| anyhow!("cannot read {}: {error}", self.root.display()))?;
        let (chain, key) = self.identity()?;
        let config = https_client(vec![root], (chain, key))?;
        let name = ServerName::try_from(host.clone()).map_err(|_| anyhow!("{host:?} is no host name"))?;
        let exchange = async {
            let stream = match self.connect {
                Some(address) => TcpStream::connect(address).await,
                None => TcpStream::connect((host.as_str(), port)).await,
            };
            let stream = stream.with_context(|| format!("no connection to {}", self.url))?;
            stream.set_nodelay(true)?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let tls = connector.connect(name, stream).await.with_context(|| format!("no TLS with {}", self.url))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
            tokio::spawn(connection);
            let mut request =
                http::Request::builder().method(method).uri(path).header(http::header::HOST, host.as_str());
            if body.is_some() {
                request = request.header(http::header::CONTENT_TYPE, "application/json");
            }
            let body = Full::new(Bytes::from(body.unwrap_or_default()));
            // In TLS 1.3 a certificate is refused after the handshake.
            let answer = sender.send_request(request.body(body)?).await;
            answer.with_context(|| format!("{} does not answer this standby", self.url))
        };
        let answer = tokio::time::timeout(WITHIN, exchange).await;
        answer.map_err(|_| anyhow!("no answer from {} within {} seconds", self.url, WITHIN.as_secs()))?
    }

    /// The body of an answer that is a stream.
    pub async fn stream(&self, path: &str) -> anyhow::Result<Incoming> {
        let answer = self.send(Method::GET, path, None).await?;
        let status = answer.status();
        if status.is_success() { Ok(answer.into_body()) } else { Err(refused(status, answer.into_body()).await) }
    }

    /// A message and its answer.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let answer = self.send(Method::POST, path, Some(serde_json::to_vec(body)?)).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(refused(status, answer.into_body()).await);
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect();
        let body =
            tokio::time::timeout(WITHIN, body).await?.map_err(|error| anyhow!("the answer broke off: {error}"))?;
        let body = body.to_bytes();
        serde_json::from_slice(if body.is_empty() { b"null" } else { &body })
            .context("the primary's answer does not read")
    }

    /// Has the standby's server certified by the primary; certificate, key and names go to the CA's directory, where the
    /// daemon looks for its own.
    pub async fn certify(&self, ca: &Path) -> anyhow::Result<()> {
        let (csr, key) = request()?;
        let issued: Issued = self.post("/api/v1/replication/certificate", &StandbyCertificate { csr }).await?;
        write_secret(&ca.join("server.key"), key.as_bytes())?;
        write_whole(&ca.join("server.pem"), issued.chain.as_bytes(), 0o644)?;
        let names: String = issued.certificate.names.iter().map(|name| format!("{name}\n")).collect();
        Ok(write_whole(&ca.join("server.names"), names.as_bytes(), 0o644)?)
    }

    /// Has the certificate renewed that is shown to the primary.
    pub async fn renew(&self) -> anyhow::Result<()> {
        let (csr, key) = request()?;
        let issued: Issued = self.post("/api/v1/renew", &Renew { csr }).await?;
        write_secret(&self.credential.join("client.key"), key.as_bytes())?;
        Ok(write_whole(&self.credential.join("client.pem"), issued.chain.as_bytes(), 0o644)?)
    }
}

async fn refused(status: StatusCode, body: Incoming) -> anyhow::Error {
    let body = tokio::time::timeout(WITHIN, Limited::new(body, MAX_ANSWER).collect()).await;
    let problem = body.ok().and_then(Result::ok).and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    match problem {
        Some(problem) => Refused(problem).into(),
        None => anyhow!("the primary answers {status}"),
    }
}

/// A new key, and a request for a certificate with it, both PEM.
fn request() -> anyhow::Result<(String, Zeroizing<String>)> {
    let key = rcgen::KeyPair::generate().context("cannot make a key")?;
    let mut params = rcgen::CertificateParams::default();
    // The CA takes the key and nothing else from a request.
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).context("cannot make a certificate request")?;
    Ok((csr, Zeroizing::new(key.serialize_pem())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_maybe_a_port() {
        let link =
            |url: &str| Link { url: url.to_owned(), connect: None, root: PathBuf::new(), credential: PathBuf::new() };
        let authority = |url: &str| link(url).authority().ok();
        assert_eq!(authority("https://broker.fed.example"), Some(("broker.fed.example".to_owned(), 443)));
        assert_eq!(authority("https://broker.fed.example:8443/x"), Some(("broker.fed.example".to_owned(), 8443)));
        for wrong in ["http://b", "https://", "b:1", "https://b:x"] {
            assert_eq!(authority(wrong), None, "{wrong}");
        }
    }
}
