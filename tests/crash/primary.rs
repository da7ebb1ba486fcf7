//! A member's primary whose zone has a new version whenever the test says so; what each version holds is known.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use dnsbroker_federation::DevEui;
use dnsbroker_zone::tsig::{Algorithm, Chain, Key, Signature, verify};
use dnsbroker_zone::wire::message::Message;

/// The zone's name, as administrators and messages have it.
pub const ZONE: &str = "mydevices.example";
const WIRE: &[u8] = b"\x09mydevices\x07example\x00";
const SOA: u16 = 6;
const IXFR: u16 = 251;
/// Devices of each version, and how many are others in the next.
const DEVICES: u64 = 2_000;
const OTHERS: u64 = 150;
/// How many versions later more than half of the devices are left, with which the shrink guard lets a transfer pass.
pub const AHEAD: u32 = (DEVICES / 2 / OTHERS) as u32;
/// Records of a message, and the pause after it: a transfer takes some time.
const RECORDS: usize = 250;
const PAUSE: Duration = Duration::from_millis(3);

/// A primary that answers until it sleeps.
pub struct Primary {
    pub address: SocketAddr,
    version: Arc<AtomicU32>,
    asleep: Arc<AtomicBool>,
}

/// What a version has.
pub fn devices(version: u32) -> BTreeSet<DevEui> {
    let first = u64::from(version) * OTHERS;
    let device = |low: u64| DevEui::from_u64(0x0004_a30b_0000_0000 + low * 7_919);
    (first..first + DEVICES).filter_map(|low| device(low).ok()).collect()
}

impl Primary {
    pub fn start(key: &str, secret: &[u8]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let primary = Self { address: listener.local_addr()?, version: Arc::default(), asleep: Arc::default() };
        let (version, asleep) = (Arc::clone(&primary.version), Arc::clone(&primary.asleep));
        version.store(1, Ordering::Relaxed);
        let key = Key::new(key.parse()?, Algorithm::HmacSha256, secret);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if asleep.load(Ordering::Relaxed) {
                    continue;
                }
                let (version, key) = (Arc::clone(&version), key.clone());
                // A broker that dies in the middle is what this is for.
                std::thread::spawn(move || drop(serve(stream, &version, &key)));
            }
        });
        Ok(primary)
    }

    /// The version that is there now.
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    /// Another one.
    pub fn publish(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers nobody any more.
    pub fn sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
    }
}

fn serve(mut stream: TcpStream, version: &AtomicU32, key: &Key) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut octets = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut octets)?;
        let message = Message::new(&octets)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let signature = Signature::of(message)?.context("unsigned")?;
        let mut chain = verify(message, &signature, Some(key.clone()), now)?;
        let qtype = message.question()?.context("no question")?.qtype.0;
        let version = version.load(Ordering::Relaxed);
        let asked = message.records()?.flatten().find_map(|record| record.soa()).map(|soa| soa.serial);
        let records = match (qtype, asked) {
            (SOA, _) => vec![soa(version)],
            (IXFR, Some(asked)) if asked >= version => vec![soa(version)],
            (IXFR, Some(asked)) => difference(asked, version),
            _ => [vec![soa(version)], devices(version).into_iter().map(device).collect(), vec![soa(version)]].concat(),
        };
        for some in records.chunks(RECORDS) {
            send(&mut stream, &octets[..2], qtype, some, &mut chain, now)?;
            std::thread::sleep(PAUSE);
        }
    }
}

fn difference(from: u32, to: u32) -> Vec<Vec<u8>> {
    let (before, after) = (devices(from), devices(to));
    let mut records = vec![soa(to), soa(from)];
    records.extend(before.difference(&after).copied().map(device));
    records.push(soa(to));
    records.extend(after.difference(&before).copied().map(device));
    records.push(soa(to));
    records
}

fn send(
    stream: &mut TcpStream,
    id: &[u8],
    qtype: u16,
    records: &[Vec<u8>],
    chain: &mut Chain,
    now: u64,
) -> anyhow::Result<()> {
    let mut octets = [id, &[0x84, 0, 0, 1]].concat();
    octets.extend((records.len() as u16).to_be_bytes());
    octets.extend([0; 4]);
    octets.extend(WIRE);
    octets.extend(qtype.to_be_bytes());
    octets.extend([0, 1]);
    records.iter().for_each(|record| octets.extend(record));
    chain.sign(&mut octets, now);
    ensure!(octets.len() <= usize::from(u16::MAX), "too much for one message");
    Ok(stream.write_all(&[&(octets.len() as u16).to_be_bytes()[..], &octets].concat())?)
}

fn record(owner: &[u8], rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut octets = [owner, &rtype.to_be_bytes(), &[0, 1, 0, 0, 0, 60]].concat();
    octets.extend((rdata.len() as u16).to_be_bytes());
    octets.extend(rdata);
    octets
}

/// Looks are wanted at each refresh only.
fn soa(version: u32) -> Vec<u8> {
    let mut rdata = b"\x00\x00".to_vec();
    for field in [version, 3_600, 1, 86_400, 60] {
        rdata.extend(field.to_be_bytes());
    }
    record(&[0xc0, 12], SOA, &rdata)
}

fn device(device: DevEui) -> Vec<u8> {
    let owner = [b"\x10", device.to_string().as_bytes(), &[0xc0, 12]].concat();
    record(&owner, 1, &[198, 51, 100, 77])
}
