//! One federation: its brokers, the fastest first, each with our certificate; who answers first is believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use dnsbroker_api::operator::Directory;
use dnsbroker_federation::{DomainName, Namespace, Zone, ZoneLabels};
use dnsbroker_zone::wire::{Rcode, RecordType};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::doh::{Broker, Failure, Place};
use super::plain::Plain;
use crate::answer::{Answer, query, question};
use crate::broker_answer;
use crate::clock::now;
use crate::config::{BrokerConfig, zone_label};
use crate::identity::{Home, Identity, IdentityError, KeyId};
use crate::limits::{HEDGE, PROBE};

/// A federation that we are a member of.
pub struct Federation {
    /// Its files.
    pub home: Home,
    /// Brokers that the configuration names; the directory's are used where it names none.
    configured: Vec<BrokerConfig>,
    namespace: ArcSwap<Namespace>,
    brokers: ArcSwap<Vec<Arc<Broker>>>,
    directory: ArcSwapOption<Directory>,
    identity: ArcSwapOption<Identity>,
    bootstrap: Arc<Plain>,
    /// What is counted.
    pub counts: Counts,
}

/// What is counted of a federation.
#[derive(Default)]
pub struct Counts {
    /// Answers with records, by look-ups that went to a broker.
    pub found: AtomicU64,
    /// NXDOMAIN and NODATA.
    pub absent: AtomicU64,
    /// Policy says no.
    pub prohibited: AtomicU64,
    /// No broker answered.
    pub failed: AtomicU64,
    /// Microseconds until an answer, of all together.
    pub micros: AtomicU64,
    /// Devices that another federation claims too, and that one counted.
    pub conflicts: AtomicU64,
}

/// Why there is no federation to ask.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Files.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Names that do not make one.
    #[error("the directory in {dir} makes no federation: {reason}")]
    Names {
        /// Which directory.
        dir: String,
        /// Why.
        reason: String,
    },
}

impl Federation {
    /// Opens what `enroll` made. An expired certificate is no error here: the federation's names stay its own, so that none
    /// of them leaks to an upstream.
    pub fn open(home: Home, configured: Vec<BrokerConfig>, bootstrap: Arc<Plain>) -> Result<Arc<Self>, OpenError> {
        let identity = home.identity()?;
        let directory = home.directory()?;
        let names = |reason| OpenError::Names { dir: home.path().display().to_string(), reason };
        let namespace = namespace(&identity.federation, directory.as_ref()).map_err(names)?;
        let federation = Self {
            home: home.clone(),
            configured,
            namespace: ArcSwap::from_pointee(namespace),
            brokers: ArcSwap::default(),
            directory: ArcSwapOption::from_pointee(directory.clone()),
            identity: ArcSwapOption::new(Some(Arc::new(identity))),
            bootstrap,
            counts: Counts::default(),
        };
        let brokers = federation.brokers_of(directory.as_ref()).map_err(names)?;
        federation.brokers.store(Arc::new(brokers));
        Ok(Arc::new(federation))
    }

    /// Its names.
    pub fn namespace(&self) -> Arc<Namespace> {
        self.namespace.load_full()
    }

