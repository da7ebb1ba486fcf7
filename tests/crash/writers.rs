//! Writers that change a broker as fast as it lets them, and keep a ledger each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use dnsbroker_api::client::{Client, ClientError};
use dnsbroker_api::message::{
    Certificate, Enroll, ImportReport, Member, Network, NewMember, NewToken, Reason, SetNetwork,
};
use dnsbroker_api::problem::Problem;
use dnsbroker_federation::{DevEui, MemberId, NetId};
use dnsbroker_tests::{Broker, decode};
use fastrand::Rng;
use rcgen::{CertificateParams, KeyPair};

use crate::layer::Layer;
use crate::ledger::{DeviceChange, Devices, Ledger, Ledgers, Outcome, Part, Picture, Roster, RosterChange, Step};
use crate::updater::{MOST, Unacknowledged, Updater};

/// Those who change devices: member and NetID of each.
const DEVICE_WRITERS: [(&str, &str); 4] =
    [("atlantic-iot", "60002d"), ("alpine-lora", "600013"), ("city-sensors", "c0002a"), ("harbour-net", "e00123")];
/// Which of them sends small changes as dynamic updates (RFC 2136), and its key.
const UPDATER: usize = 3;
const KEY: &str = "updater.example";
/// Member and NetIDs of the one who changes everything else.
const CLERK: &str = "clerk";
/// After a refusal a writer waits a little: a full disk is not freed sooner by asking.
const PAUSE: Duration = Duration::from_millis(20);

/// How far the writers are.
#[derive(Debug, Default)]
pub struct Progress {
    stop: AtomicBool,
    /// Changes that were acknowledged.
    pub acknowledged: AtomicUsize,
    /// In how many words changes were refused: status, code and text of each kind.
    pub refusals: Mutex<BTreeSet<String>>,
}

/// Work that is under way.
pub struct Writers {
    /// How far it is.
    pub progress: Arc<Progress>,
    devices: Vec<(NetId, JoinHandle<anyhow::Result<Ledger<Devices>>>)>,
    clerk: JoinHandle<anyhow::Result<Ledger<Roster>>>,
}

/// Runs it on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// The client for a broker's control socket.
pub fn client(broker: &Broker) -> Client {
    Client::control(broker.path().join("control.sock"))
}

/// Members and NetIDs for the writers.
pub fn settle(broker: &Broker) -> anyhow::Result<Picture> {
    for (index, (member, netid)) in DEVICE_WRITERS.into_iter().enumerate() {
        broker.member(member, netid, &format!("192.0.2.{index}"))?;
    }
    broker.member(CLERK, "600042", "192.0.2.99")?;
    let (updater, _) = DEVICE_WRITERS[UPDATER];
    let key = broker.key(KEY, &format!("--member={updater}"), "update")?;
    std::fs::write(broker.path().join(KEY), key.secret)?;
    block_on(Picture::take(&client(broker)))?
}

impl Writers {
    /// Starts all of them. `start` is what the broker has.
    pub fn start(broker: &Broker, layer: Option<&Layer>, start: &Picture, seed: u64) -> anyhow::Result<Self> {
        let progress = Arc::new(Progress::default());
        let mut random = Rng::with_seed(seed);
        let mut desk = |path: &Path| Desk {
            client: Client::control(path.join("control.sock")),
            layer: layer.cloned(),
            progress: Arc::clone(&progress),
            random: random.fork(),
            updater: None,
        };
        let mut devices = Vec::new();
        for (number, (member, netid)) in DEVICE_WRITERS.into_iter().enumerate() {
            let (member, netid) = (member.parse()?, netid.parse()?);
            let ledger = Ledger { start: start.devices.get(&netid).cloned().unwrap_or_default(), steps: Vec::new() };
            let mut desk = desk(broker.path());
            if number == UPDATER {
                let secret = decode(&std::fs::read_to_string(broker.path().join(KEY))?)?;
                desk.updater = Some(Updater::connect(broker.dns()?, KEY, &secret)?);
            }
            devices.push((netid, std::thread::spawn(move || block_on(desk.devices(number, member, netid, ledger))?)));
        }
        let ledger = Ledger { start: start.roster.clone(), steps: Vec::new() };
        let desk = desk(broker.path());
        let clerk = std::thread::spawn(move || block_on(desk.clerk(ledger))?);
        Ok(Self { progress, devices, clerk })
    }

