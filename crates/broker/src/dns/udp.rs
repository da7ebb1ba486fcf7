//! Datagrams, carried by hickory-server: it owns the socket, sets aside what is no request, and runs a task for each.
//!
//! Responses go out as they were written and signed, by a second handle of the same socket; hickory-server would encode
//! them anew, and a signature covers every octet.

use std::sync::Arc;

use hickory_proto::op::{Header, HeaderCounts, MessageType, Metadata, ResponseCode};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::Desk;
use super::door::{Caller, Reply};
use crate::metrics::Transport;

/// Serves until told to stop.
pub(super) async fn serve(socket: UdpSocket, desk: Arc<Desk>, stop: CancellationToken) {
    let (socket, out) = match twin(socket) {
        Ok(twins) => twins,
        Err(error) => {
            tracing::error!(%error, "plain DNS over UDP is not served");
            return;
        }
    };
    let mut server = Server::new(Handler { desk, out });
    server.register_socket(socket);
    tokio::select! {
        () = stop.cancelled() => {
            if let Err(error) = server.shutdown_gracefully().await {
                tracing::warn!(%error, "plain DNS did not stop cleanly");
            }
        }
        ended = server.block_until_done() => {
            tracing::error!(?ended, "plain DNS over UDP ended by itself; everything else goes on");
        }
    }
}

/// Two handles of one socket.
fn twin(socket: UdpSocket) -> std::io::Result<(UdpSocket, UdpSocket)> {
    let socket = socket.into_std()?;
    let twin = socket.try_clone()?;
    Ok((UdpSocket::from_std(socket)?, UdpSocket::from_std(twin)?))
}

struct Handler {
    desk: Arc<Desk>,
    out: UdpSocket,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, _: R) -> ResponseInfo {
        let caller = Caller { transport: Transport::Udp, address: request.src(), principal: None };
        let response = match self.desk.receive(request.as_slice(), &caller).await {
            Reply::Nothing | Reply::Transfer(_) => return told(request),
            Reply::Message(response) => response,
            Reply::Update(update) => update.done(&self.desk).await,
        };
        if let Err(error) = self.out.send_to(&response, request.src()).await {
            tracing::debug!(%error, client = %request.src(), "a response could not be sent");
        }
        told(request)
    }
}

/// hickory-server wants to know what was answered, for a log of its own that is not used.
fn told(request: &Request) -> ResponseInfo {
    let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    metadata.response_code = ResponseCode::NoError;
    Header { metadata, counts: HeaderCounts::default() }.into()
}
