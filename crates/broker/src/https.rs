//! REST over TLS for operators who have no certificate yet: enrolment and the CA.
//!
//! One accept loop, bounded connections and times; the routes themselves bound their bodies.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::Limits;
use crate::tls::TlsSwap;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// A connection lives this long at most: an enrolment is one request.
const LIFE: Duration = Duration::from_secs(60);
/// Streams of one HTTP/2 connection at once.
const STREAMS: u32 = 16;
/// Octets of a request's headers.
const HEADERS: usize = 16 * 1024;

/// Serves until told to stop; requests under way are finished.
pub async fn serve(listener: TcpListener, routes: Router, tls: Arc<TlsSwap>, limits: Limits, stop: CancellationToken) {
    let (connections, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "the API accepts nobody for a moment");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, routes, stop) = (TlsAcceptor::from(tls.load()), routes.clone(), stop.clone());
        let handshake = limits.handshake();
        connections.spawn(async move {
            let _slot = slot;
            match tokio::time::timeout(handshake, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => connection(stream, routes, stop).await,
                Ok(Err(error)) => tracing::info!(%client, %error, "the API's handshake failed"),
                Err(_) => tracing::info!(%client, "the API's handshake took too long"),
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TlsStream<TcpStream>, routes: Router, stop: CancellationToken) {
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (io, service) = (TokioIo::new(stream), TowerToHyperService::<Router>::new(routes));
    let ended: Result<(), hyper::Error> = if h2 {
        let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEADERS as u32);
        let connection = http.serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = over(&stop) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(LIFE, connection).await.unwrap_or(Ok(()))
            }
        }
    } else {
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(LIFE / 6).max_buf_size(HEADERS);
        let connection = http.serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = over(&stop) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(LIFE, connection).await.unwrap_or(Ok(()))
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the API broke");
    }
}

/// When a connection has to end: the broker stops, or its time is over.
async fn over(stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(LIFE) => {}
    }
}
