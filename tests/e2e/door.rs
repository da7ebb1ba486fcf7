//! The door: every transport, signature, kind of message and class, each with the answer it must get.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use dnsbroker_tests::tls::{Odd, Tls, ask, client, connect, credential, stranger};
use dnsbroker_tests::{Broker, TsigKey, decode, nibble_name};
use dnsbroker_zone::tsig::{Algorithm, Chain, Key};

const DEVICE: &str = "0004a30b001c0530";
const ZONE: &str = "deveuis.fed.example";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
    Xot,
    Doh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signed {
    No,
    /// By a key nobody knows.
    Unknown,
    /// By a known key with another secret.
    Wrong,
    /// By a key that allows transfers, updates and NOTIFY.
    Good,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Device,
    Soa,
    Ixfr,
    Axfr,
    Notify,
    Update,
    UnknownOpcode,
}

const NOERROR: u8 = 0;
const FORMERR: u8 = 1;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;
const NOTAUTH: u8 = 9;

/// Response code, and whether there are records in the answer.
fn expected(transport: Transport, signed: Signed, act: Act, class: u16) -> (u8, bool) {
    use Act::{Axfr, Device, Ixfr, Notify, Soa, UnknownOpcode, Update};
    let internet = class == 1;
    if act == UnknownOpcode {
        return (NOTIMP, false);
    }
    if transport == Transport::Doh {
        return match act {
            Notify | Update => (NOTIMP, false),
            _ if signed != Signed::No => (NOTAUTH, false),
            Device | Soa if internet => (NOERROR, true),
            _ => (REFUSED, false),
        };
    }
    if matches!(signed, Signed::Unknown | Signed::Wrong) {
        return (NOTAUTH, false);
    }
    if signed == Signed::No && transport != Transport::Xot {
        return (REFUSED, false);
    }
    match act {
        Device => (REFUSED, false),
        Update if internet => (NOERROR, false),
        // Nobody has authority over a zone of that class.
        Update => (NOTAUTH, false),
        _ if !internet => (REFUSED, false),
        Notify => (NOERROR, false),
        Axfr if transport == Transport::Udp => (FORMERR, false),
        Soa | Ixfr | Axfr => (NOERROR, true),
        UnknownOpcode => (NOTIMP, false),
    }
}

fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.split('.') {
        wire.push(label.len() as u8);
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}

fn message(act: Act, class: u16) -> Vec<u8> {
    let (opcode, owner, qtype) = match act {
        Act::Device => (0, nibble_name(DEVICE), 1),
        Act::Soa => (0, ZONE.to_owned(), 6),
        Act::Ixfr => (0, ZONE.to_owned(), 251),
        Act::Axfr => (0, ZONE.to_owned(), 252),
        Act::Notify => (4, "mydevices.example".to_owned(), 6),
        Act::Update => (5, ZONE.to_owned(), 6),
        Act::UnknownOpcode => (9, ZONE.to_owned(), 6),
    };
    let authority = u8::from(matches!(act, Act::Ixfr | Act::Update));
    let mut message = vec![0, 7, opcode << 3, 0, 0, 1, 0, 0, 0, authority, 0, 0];
    message.extend(name(&owner));
    message.extend([qtype_octets(qtype), class.to_be_bytes()].concat());
    match act {
        Act::Ixfr => {
            message.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0, 0, 0, 0, 1]);
            message.extend([0; 16]);
        }
        Act::Update => {
            let target = name("600013.netids.fed.example");
            message.extend(name(&nibble_name(DEVICE)));
            message.extend([0, 5, 0, 1, 0, 0, 0, 60, 0, target.len() as u8]);
            message.extend(target);
        }
        _ => {}
    }
    message
}

fn qtype_octets(qtype: u16) -> [u8; 2] {
    qtype.to_be_bytes()
}

fn sign(message: &mut Vec<u8>, signed: Signed, key: &TsigKey) -> anyhow::Result<()> {
    let key_name = if signed == Signed::Unknown { "nobody.example" } else { &key.name };
    // The secret that is wrong is the base64 text itself.
    let secret = if signed == Signed::Good { decode(&key.secret)? } else { key.secret.clone().into_bytes() };
    if signed != Signed::No {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Chain::request(Key::new(key_name.parse()?, Algorithm::HmacSha256, &secret), message, now);
    }
    Ok(())
}

