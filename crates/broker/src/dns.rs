//! Plain DNS: the public part over UDP and TCP, carried by hickory-server.
//!
//! The door stands in `zone::answer`: whoever comes this way is [`Asker::Public`], so private names are refused
//! whatever the opcode, type and class. This module only carries octets in and records out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnsbroker_zone::answer::{Asker, answer};
use hickory_proto::op::{Header, HeaderCounts, Message, MessageType, Metadata, ResponseCode};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::metrics::Transport;
use crate::shared::Shared;

/// A TCP connection without a whole request for this long is closed (RFC 7766, section 6.2.3, leaves it to us).
const TCP_IDLE: Duration = Duration::from_secs(5);
/// Responses that may wait for a slow TCP reader.
const TCP_RESPONSES: usize = 32;
/// Octets of a UDP response at most, whatever the client says (RFC 9715, section 3.1).
const UDP_PAYLOAD: u16 = 1_232;
/// Tries for a port that is free on both UDP and TCP.
const BIND_TRIES: usize = 16;

/// Sockets of one address.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds UDP and TCP to the same port.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        for _ in 1..BIND_TRIES {
            let tcp = TcpListener::bind(address).await?;
            match UdpSocket::bind(tcp.local_addr()?).await {
                Ok(udp) => return Ok(Self { udp, tcp }),
                // Any free TCP port was asked for, and its UDP twin is taken: try another.
                Err(error) if address.port() == 0 && error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        let tcp = TcpListener::bind(address).await?;
        Ok(Self { udp: UdpSocket::bind(tcp.local_addr()?).await?, tcp })
    }

    /// The bound address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Serves until told to stop.
pub async fn serve(sockets: Vec<Sockets>, shared: Arc<Shared>, stop: CancellationToken) {
    let mut server = Server::new(Handler { shared });
    for Sockets { udp, tcp } in sockets {
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_RESPONSES);
    }
    tokio::select! {
        () = stop.cancelled() => {
            if let Err(error) = server.shutdown_gracefully().await {
                tracing::warn!(%error, "plain DNS did not stop cleanly");
            }
        }
        ended = server.block_until_done() => {
            tracing::error!(?ended, "plain DNS ended by itself; DoH goes on");
        }
    }
}

struct Handler {
    shared: Arc<Shared>,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut responder: R) -> ResponseInfo {
        let started = Instant::now();
        let transport = if request.protocol() == Protocol::Udp { Transport::Udp } else { Transport::Tcp };
        let mut out = Vec::with_capacity(512);
        let view = self.shared.view.load();
        let Ok(answered) = answer(&view.zones, Asker::Public, request.as_slice(), &mut out) else {
            return failed(request, ResponseCode::FormErr);
        };
        self.shared.metrics.dns(transport, &answered, started.elapsed());
        let Ok(mut message) = Message::from_vec(&out) else {
            return failed(request, ResponseCode::ServFail);
        };
        if let Some(edns) = &mut message.edns {
            edns.set_max_payload(request.max_payload().min(UDP_PAYLOAD));
        }
        let response = MessageResponseBuilder::new(&request.queries, message.edns.as_ref()).build(
            message.metadata,
            &message.answers,
            &message.authorities,
            [],
            &message.additionals,
        );
        match responder.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, client = %request.src(), "a response could not be sent");
                failed(request, ResponseCode::ServFail)
            }
        }
    }
}

/// What is told to hickory-server of a request that got no response.
fn failed(request: &Request, code: ResponseCode) -> ResponseInfo {
    let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    metadata.response_code = code;
    Header { metadata, counts: HeaderCounts::default() }.into()
}
