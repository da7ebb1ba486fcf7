//! One broker: a warm HTTP/2 connection with our certificate, opened anew with a resumed session when it breaks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use dnsbroker_api::line::{Line, Sending, gather};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify, watch};
use tokio_rustls::client::TlsStream;

use super::plain::Plain;
use crate::limits::{BACKOFF, CONNECT, EXCHANGE, FIRST_REQUEST, LAST_WORDS, MESSAGE, PATIENCE, PING, VERDICT};
use crate::tls::{CUT_OFF, REFUSES, words};

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/dns-message");

/// Where a broker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `https://host:port/path`.
    pub uri: Uri,
    /// The host of it.
    pub host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Place {
    /// Of a URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || format!("{url:?} is no DoH URL: https://NAME:PORT/dns-query is meant");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(wrong)?;
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let port = uri.port_u16().unwrap_or(443);
        Ok(Self { uri, host, port, name })
    }

    /// What to ask for a query (RFC 8484, section 4.1).
    fn target(&self, query: &[u8]) -> Result<Uri, http::uri::InvalidUri> {
        let separator = if self.uri.query().is_some() { '&' } else { '?' };
        format!("{}{separator}dns={}", self.uri, BASE64_URL_SAFE_NO_PAD.encode(query)).parse()
    }
}

/// Why a broker gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// It does not let us in.
    #[error("refused: {0}")]
    Refused(String),
    /// We asked for too many names that nobody has.
    #[error("too many unknown names were asked for; it answers again in {0} s at most")]
    Busy(u64),
    /// Another HTTP status.
    #[error("HTTP status {0}{1}")]
    Http(StatusCode, String),
    /// An answer to something else, or about names of others.
    #[error("its answer is a lie: {0}")]
    Lie(&'static str),
    /// SERVFAIL, or another response code that is no answer.
    #[error("it answers {0}")]
    NoAnswer(&'static str),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// It failed a moment ago.
    #[error("left alone after: {0}")]
    Backoff(String),
    /// We have no certificate, or one that is over.
    #[error("{0}")]
    Identity(String),
}

impl Failure {
    /// The label of a metric.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Refused(_) => "refused",
            Self::Busy(_) => "busy",
            Self::Http(..) => "http",
            Self::Lie(_) => "lie",
            Self::NoAnswer(_) => "rcode",
            Self::TimedOut => "timeout",
            Self::Backoff(_) => "backoff",
            Self::Identity(_) => "identity",
        }
    }

    /// All labels.
    pub const LABELS: [&'static str; 9] =
        ["connect", "refused", "busy", "http", "lie", "rcode", "timeout", "backoff", "identity"];
}

/// What is counted of a broker.
#[derive(Default)]
pub struct Counts {
    /// Questions sent.
    pub asked: AtomicU64,
    /// Answers taken.
    pub answered: AtomicU64,
    /// Handshakes in full and resumed.
    pub handshakes: [AtomicU64; 2],
    /// Failures, by label.
    pub failures: [AtomicU64; Failure::LABELS.len()],
}

/// A broker.
pub struct Broker {
    /// Where it is.
    pub place: Place,
    addresses: ArcSwap<Vec<IpAddr>>,
    bootstrap: Arc<Plain>,
    link: Mutex<Option<Link>>,
    /// Microseconds of an exchange, smoothed; 0 is not known.
    rtt: AtomicU32,
    trouble: StdMutex<Option<Trouble>>,
    /// What is counted.
    pub counts: Counts,
}

/// A connection.
#[derive(Clone)]
struct Link {
    sender: SendRequest<Empty<Bytes>>,
    /// Why it ended, once it has: a request only hears that it did.
    ended: watch::Receiver<Option<String>>,
    /// The first request has been handed over.
    begun: Arc<Notify>,
}

impl Link {
    /// Why it ended, or what the request heard.
    async fn reason(mut self, heard: String) -> String {
        match tokio::time::timeout(LAST_WORDS, self.ended.wait_for(Option::is_some)).await {
            Ok(Ok(words)) => words.clone().filter(|words| !words.is_empty()).unwrap_or(heard),
            Ok(Err(_)) | Err(_) => heard,
        }
    }
}

#[derive(Clone)]
struct Trouble {
    failure: Failure,
    until: Instant,
    pause: Duration,
}

