//! NOTIFY out (RFC 1996): replicas are told of a new serial, again until they answer.
//!
//! One task for each address. Changes that come close together are told once. The serial itself is not in the message:
//! who is told asks for it with its key or certificate.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dnsbroker_ca::ReplicaId;
use dnsbroker_federation::{DomainName, Serial, Zone};
use dnsbroker_store::View;
use dnsbroker_zone::tsig::{Chain, Key};
use dnsbroker_zone::wire::message::Message;
use dnsbroker_zone::wire::{Rcode, RecordType};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use crate::committer::now;
use crate::events::Audience;
use crate::key::entropy;
use crate::seal::Sealer;
use crate::shared::Shared;

/// Changes within this time are told together.
const TOGETHER: Duration = Duration::from_millis(50);
/// Waits for a response, one after another.
const WAITS: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

type Target = (ReplicaId, SocketAddr);

/// Tells replicas.
pub struct Announcer {
    shared: Arc<Shared>,
    sealer: Arc<Sealer>,
    /// Addresses that we listen on: a secondary believes its primary's address only.
    own: Vec<IpAddr>,
    running: Mutex<BTreeMap<Target, (Option<DomainName>, AbortHandle)>>,
}

impl Announcer {
    /// Tells nobody yet.
    pub fn new(shared: Arc<Shared>, sealer: Arc<Sealer>, own: Vec<IpAddr>) -> Arc<Self> {
        Arc::new(Self { shared, sealer, own, running: Mutex::default() })
    }

