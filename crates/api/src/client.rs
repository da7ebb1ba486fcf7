//! The typed client of the REST API: over the control socket for the admin commands, over HTTPS for operators.

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::ReaderStream;

use crate::problem::Problem;

/// Octets of one piece of an upload.
const PIECE: usize = 64 * 1024;
/// Time to connect over the network and shake hands.
const CONNECT: Duration = Duration::from_secs(10);
/// Octets of an answer at most: a directory of all NetIDs there may be fits.
const ANSWER: usize = 64 * 1024 * 1024;

type Body = UnsyncBoxBody<Bytes, io::Error>;

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A client of one daemon. Each call is a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
}

/// How the daemon is reached.
#[derive(Debug, Clone)]
enum Way {
    Control(PathBuf),
    Https(Box<Https>),
}

#[derive(Debug, Clone)]
struct Https {
    base: Uri,
    host: String,
    port: u16,
    name: ServerName<'static>,
    addresses: Vec<IpAddr>,
    tls: Arc<rustls::ClientConfig>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon answers.
    #[error("no daemon answers at {socket}: is `dnsbroker serve` running, and may you open its control socket?")]
    Unreachable {
        /// The socket.
        socket: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No broker answers.
    #[error("no broker answers at {url}")]
    NoBroker {
        /// Where it should.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not the URL of an API.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// More than any answer needs.
    #[error("the answer is longer than {ANSWER} octets")]
    TooLong,
    /// The daemon refused.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The connection broke.
    #[error("the connection to the daemon broke")]
    Http(#[from] hyper::Error),
    /// A message could not be made.
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    /// An answer of another shape than expected.
    #[error("the daemon's answer (status {status}) cannot be read: is it of another version?")]
    Answer {
        /// Its status.
        status: StatusCode,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Not the URL of an API.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the URL of an API: give https://NAME or https://NAME:PORT")]
pub struct UrlError(String);

impl Client {
    /// Of the daemon behind a control socket.
    pub fn control(socket: impl AsRef<Path>) -> Self {
        Self { way: Way::Control(socket.as_ref().to_owned()) }
    }

    /// Of a broker's API. `addresses` are tried in turn; where there are none, the system is asked for them. The
    /// certificates to trust and to show are those of the TLS configuration.
    pub fn https(base_url: &str, addresses: Vec<IpAddr>, tls: &rustls::ClientConfig) -> Result<Self, UrlError> {
        let wrong = || UrlError(base_url.to_owned());
        let base: Uri = base_url.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let https = base.scheme_str() == Some("https") && matches!(base.path(), "" | "/") && base.query().is_none();
        let host = base.host().filter(|_| https).ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.trim_end_matches('.').to_owned()).map_err(|_| wrong())?;
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let port = base.port_u16().unwrap_or(443);
        Ok(Self { way: Way::Https(Box::new(Https { base, host, port, name, addresses, tls: Arc::new(tls) })) })
    }

    /// `POST` of what a reader gives, as it is read, so that a list of any length takes little memory.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        media_type: &'static str,
        reader: impl AsyncRead + Send + 'static,
    ) -> Result<T, ClientError> {
        self.upload_by(Method::POST, path, media_type, reader).await
    }

    /// The same by another method.
    pub async fn upload_by<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        media_type: &'static str,
        reader: impl AsyncRead + Send + 'static,
    ) -> Result<T, ClientError> {
        let pieces = ReaderStream::with_capacity(reader, PIECE).map_ok(Frame::data);
        self.call(method, path, Some(media_type), StreamBody::new(pieces).boxed_unsync()).await
    }

    /// `GET` of a stream of octets; `sink` gets them piece by piece.
    pub async fn download(&self, path: &str, mut sink: impl FnMut(&[u8])) -> Result<(), ClientError> {
        let mut body = self.send(Method::GET, path, None, whole(Bytes::new())).await?.1;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                sink(&data);
            }
        }
        Ok(())
    }

    /// `GET` of a stream without an end; `sink` gets it piece by piece until it breaks.
    pub async fn follow(&self, path: &str, mut sink: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), ClientError> {
        let mut body = self.send(Method::GET, path, None, whole(Bytes::new())).await?.1;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data()
                && sink(&data).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// A call by its path, with or without a body: for those that are not in the table of endpoints.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        // Our own messages always have a JSON form.
        match body.map(|body| serde_json::to_vec(body).unwrap_or_default()) {
            Some(body) => self.call(method, path, Some("application/json"), whole(body)).await,
            None => self.call(method, path, None, whole(Bytes::new())).await,
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        media_type: Option<&'static str>,
        body: Body,
    ) -> Result<T, ClientError> {
        let (status, body) = self.send(method, path, media_type, body).await?;
        let body = collect(body).await?;
        // "Nothing to say" reads as JSON's null, which is the unit type.
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|source| ClientError::Answer { status, source })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: Option<&'static str>,
        body: Body,
    ) -> Result<(StatusCode, Incoming), ClientError> {
        let io = hyper_util::rt::TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let host = match &self.way {
            Way::Control(_) => "dnsbroker",
            Way::Https(https) => https.base.authority().map_or(https.host.as_str(), |authority| authority.as_str()),
        };
        let mut request = Request::builder().method(method).uri(path).header(http::header::HOST, host);
        if let Some(media_type) = media_type {
            request = request.header(http::header::CONTENT_TYPE, media_type);
        }
        let answer = sender.send_request(request.body(body)?).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok((status, answer.into_body()));
        }
        let body = collect(answer.into_body()).await?;
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(ClientError::Problem(Box::new(problem))),
            Err(source) => Err(ClientError::Answer { status, source }),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        match &self.way {
            Way::Control(socket) => match UnixStream::connect(socket).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(source) => Err(ClientError::Unreachable { socket: socket.display().to_string(), source }),
            },
            Way::Https(https) => {
                let slow =
                    || io::Error::new(io::ErrorKind::TimedOut, format!("nothing within {} s", CONNECT.as_secs()));
                let connected = tokio::time::timeout(CONNECT, https.connect()).await;
                connected
                    .unwrap_or_else(|_| Err(slow()))
                    .map_err(|source| ClientError::NoBroker { url: https.base.to_string(), source })
            }
        }
    }
}

impl Https {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = if self.addresses.is_empty() {
            TcpStream::connect((self.host.as_str(), self.port)).await?
        } else {
            let addresses: Vec<_> = self.addresses.iter().map(|address| (*address, self.port).into()).collect();
            TcpStream::connect(&addresses[..]).await?
        };
        stream.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        Ok(Box::new(connector.connect(self.name.clone(), stream).await?))
    }
}

/// A body that is not longer than it may be.
async fn collect(mut body: Incoming) -> Result<Vec<u8>, ClientError> {
    let mut octets = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            octets.extend_from_slice(&data);
        }
        if octets.len() > ANSWER {
            return Err(ClientError::TooLong);
        }
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_url_of_an_api_is_taken() {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        for url in ["https://broker.fed.example", "https://broker.fed.example:8443/", "https://[::1]:8443"] {
            Client::https(url, vec![], &tls).expect(url);
        }
        for url in ["http://broker.fed.example", "broker.fed.example", "https://", "https://b.example/api/v1", ""] {
            assert!(matches!(Client::https(url, vec![], &tls), Err(UrlError(_))), "{url}");
        }
    }
}
