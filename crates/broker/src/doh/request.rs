//! One request: method, media type and size first, then whether the member is still let in, then the answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use dnsbroker_zone::answer::{Asker, Outcome, answer};
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::service::Service;

use super::Doh;
use super::handshake::Place;
use crate::committer::now;
use crate::limits::MESSAGE;
use crate::metrics::Transport;
use crate::peer::Peer;

/// The path that is announced (RFC 9461, section 5) and served.
const PATH: &str = "/dns-query";
/// The one media type (RFC 8484, section 6).
const MEDIA_TYPE: &str = "application/dns-message";
/// Octets that most answers need.
const ANSWER: usize = 512;

/// Who asks, on one connection.
pub(super) struct Asking {
    pub(super) doh: Arc<Doh>,
    pub(super) peer: Peer,
    pub(super) place: Place,
    /// When it last asked, in seconds since 1970.
    pub(super) last: AtomicI64,
}

/// An HTTP error and what to tell the client.
struct Refused(StatusCode, String);

impl Refused {
    fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self(status, words.into())
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
pub(super) struct Responder(pub(super) Arc<Asking>);

type Reply = Response<Full<Bytes>>;

/// An answer that is there, or waits for a body.
///
/// hyper moves it to the heap for each request, so it is small: what has to wait is apart.
pub(super) enum Replying {
    Now(Option<Reply>),
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

impl Future for Replying {
    type Output = Result<Reply, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            // A future is not polled again after it was ready.
            Self::Now(reply) => reply.take().map_or(Poll::Pending, |reply| Poll::Ready(Ok(reply))),
            Self::Later(reply) => reply.as_mut().poll(context).map(Ok),
        }
    }
}

impl Service<Request<Incoming>> for Responder {
    type Response = Reply;
    type Error = Infallible;
    type Future = Replying;

    fn call(&self, request: Request<Incoming>) -> Replying {
        let asking = &self.0;
        match read_head(&request) {
            Ok(Some(message)) => Replying::Now(Some(respond(asking, &message))),
            Ok(None) => {
                let asking = Arc::clone(asking);
                let body = async move {
                    match from_body(&asking, request.into_body()).await {
                        Ok(message) => respond(&asking, &message),
                        Err(refused) => refuse(&asking, refused),
                    }
                };
                Replying::Later(Box::pin(body))
            }
            Err(refused) if request.body().size_hint().upper() == Some(0) => {
                Replying::Now(Some(refuse(asking, refused)))
            }
            Err(refused) => {
                let asking = Arc::clone(asking);
                let body = async move {
                    let body = request.into_body();
                    if body.size_hint().lower() <= DISCARDED as u64 {
                        // Left unread it would cost the client the connection, and perhaps the answer.
                        let _ = from_body(&asking, body).await;
                    }
                    refuse(&asking, refused)
                };
                Replying::Later(Box::pin(body))
            }
        }
    }
}

fn respond(asking: &Asking, message: &[u8]) -> Reply {
    resolve(asking, message).unwrap_or_else(|refused| refuse(asking, refused))
}

fn refuse(asking: &Asking, Refused(status, words): Refused) -> Reply {
    asking.doh.shared.metrics.http_error();
    let mut response = Response::new(Full::new(Bytes::from(words + "\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
        }
        _ => {}
    }
    response
}

/// Octets of a body that is too long that are read and thrown away.
const DISCARDED: usize = 1024 * 1024;

/// The DNS message, if the head of the request has it; none if it is in the body.
fn read_head(request: &Request<Incoming>) -> Result<Option<Vec<u8>>, Refused> {
    let uri = request.uri();
    if uri.path() != PATH {
        return Err(Refused::new(StatusCode::NOT_FOUND, format!("DNS is answered at {PATH}")));
    }
    check_accept(request.headers())?;
    match *request.method() {
        Method::GET => from_query(uri.query().unwrap_or_default()).map(Some),
        Method::POST => check_body(request).map(|()| None),
        _ => Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "DNS is asked with GET or POST (RFC 8484, section 4.1)")),
    }
}

/// Whether the client takes what we have to give (RFC 9110, section 12.5.1).
fn check_accept(headers: &HeaderMap) -> Result<(), Refused> {
    let mut named = false;
    for value in headers.get_all(ACCEPT) {
        // A value that is no text names no type we have.
        for range in value.to_str().unwrap_or_default().split(',') {
            named = true;
            let mut parts = range.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default();
            let fits = ["*/*", "application/*", MEDIA_TYPE].iter().any(|known| range.eq_ignore_ascii_case(known));
            let refused = parts.any(|parameter| {
                let quality = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
                quality.is_some_and(|quality| quality.trim().parse() == Ok(0.0_f32))
            });
            if fits && !refused {
                return Ok(());
            }
        }
    }
    if named {
        return Err(Refused::new(
            StatusCode::NOT_ACCEPTABLE,
            format!("the answer is {MEDIA_TYPE}, and Accept has not that"),
        ));
    }
    Ok(())
}

