//! Plain resolvers: for names that are of no federation, and for brokers' own names. UDP with a port, an ID and a spelling of
//! one's own for each question (RFC 5452, "0x20"), TCP when the answer does not fit.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use dnsbroker_federation::DomainName;
use dnsbroker_zone::wire::message::Message;
use dnsbroker_zone::wire::{HEADER, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::answer::{Answer, query, question};
use crate::limits::{TCP_TRY, UDP_TRY};

/// Plain resolvers, in order.
pub struct Plain {
    servers: Vec<SocketAddr>,
    /// The one that answered last.
    good: AtomicUsize,
}

impl Plain {
    /// Of these; none refuses everything.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, good: AtomicUsize::new(0) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The answer to a question of a lower-case name.
    pub async fn ask(&self, asked: &[u8], dnssec_ok: bool) -> Result<Answer, String> {
        let mut last = "there is no upstream".to_owned();
        let first = self.good.load(Ordering::Relaxed);
        for attempt in 0..UDP_TRY.1.max(self.servers.len()) {
            let index = (first + attempt) % self.servers.len().max(1);
            let Some(server) = self.servers.get(index) else { break };
            match ask_server(*server, asked, dnssec_ok).await {
                Ok(answer) => {
                    self.good.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(reason) => last = format!("{server}: {reason}"),
            }
        }
        Err(last)
    }

    /// The addresses of a broker. Without upstreams the system is asked, which may ask this agent: then the loop ends in
    /// the federation's own answer, or in none.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let mut found = Vec::new();
        if self.is_empty() {
            let looked = tokio::net::lookup_host((host, 0)).await.map_err(|error| error.to_string())?;
            found.extend(looked.map(|address| address.ip()));
        } else {
            let name: DomainName = host.parse().map_err(|error| format!("{host} {error}"))?;
            for qtype in [RecordType::A, RecordType::AAAA] {
                let asked = question(name.wire(), qtype);
                found.extend(self.ask(&asked, false).await?.addresses(&asked));
            }
        }
        if found.is_empty() { Err("nobody knows one".to_owned()) } else { Ok(found) }
    }
}

async fn ask_server(server: SocketAddr, asked: &[u8], dnssec_ok: bool) -> Result<Answer, String> {
    let (spelled, id) = spelling(asked)?;
    let query = query(id, &spelled, true, dnssec_ok);
    let octets = match tokio::time::timeout(UDP_TRY.0, udp(server, &query, &spelled)).await {
        Ok(octets) => octets.map_err(|error| error.to_string())?,
        Err(_) => return Err("no answer in time".to_owned()),
    };
    let octets = if Message::new(&octets).is_ok_and(|message| message.is_truncated()) {
        match tokio::time::timeout(TCP_TRY, tcp(server, &query)).await {
            Ok(octets) => octets.map_err(|error| format!("TCP: {error}"))?,
            Err(_) => return Err("TCP: no answer in time".to_owned()),
        }
    } else {
        octets
    };
    if !is_reply(&octets, &query, &spelled) {
        return Err("TCP: an answer to another question".to_owned());
    }
    Answer::read(&spelled, &octets, &[0]).map_err(|unfit| unfit.0.to_owned())
}

/// A fresh socket has a fresh port. What is no reply is passed over: the true one may still come.
async fn udp(server: SocketAddr, query: &[u8], spelled: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut octets = vec![0; 4_096];
    loop {
        let length = socket.recv(&mut octets).await?;
        if is_reply(&octets[..length], query, spelled) {
            octets.truncate(length);
            return Ok(octets);
        }
    }
}

async fn tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).await?;
    let mut octets = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut octets).await?;
    Ok(octets)
}

/// The same ID, and the question in the same spelling.
fn is_reply(octets: &[u8], query: &[u8], spelled: &[u8]) -> bool {
    octets.get(..2) == query.get(..2)
        && octets.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && octets.get(HEADER..HEADER + spelled.len()) == Some(spelled)
}

/// The question with letters in upper or lower case at random, and an ID.
fn spelling(asked: &[u8]) -> Result<(Vec<u8>, [u8; 2]), String> {
    let mut random = [0; 34];
    SystemRandom::new().fill(&mut random).map_err(|_| "no entropy".to_owned())?;
    let mut spelled = asked.to_vec();
    let name = spelled.len().saturating_sub(4);
    for (index, octet) in spelled[..name].iter_mut().enumerate() {
        // Lengths of labels are no letters: they are below 64.
        if octet.is_ascii_lowercase() && random[2 + index / 8 % 32] >> (index % 8) & 1 == 1 {
            octet.make_ascii_uppercase();
        }
    }
    Ok((spelled, [random[0], random[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Vec<u8> {
        let name: DomainName = "www.example.com".parse().expect("a name");
        question(name.wire(), RecordType::A)
    }

    fn reply(query: &[u8], truncated: bool) -> Vec<u8> {
        let mut octets = query[..query.len() - 11].to_vec();
        octets[2] |= 0x80 | u8::from(truncated) << 1;
        octets[10..12].fill(0);
        if !truncated {
            octets[7] = 1;
            octets.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
        }
        octets
    }

    #[test]
    fn spellings_differ_and_mean_the_same() {
        let spellings: Vec<_> = (0..20).map(|_| spelling(&asked()).expect("entropy")).collect();
        assert!(spellings.iter().all(|(spelled, _)| spelled.eq_ignore_ascii_case(&asked())));
        assert!(spellings.iter().any(|(spelled, id)| *spelled != spellings[0].0 && *id != spellings[0].1));
        assert!(spellings.iter().all(|(spelled, _)| spelled.ends_with(&[0, 1, 0, 1])), "the type stays");
    }

    #[tokio::test]
    async fn forged_replies_are_passed_over_and_what_does_not_fit_comes_over_tcp() {
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let server = tcp.local_addr().expect("an address");
        let socket = UdpSocket::bind(server).await.expect("bound");
        let over_udp = tokio::spawn(async move {
            let mut octets = [0; 512];
            let (length, client) = socket.recv_from(&mut octets).await.expect("a query");
            let query = &octets[..length];
            let mut forged = reply(query, false);
            forged[0] ^= 1;
            socket.send_to(&forged, client).await.expect("sent");
            let mut lower = reply(query, false);
            lower[HEADER..].make_ascii_lowercase();
            if lower != reply(query, false) {
                socket.send_to(&lower, client).await.expect("sent");
            }
            socket.send_to(&reply(query, true), client).await.expect("sent");
        });
        let over_tcp = tokio::spawn(async move {
            let (mut stream, _) = tcp.accept().await.expect("a connection");
            let mut query = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
            stream.read_exact(&mut query).await.expect("a query");
            let reply = reply(&query, false);
            stream.write_u16(reply.len() as u16).await.expect("sent");
            stream.write_all(&reply).await.expect("sent");
        });
        let plain = Plain::new(vec![server]);
        let answer = plain.ask(&asked(), false).await.expect("an answer");
        assert_eq!(answer.addresses(&asked()), ["192.0.2.7".parse::<IpAddr>().expect("IP")]);
        over_udp.await.expect("ended");
        over_tcp.await.expect("ended");
    }

    #[tokio::test]
    async fn without_upstreams_nothing_is_answered() {
        assert!(Plain::new(vec![]).ask(&asked(), false).await.is_err());
    }
}