    /// Ends all tasks.
    pub fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        running.values().for_each(|(_, task)| task.abort());
    }

    /// Brings the tasks in line with the replicas there are.
    pub fn reconcile(self: &Arc<Self>) {
        let view = self.shared.view.load_full();
        let mut wanted: BTreeMap<Target, Option<DomainName>> = BTreeMap::new();
        for replica in view.replicas.values() {
            for address in &replica.notify {
                wanted.insert((replica.id.clone(), *address), replica.notify_key.clone());
            }
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|target, (key, task)| {
            let same = wanted.get(target) == Some(key);
            if !same {
                task.abort();
            }
            same
        });
        for (target, key) in wanted {
            running.entry(target.clone()).or_insert_with(|| {
                let task = tokio::spawn(Arc::clone(self).run(target, key.clone()));
                (key, task.abort_handle())
            });
        }
    }

    async fn run(self: Arc<Self>, (replica, address): Target, key: Option<DomainName>) {
        let mut serials = self.shared.serials();
        let mut failed = false;
        loop {
            serials.borrow_and_update();
            let told = self.tell(address, key.as_ref(), &mut serials).await;
            match &told {
                Ok(()) if failed => {
                    tracing::info!(%replica, %address, "a replica answers NOTIFY again");
                    self.notice("notify.recovered", &replica, json!({ "address": address }));
                }
                Err(Unheard::Overtaken) => continue,
                Err(Unheard::Failed(cause)) if !failed => {
                    tracing::warn!(%replica, %address, cause, "a replica does not take NOTIFY");
                    self.notice("notify.failed", &replica, json!({ "address": address, "reason": cause }));
                }
                _ => {}
            }
            failed = told.is_err();
            if serials.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(TOGETHER).await;
        }
    }

    fn notice(&self, kind: &str, id: &ReplicaId, detail: Value) {
        let holder = self.shared.view.load().replicas.get(id).and_then(|replica| replica.holder.clone());
        let audience = Audience::of(holder.as_ref());
        self.shared.events.notice(kind, id.as_str(), audience, detail);
    }

    /// Tells of both private zones until each is answered. A replica may hold one of them only, so what it says to one
    /// is nothing to the other.
    async fn tell(
        &self,
        address: SocketAddr,
        key: Option<&DomainName>,
        serials: &mut tokio::sync::watch::Receiver<Serial>,
    ) -> Result<(), Unheard> {
        let mut pending = vec![Zone::DevEui, Zone::NetId];
        let mut refused = Vec::new();
        for (attempt, wait) in WAITS.into_iter().enumerate() {
            let mut unheard = Vec::new();
            for zone in pending {
                match self.attempt(address, key, zone, wait).await {
                    Ok(Response::Taken) => {}
                    Ok(Response::Refused(words)) => refused.push(words),
                    Err(why) => unheard.push((zone, why)),
                }
            }
            let Some((_, why)) = unheard.first() else { break };
            if attempt + 1 == WAITS.len() {
                return Err(Unheard::Failed(why.clone()));
            }
            pending = unheard.into_iter().map(|(zone, _)| zone).collect();
            tokio::time::sleep(wait).await;
            // A newer serial makes this one pointless, but who does not answer is not asked more often for that.
            if serials.has_changed().unwrap_or(false) {
                return Err(Unheard::Overtaken);
            }
        }
        // A server that holds one of the zones refuses the other, and that is as it should be.
        if refused.len() == 2 { Err(Unheard::Failed(refused.swap_remove(0))) } else { Ok(()) }
    }

    async fn attempt(
        &self,
        address: SocketAddr,
        key: Option<&DomainName>,
        zone: Zone,
        wait: Duration,
    ) -> Result<Response, String> {
        let view = self.shared.view.load_full();
        let key = match key {
            None => None,
            Some(name) => {
                let row = view.tsig_keys.get(name).ok_or_else(|| format!("its TSIG key {name} was revoked"))?;
                Some(self.sealer.unseal(row).map_err(|error| error.to_string())?)
            }
        };
        let exchange = self.exchange(address, &view, zone, key);
        tokio::time::timeout(wait, exchange).await.unwrap_or_else(|_| Err("it does not answer".to_owned()))
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        view: &View,
        zone: Zone,
        key: Option<Key>,
    ) -> Result<Response, String> {
        let broken = |error: std::io::Error| format!("it cannot be reached: {error}");
        let socket = UdpSocket::bind(self.from(address)).await.map_err(broken)?;
        socket.connect(address).await.map_err(broken)?;
        let id = entropy::<2>().map_err(|error| error.to_string())?;
        // Opcode NOTIFY, authoritative.
        let mut message = vec![id[0], id[1], 4 << 3 | 4, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(view.zones.names().apex(zone).wire());
        message.extend_from_slice(&RecordType::SOA.0.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        let mut chain = key.map(|key| Chain::request(key, &mut message, now().unsigned_abs()));
        socket.send(&message).await.map_err(broken)?;
        let mut buffer = [0; 1_500];
        loop {
            let length = socket.recv(&mut buffer).await.map_err(broken)?;
            let Ok(response) = Message::new(&buffer[..length]) else { continue };
            if response.header().id != id || !response.is_response() || response.header().opcode != 4 {
                continue;
            }
            // An error may be unsigned; what it says is all that can be done about it.
            if response.rcode() != Rcode::NOERROR {
                return Ok(Response::Refused(format!("it answers {}", response.rcode().mnemonic())));
            }
            if let Some(chain) = &mut chain {
                chain.verify(response, now().unsigned_abs()).map_err(|error| error.to_string())?;
            }
            return Ok(Response::Taken);
        }
    }

    fn from(&self, address: SocketAddr) -> SocketAddr {
        let same_family = |own: &&IpAddr| own.is_ipv4() == address.is_ipv4();
        let any = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0_u16; 8]) };
        SocketAddr::new(self.own.iter().find(same_family).copied().unwrap_or(any), 0)
    }
}

/// What a replica said.
enum Response {
    /// It has heard.
    Taken,
    /// It will not hear, in words. There is no use in telling it again.
    Refused(String),
}

/// Why a replica was not told.
enum Unheard {
    /// There is a newer serial.
    Overtaken,
    /// In words.
    Failed(String),
}