    /// Who we are in it.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.load_full()
    }

    /// The broker that takes changes, as the directory said last.
    pub fn primary(&self) -> Option<String> {
        self.directory.load().as_ref()?.brokers.first().map(|broker| broker.name.to_string())
    }

    /// Brokers that the configuration names.
    pub fn configured(&self) -> &[BrokerConfig] {
        &self.configured
    }

    /// Its name, without the final dot.
    pub fn name(&self) -> String {
        self.namespace.load().apex(Zone::Public).dotless()
    }

    /// Its brokers.
    pub fn brokers(&self) -> Arc<Vec<Arc<Broker>>> {
        self.brokers.load_full()
    }

    /// Takes what the directory says: brokers and names. Brokers that stay keep their connections. Tells whether it says other
    /// things than before.
    pub fn take_directory(&self, directory: &Directory) -> Result<bool, String> {
        if self.directory.load().as_deref() == Some(directory) {
            return Ok(false);
        }
        let federation = self.namespace().apex(Zone::Public).clone();
        if directory.federation != federation {
            return Err(format!("the directory is of {}, not of {federation}", directory.federation));
        }
        self.namespace.store(Arc::new(namespace(&federation, Some(directory))?));
        let known = self.brokers();
        let mut brokers = self.brokers_of(Some(directory))?;
        for broker in &mut brokers {
            if let Some(same) = known.iter().find(|known| known.place == broker.place) {
                same.set_addresses(broker.addresses().to_vec());
                *broker = Arc::clone(same);
            }
        }
        self.brokers.store(Arc::new(brokers));
        self.directory.store(Some(Arc::new(directory.clone())));
        Ok(true)
    }

    /// The issuing CAs that sign now, as the directory has them; none where it does not say.
    pub fn issuers(&self) -> Vec<KeyId> {
        self.directory.load().as_ref().map(|told| told.issuers.clone()).unwrap_or_default()
    }

    /// Takes a new certificate. Connections are made anew with it.
    pub async fn take_identity(&self, identity: Identity) {
        self.identity.store(Some(Arc::new(identity)));
        for broker in self.brokers().iter() {
            broker.close().await;
        }
    }

    fn brokers_of(&self, directory: Option<&Directory>) -> Result<Vec<Arc<Broker>>, String> {
        let place = |url: &str, addresses: Vec<_>| {
            Place::parse(url).map(|place| Broker::new(place, addresses, Arc::clone(&self.bootstrap)))
        };
        if !self.configured.is_empty() {
            return self.configured.iter().map(|broker| place(&broker.doh_url, broker.addresses.clone())).collect();
        }
        let told = directory.map_or(&[][..], |directory| &directory.brokers);
        told.iter().map(|broker| place(&broker.doh_url, broker.addresses.clone())).collect()
    }

    /// Asks the brokers: the fastest first, the next one when it fails or is slow. The first good answer counts; if nobody
    /// gives one, the last failure.
    pub async fn ask(&self, asked: &[u8]) -> Result<Answer, Failure> {
        let begun = std::time::Instant::now();
        let result = self.ask_brokers(asked).await;
        let counts = &self.counts;
        counts.micros.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        let counter = match &result {
            Err(_) => &counts.failed,
            Ok(answer) if answer.error == Some(crate::answer::PROHIBITED) => &counts.prohibited,
            Ok(answer) if answer.is_positive() => &counts.found,
            Ok(_) => &counts.absent,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    async fn ask_brokers(&self, asked: &[u8]) -> Result<Answer, Failure> {
        let identity = self.usable_identity()?;
        let brokers = self.in_order();
        // RFC 8484, section 4.1: an ID of 0.
        let query = Bytes::from(query([0, 0], asked, false, false));
        let mut waiting = brokers.iter();
        let mut running = FuturesUnordered::new();
        let mut last = Failure::Connect("the federation has no broker: see [[federation.broker]]".to_owned());
        loop {
            let hedge = match waiting.next() {
                Some(broker) => {
                    let hedge = broker.rtt().map_or(HEDGE.1, |rtt| (rtt * 4).clamp(HEDGE.0, HEDGE.1));
                    running.push(self.ask_one(broker, query.clone(), asked, &identity));
                    hedge
                }
                None if running.is_empty() => return Err(last),
                // Nobody is left to ask: those that were asked have their own time-outs.
                None => Duration::from_secs(3_600),
            };
            match tokio::time::timeout(hedge, running.next()).await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                // The reason that helps most is the first broker's own.
                Ok(Some(Err(failure))) => {
                    if !matches!(failure, Failure::Backoff(_)) || matches!(last, Failure::Connect(_)) {
                        last = failure;
                    }
                }
                Ok(None) | Err(_) => {}
            }
        }
    }

    async fn ask_one(
        &self,
        broker: &Broker,
        query: Bytes,
        asked: &[u8],
        identity: &Identity,
    ) -> Result<Answer, Failure> {
        let result = match broker.exchange(query, &identity.tls).await {
            Ok(octets) => self.read(asked, &octets),
            Err(failure) => Err(failure),
        };
        match &result {
            Ok(_) => broker.succeeded(),
            Err(failure) => broker.failed(failure),
        }
        result
    }

    fn read(&self, asked: &[u8], octets: &[u8]) -> Result<Answer, Failure> {
        let answer = broker_answer::read(asked, octets, &self.namespace.load());
        let answer = answer.map_err(|unfit| Failure::Lie(unfit.0))?;
        // What is no type of data (RFC 6895, section 3.1) is refused by every broker.
        let no_data =
            asked.last_chunk::<4>().is_some_and(|[high, low, ..]| *high == 0 && matches!(low, 41 | 128..=254));
        match answer.rcode {
            Rcode::NOERROR | Rcode::NXDOMAIN => Ok(answer),
            rcode if no_data && rcode != Rcode::SERVFAIL => Ok(answer),
            rcode => Err(Failure::NoAnswer(rcode.mnemonic())),
        }
    }

    fn usable_identity(&self) -> Result<Arc<Identity>, Failure> {
        let identity = self.identity.load_full();
        let identity = identity.ok_or_else(|| Failure::Identity("there is no certificate: enrol first".to_owned()))?;
        if now() > identity.life.1 {
            let words = "our certificate has expired: ask the federation's administrator for a token and enrol again";
            return Err(Failure::Identity(words.to_owned()));
        }
        Ok(identity)
    }

    /// Those that answer before those that do not, the fastest first; in doubt as they were named.
    fn in_order(&self) -> Vec<Arc<Broker>> {
        let mut brokers = self.brokers().to_vec();
        brokers.sort_by_key(|broker| (broker.trouble().is_some(), broker.rtt().unwrap_or(Duration::ZERO)));
        brokers
    }

    /// Keeps connections warm and knows which broker is fastest.
    pub async fn keep_warm(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let Ok(identity) = self.usable_identity() else {
                if wait(&stop, PROBE).await {
                    continue;
                }
                return;
            };
            let asked = question(self.namespace().apex(Zone::NetId).wire(), RecordType::SOA);
            let query = Bytes::from(query([0, 0], &asked, false, false));
            let brokers = self.brokers();
            let probes = brokers.iter().map(|broker| self.ask_one(broker, query.clone(), &asked, &identity));
            // What comes of it is kept with each broker.
            let _ = futures_util::future::join_all(probes).await;
            if !wait(&stop, PROBE).await {
                return;
            }
        }
    }
}

/// Waits; tells whether to go on.
async fn wait(stop: &CancellationToken, time: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

fn namespace(federation: &DomainName, directory: Option<&Directory>) -> Result<Namespace, String> {
    let label = |zone: &DomainName| {
        zone_label(zone, federation).ok_or_else(|| format!("{zone} is no label below {federation}"))
    };
    let labels = match directory {
        None => ZoneLabels::default(),
        Some(directory) => ZoneLabels { deveui: label(&directory.deveuis)?, netid: label(&directory.netids)? },
    };
    // The broker's name matters to the public zone only, which is not ours.
    let broker = federation.child("broker").map_err(|error| error.to_string())?;
    Namespace::new(federation.clone(), broker, &labels).map_err(|error| dnsbroker_api::problem::chain(&error))
}