impl Broker {
    /// At a place. Its addresses are those given; where there are none, `bootstrap` is asked for them.
    pub fn new(place: Place, addresses: Vec<IpAddr>, bootstrap: Arc<Plain>) -> Arc<Self> {
        Arc::new(Self {
            place,
            addresses: ArcSwap::from_pointee(addresses),
            bootstrap,
            link: Mutex::new(None),
            rtt: AtomicU32::new(0),
            trouble: StdMutex::new(None),
            counts: Counts::default(),
        })
    }

    /// Takes other addresses.
    pub fn set_addresses(&self, addresses: Vec<IpAddr>) {
        self.addresses.store(Arc::new(addresses));
    }

    /// The addresses that are known.
    pub fn addresses(&self) -> Arc<Vec<IpAddr>> {
        self.addresses.load_full()
    }

    /// How long an exchange takes.
    pub fn rtt(&self) -> Option<Duration> {
        Some(self.rtt.load(Ordering::Relaxed)).filter(|rtt| *rtt > 0).map(|rtt| Duration::from_micros(rtt.into()))
    }

    /// Its last failure, if it has not answered since.
    pub fn trouble(&self) -> Option<Failure> {
        self.trouble_now().map(|trouble| trouble.failure)
    }

    /// Whether a connection is open.
    pub fn is_connected(&self) -> bool {
        // Where the lock is taken a connection is being made.
        self.link.try_lock().is_ok_and(|link| link.as_ref().is_some_and(|link| !link.sender.is_closed()))
    }

