//! HTTP for people and programs: the API over TLS, where whoever has a certificate of ours may show it, and what the CA
//! publishes, over plain HTTP.
//!
//! Accept loops with bounded connections, each with bounded times; the routes themselves bound their bodies. What each caller
//! may is decided in `api::caller`, for each request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use dnsbroker_ca::Facts;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::api::Caller;
use crate::handshake::{explain, may_log};
use crate::limits::Limits;
use crate::listen::{Listen, Places};
use crate::tls::TlsSwap;

/// Connections at once; more are closed.
const CONNECTIONS: usize = 1_024;
/// The same of one address.
const CONNECTIONS_PER_ADDRESS: usize = 64;
/// A connection lives this long at most, and then ends in good order; whoever wants goes on with another.
const LIFE: Duration = Duration::from_secs(3_600);
/// What is under way gets this long when a connection ends.
const GRACE: Duration = Duration::from_secs(30);
/// Streams of one HTTP/2 connection at once.
const STREAMS: u32 = 64;
/// Octets of a request's headers.
const HEADERS: usize = 16 * 1024;

/// Serves the API until told to stop; requests under way are finished.
pub async fn serve(listener: TcpListener, routes: Router, tls: Arc<TlsSwap>, limits: Limits, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let mut listen = Listen::new(listener, "the API", CONNECTIONS);
    let places = Places::new(CONNECTIONS_PER_ADDRESS);
    while let Some((stream, client, slot)) = listen.next(&stop).await {
        let Some(place) = places.take(canonical(client)) else { continue };
        let (acceptor, routes, stop) = (TlsAcceptor::from(tls.load()), routes.clone(), stop.clone());
        let (handshake, headers) = (limits.handshake(), limits.request());
        connections.spawn(async move {
            let _places = (slot, place);
            let cause = match tokio::time::timeout(handshake, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => match caller(&stream, canonical(client)) {
                    Some(caller) => {
                        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        return connection(stream, routes, caller, h2, headers, stop).await;
                    }
                    None => "its certificate cannot be read".to_owned(),
                },
                Ok(Err(error)) => explain(&error).1,
                Err(_) => "it took too long".to_owned(),
            };
            if may_log() {
                tracing::info!(%client, cause, "the API's handshake failed");
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// Serves what everybody may read, without TLS, until told to stop.
pub async fn serve_plain(listener: TcpListener, routes: Router, limits: Limits, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let mut listen = Listen::new(listener, "the CA's publications", CONNECTIONS);
    let places = Places::new(CONNECTIONS_PER_ADDRESS);
    while let Some((stream, client, slot)) = listen.next(&stop).await {
        let Some(place) = places.take(canonical(client)) else { continue };
        let (routes, headers, stop) = (routes.clone(), limits.request(), stop.clone());
        connections.spawn(async move {
            let _places = (slot, place);
            connection(stream, routes, Caller::Nobody(canonical(client)), false, headers, stop).await;
        });
    }
    connections.close();
    connections.wait().await;
}

fn canonical(client: SocketAddr) -> IpAddr {
    client.ip().to_canonical()
}

/// Who is at the other end: the handshake has verified the certificate, each request looks at it again.
fn caller(stream: &TlsStream<TcpStream>, client: IpAddr) -> Option<Caller> {
    match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        None => Some(Caller::Nobody(client)),
        Some(certificate) => Facts::of(certificate).ok().map(|facts| Caller::Certificate(facts.serial, client)),
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    routes: Router,
    caller: Caller,
    h2: bool,
    headers: Duration,
    stop: CancellationToken,
) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        routes.clone().oneshot(request)
    });
    let io = TokioIo::new(stream);
    let ended: Result<(), hyper::Error> = if h2 {
        let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEADERS as u32);
        http.keep_alive_interval(GRACE).keep_alive_timeout(GRACE);
        let connection = http.serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = over(&stop) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
            }
        }
    } else {
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(headers).max_buf_size(HEADERS);
        let connection = http.serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = over(&stop) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// When a connection has to end: the broker stops, or its time is over.
async fn over(stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(LIFE) => {}
    }
}