    /// Asks them to stop, waits, and gives what they wrote down.
    pub fn stop(self) -> anyhow::Result<Ledgers> {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.wait()
    }

    /// Waits until the last of them has seen that the daemon is dead.
    pub fn wait(self) -> anyhow::Result<Ledgers> {
        let mut devices = BTreeMap::new();
        for (netid, thread) in self.devices {
            devices.insert(netid, join(thread)?);
        }
        Ok(Ledgers { devices, roster: join(self.clerk)? })
    }
}

fn join<T>(thread: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?
}

/// What every writer has.
struct Desk {
    client: Client,
    layer: Option<Layer>,
    progress: Arc<Progress>,
    random: Rng,
    updater: Option<Updater>,
}

/// What became of an update, in the terms of the other writers.
fn updated(result: Result<(), Unacknowledged>) -> Result<(), ClientError> {
    result.map_err(|error| match error {
        Unacknowledged::Refused(words) => {
            ClientError::Problem(Box::new(Problem::new(http::StatusCode::CONFLICT, "update-refused", words)))
        }
        Unacknowledged::StoreFailed => {
            let words = "an update was answered with SERVFAIL";
            ClientError::Problem(Box::new(Problem::new(http::StatusCode::INSUFFICIENT_STORAGE, "store-full", words)))
        }
        Unacknowledged::Unknown => ClientError::Unreachable {
            socket: "plain DNS".to_owned(),
            source: std::io::ErrorKind::ConnectionAborted.into(),
        },
    })
}

impl Desk {
    fn position(&self) -> u64 {
        self.layer.as_ref().map_or(0, Layer::position)
    }

    /// Writes a step down; tells whether the writer goes on.
    async fn note<P: Part>(
        &self,
        ledger: &mut Ledger<P>,
        change: P::Change,
        sent: u64,
        result: Result<P::Done, ClientError>,
    ) -> bool {
        let mut dead = false;
        let outcome = match result {
            Ok(done) => {
                self.progress.acknowledged.fetch_add(1, Ordering::Relaxed);
                Outcome::Done(done, self.position())
            }
            Err(ClientError::Problem(problem)) => {
                if let Ok(mut refusals) = self.progress.refusals.lock() {
                    refusals.insert(format!("{} {}: {problem}", problem.status, problem.code));
                }
                tokio::time::sleep(PAUSE).await;
                Outcome::Refused
            }
            // Nothing but a problem says that nothing was done.
            Err(_) => {
                dead = true;
                Outcome::Unknown
            }
        };
        ledger.steps.push(Step { change, sent, outcome });
        !dead && !self.progress.stop.load(Ordering::Relaxed)
    }

    async fn devices(
        mut self,
        number: usize,
        member: MemberId,
        netid: NetId,
        mut ledger: Ledger<Devices>,
    ) -> anyhow::Result<Ledger<Devices>> {
        loop {
            let change = self.device_change(number)?;
            let (mode, list) = match &change {
                DeviceChange::Add(list) => ("add", list),
                DeviceChange::Remove(list) => ("remove", list),
                DeviceChange::Full(list) => ("full&allow_shrink=true", list),
            };
            let path = format!("/api/v1/members/{member}/netids/{netid}/devices?format=plain&mode={mode}");
            let body: String = list.iter().map(|device| format!("{device}\n")).collect();
            let sent = self.position();
            let result = match (&mut self.updater, &change) {
                (Some(updater), DeviceChange::Add(list)) if list.len() <= MOST => {
                    updated(updater.send(list, Some(netid)))
                }
                (Some(updater), DeviceChange::Remove(list)) if list.len() <= MOST => updated(updater.send(list, None)),
                _ => {
                    let report: Result<ImportReport, _> =
                        self.client.upload(&path, "text/plain", std::io::Cursor::new(body)).await;
                    report.map(drop)
                }
            };
            if !self.note(&mut ledger, change, sent, result).await {
                return Ok(ledger);
            }
        }
    }

