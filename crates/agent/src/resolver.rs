//! A question from here to its answer: route, cache, one exchange for all who ask the same at once, and what is done when
//! nobody answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dnsbroker_federation::{DevEui, DomainName, Namespace, NetId};
use dnsbroker_zone::wire::RecordType;
use tokio::sync::watch;

use crate::answer::{Answer, question};
use crate::cache::{Cache, Found, Key};
use crate::config::CacheConfig;
use crate::limits::{FLIGHTS, STALE_AFTER, STALE_TTL};
use crate::route::{Route, route};
use crate::upstream::doh::Failure;
use crate::upstream::federation::Federation;
use crate::upstream::plain::Plain;

/// The route of upstreams in cache keys.
const UPSTREAM: u16 = u16::MAX;

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the cache.
    Cache,
    /// From a broker or upstream.
    Fetched,
    /// From the cache, though it is over.
    Stale,
}

impl Origin {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Fetched => "fetched",
            Self::Stale => "stale",
        }
    }
}

/// An answer, its age and where it is from.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The answer.
    pub answer: Arc<Answer>,
    /// Seconds since it came.
    pub age: u32,
    /// Where it is from.
    pub origin: Origin,
}

type Flight = watch::Receiver<Option<Result<Arc<Answer>, Failure>>>;

/// What is counted.
#[derive(Default)]
pub struct Counts {
    /// Answered from the cache.
    pub hits: AtomicU64,
    /// Not in the cache.
    pub misses: AtomicU64,
    /// Answered with what was over.
    pub stale: AtomicU64,
    /// Asked anew before the end.
    pub prefetched: AtomicU64,
    /// Waited for an exchange of others.
    pub joined: AtomicU64,
    /// Turned away: too many at once.
    pub crowded: AtomicU64,
}

/// The resolver.
pub struct Resolver {
    federations: Vec<Arc<Federation>>,
    upstreams: Arc<Plain>,
    cache: Cache,
    config: CacheConfig,
    flights: Mutex<HashMap<Key, Flight>>,
    /// What is counted.
    pub counts: Counts,
}

/// Whom to ask.
#[derive(Clone)]
enum Target {
    Federation(Arc<Federation>),
    Upstream { plain: Arc<Plain>, dnssec_ok: bool },
}

impl Resolver {
    /// Of federations, and upstreams for the rest.
    pub fn new(federations: Vec<Arc<Federation>>, upstreams: Arc<Plain>, config: CacheConfig) -> Arc<Self> {
        Arc::new(Self {
            federations,
            upstreams,
            cache: Cache::new(config.names),
            config,
            flights: Mutex::default(),
            counts: Counts::default(),
        })
    }

    /// The federations, in the order in which they are believed.
    pub fn federations(&self) -> &[Arc<Federation>] {
        &self.federations
    }

    /// Where a name goes.
    pub fn route(&self, name: &[u8]) -> Route {
        let names: Vec<Arc<Namespace>> = self.federations.iter().map(|federation| federation.namespace()).collect();
        match route(name, &names) {
            Route::Upstream if self.upstreams.is_empty() => Route::Withheld,
            route => route,
        }
    }

    /// Whether there are upstreams.
    pub fn has_upstreams(&self) -> bool {
        !self.upstreams.is_empty()
    }

    /// Answers kept, and the octets they take.
    pub fn cache_size(&self) -> (usize, usize) {
        self.cache.size()
    }

    /// Forgets what is kept.
    pub fn forget(&self) {
        self.cache.clear();
    }

    /// The question of a device's home in a federation: its flat name, which is shorter on the wire than its nibbles.
    pub fn device_question(&self, index: usize, device: DevEui) -> Vec<u8> {
        let name = self.federations[index].namespace().flat_name(device);
        let name: Result<DomainName, _> = name.parse();
        // A namespace has room for every device name.
        name.map_or_else(|_| Vec::new(), |name| question(name.wire(), RecordType::A))
    }

    /// Asks a federation.
    pub async fn federation(
        self: &Arc<Self>,
        index: usize,
        asked: &[u8],
        patience: Duration,
    ) -> Result<Resolved, Failure> {
        let key = self.cache.key(index as u16, asked, 0);
        self.resolve(key, Target::Federation(Arc::clone(&self.federations[index])), asked, patience).await
    }

    /// A network server that has heard of a home network resolves its name next: the address came with the device's answer,
    /// and what is still missing (AAAA) is asked for before it asks.
    pub fn expect_home(self: &Arc<Self>, index: usize, asked: &[u8], answer: &Answer, netid: NetId) {
        let federation = &self.federations[index];
        let name: Result<DomainName, _> = federation.namespace().network_name(netid).parse();
        let Ok(name) = name else { return };
        let address = question(name.wire(), RecordType::A);
        if let Some(own) = answer.of_target(asked, &address) {
            self.keep(self.cache.key(index as u16, &address, 0), &Arc::new(own));
        }
        let other = question(name.wire(), RecordType::AAAA);
        let key = self.cache.key(index as u16, &other, 0);
        if !self.cache.get(key).is_some_and(|found| found.is_fresh()) {
            // Nobody waits for it; what comes is in the cache.
            let _ = self.flight(key, &Target::Federation(Arc::clone(federation)), &other);
        }
    }

