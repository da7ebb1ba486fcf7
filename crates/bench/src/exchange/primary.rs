//! A primary of a member: a zone of devices that it sends, signed, and that gets one more device with each version.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use dnsbroker_federation::{DevEui, DomainName};
use dnsbroker_zone::tsig::{Chain, Key, Signature, verify};
use dnsbroker_zone::wire::message::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::fetch::now;

const SOA: u16 = 6;
const IXFR: u16 = 251;
/// Octets of a message's records at most.
const MESSAGE: usize = 16 * 1024;
/// An owner that points to the zone's name in the question.
const APEX: [u8; 2] = [0xc0, 12];

/// The primary. It answers for as long as the runtime lives.
pub struct Primary {
    pub address: SocketAddr,
    zone: Arc<Zone>,
}

struct Zone {
    name: DomainName,
    key: Key,
    devices: Vec<DevEui>,
    version: AtomicU32,
}

impl Primary {
    pub async fn start(name: DomainName, key: Key, devices: Vec<DevEui>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let zone = Arc::new(Zone { name, key, devices, version: AtomicU32::new(1) });
        let served = Arc::clone(&zone);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let zone = Arc::clone(&served);
                // The broker may hang up when it has what it wants.
                tokio::spawn(async move { drop(zone.serve(stream).await) });
            }
        });
        Ok(Self { address, zone })
    }

    /// Another version, with one more device; tells the broker.
    pub async fn change(&self, broker: SocketAddr) -> anyhow::Result<()> {
        self.zone.version.fetch_add(1, Ordering::Relaxed);
        let mut notify = vec![0, 1, 4 << 3 | 4, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        notify.extend(self.zone.name.wire());
        notify.extend([0, 6, 0, 1]);
        Chain::request(self.zone.key.clone(), &mut notify, now());
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.send_to(&notify, broker).await?;
        Ok(())
    }
}

impl Zone {
    async fn serve(&self, stream: TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufWriter::with_capacity(256 * 1024, stream);
        loop {
            let mut octets = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut octets).await?;
            let message = Message::new(&octets)?;
            let signature = Signature::of(message)?.context("a question without a signature")?;
            let mut chain = verify(message, &signature, Some(self.key.clone()), now())?;
            let question = message.question()?.context("no question")?;
            let version = self.version.load(Ordering::Relaxed);
            let asked = message.records()?.flatten().find_map(|record| record.soa()).map(|soa| soa.serial);
            let mut answer = Answer {
                head: [&octets[..2], &[0x84, 0]].concat(),
                question: question.octets.to_vec(),
                records: vec![],
                count: 0,
            };
            match (question.qtype.0, asked) {
                (SOA, _) => answer.soa(version),
                (IXFR, Some(asked)) if asked >= version => answer.soa(version),
                (IXFR, Some(asked)) => {
                    [version, asked, version].into_iter().for_each(|serial| answer.soa(serial));
                    (asked..version).for_each(|version| answer.device(more(version)));
                    answer.soa(version);
                }
                _ => {
                    answer.soa(version);
                    for device in &self.devices {
                        answer.device(*device);
                        if answer.records.len() > MESSAGE {
                            answer.send(&mut stream, &mut chain).await?;
                        }
                    }
                    (1..version).for_each(|version| answer.device(more(version)));
                    answer.soa(version);
                }
            }
            answer.send(&mut stream, &mut chain).await?;
            stream.flush().await?;
        }
    }
}

/// The device that comes after a version.
fn more(version: u32) -> DevEui {
    let block = 0x70b3_d5ff_0000_0000 | u64::from(version);
    // Neither all zeros nor all ones.
    DevEui::from_u64(block).unwrap_or_else(|_| unreachable!("a device in the middle"))
}

/// A message in the making.
struct Answer {
    head: Vec<u8>,
    question: Vec<u8>,
    records: Vec<u8>,
    count: u16,
}

impl Answer {
    fn record(&mut self, owner: &[u8], rtype: u16, rdata: &[u8]) {
        self.records.extend(owner);
        self.records.extend(APEX);
        self.records.extend(rtype.to_be_bytes());
        self.records.extend([0, 1, 0, 0, 0, 60]);
        self.records.extend((rdata.len() as u16).to_be_bytes());
        self.records.extend(rdata);
        self.count += 1;
    }

    fn soa(&mut self, serial: u32) {
        let mut rdata = vec![0, 0];
        [serial, 3_600, 60, 86_400, 60].into_iter().for_each(|field| rdata.extend(field.to_be_bytes()));
        self.record(&[], SOA, &rdata);
    }

    fn device(&mut self, device: DevEui) {
        self.record(&[&[16], device.to_string().as_bytes()].concat(), 1, &[192, 0, 2, 2]);
    }

    async fn send(&mut self, stream: &mut BufWriter<TcpStream>, chain: &mut Chain) -> anyhow::Result<()> {
        let mut octets =
            [&self.head[..], &[0, 1], &self.count.to_be_bytes(), &[0; 4], &self.question, &self.records].concat();
        chain.sign(&mut octets, now());
        ensure!(octets.len() <= usize::from(u16::MAX), "too much for one message");
        stream.write_u16(octets.len() as u16).await?;
        stream.write_all(&octets).await?;
        self.records.clear();
        self.count = 0;
        Ok(())
    }
}
