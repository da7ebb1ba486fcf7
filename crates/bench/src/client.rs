//! A DoH client over one HTTP/2 connection with a client certificate; it counts the octets of the connection.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use dnsbroker_api::line::{Line, gather};
use h2::client::SendRequest;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, StatusCode, Uri};
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::answer::rcode;

/// Where to and as whom.
#[derive(Args, Debug, Clone)]
pub struct Target {
    /// Address and port of the server
    #[arg(long)]
    pub connect: SocketAddr,
    /// The name in its certificate
    #[arg(long)]
    pub server_name: String,
    /// What its certificate chains to
    #[arg(long, value_name = "PEM")]
    pub ca: PathBuf,
    /// Client certificate and its chain
    #[arg(long, value_name = "PEM")]
    pub cert: PathBuf,
    /// Client key
    #[arg(long, value_name = "PEM")]
    pub key: PathBuf,
}

/// How questions are sent (RFC 8484, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// In the target, as base64url.
    Get,
    /// In the body.
    Post,
}

/// Makes connections.
#[derive(Clone)]
pub struct Connector {
    address: SocketAddr,
    name: ServerName<'static>,
    authority: Authority,
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// Reads certificates and key. Sessions are not resumed.
    pub fn new(target: &Target) -> anyhow::Result<Self> {
        let read = |path: &PathBuf| format!("cannot read {}", path.display());
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(&target.ca).with_context(|| read(&target.ca))? {
            roots.add(root?)?;
        }
        let chain = CertificateDer::pem_file_iter(&target.cert).with_context(|| read(&target.cert))?;
        let chain = chain.collect::<Result<_, _>>().with_context(|| read(&target.cert))?;
        let key = PrivateKeyDer::from_pem_file(&target.key).with_context(|| read(&target.key))?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        tls.resumption = Resumption::disabled();
        let authority = format!("{}:{}", target.server_name, target.connect.port());
        Ok(Self {
            address: target.connect,
            name: ServerName::try_from(target.server_name.clone())?,
            authority: authority.parse()?,
            tls: Arc::new(tls),
        })
    }

    /// The same with tickets of its own, so that each connection resumes the session of the one before.
    pub fn resuming(&self) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.resumption = Resumption::in_memory_sessions(4);
        Self { tls: Arc::new(tls), ..self.clone() }
    }

    /// Connects and shakes hands.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let tcp =
            TcpStream::connect(self.address).await.with_context(|| format!("cannot connect to {}", self.address))?;
        let (line, sending) = gather(tcp)?;
        let traffic = Arc::new(Traffic::default());
        let counted = Counted { line, traffic: Arc::clone(&traffic) };
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(self.name.clone(), counted);
        let tls = sending.during(tls).await.context("the TLS handshake failed")?;
        ensure!(tls.get_ref().1.alpn_protocol() == Some(b"h2"), "the server does not speak HTTP/2");
        let resumed = tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let (send, driver) = h2::client::handshake(tls).await.context("HTTP/2 did not begin")?;
        let driver = tokio::spawn(async move { sending.during(driver).await });
        Ok(Connection { sender: Sender { send, authority: self.authority.clone() }, driver, traffic, resumed })
    }
}

/// An open connection.
pub struct Connection {
    /// Sends on it.
    pub sender: Sender,
    driver: JoinHandle<Result<(), h2::Error>>,
    traffic: Arc<Traffic>,
    /// Whether its handshake resumed a session.
    pub resumed: bool,
}

impl Connection {
    /// Closes it; gives the octets sent and received, those of TLS included.
    pub async fn close(self) -> (u64, u64) {
        drop(self.sender);
        // How a connection ends after its last answer is of no interest.
        let _ = self.driver.await;
        (self.traffic.sent.load(Ordering::Relaxed), self.traffic.received.load(Ordering::Relaxed))
    }
}

/// One stream's end of a connection.
#[derive(Clone)]
pub struct Sender {
    send: SendRequest<Bytes>,
    authority: Authority,
}

impl Sender {
    /// Asks, and checks that the answer has status 200 and the RCODE expected.
    pub async fn ask(&mut self, method: Method, message: &[u8], expected: u8) -> anyhow::Result<()> {
        let mut send = self.send.clone().ready().await?;
        let (response, mut body) = send.send_request(self.request(method, message)?, method == Method::Get)?;
        if method == Method::Post {
            body.send_data(Bytes::copy_from_slice(message), true)?;
        }
        let response = response.await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut answer = Bytes::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            answer = if answer.is_empty() { data } else { [answer, data].concat().into() };
        }
        if status != StatusCode::OK {
            bail!("status {status}: {}", String::from_utf8_lossy(&answer).trim());
        }
        match rcode(&answer) {
            Some(found) if found == expected => Ok(()),
            Some(found) => bail!("rcode {found} where {expected} is right"),
            None => bail!("the answer is no DNS response"),
        }
    }

    fn request(&self, method: Method, message: &[u8]) -> anyhow::Result<Request<()>> {
        const TYPE: &str = "application/dns-message";
        let path = match method {
            Method::Get => {
                let mut path = String::with_capacity(160);
                path.push_str("/dns-query?dns=");
                BASE64_URL_SAFE_NO_PAD.encode_string(message, &mut path);
                PathAndQuery::from_maybe_shared(Bytes::from(path))?
            }
            Method::Post => PathAndQuery::from_static("/dns-query"),
        };
        let uri =
            Uri::builder().scheme(Scheme::HTTPS).authority(self.authority.clone()).path_and_query(path).build()?;
        let request = Request::builder().uri(uri).header("accept", TYPE);
        Ok(match method {
            Method::Get => request.method(http::Method::GET).body(())?,
            Method::Post => request
                .method(http::Method::POST)
                .header("content-type", TYPE)
                .header("content-length", message.len())
                .body(())?,
        })
    }
}

/// Octets of a connection.
#[derive(Default)]
struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

/// A TCP connection whose octets are counted.
struct Counted {
    line: Line,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.line).poll_read(cx, buf);
        self.traffic.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl Counted {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
        written
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.line).poll_write(cx, data);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.line).poll_write_vectored(cx, data);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.line.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}