    /// Closes the connection, for example because there is a new certificate.
    pub async fn close(&self) {
        *self.link.lock().await = None;
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sends a query and takes what comes back, within [`EXCHANGE`].
    pub async fn exchange(&self, query: Bytes, tls: &Arc<ClientConfig>) -> Result<Bytes, Failure> {
        if let Some(trouble) = self.trouble_now() {
            let left = trouble.until.saturating_duration_since(Instant::now());
            if left > PATIENCE {
                return Err(Failure::Backoff(trouble.failure.to_string()));
            }
            // A network server does not ask again: a moment's wait is better than no answer.
            tokio::time::sleep(left).await;
        }
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(EXCHANGE, self.attempt(query, tls)).await {
            Ok(result) => result,
            Err(_) => {
                // What is silent for so long is broken: the next one connects anew.
                if let Ok(mut link) = self.link.try_lock() {
                    *link = None;
                }
                Err(Failure::TimedOut)
            }
        }
    }

    /// An answer was good.
    pub fn succeeded(&self) {
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// An answer did not come, or was none. From then on others are asked for a while, longer each time.
    pub fn failed(&self, failure: &Failure) {
        let index = Failure::LABELS.iter().position(|label| *label == failure.label()).unwrap_or_default();
        self.counts.failures[index].fetch_add(1, Ordering::Relaxed);
        if matches!(failure, Failure::Backoff(_) | Failure::Identity(_)) {
            return;
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match &*trouble {
            // Those that failed together count once.
            Some(before) if Instant::now() < before.until => before.pause,
            Some(before) => (before.pause * 2).min(BACKOFF.1),
            None => BACKOFF.0,
        };
        let pause = match failure {
            Failure::Busy(seconds) => Duration::from_secs((*seconds).clamp(1, 60)),
            _ => pause,
        };
        if trouble.is_none() {
            tracing::warn!(broker = %self.place.uri, %failure, "a broker gives no answer");
        }
        *trouble = Some(Trouble { failure: failure.clone(), until: Instant::now() + pause, pause });
    }

    fn trouble_now(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_rtt(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let before = self.rtt.load(Ordering::Relaxed);
        let smooth = if before == 0 { took } else { (u64::from(before) * 7 + u64::from(took)).div_ceil(8) as u32 };
        self.rtt.store(smooth, Ordering::Relaxed);
    }

    async fn attempt(&self, query: Bytes, tls: &Arc<ClientConfig>) -> Result<Bytes, Failure> {
        let mut last = String::new();
        // A connection may be closed while the request is on its way to it: then once more.
        for _ in 0..2 {
            let mut open = match self.open(tls).await {
                // A resumed session is looked at once more behind the handshake, and closed without a word.
                Err(Failure::Connect(words)) if words == CUT_OFF => {
                    last = words;
                    continue;
                }
                open => open?,
            };
            // Connecting does not count: it tells nothing of the next exchange.
            let begun = Instant::now();
            match self.request(&mut open, query.clone()).await {
                Ok(answer) => {
                    self.note_rtt(begun.elapsed());
                    return Ok(answer);
                }
                Err(Attempt::Failed(failure)) => return Err(failure),
                Err(Attempt::Broken(heard)) => {
                    last = open.reason(heard).await;
                    let mut link = self.link.lock().await;
                    if link.as_ref().is_some_and(|link| link.sender.is_closed()) {
                        *link = None;
                    }
                }
            }
        }
        let last = if last.starts_with(REFUSES) { last } else { self.verdict(tls).await.unwrap_or(last) };
        if last.starts_with(REFUSES) { Err(Failure::Refused(last)) } else { Err(Failure::Connect(last)) }
    }

    async fn request(&self, link: &mut Link, query: Bytes) -> Result<Bytes, Attempt> {
        // GET is one frame and so one packet; POST would be two.
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.place.target(&query).map_err(|error| Attempt::Broken(error.to_string()))?;
        request.headers_mut().insert(ACCEPT, MEDIA_TYPE);
        let response = link.sender.send_request(request);
        link.begun.notify_one();
        let response = response.await.map_err(|error| Attempt::Broken(http_words(&error)))?;
        let status = response.status();
        let retry_after = response.headers().get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.parse().ok());
        let is_dns = response.headers().get(CONTENT_TYPE) == Some(&MEDIA_TYPE);
        let body = Limited::new(response.into_body(), MESSAGE).collect().await;
        let body = body.map_err(|error| Attempt::Broken(error.to_string()))?.to_bytes();
        match status {
            StatusCode::OK if is_dns => Ok(body),
            StatusCode::OK => Err(Attempt::Failed(Failure::Lie("it is not of the type application/dns-message"))),
            StatusCode::FORBIDDEN => Err(Attempt::Failed(Failure::Refused(said(&body)))),
            StatusCode::TOO_MANY_REQUESTS => Err(Attempt::Failed(Failure::Busy(retry_after.unwrap_or(60)))),
            status => {
                let words = Some(said(&body)).filter(|words| !words.is_empty());
                let words = words.map_or_else(String::new, |words| format!(": {words}"));
                Err(Attempt::Failed(Failure::Http(status, words)))
            }
        }
    }

    /// The open connection, or a new one. Who comes meanwhile waits for the same.
    async fn open(&self, tls: &Arc<ClientConfig>) -> Result<Link, Failure> {
        let mut link = self.link.lock().await;
        if let Some(open) = link.as_ref().filter(|link| !link.sender.is_closed()) {
            return Ok(open.clone());
        }
        let connected = tokio::time::timeout(CONNECT, self.connect(tls)).await;
        let open = connected.unwrap_or(Err(Failure::TimedOut))?;
        *link = Some(open.clone());
        Ok(open)
    }

    /// Why a broker closes its connections at once, if it says so. In TLS 1.3 a refusal of our certificate comes after the
    /// handshake, and who writes meanwhile hears only that the connection broke: so it is asked for once more, in silence.
    async fn verdict(&self, tls: &Arc<ClientConfig>) -> Option<String> {
        let mut tls = ClientConfig::clone(tls);
        tls.resumption = Resumption::disabled();
        let listening = async {
            let (mut stream, sending) = self.shake_hands(&Arc::new(tls)).await.ok()?;
            sending.during(stream.read(&mut [0; 64])).await.err().map(|error| words(&error))
        };
        tokio::time::timeout(VERDICT, listening).await.ok().flatten()
    }

    async fn shake_hands(&self, tls: &Arc<ClientConfig>) -> Result<(TlsStream<Line>, Sending), Failure> {
        let no = |error: std::io::Error| Failure::Connect(words(&error));
        let addresses = self.known_addresses().await?;
        let stream = TcpStream::connect(&addresses[..]).await.map_err(no)?;
        let (line, sending) = gather(stream).map_err(no)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
        let stream = sending.during(connector.connect(self.place.name.clone(), line)).await.map_err(no)?;
        Ok((stream, sending))
    }

    async fn connect(&self, tls: &Arc<ClientConfig>) -> Result<Link, Failure> {
        let (stream, sending) = self.shake_hands(tls).await?;
        let connection = stream.get_ref().1;
        if connection.alpn_protocol() != Some(b"h2") {
            return Err(Failure::Connect("it does not speak HTTP/2".to_owned()));
        }
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        self.counts.handshakes[usize::from(resumed)].fetch_add(1, Ordering::Relaxed);
        let mut builder = Builder::new(Beside { sending: sending.clone(), driven: Arc::default() });
        builder.timer(TokioTimer::new()).keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
        builder.keep_alive_while_idle(true).max_frame_size(None);
        // The end of the handshake goes with the first request.
        sending.hold();
        let made = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| Failure::Connect(http_words(&error)))?;
        let broker = self.place.uri.clone();
        let (tell, ended) = watch::channel(None);
        let begun = Arc::new(Notify::new());
        let begins = Arc::clone(&begun);
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            // Who asked may have given up.
            let _ = tokio::time::timeout(FIRST_REQUEST, begins.notified()).await;
            let first = futures_util::poll!(connection.as_mut());
            sending.release();
            let ended = match first {
                Poll::Ready(ended) => ended,
                Poll::Pending => connection.await,
            };
            let words = ended.map_or_else(|error| http_words(&error), |()| String::new());
            tracing::debug!(%broker, words, "a connection to a broker ended");
            tell.send_replace(Some(words));
        });
        Ok(Link { sender, ended, begun })
    }

