//! DNS over HTTPS (RFC 8484) for members with their certificates.
//!
//! ```text
//! accept ▶ handshake (identity, admission) ▶ HTTP/2 or 1.1 ▶ request: method, type, size ▶ still admitted? ▶ zone::answer
//! ```
//!
//! The accept loop is our own because the peer's identity must reach the answer. Each connection is a task that ends
//! when its member is no longer admitted, its certificate expires, it is idle for too long, or the broker stops.

mod connection;
mod handshake;
mod request;

use std::sync::Arc;

use dnsbroker_federation::DomainName;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::Limits;
use crate::listen::Listen;
use crate::metrics::Handshake;
use crate::shared::Shared;
use crate::tls::TlsSwap;

/// What a front needs.
pub struct Doh {
    /// State and counters.
    pub shared: Arc<Shared>,
    /// Certificates.
    pub tls: Arc<TlsSwap>,
    /// Bounds.
    pub limits: Limits,
    /// Whose members are served.
    pub federation: DomainName,
}

/// Serves until told to stop; answers under way are finished.
pub async fn serve(listener: TcpListener, doh: Arc<Doh>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let handshakes = Arc::new(Semaphore::new(doh.limits.handshakes));
    let shared = Arc::clone(&doh.shared);
    let crowded = move || shared.metrics.handshake(Handshake::Crowded);
    let mut listen = Listen::new(listener, "DoH", doh.limits.connections).crowded(crowded);
    while let Some((stream, client, slot)) = listen.next(&stop).await {
        let (doh, handshakes, stop) = (Arc::clone(&doh), Arc::clone(&handshakes), stop.clone());
        connections.spawn(async move {
            let _slot = slot;
            if let Some(accepted) = handshake::accept(stream, client, &doh, &handshakes).await {
                connection::serve(accepted, &doh, &stop).await;
            }
        });
    }
    connections.close();
    connections.wait().await;
}