    /// Mostly small changes, and now and then one that makes the store fold its journal.
    fn device_change(&mut self, number: usize) -> anyhow::Result<DeviceChange> {
        let count = match self.random.u32(..100) {
            0 => 30_000,
            1..20 => self.random.usize(100..2_000),
            _ => self.random.usize(1..50),
        };
        let block = 0x70b3_d500_0000_0000 | (number as u64) << 32;
        let mut device = || DevEui::from_u64(block | self.random.u64(..60_000));
        let list = (0..count).map(|_| device()).collect::<Result<Vec<_>, _>>()?;
        Ok(match self.random.u32(..10) {
            0..6 => DeviceChange::Add(list),
            6..9 => DeviceChange::Remove(list),
            _ => DeviceChange::Full(list),
        })
    }

    async fn clerk(mut self, mut ledger: Ledger<Roster>) -> anyhow::Result<Ledger<Roster>> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
        let mut tokens: Vec<(String, String)> = Vec::new();
        let mut valid: Vec<String> = Vec::new();
        let begun = ledger.start.members.len();
        loop {
            let sent = self.position();
            let (change, result) = match self.random.u32(..5) {
                0 => {
                    let id: MemberId = format!("m{begun}-{}", ledger.steps.len()).parse()?;
                    let added = self.client.member_add(&NewMember { id: id.clone(), name: None }).await;
                    (RosterChange::Member(id), added.map(|_: Member| String::new()))
                }
                1 => self.network().await?,
                2 if !tokens.is_empty() => {
                    let (id, secret) = tokens.swap_remove(self.random.usize(..tokens.len()));
                    let enrol = Enroll { token: secret, csr: csr.clone() };
                    let enrolled = self.client.enroll(&enrol).await;
                    let serial = enrolled.map(|issued| issued.certificate.serial);
                    valid.extend(serial.as_ref().ok().cloned());
                    (RosterChange::Enrol(id), serial)
                }
                3 if !valid.is_empty() => {
                    let serial = valid.swap_remove(self.random.usize(..valid.len()));
                    let reason = Reason { reason: "superseded".to_owned() };
                    let revoked = self.client.certificate_revoke(&serial, &reason).await;
                    (RosterChange::Revoke(serial), revoked.map(|_: Certificate| String::new()))
                }
                _ => {
                    let ask = NewToken { member: CLERK.parse()?, ttl: 3_600, key_pin: None };
                    let token = self.client.token_create(&ask).await;
                    if let Ok(token) = &token {
                        tokens.push((token.id.clone(), token.token.clone().context("a token without its secret")?));
                    }
                    (RosterChange::Token, token.map(|token| token.id))
                }
            };
            if !self.note(&mut ledger, change, sent, result).await {
                return Ok(ledger);
            }
        }
    }

    async fn network(&mut self) -> anyhow::Result<(RosterChange, Result<String, ClientError>)> {
        // Half of them are new, half get another address.
        let netid = NetId::from_u32(0x60_0100 | self.random.u32(..64))?;
        let address = IpAddr::V4(Ipv4Addr::from_bits(0xc633_6400 | self.random.u32(..256)));
        let set = SetNetwork { member: CLERK.parse()?, addresses: vec![address], port: None, target: None };
        let result = self.client.netid_set(&netid, &set).await;
        Ok((RosterChange::Network(netid, vec![address]), result.map(|_: Network| String::new())))
    }
}