    /// An IP in the URL, else what was given or told, else what the bootstrap finds.
    async fn known_addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let port = self.place.port;
        if let Ok(address) = self.place.host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let known = self.addresses.load();
        if !known.is_empty() {
            return Ok(known.iter().map(|address| (*address, port).into()).collect());
        }
        let found = self.bootstrap.addresses(&self.place.host).await;
        let found =
            found.map_err(|reason| Failure::Connect(format!("{} has no address: {reason}", self.place.host)))?;
        Ok(found.into_iter().map(|address| (address, port).into()).collect())
    }
}

/// Runs what hyper runs beside a connection: first the driver that reads and writes, then whatever a request needs.
#[derive(Clone)]
struct Beside {
    sending: Sending,
    driven: Arc<AtomicBool>,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Beside {
    fn execute(&self, future: F) {
        if self.driven.swap(true, Ordering::Relaxed) {
            tokio::spawn(future);
        } else {
            let sending = self.sending.clone();
            tokio::spawn(async move { sending.during(future).await });
        }
    }
}

enum Attempt {
    /// The connection broke, and another may do.
    Broken(String),
    /// There was an answer, and it was no.
    Failed(Failure),
}

/// What a body says, on one line and not a long one: it goes into logs, and who says it may be anybody.
fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words =
        text.split(|letter: char| letter.is_control() || letter.is_whitespace()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

/// An HTTP failure in words; below it there may be a TLS alert that came after the handshake.
fn http_words(error: &hyper::Error) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return words(io);
        }
        if let Some(h2) = inner.downcast_ref::<h2::Error>()
            && let Some(io) = h2.get_io()
        {
            return words(io);
        }
        source = inner.source();
    }
    dnsbroker_api::problem::chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_a_place() {
        let place = Place::parse("https://broker.fed.example:8441/dns-query").expect("a place");
        assert_eq!((place.host.as_str(), place.port), ("broker.fed.example", 8441));
        let target = place.target(&[0, 0, 1]).expect("a URI").to_string();
        assert_eq!(target, "https://broker.fed.example:8441/dns-query?dns=AAAB");
        assert_eq!(Place::parse("https://[::1]:1/dns-query").expect("a place").host, "::1");
        for url in ["http://b.example/dns-query", "b.example", "https:///dns-query", ""] {
            assert!(Place::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_a_broker_says_is_one_line() {
        assert_eq!(said(b"suspended: has not paid\n"), "suspended: has not paid");
        assert_eq!(
            said(b"no\r\n2026-11-25 ERROR \x1b[31mall is lost\xff"),
            "no 2026-11-25 ERROR [31mall is lost\u{fffd}"
        );
        assert_eq!(said(&[b'a'; 5_000]).len(), 200);
        assert_eq!(said(b""), "");
    }

    #[test]
    fn a_broker_that_fails_is_left_alone_longer_each_time() {
        let place = Place::parse("https://127.0.0.1:1/dns-query").expect("a place");
        let broker = Broker::new(place, vec![], Arc::new(Plain::new(vec![])));
        let pause = || broker.trouble_now().expect("trouble").pause;
        broker.failed(&Failure::TimedOut);
        assert_eq!(pause(), BACKOFF.0);
        broker.failed(&Failure::TimedOut);
        assert_eq!(pause(), BACKOFF.0, "those that failed together count once");
        std::thread::sleep(BACKOFF.0);
        broker.failed(&Failure::TimedOut);
        assert_eq!(pause(), BACKOFF.0 * 2);
        broker.succeeded();
        assert_eq!(broker.trouble(), None);
    }
}
