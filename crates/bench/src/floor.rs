//! The floor: the least that TLS, HTTP/2 and the operating system cost for an answer of the usual size.
//!
//! Its TLS and HTTP/2 settings are those of the broker's DoH front, and its answers have the same headers; it reads
//! a request to its end and looks at nothing. What the broker costs more is the broker's own work.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::answer::CONSTANT;
use crate::output;

/// The broker's settings: streams of a connection, octets of headers, sessions that can be resumed.
const STREAMS: u32 = 256;
const HEADER_OCTETS: u32 = 16 * 1024;
const SESSIONS: usize = 8_192;
/// The broker's bounds on resets and on octets in flight.
const PENDING_RESETS: usize = 64;
const ERROR_RESETS: usize = 256;
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The broker's PING.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_WITHIN: Duration = Duration::from_secs(20);

/// The command `floor`.
#[derive(Args)]
pub struct Floor {
    /// Address and port; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Server certificate and its chain
    #[arg(long, value_name = "PEM")]
    cert: PathBuf,
    /// Server key
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// What client certificates chain to
    #[arg(long, value_name = "PEM")]
    ca: PathBuf,
}

impl Floor {
    /// Serves until it is killed. The first line on stdout is the address.
    pub async fn run(self) -> anyhow::Result<()> {
        let acceptor = TlsAcceptor::from(Arc::new(self.tls()?));
        let listener =
            TcpListener::bind(self.listen).await.with_context(|| format!("cannot listen on {}", self.listen))?;
        output::line(&listener.local_addr()?.to_string())?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let acceptor = acceptor.clone();
                    // A connection that breaks is the client's to report.
                    tokio::spawn(async move { serve(acceptor, stream).await.ok() });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn tls(&self) -> anyhow::Result<ServerConfig> {
        let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let read = |path: &PathBuf| format!("cannot read {}", path.display());
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(&self.ca).with_context(|| read(&self.ca))? {
            roots.add(root?)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let chain = CertificateDer::pem_file_iter(&self.cert).with_context(|| read(&self.cert))?;
        let chain = chain.collect::<Result<_, _>>().with_context(|| read(&self.cert))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).with_context(|| read(&self.key))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier.clear_root_hint_subjects().build()?)
            .with_single_cert(chain, key)?;
        config.cert_decompressors = Vec::new();
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.send_tls13_tickets = 1;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    http2().serve_connection(TokioIo::new(stream), service_fn(respond)).await?;
    Ok(())
}

fn http2() -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_OCTETS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN);
    http
}

async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::POST {
        // Whatever came is answered alike.
        let _ = request.into_body().collect().await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(CONSTANT)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/dns-message"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=60"));
    Ok(response)
}
