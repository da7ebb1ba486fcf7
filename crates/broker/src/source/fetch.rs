//! One look at a primary: a connection, its SOA, and a transfer (RFC 1995, RFC 5936, RFC 9103), every message bounded in
//! time and size and its signature verified where there is a key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dnsbroker_federation::{DomainName, NetId, Serial};
use dnsbroker_store::record::{Source, SourceTls};
use dnsbroker_zone::transfer::inbound::{Asked, Bounds, Inbound, Received, Tally, TransferError};
use dnsbroker_zone::tsig::{Chain, Key, TsigError};
use dnsbroker_zone::wire::message::Message;
use dnsbroker_zone::wire::{Rcode, RecordType, Section};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Means;
use crate::committer::now;
use crate::key::entropy;
use crate::tls::{Trust, client_config};

/// Time to connect and shake hands.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for the next octets of a message.
const STALL: Duration = Duration::from_secs(30);
/// The same after an answer to IXFR that has only begun with its SOA: there may be no more to come.
const LONE: Duration = Duration::from_secs(5);
/// Time for one transfer in all.
const LIFE: Duration = Duration::from_secs(2 * 3_600);

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
type Connected = BufReader<Box<dyn Stream>>;

/// What a transfer came to, and what was counted even if it failed.
pub(super) struct Fetched {
    pub(super) received: Result<Received, String>,
    pub(super) tally: Tally,
}

/// Looks at one primary.
pub(super) struct Fetcher {
    netid: NetId,
    source: Source,
    key: Option<Key>,
    tls: Option<(Arc<rustls::ClientConfig>, rustls_pki_types::ServerName<'static>)>,
    addresses: Vec<IpAddr>,
    bounds: Bounds,
}

impl Fetcher {
    pub(super) fn new(source: &Source, means: &Means) -> Result<Self, String> {
        let view = means.shared.view.load();
        let key = match &source.key {
            None => None,
            Some(name) => {
                let row = view
                    .tsig_keys
                    .get(name)
                    .ok_or_else(|| format!("its TSIG key {name} was revoked: make another and set the source again"))?;
                Some(means.sealer.unseal(row).map_err(|error| error.to_string())?)
            }
        };
        let tls = source.tls.as_ref().map(|tls| tls_config(source, tls, means)).transpose()?;
        let addresses = view.zones.network(source.netid).map_or_else(Vec::new, |network| network.addresses.clone());
        let bounds = Bounds { records: means.limits.source_records, octets: means.limits.source_octets };
        Ok(Self { netid: source.netid, source: source.clone(), key, tls, addresses, bounds })
    }

    /// The primary's serial.
    pub(super) async fn serial(&self) -> Result<Serial, String> {
        let mut stream = self.connect().await?;
        let (mut query, id) = query(&self.source.zone, RecordType::SOA, None)?;
        let mut chain = self.key.clone().map(|key| Chain::request(key, &mut query, now().unsigned_abs()));
        send(&mut stream, &query).await?;
        let octets = receive(&mut stream, STALL).await?.ok_or_else(|| self.silent())?;
        let message = Message::new(&octets).map_err(|error| format!("the answer to SOA is malformed: {error}"))?;
        verify(&mut chain, message)?;
        if message.header().id != id || !message.is_response() {
            return Err("the answer to SOA is not one to our question".to_owned());
        }
        if message.rcode() != Rcode::NOERROR {
            return Err(format!("the primary answers {} to SOA", message.rcode().mnemonic()));
        }
        for record in message.records().map_err(|error| format!("the answer to SOA is malformed: {error}"))? {
            let record = record.map_err(|error| format!("the answer to SOA is malformed: {error}"))?;
            let here = record.section == Section::Answer && record.owner.as_slice() == self.source.zone.wire();
            if here && record.rtype == RecordType::SOA {
                let soa = record.soa().ok_or("the primary's SOA cannot be read")?;
                return Ok(Serial::new(soa.serial));
            }
        }
        Err(format!("the primary has no SOA for {}: is it the name of the zone?", self.source.zone))
    }

