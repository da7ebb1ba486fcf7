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
use std::time::Duration;

use dnsbroker_federation::DomainName;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::Limits;
use crate::metrics::Handshake;
use crate::shared::Shared;
use crate::tls::TlsSwap;

/// Accepting pauses this long when the system has no more files or memory.
const PAUSE: Duration = Duration::from_millis(50);

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
    let slots = Arc::new(Semaphore::new(doh.limits.connections));
    let handshakes = Arc::new(Semaphore::new(doh.limits.handshakes));
    let mut complaints = Complaints::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if complaints.due() {
                    tracing::error!(%error, "DoH accepts nobody for a moment");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            doh.shared.metrics.handshake(Handshake::Crowded);
            if complaints.due() {
                tracing::warn!(%client, limit = doh.limits.connections, "too many DoH connections: closed at once");
            }
            continue;
        };
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

/// Lets a log line through once a second, so that a flood does not fill the disk.
#[derive(Default)]
struct Complaints(Option<std::time::Instant>);

impl Complaints {
    fn due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
        if due {
            self.0 = Some(std::time::Instant::now());
        }
        due
    }
}
