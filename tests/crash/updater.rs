//! A writer that speaks DNS: dynamic updates over TCP, signed, one after another.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{bail, ensure};
use dnsbroker_federation::{DevEui, DomainName, NetId};
use dnsbroker_zone::tsig::{Algorithm, Chain, Key};
use dnsbroker_zone::wire::message::Message;

/// Devices of one update at most: a message has 64 KiB.
pub const MOST: usize = 400;
const ZONE: &str = "deveuis.fed.example";

/// A connection to a broker, and a key of one member.
pub struct Updater {
    key: Key,
    stream: TcpStream,
    id: u16,
}

/// Why an update was not acknowledged.
pub enum Unacknowledged {
    /// The broker says no.
    Refused(String),
    /// SERVFAIL: the store takes no changes.
    StoreFailed,
    /// Nobody says anything: it may have happened or not.
    Unknown,
}

impl Updater {
    pub fn connect(broker: SocketAddr, key: &str, secret: &[u8]) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(broker)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { key: Key::new(key.parse()?, Algorithm::HmacSha256, secret), stream, id: 0 })
    }

    /// Registers or removes devices, all in one message.
    pub fn send(&mut self, devices: &[DevEui], netid: Option<NetId>) -> Result<(), Unacknowledged> {
        let exchanged = self.message(devices, netid).and_then(|(message, chain)| self.exchange(&message, chain));
        match exchanged {
            Ok(0) => Ok(()),
            Ok(2) => Err(Unacknowledged::StoreFailed),
            Ok(rcode) => Err(Unacknowledged::Refused(format!("rcode {rcode}"))),
            Err(_) => Err(Unacknowledged::Unknown),
        }
    }

    fn message(&mut self, devices: &[DevEui], netid: Option<NetId>) -> anyhow::Result<(Vec<u8>, Chain)> {
        ensure!(devices.len() <= MOST, "too many devices for one message");
        self.id = self.id.wrapping_add(1);
        let zone: DomainName = ZONE.parse()?;
        let mut message = self.id.to_be_bytes().to_vec();
        message.extend([5 << 3, 0, 0, 1, 0, 0]);
        message.extend((devices.len() as u16).to_be_bytes());
        message.extend([0, 0]);
        message.extend(zone.wire());
        message.extend([0, 6, 0, 1]);
        for device in devices {
            message.push(16);
            message.extend(device.to_string().bytes());
            message.extend([0xc0, 12]);
            match netid {
                Some(netid) => {
                    let target: DomainName = format!("{netid}.netids.fed.example").parse()?;
                    message.extend([0, 5, 0, 1, 0, 0, 0, 60, 0, target.wire().len() as u8]);
                    message.extend(target.wire());
                }
                // Type ANY, class ANY: delete the name.
                None => message.extend([0, 255, 0, 255, 0, 0, 0, 0, 0, 0]),
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let chain = Chain::request(self.key.clone(), &mut message, now);
        Ok((message, chain))
    }

    fn exchange(&mut self, message: &[u8], mut chain: Chain) -> anyhow::Result<u16> {
        self.stream.write_all(&[&(message.len() as u16).to_be_bytes()[..], message].concat())?;
        let mut length = [0; 2];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        self.stream.read_exact(&mut answer)?;
        let answer = Message::new(&answer)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        if !chain.verify(answer, now)? {
            bail!("an answer without a signature");
        }
        Ok(answer.rcode().0)
    }
}
