//! The local resolver's front: UDP and TCP on loopback, carried by hickory-server.
//!
//! hickory-server owns the sockets, sets aside what is no query, and runs a task for each. Over UDP the answer goes out as it
//! was written here, by a second handle of the socket; over TCP hickory-server frames it and so encodes it anew.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dnsbroker_zone::wire::{Edns, Header, Malformed, Query, Rcode, RecordType, UDP_PAYLOAD};
use hickory_proto::op::{Edns as HickoryEdns, Header as HickoryHeader, HeaderCounts, Message, MessageType, Metadata};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, PROHIBITED, question};
use crate::limits::{CLIENT, TCP_IDLE};
use crate::lookup::{Lookups, Saying};
use crate::resolver::Resolved;
use crate::route::Route;
use crate::upstream::doh::Failure;

/// Extended errors of ours (RFC 8914): not ready, network error, no reachable authority, prohibited.
const NO_AUTHORITY: u16 = 22;
const NOT_AUTHORITATIVE: u16 = 20;
/// Octets of a datagram without EDNS (RFC 1035, section 4.2.1).
const DATAGRAM: usize = 512;
/// Responses of one TCP connection that wait to be sent.
const QUEUE: usize = 64;
/// Tries for a port that is free on both UDP and TCP.
const BIND_TRIES: usize = 16;

/// What is counted.
#[derive(Default)]
pub struct Counts {
    /// Queries by transport: UDP, TCP.
    pub queries: [AtomicU64; 2],
    /// Answers by response code: NOERROR, NXDOMAIN, SERVFAIL, REFUSED, others.
    pub codes: [AtomicU64; 5],
    /// Names that were not passed on to an upstream because they are private.
    pub withheld: AtomicU64,
}

impl Counts {
    /// The names of response codes.
    pub const CODES: [&'static str; 5] = ["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "OTHER"];
}

/// Answers queries.
pub struct Desk {
    /// Devices without a suffix.
    pub lookups: Arc<Lookups>,
    /// What is counted.
    pub counts: Counts,
}

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

    /// Serves until told to stop.
    pub async fn serve(self, desk: Arc<Desk>, stop: CancellationToken) {
        let twins = self.udp.into_std().and_then(|udp| Ok((udp.try_clone()?, udp)));
        let twins = twins.and_then(|(twin, udp)| Ok((UdpSocket::from_std(twin)?, UdpSocket::from_std(udp)?)));
        let (out, udp) = match twins {
            Ok(twins) => twins,
            Err(error) => {
                tracing::error!(%error, "the resolver cannot be served");
                return;
            }
        };
        let mut server = Server::new(Handler { desk, out });
        server.register_socket(udp);
        server.register_listener(self.tcp, TCP_IDLE, QUEUE);
        tokio::select! {
            () = stop.cancelled() => {
                if let Err(error) = server.shutdown_gracefully().await {
                    tracing::warn!(%error, "the resolver did not stop cleanly");
                }
            }
            ended = server.block_until_done() => tracing::error!(?ended, "the resolver ended by itself"),
        }
    }
}

struct Handler {
    desk: Arc<Desk>,
    out: UdpSocket,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, response: R) -> ResponseInfo {
        let datagram = request.protocol() == Protocol::Udp;
        if let Some(octets) = self.desk.answer(request.as_slice(), datagram).await {
            let sent = if datagram {
                self.out.send_to(&octets, request.src()).await.map(drop).map_err(|error| error.to_string())
            } else {
                send(request, &octets, response).await
            };
            if let Err(error) = sent {
                tracing::debug!(%error, client = %request.src(), "an answer could not be sent");
            }
        }
        told(request)
    }
}

