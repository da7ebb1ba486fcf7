//! One POST to a webhook: where it may go, how its server is verified, how long it may take.
//!
//! A member chooses the URL, and the broker stands in a network that the member is not in. So members' webhooks do not
//! reach loopback, link-local and private addresses unless the configuration says so. The name is resolved here, once, and
//! the connection goes to an address that was looked at: a name that changes between the two gains nothing. Redirects are
//! not followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::WebhookConfig;
use super::message::Message;
use crate::committer::now;
use crate::config::Config;
use crate::tls::plain_https_client;

/// Time for one attempt in all.
const WITHIN: Duration = Duration::from_secs(15);
/// Octets of an answer that are read, so that the server sees its end; what it says is of no interest.
const ANSWER: usize = 64 * 1024;
/// Where systems keep the CAs they trust.
const SYSTEM_CAS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The URL.
    #[error("the URL {0}")]
    Url(&'static str),
    /// No address.
    #[error("{host} has no address: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// Only addresses that a member's webhook may not reach.
    #[error("{host} is at {address}, which is not for webhooks of members (webhooks.allow_private)")]
    Private {
        /// The name.
        host: String,
        /// The first of its addresses.
        address: IpAddr,
    },
    /// No CAs to verify the server by.
    #[error("no CAs are known to verify the server by: {0}")]
    Cas(String),
    /// The connection or the exchange.
    #[error("{0}")]
    Exchange(String),
    /// It took too long.
    #[error("it took longer than {} seconds", WITHIN.as_secs())]
    Slow,
    /// Another status than 2xx.
    #[error("it answers {0}")]
    Status(StatusCode),
}

/// Whether an address is one of the public Internet.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || a == 0
        || a >= 240
        // Shared by carriers (RFC 6598), protocol assignments (RFC 6890), benchmarks (RFC 2544).
        || (a == 100 && (b & 0xc0) == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b & 0xfe) == 18);
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // An address of IPv4 in another dress: NAT64 (RFC 6052), 6to4 (RFC 3056).
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(Ipv4Addr::from((u32::from(segments[6]) << 16) | u32::from(segments[7])));
    }
    if segments[0] == 0x2002 {
        return is_public_v4(Ipv4Addr::from((u32::from(segments[1]) << 16) | u32::from(segments[2])));
    }
    // Global unicast is 2000::/3; Teredo is within and leads anywhere.
    (segments[0] & 0xe000) == 0x2000 && segments[..2] != [0x2001, 0]
}

/// How messages go out.
pub struct Poster {
    allow_private: bool,
    ca_file: Option<PathBuf>,
}

impl Poster {
    /// As the configuration has it, for a member's webhook or for an administrator's.
    pub fn new(config: &Config, of_member: bool) -> Self {
        let WebhookConfig { allow_private, ca_file, .. } = &config.webhooks;
        Self { allow_private: *allow_private || !of_member, ca_file: ca_file.as_ref().map(|file| config.path(file)) }
    }

    /// Posts a message once.
    pub async fn post(&self, url: &str, message: &Message, secret: &[u8]) -> Result<(), PostError> {
        tokio::time::timeout(WITHIN, self.exchange(url, message, secret)).await.unwrap_or(Err(PostError::Slow))
    }

    async fn exchange(&self, url: &str, message: &Message, secret: &[u8]) -> Result<(), PostError> {
        let uri: Uri = url.parse().map_err(|_| PostError::Url("does not read"))?;
        let host = uri.host().ok_or(PostError::Url("names no host"))?.trim_matches(['[', ']']).to_owned();
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if self.allow_private => false,
            Some("http") => return Err(PostError::Url("of a member's webhook begins with https://")),
            _ => return Err(PostError::Url("begins with neither https:// nor http://")),
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let address = self.address(&host, port).await?;
        let broken = |error: &dyn std::error::Error| PostError::Exchange(dnsbroker_api::problem::chain(error));
        let stream = TcpStream::connect(address).await.map_err(|error| broken(&error))?;
        let request = self.request(&uri, message, secret)?;
        let status = if tls {
            let config = plain_https_client(roots(self.ca_file.as_deref())?).map_err(|error| broken(&error))?;
            let name = ServerName::try_from(host).map_err(|_| PostError::Url("has no host name"))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            send(connector.connect(name, stream).await.map_err(|error| broken(&error))?, request).await?
        } else {
            send(stream, request).await?
        };
        if status.is_success() { Ok(()) } else { Err(PostError::Status(status)) }
    }

    async fn address(&self, host: &str, port: u16) -> Result<SocketAddr, PostError> {
        let failed = |reason: String| PostError::Resolve { host: host.to_owned(), reason };
        let found = tokio::net::lookup_host((host, port)).await.map_err(|error| failed(error.to_string()))?;
        let found: Vec<SocketAddr> = found.collect();
        let first = found.first().ok_or_else(|| failed("it has none".to_owned()))?.ip();
        let may = found.into_iter().find(|address| self.allow_private || is_public(address.ip()));
        may.ok_or(PostError::Private { host: host.to_owned(), address: first })
    }

    fn request(&self, uri: &Uri, message: &Message, secret: &[u8]) -> Result<Request<Full<Bytes>>, PostError> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        // Names and passwords in a URL are not for the Host header.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let timestamp = now();
        Request::post(path)
            .header(http::header::HOST, authority)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::USER_AGENT, concat!("dnsbroker/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", message.signature(secret, timestamp))
            .body(Full::new(Bytes::from(message.body.clone())))
            .map_err(|_| PostError::Url("cannot be asked for"))
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, PostError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| PostError::Exchange(dnsbroker_api::problem::chain(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    // The status is all that counts.
    let _ = Limited::new(answer.into_body(), ANSWER).collect().await;
    connection.abort();
    Ok(status)
}

/// The CAs of a file, or the system's.
fn roots(file: Option<&Path>) -> Result<RootCertStore, PostError> {
    let system = || SYSTEM_CAS.iter().map(Path::new).find(|path| path.exists());
    let file = file.or_else(system).ok_or_else(|| PostError::Cas("set webhooks.ca_file".to_owned()))?;
    let failed = |error: String| PostError::Cas(format!("{}: {error}", file.display()));
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(read.map_err(|error| failed(error.to_string()))?);
    if added == 0 { Err(failed("it has no CA that can be used".to_owned())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for public in ["8.8.8.8", "192.1.0.1", "100.128.0.1", "2001:db9::1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
        for private in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(private.parse().expect("an address")), "{private}");
        }
    }

    #[tokio::test]
    async fn a_members_webhook_reaches_nothing_private_and_needs_tls() {
        let poster = Poster { allow_private: false, ca_file: None };
        let message = Message { id: "evt_1".to_owned(), body: vec![] };
        for url in ["https://127.0.0.1:1/", "https://localhost/", "https://[::1]/x", "https://[::ffff:127.0.0.1]/"] {
            let refused = poster.post(url, &message, b"x").await.expect_err("refused");
            assert!(matches!(refused, PostError::Private { .. }), "{url}: {refused}");
        }
        for url in ["http://example.com/", "ftp://example.com/", "https:///", "x"] {
            let refused = poster.post(url, &message, b"x").await.expect_err("refused");
            assert!(matches!(refused, PostError::Url(_)), "{url}: {refused}");
        }
    }
}