fn framed<S: Read + Write>(stream: &mut S, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    stream.write_all(&[&(message.len() as u16).to_be_bytes()[..], message].concat())?;
    stream.flush()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

struct Ways {
    udp: UdpSocket,
    dns: std::net::SocketAddr,
    xot: Tls,
    doh: Tls,
}

impl Ways {
    fn ask(&mut self, transport: Transport, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        match transport {
            Transport::Udp => {
                self.udp.send(message)?;
                let mut answer = vec![0; 4_096];
                let length = self.udp.recv(&mut answer)?;
                answer.truncate(length);
                Ok(answer)
            }
            Transport::Tcp => {
                let mut stream = TcpStream::connect(self.dns)?;
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                framed(&mut stream, message)
            }
            Transport::Xot => framed(&mut self.xot, message),
            Transport::Doh => {
                let (status, answer) = ask(&mut self.doh, message)?;
                ensure!(status == 200, "HTTP status {status}");
                Ok(answer)
            }
        }
    }
}

#[test]
fn each_transport_signature_message_and_class_gets_the_answer_of_the_rule() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.json(&["netid", "set", "600014", "--member", "alpine", "--address", "198.51.100.20"])?;
    broker.devices("alpine", "600013", &[DEVICE])?;
    let key = broker.key("all.example", "--member=alpine", "transfer,update,source")?;
    broker.json(&["replica", "add", "alpine-mirror", "--holder", "alpine", "--all", "--allow-clear-text"])?;
    let source = ["source", "add", "600014", "--member", "alpine", "--primary", "127.0.0.1:9", "--zone"];
    broker.json(&[&source, &["mydevices.example", "--key", "all.example"][..]].concat())?;
    let certificate = credential(&broker.certificate("alpine")?)?;
    let again = || -> anyhow::Result<_> { Ok((certificate.0.clone(), certificate.1.clone_key())) };
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.connect(broker.dns()?)?;
    udp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut ways = Ways {
        udp,
        dns: broker.dns()?,
        xot: connect(broker.xot()?, &client(&broker, Some(again()?), &["dot"])?)?,
        doh: connect(broker.doh()?, &client(&broker, Some(again()?), &["http/1.1"])?)?,
    };
    let mut cells = 0;
    for transport in [Transport::Udp, Transport::Tcp, Transport::Xot, Transport::Doh] {
        for signed in [Signed::No, Signed::Unknown, Signed::Wrong, Signed::Good] {
            for act in [Act::Device, Act::Soa, Act::Ixfr, Act::Axfr, Act::Notify, Act::Update, Act::UnknownOpcode] {
                for class in [1, 3, 255] {
                    let cell = format!("{transport:?} {signed:?} {act:?} class {class}");
                    let mut question = message(act, class);
                    sign(&mut question, signed, &key)?;
                    let answer = ways.ask(transport, &question).with_context(|| cell.clone())?;
                    ensure!(answer[..2] == [0, 7] && answer[2] & 0x80 != 0, "{cell}: not an answer to this");
                    let (rcode, records) = (answer[3] & 15, answer[6..8] != [0, 0]);
                    let wanted = expected(transport, signed, act, class);
                    ensure!((rcode, records) == wanted, "{cell}: {rcode} {records} and not {wanted:?}");
                    let additional = u16::from_be_bytes([answer[10], answer[11]]);
                    let known = transport != Transport::Doh && act != Act::UnknownOpcode && signed != Signed::No;
                    ensure!((additional > 0) == known, "{cell}: a signed request gets a TSIG, no other does");
                    cells += 1;
                }
            }
        }
    }
    ensure!(cells == 4 * 4 * 7 * 3);
    Ok(())
}