/// Hands an answer to hickory-server.
async fn send<R: ResponseHandler>(request: &Request, octets: &[u8], mut response: R) -> Result<(), String> {
    let message = Message::from_vec(octets).map_err(|error| error.to_string())?;
    let edns: Option<HickoryEdns> = message.edns.clone();
    let mut builder = MessageResponseBuilder::from_message_request(request);
    if let Some(edns) = &edns {
        builder.edns(edns);
    }
    let built = builder.build(
        message.metadata,
        message.answers.iter(),
        message.authorities.iter(),
        std::iter::empty(),
        message.additionals.iter(),
    );
    response.send_response(built).await.map(drop).map_err(|error| error.to_string())
}

/// hickory-server wants to know what was answered, for a log of its own that is not used.
fn told(request: &Request) -> ResponseInfo {
    let metadata = Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    HickoryHeader { metadata, counts: HeaderCounts::default() }.into()
}

impl Desk {
    /// The response to a message; none where there is nothing to say.
    pub async fn answer(&self, octets: &[u8], datagram: bool) -> Option<Vec<u8>> {
        self.counts.queries[usize::from(!datagram)].fetch_add(1, Ordering::Relaxed);
        let query = match Query::parse(octets) {
            Ok(query) => query,
            Err(Malformed::Ignore(_)) => return None,
            Err(Malformed::Opcode(header)) => return Some(self.without_question(&header, Rcode::NOTIMP)),
            Err(Malformed::Format(header, _)) => return Some(self.without_question(&header, Rcode::FORMERR)),
        };
        let limit = match (datagram, query.edns) {
            (false, _) => usize::MAX,
            (true, None) => DATAGRAM,
            // RFC 9715: what does not fit goes over TCP rather than in fragments.
            (true, Some(edns)) => usize::from(edns.payload.clamp(DATAGRAM as u16, UDP_PAYLOAD)),
        };
        let (answer, age) = match self.decide(&query).await {
            Ok(resolved) => (resolved.answer, resolved.age),
            Err(answer) => (Arc::new(answer), 0),
        };
        self.count(answer.rcode);
        Some(answer.write(&query.header, query.question, query.edns, age, limit))
    }

    async fn decide(&self, query: &Query<'_>) -> Result<Resolved, Answer> {
        let no = |rcode, error| Err(Answer::empty(rcode, error));
        match (query.edns, query.qtype) {
            (Some(Edns { version, .. }), _) if version > 0 => return no(Rcode::BADVERS, None),
            (_, RecordType::AXFR | RecordType::IXFR) => return no(Rcode::REFUSED, Some(NOT_AUTHORITATIVE)),
            _ if query.qclass != 1 || query.signed.is_some() => return no(Rcode::REFUSED, None),
            _ => {}
        }
        let asked = question(query.name.as_slice(), query.qtype);
        let resolver = self.lookups.resolver();
        let result = match resolver.route(query.name.as_slice()) {
            Route::Federation(index) => resolver.federation(index, &asked, CLIENT).await,
            Route::Device(device) => return self.device(device, query, &asked).await,
            Route::Upstream => {
                let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
                resolver.upstream(&asked, dnssec_ok, CLIENT).await
            }
            Route::Withheld if resolver.has_upstreams() => {
                self.counts.withheld.fetch_add(1, Ordering::Relaxed);
                return no(Rcode::NXDOMAIN, Some(PROHIBITED));
            }
            Route::Withheld => return no(Rcode::REFUSED, Some(NOT_AUTHORITATIVE)),
        };
        result.map_err(|failure| failed(&failure))
    }

    /// A DevEUI without a suffix: the answer of the federation that is believed, behind this name.
    async fn device(
        &self,
        device: dnsbroker_federation::DevEui,
        query: &Query<'_>,
        asked: &[u8],
    ) -> Result<Resolved, Answer> {
        let outcome = self.lookups.device(device).await;
        let Some(decisive) = outcome.decisive else { return Err(Answer::empty(Rcode::SERVFAIL, Some(NO_AUTHORITY))) };
        match (decisive.saying, decisive.resolved) {
            (Saying::Home { .. }, Some(resolved))
                if [RecordType::A, RecordType::CNAME, RecordType::ANY].contains(&query.qtype) =>
            {
                let from = self.lookups.resolver().device_question(decisive.index, device);
                Ok(Resolved { answer: Arc::new(resolved.answer.behind(&from, asked)), ..resolved })
            }
            (Saying::Home { .. }, _) => Err(Answer::empty(Rcode::NOERROR, None)),
            (Saying::Prohibited, _) => Err(Answer::empty(Rcode::NXDOMAIN, Some(PROHIBITED))),
            (Saying::Unknown, _) => Err(Answer::empty(Rcode::NXDOMAIN, None)),
            (Saying::Failed(failure), _) => Err(failed(&failure)),
        }
    }

