//! Serving HTTP/1.1 to what runs on the same machine: network servers (TS002), monitoring, our own commands.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::{CONNECTIONS, HEADERS, IDLE};

/// What is said of a client's certificate: nothing, or why it may not ask.
pub type Judge = dyn Fn(&CertificateDer<'_>) -> Result<(), String> + Send + Sync;

/// TLS of a door.
#[derive(Clone)]
pub struct Tls {
    /// Shakes hands.
    pub acceptor: TlsAcceptor,
    /// Who may come in of those whose certificate was verified.
    pub judge: Arc<Judge>,
}

impl Tls {
    /// The routes for whoever has come: all, or none that says why.
    async fn accept(
        &self,
        stream: impl Stream + 'static,
        routes: Router,
    ) -> std::io::Result<(impl Stream + 'static, Router)> {
        let stream = self.acceptor.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let routes = match shown.map_or(Ok(()), |certificate| (self.judge)(certificate)) {
            Ok(()) => routes,
            Err(reason) => {
                tracing::warn!(reason, "a client is refused");
                Router::new().fallback(async move || (StatusCode::FORBIDDEN, reason + "\n"))
            }
        };
        Ok((stream, routes))
    }
}

/// Where connections come from.
pub enum Door {
    /// TCP, plain or with TLS.
    Tcp(TcpListener, Option<Tls>),
    /// A Unix socket.
    Unix(UnixListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Door {
    async fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// Serves until told to stop; requests under way are finished.
pub async fn serve(door: Door, what: &'static str, routes: Router, stop: CancellationToken) {
    let (connections, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = door.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!(%error, "{what} accepts nobody for a moment");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!("too many connections of {what}: closed at once");
            continue;
        };
        let tls = if let Door::Tcp(_, tls) = &door { tls.clone() } else { None };
        let (routes, stop) = (routes.clone(), stop.clone());
        connections.spawn(async move {
            let _slot = slot;
            match tls {
                None => connection(stream, what, routes, stop).await,
                Some(tls) => match tokio::time::timeout(HEADERS, tls.accept(stream, routes)).await {
                    Ok(Ok((stream, routes))) => connection(stream, what, routes, stop).await,
                    Ok(Err(error)) => tracing::info!(%error, "a handshake of {what} failed"),
                    Err(_) => tracing::info!("a handshake of {what} took too long"),
                },
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn connection(stream: impl Stream + 'static, what: &str, routes: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(routes);
    let mut http = hyper::server::conn::http1::Builder::new();
    // The time-out of headers is that of an idle connection too: network servers keep theirs open.
    http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(32 * 1024);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(HEADERS, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of {what} broke");
    }
}
