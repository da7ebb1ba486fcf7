//! The typed client of the REST API, over the control socket: what the admin commands are made of.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::problem::Problem;

/// Octets of one piece of an upload.
const PIECE: usize = 64 * 1024;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A client of one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

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
        source: std::io::Error,
    },
    /// The daemon refused.
    #[error("{0}")]
    Problem(Problem),
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

impl Client {
    /// Of the daemon behind a control socket.
    pub fn control(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_owned() }
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
    pub async fn follow(
        &self,
        path: &str,
        mut sink: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
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

    /// A call of an endpoint, with or without a body.
    pub(crate) async fn json<T: DeserializeOwned>(
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
        let body = body.collect().await?.to_bytes();
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
        let stream = tokio::net::UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { socket: self.socket.display().to_string(), source })?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(http::header::HOST, "dnsbroker");
        if let Some(media_type) = media_type {
            request = request.header(http::header::CONTENT_TYPE, media_type);
        }
        let answer = sender.send_request(request.body(body)?).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok((status, answer.into_body()));
        }
        let body = answer.into_body().collect().await?.to_bytes();
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(ClientError::Problem(problem)),
            Err(source) => Err(ClientError::Answer { status, source }),
        }
    }
}
