//! Zone transfers over TLS (RFC 9103): the stream of [`super::stream`] inside TLS 1.3, for members and replicas by
//! certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use dnsbroker_federation::DomainName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Desk;
use super::stream::Connection;
use crate::committer::now;
use crate::handshake::{explain, may_log, refusal};
use crate::listen::{Listen, Places};
use crate::metrics::Handshake;
use crate::peer::{Identity, Peer};
use crate::tls::TlsSwap;

/// Handshakes at once; more wait their turn.
const HANDSHAKES: usize = 64;

/// What the listener needs beside the desk.
pub struct Xot {
    /// What transfers and updates need.
    pub desk: Arc<Desk>,
    /// Certificates.
    pub tls: Arc<TlsSwap>,
    /// Whose principals are served.
    pub federation: DomainName,
}

/// Serves until told to stop.
pub async fn serve(listener: TcpListener, xot: Arc<Xot>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut listen = Listen::new(listener, "XoT", xot.desk.limits.xot_connections);
    let places = Places::new(xot.desk.limits.xot_connections_per_principal);
    while let Some((stream, address, slot)) = listen.next(&stop).await {
        let (xot, handshakes, stop) = (Arc::clone(&xot), Arc::clone(&handshakes), stop.clone());
        let places = Arc::clone(&places);
        connections.spawn(async move {
            let _slot = slot;
            if let Some((stream, peer)) = accept(stream, address, &xot, &handshakes).await {
                let Some(_place) = places.take(peer.principal().clone()) else {
                    xot.desk.shared.metrics.xot_handshake(Handshake::Crowded);
                    tracing::warn!(client = %address, principal = %peer.principal(), "too many XoT connections of one");
                    return;
                };
                Connection { desk: Arc::clone(&xot.desk), address, peer: Some(peer) }.run(stream, stop).await;
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn accept(
    stream: TcpStream,
    address: SocketAddr,
    xot: &Xot,
    handshakes: &Semaphore,
) -> Option<(TlsStream<TcpStream>, Peer<dnsbroker_ca::Principal>)> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "the connection is gone already");
    }
    let acceptor = TlsAcceptor::from(xot.tls.load());
    let within = tokio::time::timeout(xot.desk.limits.handshake(), async {
        // The semaphore is never closed.
        let _turn = handshakes.acquire().await.ok();
        acceptor.accept(stream).await.map_err(|error| explain(&error))
    });
    let (result, cause) = match within.await {
        Ok(Ok(stream)) => match admit(&stream, xot) {
            Ok(peer) => {
                xot.desk.shared.metrics.xot_handshake(Handshake::Full);
                tracing::debug!(client = %address, principal = %peer.principal(), "XoT connection");
                return Some((stream, peer));
            }
            Err(failure) => failure,
        },
        Ok(Err(failure)) => failure,
        Err(_) => (Handshake::Broken, "it took too long".to_owned()),
    };
    xot.desk.shared.metrics.xot_handshake(result);
    if may_log() {
        tracing::warn!(client = %address, result = result.label(), cause, "XoT handshake failed");
    }
    None
}

/// Looks at the identity again: a resumed session has not come by the verifier.
fn admit(stream: &TlsStream<TcpStream>, xot: &Xot) -> Result<Peer<dnsbroker_ca::Principal>, (Handshake, String)> {
    let connection = stream.get_ref().1;
    let Some(certificate) = connection.peer_certificates().and_then(<[_]>::first) else {
        return Err((Handshake::NoCertificate, "it presented no client certificate".to_owned()));
    };
    Identity::of(certificate, &xot.federation)
        .and_then(|identity| Peer::admit_any(identity, &xot.desk.shared.view.load(), now()))
        .map_err(|error| refusal(&error))
}