    /// A transfer; where a difference does not work out, the whole zone.
    pub(super) async fn transfer(&self, asked: Asked) -> Fetched {
        match self.attempt(asked).await {
            (Err(Failure::Transfer(error)), _) if asked != Asked::Whole && error.wants_whole() => {
                tracing::info!(netid = %self.netid, %error, "IXFR does not work out: the whole zone is fetched");
                fetched(self.attempt(Asked::Whole).await)
            }
            attempted => fetched(attempted),
        }
    }

    async fn attempt(&self, asked: Asked) -> (Result<Received, Failure>, Tally) {
        let (rtype, serial) = match asked {
            Asked::Whole => (RecordType::AXFR, None),
            Asked::Since(serial) => (RecordType::IXFR, Some(serial)),
        };
        let (mut query, id) = match query(&self.source.zone, rtype, serial) {
            Ok(made) => made,
            Err(reason) => return (Err(reason.into()), Tally::default()),
        };
        let mut inbound = Inbound::new(&self.source.zone, asked, id, &self.addresses, self.bounds);
        let mut chain = self.key.clone().map(|key| Chain::request(key, &mut query, now().unsigned_abs()));
        let run = tokio::time::timeout(LIFE, self.messages(&query, &mut chain, &mut inbound)).await;
        let ended = run.unwrap_or_else(|_| Err(format!("it took longer than {} hours", LIFE.as_secs() / 3_600).into()));
        let tally = inbound.tally().clone();
        match ended {
            Ok(()) => (inbound.finish().map_err(Failure::Transfer), tally),
            Err(failure) => (Err(failure), tally),
        }
    }

    async fn messages(
        &self,
        query: &[u8],
        chain: &mut Option<Chain>,
        inbound: &mut Inbound<'_>,
    ) -> Result<(), Failure> {
        let mut stream = self.connect().await?;
        send(&mut stream, query).await?;
        loop {
            let lone = inbound.is_lone();
            let octets = match receive(&mut stream, if lone { LONE } else { STALL }).await {
                Ok(Some(octets)) => octets,
                // A primary that has no difference to give may say so by its SOA alone (RFC 1995, section 2).
                Ok(None) | Err(_) if lone => return Err(TransferError::Difference("the newer SOA came alone").into()),
                Ok(None) => return Err(TransferError::Cut { records: inbound.tally().records }.into()),
                Err(reason) => return Err(reason.into()),
            };
            let message = Message::new(&octets).map_err(|error| format!("a message is malformed: {error}"))?;
            let signed = verify(chain, message)?;
            if inbound.take(&octets)? {
                // RFC 8945, section 5.3.1: the last message is signed.
                return if signed { Ok(()) } else { Err(TsigError::Missing.to_string().into()) };
            }
        }
    }

    /// What a primary means that ends the connection and says nothing. In TLS 1.3 a client is through with its handshake
    /// before the server has looked at its certificate, and not every server says why it goes.
    fn silent(&self) -> String {
        let why = "the primary closed the connection without an answer";
        match &self.tls {
            None => why.to_owned(),
            Some(_) => format!("{why}: does it accept our certificate, that is, trust this federation's CA?"),
        }
    }

    async fn connect(&self) -> Result<Connected, String> {
        let primary = self.source.primary;
        let connected = async {
            let stream =
                TcpStream::connect(primary).await.map_err(|error| format!("no connection to {primary}: {error}"))?;
            stream.set_nodelay(true).map_err(|error| format!("no connection to {primary}: {error}"))?;
            let stream: Box<dyn Stream> = match &self.tls {
                None => Box::new(stream),
                Some((config, name)) => {
                    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                    let stream = connector.connect(name.clone(), stream).await;
                    Box::new(stream.map_err(|error| format!("no TLS with {primary}: {}", tls_words(&error)))?)
                }
            };
            Ok(BufReader::with_capacity(64 * 1024, stream))
        };
        let within = tokio::time::timeout(CONNECT, connected).await;
        within.unwrap_or_else(|_| Err(format!("no connection to {primary} within {} seconds", CONNECT.as_secs())))
    }
}

/// Why an attempt failed.
enum Failure {
    Transfer(TransferError),
    Words(String),
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        Self::Transfer(error)
    }
}