    fn without_question(&self, header: &Header, rcode: Rcode) -> Vec<u8> {
        self.count(rcode);
        Answer::empty(rcode, None).write(header, &[], None, 0, usize::MAX)
    }

    fn count(&self, rcode: Rcode) {
        let index = match rcode {
            Rcode::NOERROR => 0,
            Rcode::NXDOMAIN => 1,
            Rcode::SERVFAIL => 2,
            Rcode::REFUSED => 3,
            _ => 4,
        };
        self.counts.codes[index].fetch_add(1, Ordering::Relaxed);
    }
}

/// SERVFAIL: nobody may take it for "no such device".
fn failed(failure: &Failure) -> Answer {
    let error = if matches!(failure, Failure::Refused(_) | Failure::Identity(_)) { PROHIBITED } else { NO_AUTHORITY };
    Answer::empty(Rcode::SERVFAIL, Some(error))
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use proptest::prelude::*;

    use super::*;
    use crate::config::{CacheConfig, LookupConfig};
    use crate::resolver::Resolver;
    use crate::upstream::plain::Plain;

    fn desk() -> Desk {
        let resolver = Resolver::new(vec![], Arc::new(Plain::new(vec![])), CacheConfig::default());
        Desk { lookups: Lookups::new(resolver, LookupConfig::default()), counts: Counts::default() }
    }

    fn query(qtype: u16, class: u16, edns: Option<u8>) -> Vec<u8> {
        let mut octets = vec![9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        octets.extend_from_slice(b"\x03WwW\x07example\x00");
        octets.extend_from_slice(&qtype.to_be_bytes());
        octets.extend_from_slice(&class.to_be_bytes());
        if let Some(version) = edns {
            octets.extend_from_slice(&[0, 0, 41, 4, 208, 0, version, 0, 0, 0, 0]);
        }
        octets
    }

    #[tokio::test]
    async fn what_is_no_question_of_ours_is_refused() {
        let desk = desk();
        for (message, expected) in [
            (query(1, 1, None), ResponseCode::Refused),
            (query(252, 1, None), ResponseCode::Refused),
            (query(1, 3, Some(0)), ResponseCode::Refused),
            // hickory calls 16 by its other name.
            (query(1, 1, Some(1)), ResponseCode::BADSIG),
        ] {
            let octets = desk.answer(&message, true).await.expect("an answer");
            let read = Message::from_vec(&octets).expect("hickory reads it");
            assert_eq!(read.response_code, expected);
            assert!(octets[12..].starts_with(b"\x03WwW"), "the spelling is the asker's");
        }
        let mut notify = query(1, 1, None);
        notify[2] = 4 << 3;
        let octets = desk.answer(&notify, true).await.expect("an answer");
        assert_eq!(Message::from_vec(&octets).expect("reads").response_code, ResponseCode::NotImp);
        assert!(desk.answer(&[1, 2, 0x80], true).await.is_none(), "no answer to what may be one");
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_every_answer_reads(octets in proptest::collection::vec(any::<u8>(), 0..64), cut in 0..60_usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let desk = desk();
            let mut message = query(1, 1, Some(0));
            message.truncate(cut);
            message.extend_from_slice(&octets);
            for input in [&octets, &message] {
                if let Some(answer) = runtime.block_on(desk.answer(input, true)) {
                    prop_assert!(Message::from_vec(&answer).is_ok());
                    prop_assert_eq!(&answer[..2], &input[..2]);
                }
            }
        }
    }
}