    /// Asks the upstreams.
    pub async fn upstream(
        self: &Arc<Self>,
        asked: &[u8],
        dnssec_ok: bool,
        patience: Duration,
    ) -> Result<Resolved, Failure> {
        let key = self.cache.key(UPSTREAM, asked, u8::from(dnssec_ok));
        let target = Target::Upstream { plain: Arc::clone(&self.upstreams), dnssec_ok };
        self.resolve(key, target, asked, patience).await
    }

    async fn resolve(
        self: &Arc<Self>,
        key: Key,
        target: Target,
        asked: &[u8],
        patience: Duration,
    ) -> Result<Resolved, Failure> {
        let kept = self.cache.get(key);
        if let Some(found) = kept.as_ref().filter(|found| found.is_fresh()) {
            self.counts.hits.fetch_add(1, Ordering::Relaxed);
            if self.config.prefetch && found.is_ending() && !self.is_asked(key) {
                // Nobody waits for it; what comes is in the cache.
                let _ = self.flight(key, &target, asked);
                self.counts.prefetched.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(Resolved { answer: Arc::clone(&found.answer), age: found.age, origin: Origin::Cache });
        }
        self.counts.misses.fetch_add(1, Ordering::Relaxed);
        let stale = kept.filter(|found| self.config.stale > 0 && found.overdue() < self.config.stale);
        let Some(mut flight) = self.flight(key, &target, asked) else {
            self.counts.crowded.fetch_add(1, Ordering::Relaxed);
            return self.instead(stale, Failure::Backoff("too many questions at once".to_owned()));
        };
        let patience = if stale.is_some() { patience.min(STALE_AFTER) } else { patience };
        let landed = tokio::time::timeout(patience, flight.wait_for(Option::is_some)).await;
        let result = match landed {
            Ok(Ok(result)) => result.clone().unwrap_or(Err(Failure::TimedOut)),
            // The one who asked is gone, which it is not before it has told.
            Ok(Err(_)) | Err(_) => Err(Failure::TimedOut),
        };
        match result {
            Ok(answer) => Ok(Resolved { answer, age: 0, origin: Origin::Fetched }),
            Err(failure) => self.instead(stale, failure),
        }
    }

    /// What is given when nobody answers (RFC 8767).
    fn instead(&self, stale: Option<Found>, failure: Failure) -> Result<Resolved, Failure> {
        let found = stale.ok_or(failure)?;
        self.counts.stale.fetch_add(1, Ordering::Relaxed);
        let answer = Arc::unwrap_or_clone(found.answer).stale(STALE_TTL);
        Ok(Resolved { answer: Arc::new(answer), age: 0, origin: Origin::Stale })
    }

    fn is_asked(&self, key: Key) -> bool {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key)
    }

    /// The exchange about a question that is under way, or a new one. It goes on when who began it goes away, so that the
    /// next one finds the answer in the cache.
    fn flight(self: &Arc<Self>, key: Key, target: &Target, asked: &[u8]) -> Option<Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            self.counts.joined.fetch_add(1, Ordering::Relaxed);
            return Some(flight.clone());
        }
        if flights.len() >= FLIGHTS {
            return None;
        }
        let (landed, flight) = watch::channel(None);
        flights.insert(key, flight.clone());
        let (resolver, target, asked) = (Arc::clone(self), target.clone(), asked.to_vec());
        tokio::spawn(async move {
            // Dropped in any case, so that no question is stuck for ever.
            let _done = Done { resolver: &resolver, key };
            let result = match &target {
                Target::Federation(federation) => federation.ask(&asked).await,
                Target::Upstream { plain, dnssec_ok } => plain.ask(&asked, *dnssec_ok).await.map_err(Failure::Connect),
            };
            let result = result.map(|answer| Arc::new(resolver.bounded(answer)));
            if let Ok(answer) = &result {
                resolver.keep(key, answer);
            }
            landed.send_replace(Some(result));
        });
        Some(flight)
    }

    /// Nobody may make us, or who asks us, keep an answer for longer than the configuration lets.
    fn bounded(&self, answer: Answer) -> Answer {
        let most = if answer.is_positive() { self.config.max_ttl } else { self.config.max_negative_ttl };
        answer.for_at_most(most)
    }

    fn keep(&self, key: Key, answer: &Arc<Answer>) {
        if answer.ttl > 0 {
            self.cache.put(key, Arc::clone(answer));
        }
    }
}

struct Done<'r> {
    resolver: &'r Resolver,
    key: Key,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.resolver.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