/// The message of the `dns` parameter (RFC 8484, section 4.1.1).
fn from_query(query: &str) -> Result<Vec<u8>, Refused> {
    let bad = |words: &str| Err(Refused::new(StatusCode::BAD_REQUEST, words));
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("dns="));
    let Some(text) = values.next() else {
        return bad("the query has no dns parameter (RFC 8484, section 4.1)");
    };
    if values.next().is_some() {
        return bad("the query has several dns parameters; one message is asked for at a time");
    }
    // A target is shorter than a message may be, so that its length needs no look.
    match BASE64_URL_SAFE_NO_PAD.decode(text) {
        Ok(message) => Ok(message),
        Err(_) => bad("the dns parameter is not base64url without padding (RFC 8484, section 6)"),
    }
}

fn too_large() -> Refused {
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "a DNS message has 65535 octets at most")
}

/// Whether a body may be a message (RFC 8484, section 4.1), as far as that can be told before it is read.
fn check_body(request: &Request<Incoming>) -> Result<(), Refused> {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        let words = format!("the body is to be {MEDIA_TYPE}, not {media_type:?}");
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, words));
    }
    if request.body().size_hint().lower() > MESSAGE as u64 { Err(too_large()) } else { Ok(()) }
}

/// The message of a body.
async fn from_body(asking: &Asking, body: Incoming) -> Result<Bytes, Refused> {
    match tokio::time::timeout(asking.doh.limits.request(), collect(body)).await {
        Ok(Ok(Some(octets))) => Ok(octets.into()),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(_)) => Err(Refused::new(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

/// A body, if it can be a message. One that is somewhat too long is read to its end, so that the client is not cut off
/// while it writes and gets to read why.
async fn collect(mut body: Incoming) -> Result<Option<Vec<u8>>, hyper::Error> {
    let (mut octets, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len();
        if length > DISCARDED {
            break;
        }
        if length <= MESSAGE {
            octets.extend_from_slice(&data);
        }
    }
    Ok((length <= MESSAGE).then_some(octets))
}

/// The answer, from one snapshot.
fn resolve(asking: &Asking, message: &[u8]) -> Result<Reply, Refused> {
    let Asking { doh, peer, place, last } = asking;
    let started = Instant::now();
    let now = now();
    last.store(now, Ordering::Relaxed);
    if doh.shared.standing.is_stale(now) {
        let words = "this broker does not know what its primary has revoked lately and answers nobody: ask another one";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, words));
    }
    let view = doh.shared.view.load();
    if let Err(denial) = peer.check(&view, now) {
        doh.shared.metrics.denied(&denial);
        return Err(Refused::new(StatusCode::FORBIDDEN, denial.to_string()));
    }
    if let Some(seconds) = place.tally.must_wait(doh.limits.nxdomain_per_minute, now) {
        if place.tally.count_limited(now) {
            let (member, limit) = (peer.member(), doh.limits.nxdomain_per_minute);
            tracing::warn!(%member, limit, seconds, "a member asks for too many names that nobody has registered");
        }
        let words = format!("too many names that are not registered were asked for: wait {seconds} seconds");
        return Err(Refused::new(StatusCode::TOO_MANY_REQUESTS, words));
    }
    let mut out = Vec::with_capacity(ANSWER);
    let answered = answer(&view.zones, Asker::Member(peer.member()), message, &mut out)
        .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    place.tally.answered(answered.outcome);
    if answered.outcome == Outcome::NxDomain {
        place.tally.count_unknown(now);
    }
    let mut response = Response::new(Full::new(Bytes::from(out)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, cache_control(answered.ttl));
    doh.shared.metrics.dns(Transport::Doh, &answered, started.elapsed());
    Ok(response)
}

/// For how long a cache of the member itself may keep the answer (RFC 8484, section 5.1).
fn cache_control(ttl: Option<u32>) -> HeaderValue {
    match ttl {
        None => HeaderValue::from_static("no-store"),
        Some(60) => HeaderValue::from_static("private, max-age=60"),
        Some(ttl) => HeaderValue::try_from(format!("private, max-age={ttl}"))
            .unwrap_or_else(|_| HeaderValue::from_static("no-store")),
    }
}