#[test]
fn a_key_does_what_it_allows_and_nothing_else() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.json(&["replica", "add", "alpine-mirror", "--holder", "alpine", "--all"])?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.connect(broker.dns()?)?;
    udp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let ask = |key: &TsigKey, act: Act| -> anyhow::Result<u8> {
        let mut question = message(act, 1);
        sign(&mut question, Signed::Good, key)?;
        udp.send(&question)?;
        let mut answer = [0; 4_096];
        udp.recv(&mut answer)?;
        Ok(answer[3] & 15)
    };
    let tcp = |key: &TsigKey, act: Act| -> anyhow::Result<u8> {
        let mut question = message(act, 1);
        sign(&mut question, Signed::Good, key)?;
        Ok(framed(&mut TcpStream::connect(broker.dns()?)?, &question)?[3] & 15)
    };
    for (allow, soa, update) in
        [("transfer", NOERROR, REFUSED), ("update", REFUSED, NOERROR), ("source", REFUSED, REFUSED)]
    {
        let key = broker.key(&format!("{allow}.example"), "--member=alpine", allow)?;
        ensure!(ask(&key, Act::Soa)? == soa, "{allow}: SOA");
        ensure!(ask(&key, Act::Update)? == update, "{allow}: UPDATE");
        ensure!(ask(&key, Act::Device)? == REFUSED, "{allow}: a look-up");
        ensure!(ask(&key, Act::Notify)? == REFUSED, "{allow}: NOTIFY of no source");
        // Nobody has allowed clear text for this replica.
        ensure!(tcp(&key, Act::Axfr)? == REFUSED && tcp(&key, Act::Ixfr)? == REFUSED, "{allow}: clear text");
    }
    let key = broker.key("all.example", "--member=alpine", "transfer,update")?;
    ensure!(ask(&key, Act::Soa)? == NOERROR);
    broker.json(&["member", "suspend", "alpine"])?;
    ensure!(ask(&key, Act::Soa)? == REFUSED && ask(&key, Act::Update)? == REFUSED, "suspension bites");
    broker.json(&["member", "resume", "alpine"])?;
    ensure!(ask(&key, Act::Soa)? == NOERROR);
    broker.json(&["key", "revoke", "all.example"])?;
    ensure!(ask(&key, Act::Soa)? == NOTAUTH, "revocation bites");
    // Secrets are nowhere: not in lists, the log, the audit or the store.
    let everywhere = [
        broker.run(&["key", "list", "--json"])?.stdout,
        broker.run(&["audit", "list", "--json"])?.stdout,
        broker.log(),
        String::from_utf8_lossy(&std::fs::read(broker.path().join("data/store.redb"))?).into_owned(),
    ];
    ensure!(everywhere.iter().all(|text| !text.contains(&key.secret)), "a secret is somewhere");
    Ok(())
}

#[test]
fn what_was_allowed_ends_with_the_certificate_on_live_connections_too() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.json(&["replica", "add", "mirror", "--all"])?;
    let directory = broker.replica_certificate("mirror")?;
    let config = client(&broker, Some(credential(&directory)?), &["dot"])?;
    let mut live = connect(broker.xot()?, &config)?;
    ensure!(framed(&mut live, &message(Act::Axfr, 1))?[3] & 15 == NOERROR);
    // A replica is no member: DoH does not let it in.
    let doh = connect(broker.doh()?, &client(&broker, Some(credential(&directory)?), &["http/1.1"])?);
    ensure!(doh.and_then(|mut tls| ask(&mut tls, &message(Act::Device, 1))).is_err(), "a replica looks devices up");
    // The same name in a certificate of somebody else's CA.
    let uri = ["spiffe://fed.example/replica/mirror"];
    let forged = stranger(&Odd { uris: &uri, days: (-1, 1), ..Odd::default() })?;
    let forged = connect(broker.xot()?, &client(&broker, Some(forged), &["dot"])?);
    let forged = forged.and_then(|mut tls| framed(&mut tls, &message(Act::Soa, 1)));
    ensure!(forged.is_err(), "a stranger is let in");
    broker.assert_logged("XoT handshake failed")?;
    let bare = connect(broker.xot()?, &client(&broker, None, &["dot"])?);
    ensure!(bare.and_then(|mut tls| framed(&mut tls, &message(Act::Soa, 1))).is_err(), "nobody is let in");
    broker.json(&["replica", "remove", "mirror"])?;
    let ended = framed(&mut live, &message(Act::Soa, 1));
    ensure!(ended.is_err(), "the live connection goes on");
    let again = connect(broker.xot()?, &config).and_then(|mut tls| framed(&mut tls, &message(Act::Soa, 1)));
    ensure!(again.is_err(), "a removed replica is let in");
    Ok(())
}

