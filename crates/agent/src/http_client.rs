//! Requests to servers that are not of the federation: Join Servers and the APIs of network servers. HTTP/1.1, a connection
//! a request, everything bounded in time and size.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A server.
#[derive(Clone)]
pub struct HttpClient {
    base: Uri,
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    headers: HeaderMap,
}

/// What is to be sent.
pub struct Call {
    /// How.
    pub method: Method,
    /// Behind the base.
    pub path: String,
    /// The body.
    pub body: Bytes,
    /// Octets of the answer at most.
    pub limit: usize,
    /// Time in all.
    pub patience: Duration,
}

impl HttpClient {
    /// Of a base URL, http or https; `ca` and `identity` are files.
    pub fn new(url: &str, ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Self, String> {
        let wrong = || format!("{url:?} is no URL: http://HOST:PORT/PATH or https://HOST:PORT/PATH is meant");
        let base: Uri = url.parse().map_err(|_| wrong())?;
        let host = base.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let (port, tls) = match base.scheme_str() {
            Some("http") => (80, None),
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
                (443, Some((Arc::new(tls::foreign(ca, identity, &[b"http/1.1"])?), name)))
            }
            _ => return Err(wrong()),
        };
        Ok(Self { host, port: base.port_u16().unwrap_or(port), base, tls, headers: HeaderMap::new() })
    }

    /// Sends a header with each request.
    pub fn header(mut self, name: &'static str, value: &str) -> Result<Self, String> {
        let mut value =
            http::HeaderValue::from_str(value).map_err(|_| format!("the value of {name} is no header value"))?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Sends a request and takes the answer, whatever its status.
    pub async fn call(&self, call: Call) -> Result<(StatusCode, HeaderMap, Bytes), String> {
        let patience = call.patience;
        match tokio::time::timeout(patience, self.attempt(call)).await {
            Ok(answer) => answer.map_err(|reason| format!("{}: {reason}", self.base)),
            Err(_) => Err(format!("{}: no answer within {} ms", self.base, patience.as_millis())),
        }
    }

    /// `GET` of JSON, with status 200.
    pub async fn get_json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        limit: usize,
        patience: Duration,
    ) -> Result<T, String> {
        let call = Call { method: Method::GET, path: path.to_owned(), body: Bytes::new(), limit, patience };
        let (status, _, body) = self.call(call).await?;
        if status != StatusCode::OK {
            let words: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
            return Err(format!("{}{path}: HTTP status {status}: {words}", self.base));
        }
        serde_json::from_slice(&body)
            .map_err(|error| format!("{}{path}: the answer is not as expected: {error}", self.base))
    }

    async fn attempt(&self, call: Call) -> Result<(StatusCode, HeaderMap, Bytes), String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some((config, name)) => {
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                let connected = connector.connect(name.clone(), stream).await;
                Box::new(connected.map_err(|error| tls::words(&error))?)
            }
        };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let base = self.base.path_and_query().map_or("", |path| path.as_str());
        let target =
            if call.path.is_empty() { base.to_owned() } else { base.trim_end_matches('/').to_owned() + &call.path };
        let authority = self.base.authority().map_or(self.host.as_str(), |authority| authority.as_str());
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = target.parse().map_err(|_| format!("{target:?} is no path"))?;
        let host = http::HeaderValue::from_str(authority).map_err(|error| error.to_string())?;
        request.headers_mut().insert(http::header::HOST, host);
        request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
        if !matches!(*request.method(), Method::GET) {
            let json = http::HeaderValue::from_static("application/json");
            request.headers_mut().insert(http::header::CONTENT_TYPE, json);
        }
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, call.limit).collect().await.map_err(|error| error.to_string())?;
        Ok((head.status, head.headers, body.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_and_https_are_asked() {
        for url in ["http://127.0.0.1:8080", "http://js.example/path?x=1", "http://[::1]:80/"] {
            assert!(HttpClient::new(url, None, None).is_ok(), "{url}");
        }
        for url in ["ftp://a.example", "js.example", "http://", ""] {
            assert!(HttpClient::new(url, None, None).is_err(), "{url}");
        }
    }
}
