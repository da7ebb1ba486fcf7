//! Plain DNS and DNS over TLS for zone transfers: who may do what over which transport.
//!
//! | module | what |
//! |---|---|
//! | [`door`] | the one check: transport, signature, opcode and type decide what a message may do |
//! | [`transfer`] | AXFR and IXFR out |
//! | [`udp`] | datagrams, carried by hickory-server |
//! | [`stream`] | connections, plain (TCP) or over TLS (XoT) |
//! | [`xot`] | TLS with certificates of members and replicas (RFC 9103) |
//!
//! hickory-server carries UDP. Streams are carried here, because a transfer is many messages, each signed as it is
//! encoded, and hickory-server's handlers give one message that is encoded later.

mod door;
mod envelope;
mod stream;
mod transfer;
mod udp;
pub mod xot;

use std::net::SocketAddr;
use std::sync::Arc;

use dnsbroker_ca::ReplicaId;
use dnsbroker_store::engine::Engine;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::committer::Committer;
use crate::limits::Limits;
use crate::listen::{Places, bind_tcp, bind_udp};
use crate::seal::Sealer;
use crate::shared::Shared;
use crate::source::Sources;

/// Tries for a port that is free on both UDP and TCP.
const BIND_TRIES: usize = 16;

/// What all DNS listeners share.
pub struct Desk {
    /// State and counters.
    pub shared: Arc<Shared>,
    /// Where updates go.
    pub committer: Committer,
    /// Where the history of IXFR is read.
    pub engine: Arc<dyn Engine>,
    /// Opens the secrets of TSIG keys.
    pub sealer: Arc<Sealer>,
    /// Where NOTIFYs go.
    pub sources: Arc<Sources>,
    /// Transfers under way, by replica: each holds a snapshot, and a difference in memory.
    pub sending: Arc<Places<ReplicaId>>,
    /// Bounds.
    pub limits: Limits,
}

/// Sockets of one address.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds UDP and TCP to the same port.
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
        for _ in 1..BIND_TRIES {
            let tcp = bind_tcp(address)?;
            match bind_udp(tcp.local_addr()?) {
                Ok(udp) => return Ok(Self { udp, tcp }),
                // Any free TCP port was asked for, and its UDP twin is taken: try another.
                Err(error) if address.port() == 0 && error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        let tcp = bind_tcp(address)?;
        Ok(Self { udp: bind_udp(tcp.local_addr()?)?, tcp })
    }

    /// The bound address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until told to stop.
    pub async fn serve(self, desk: Arc<Desk>, stop: CancellationToken) {
        tokio::join!(
            udp::serve(self.udp, Arc::clone(&desk), stop.clone()),
            stream::serve(self.tcp, Arc::clone(&desk), stop)
        );
    }
}
