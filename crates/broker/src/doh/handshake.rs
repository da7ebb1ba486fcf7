//! The TLS handshake of a member.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dnsbroker_api::line::{Line, Sending, gather};
use rustls::HandshakeKind;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Doh;
use crate::committer::now;
use crate::handshake::{explain, may_log, refusal};
use crate::metrics::Handshake;
use crate::peer::{Identity, Peer};
use crate::shared::{Shared, Tally};

/// What a client that speaks plain HTTP gets to read.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 45\r\nconnection: close\r\n\r\nThis port speaks HTTPS: the URL is https://.\n";

/// A connection of a member.
pub(super) struct Accepted {
    pub(super) stream: TlsStream<Line>,
    pub(super) sending: Sending,
    pub(super) peer: Peer,
    pub(super) place: Place,
    pub(super) client: SocketAddr,
}

/// A place among the connections of a member, given back when it is dropped.
pub(super) struct Place {
    pub(super) tally: Arc<Tally>,
    shared: Arc<Shared>,
}

impl Place {
    fn take(shared: &Arc<Shared>, peer: &Peer, limit: usize) -> Option<Self> {
        let tally = shared.tally(peer.member());
        let before = tally.connections.fetch_add(1, Ordering::Relaxed);
        shared.metrics.connection(1);
        let place = Self { tally, shared: Arc::clone(shared) };
        (before < limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tally.connections.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.connection(-1);
    }
}

/// Shakes hands. A failure is counted, logged with its cause, and ends the connection.
pub(super) async fn accept(
    stream: TcpStream,
    client: SocketAddr,
    doh: &Doh,
    handshakes: &Semaphore,
) -> Option<Accepted> {
    let acceptor = TlsAcceptor::from(doh.tls.load());
    let within = tokio::time::timeout(doh.limits.handshake(), async {
        if speaks_plain_http(&stream).await {
            tell_plain_http(stream).await;
            return Err((Handshake::Protocol, "it speaks HTTP without TLS".to_owned()));
        }
        // The semaphore is never closed.
        let _turn = handshakes.acquire().await.ok();
        let (line, sending) = gather(stream).map_err(|error| explain(&error))?;
        let stream = sending.during(acceptor.accept(line)).await.map_err(|error| explain(&error))?;
        Ok((stream, sending))
    });
    let failure = match within.await {
        Ok(Ok((stream, sending))) => match admit(stream, sending, client, doh) {
            Ok(accepted) => return Some(accepted),
            Err(failure) => failure,
        },
        Ok(Err(failure)) => failure,
        Err(_) => (Handshake::Broken, format!("it took longer than {} seconds", doh.limits.handshake_seconds)),
    };
    let (result, cause) = failure;
    doh.shared.metrics.handshake(result);
    if may_log() {
        tracing::warn!(%client, result = result.label(), cause, "DoH handshake failed");
    }
    None
}

/// Looks at the identity again: a resumed session has not come by the verifier.
fn admit(
    stream: TlsStream<Line>,
    sending: Sending,
    client: SocketAddr,
    doh: &Doh,
) -> Result<Accepted, (Handshake, String)> {
    let connection = stream.get_ref().1;
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let Some(certificate) = connection.peer_certificates().and_then(<[_]>::first) else {
        return Err((Handshake::NoCertificate, "it presented no client certificate".to_owned()));
    };
    let peer = Identity::of(certificate, &doh.federation)
        .and_then(|identity| Peer::admit(identity, &doh.shared.view.load(), now()))
        .map_err(|error| refusal(&error))?;
    let Some(place) = Place::take(&doh.shared, &peer, doh.limits.connections_per_member) else {
        let limit = doh.limits.connections_per_member;
        return Err((Handshake::Crowded, format!("member {} has {limit} connections already", peer.member())));
    };
    doh.shared.metrics.handshake(if resumed { Handshake::Resumed } else { Handshake::Full });
    tracing::debug!(%client, member = %peer.member(), resumed, "DoH connection");
    Ok(Accepted { stream, sending, peer, place, client })
}

/// Whether the first octet is that of an HTTP method; a TLS record begins with 22 (RFC 8446, section 5.1).
async fn speaks_plain_http(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1) if first[0].is_ascii_uppercase())
}

async fn tell_plain_http(mut stream: TcpStream) {
    // A courtesy: whether it arrives does not matter. What the client sent is read so that the answer is not lost to a
    // reset.
    let _ = stream.try_read(&mut [0; 4_096]);
    let _ = stream.write_all(PLAIN_HTTP).await;
    let _ = stream.shutdown().await;
}