impl From<String> for Failure {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

fn fetched((received, tally): (Result<Received, Failure>, Tally)) -> Fetched {
    let received = received.map_err(|failure| match failure {
        Failure::Transfer(error) => error.to_string(),
        Failure::Words(words) => words,
    });
    Fetched { received, tally }
}

/// Checks the signature where there must be one; tells whether the message had it, or needs none.
fn verify(chain: &mut Option<Chain>, message: Message<'_>) -> Result<bool, String> {
    match chain {
        None => Ok(true),
        Some(chain) => chain.verify(message, now().unsigned_abs()).map_err(|error| match error {
            // What an unsigned refusal says helps more than that it is unsigned.
            TsigError::Missing if message.rcode() != Rcode::NOERROR => {
                format!("the primary answers {}, unsigned: does it know the TSIG key?", message.rcode().mnemonic())
            }
            error => error.to_string(),
        }),
    }
}

fn tls_words(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => format!("it refuses us with alert {alert:?}"),
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure)) => {
            "its key is not the one that is pinned".to_owned()
        }
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

fn tls_config(
    source: &Source,
    tls: &SourceTls,
    means: &Means,
) -> Result<(Arc<rustls::ClientConfig>, rustls_pki_types::ServerName<'static>), String> {
    let material = means.material.load_full();
    let (trust, name) = match tls {
        SourceTls::Pin(pin) => (Trust::Pin(*pin), None),
        SourceTls::Ca { name, ca } => {
            let mut roots = RootCertStore::empty();
            if ca.is_empty() {
                roots.add_parsable_certificates(material.clients.roots.iter().cloned());
            } else {
                let anchors: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca.as_bytes()).collect();
                roots.add_parsable_certificates(anchors.map_err(|error| format!("its CA cannot be read: {error}"))?);
            }
            (Trust::Roots(roots), Some(name))
        }
    };
    let name = match name {
        None => source.primary.ip().into(),
        Some(name) => {
            let text = name.to_string();
            let text = text.trim_end_matches('.').to_owned();
            rustls_pki_types::ServerName::try_from(text).map_err(|_| "its TLS name is no host name".to_owned())?
        }
    };
    let config = client_config(&material, trust).map_err(|error| dnsbroker_api::problem::chain(&error))?;
    Ok((Arc::new(config), name))
}

/// A query; for IXFR with the SOA that we have as authority (RFC 1995, section 3).
fn query(zone: &DomainName, rtype: RecordType, since: Option<Serial>) -> Result<(Vec<u8>, [u8; 2]), String> {
    let id = entropy::<2>().map_err(|error| error.to_string())?;
    let mut octets = vec![id[0], id[1], 0, 0, 0, 1, 0, 0, 0, u8::from(since.is_some()), 0, 0];
    octets.extend_from_slice(zone.wire());
    octets.extend_from_slice(&rtype.0.to_be_bytes());
    octets.extend_from_slice(&[0, 1]);
    if let Some(serial) = since {
        octets.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0]);
        octets.extend_from_slice(&serial.get().to_be_bytes());
        octets.extend_from_slice(&[0; 16]);
    }
    Ok((octets, id))
}

async fn send(stream: &mut Connected, message: &[u8]) -> Result<(), String> {
    let framed = [&(message.len() as u16).to_be_bytes(), message].concat();
    let sent = async {
        stream.write_all(&framed).await?;
        stream.flush().await
    };
    match tokio::time::timeout(STALL, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the connection broke: {error}")),
        Err(_) => Err("the primary takes nothing".to_owned()),
    }
}

/// The next message; none at the end of the stream.
async fn receive(stream: &mut Connected, within: Duration) -> Result<Option<Vec<u8>>, String> {
    let read = async {
        let mut length = [0; 2];
        match stream.read(&mut length[..1]).await {
            Ok(1..) => {}
            // Many end TLS without a word.
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        stream.read_exact(&mut length[1..]).await?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).await?;
        Ok::<_, std::io::Error>(Some(message))
    };
    match tokio::time::timeout(within, read).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err("the connection ended in the middle of a message".to_owned())
        }
        Ok(Err(error)) => Err(format!("the connection broke: {}", tls_words(&error))),
        Err(_) => Err(format!("the primary has sent nothing for {} seconds", within.as_secs())),
    }
}