/// Hands out one TLS record at a time (RFC 8446, section 5.1).
struct OneRecord<'s>(&'s mut TcpStream, Vec<u8>);

impl Read for OneRecord<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.1.is_empty() {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            self.1 = head.to_vec();
            self.1.resize(5 + usize::from(u16::from_be_bytes([head[3], head[4]])), 0);
            self.0.read_exact(&mut self.1[5..])?;
        }
        let count = buffer.len().min(self.1.len());
        buffer[..count].copy_from_slice(&self.1[..count]);
        self.1.drain(..count);
        Ok(count)
    }
}

/// NSD does not see a message that shares its record with the end of the one before, until more comes.
#[test]
fn each_message_over_tls_has_records_of_its_own() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.json(&["replica", "add", "mirror", "--all"])?;
    let config = client(&broker, Some(credential(&broker.replica_certificate("mirror")?)?), &["dot"])?;
    let Tls { mut conn, mut sock } = connect(broker.xot()?, &config)?;
    let question = message(Act::Soa, 1);
    let framed = [&(question.len() as u16).to_be_bytes()[..], &question].concat();
    conn.writer().write_all(&framed.repeat(32))?;
    while conn.wants_write() {
        conn.write_tls(&mut sock)?;
    }
    let mut answers = 0;
    while answers < 32 {
        let mut record = OneRecord(&mut sock, Vec::new());
        conn.read_tls(&mut record)?;
        while !record.1.is_empty() {
            conn.read_tls(&mut record)?;
        }
        let count = conn.process_new_packets()?.plaintext_bytes_to_read();
        let mut plain = vec![0; count];
        conn.reader().read_exact(&mut plain)?;
        // Tickets have no content for us.
        let Some(length) = plain.first_chunk() else { continue };
        ensure!(usize::from(u16::from_be_bytes(*length)) + 2 == count, "a record has {count} octets of messages");
        answers += 1;
    }
    Ok(())
}

#[test]
fn a_notify_that_is_refused_says_in_the_log_what_it_lacks() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    let (key, other) = ("op1.example", "other.example");
    broker.key(key, "--member=alpine", "source")?;
    let other = broker.key(other, "--member=alpine", "source")?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.connect(broker.dns()?)?;
    udp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let refused = |key: Option<&TsigKey>, words: &[&str]| -> anyhow::Result<()> {
        let mut question = message(Act::Notify, 1);
        key.map_or(Ok(()), |key| sign(&mut question, Signed::Good, key))?;
        udp.send(&question)?;
        let mut answer = [0; 4_096];
        udp.recv(&mut answer)?;
        ensure!(answer[3] & 15 == REFUSED);
        let log = broker.log();
        let line = log.lines().rfind(|line| line.contains("NOTIFY refused")).context("no line")?;
        ensure!(words.iter().all(|word| line.contains(word)), "{words:?} are not all in {line}");
        Ok(())
    };
    refused(None, &["mydevices.example.", "no source has this zone"])?;
    let add = |primary: &str, key: &str| {
        let zone = ["--zone", "mydevices.example", "--key", key];
        broker.json(&[&["source", "add", "600013", "--member", "alpine", "--primary", primary], &zone[..]].concat())
    };
    add("127.0.0.1:9", key)?;
    let needs = ["NetID 600013", "it must be signed with the TSIG key op1.example", "come from 127.0.0.1, as it did"];
    refused(None, &[&needs[..], &["it is not signed"]].concat())?;
    refused(Some(&other), &[&needs[..], &["it is signed with other.example"]].concat())?;
    add("192.0.2.7:53", other.name.as_str())?;
    refused(Some(&other), &["come from 192.0.2.7, and not from 127.0.0.1"])
}
