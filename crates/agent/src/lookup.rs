//! Whose is a device? Every federation is asked; if several claim it, the one that stands first in the configuration is
//! believed, and the conflict is logged and counted.
//!
//! In parallel, a federation that stands before the one which answered first is waited for, as long as
//! `lookup.patience_ms`; so the order of answers does not decide, unless a broker is slow.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dnsbroker_federation::{DevEui, NetId};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};

use crate::answer::PROHIBITED;
use crate::config::{LookupConfig, Order};
use crate::resolver::{Origin, Resolved, Resolver};
use crate::upstream::doh::Failure;

/// What one federation says.
#[derive(Debug, Clone)]
pub enum Saying {
    /// The device is at home there.
    Home {
        /// The home network.
        netid: NetId,
        /// Addresses of its network server.
        addresses: Vec<IpAddr>,
    },
    /// No member has it, or none that may be told.
    Unknown,
    /// There is no roaming agreement, and policy lets the broker say so.
    Prohibited,
    /// No answer.
    Failed(Failure),
}

/// What one federation says, and how that came.
#[derive(Debug, Clone)]
pub struct Said {
    /// The federation's place in the configuration.
    pub index: usize,
    /// What it says.
    pub saying: Saying,
    /// Where it is from.
    pub origin: Option<Origin>,
    /// How long it took.
    pub took: Duration,
    /// The answer, for the resolver.
    pub resolved: Option<Resolved>,
}

/// What all say together.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The one that is believed.
    pub decisive: Option<Said>,
    /// All that was said until then.
    pub said: Vec<Said>,
    /// How long it took.
    pub took: Duration,
}

/// What is counted.
#[derive(Default)]
pub struct Counts {
    /// Look-ups by outcome: home, unknown, prohibited, failed.
    pub outcomes: [AtomicU64; 4],
    /// Devices that several federations claim.
    pub conflicts: AtomicU64,
}

impl Counts {
    /// The names of outcomes.
    pub const LABELS: [&'static str; 4] = ["home", "unknown", "prohibited", "failed"];
}

/// Looks devices up.
pub struct Lookups {
    resolver: Arc<Resolver>,
    config: LookupConfig,
    /// What is counted.
    pub counts: Counts,
}

impl Lookups {
    /// By a resolver.
    pub fn new(resolver: Arc<Resolver>, config: LookupConfig) -> Arc<Self> {
        Arc::new(Self { resolver, config, counts: Counts::default() })
    }

    /// The resolver.
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }

    /// Looks a device up.
    pub async fn device(self: &Arc<Self>, device: DevEui) -> Outcome {
        let begun = Instant::now();
        let (said, index) = match self.config.order {
            Order::Ordered => self.in_turn(device, begun + self.config.deadline()).await,
            Order::Parallel => self.at_once(device, begun + self.config.deadline()).await,
        };
        let outcome = Outcome { decisive: index.map(|index| said[index].clone()), said, took: begun.elapsed() };
        let counter = match outcome.decisive.as_ref().map(|said| &said.saying) {
            Some(Saying::Home { .. }) => 0,
            Some(Saying::Unknown) => 1,
            Some(Saying::Prohibited) => 2,
            Some(Saying::Failed(_)) | None => 3,
        };
        self.counts.outcomes[counter].fetch_add(1, Ordering::Relaxed);
        outcome
    }

    async fn in_turn(self: &Arc<Self>, device: DevEui, until: Instant) -> (Vec<Said>, Option<usize>) {
        let mut said = Vec::new();
        for index in 0..self.resolver.federations().len() {
            let left = until.saturating_duration_since(Instant::now());
            said.push(self.ask(index, device, left).await);
            if matches!(said[index].saying, Saying::Home { .. }) {
                break;
            }
        }
        let decisive = decide(&said);
        (said, decisive)
    }

    async fn at_once(self: &Arc<Self>, device: DevEui, until: Instant) -> (Vec<Said>, Option<usize>) {
        let count = self.resolver.federations().len();
        let left = until.saturating_duration_since(Instant::now());
        let mut asking: FuturesUnordered<_> = (0..count)
            .map(|index| {
                let lookups = Arc::clone(self);
                tokio::spawn(async move { lookups.ask(index, device, left).await })
            })
            .collect();
        let mut said: Vec<Said> = Vec::with_capacity(count);
        let mut until = until;
        loop {
            let next = tokio::time::timeout_at(until.into(), asking.next()).await;
            // A look-up that panicked has said nothing.
            let Ok(Some(answer)) = next else { break };
            said.extend(answer.ok());
            let best =
                said.iter().filter(|said| matches!(said.saying, Saying::Home { .. })).map(|said| said.index).min();
            if let Some(best) = best {
                // Only those that stand before it could be believed instead.
                if (0..best).all(|before| said.iter().any(|said| said.index == before)) {
                    break;
                }
                until = until.min(Instant::now() + self.config.patience());
            }
        }
        said.sort_by_key(|said| said.index);
        let decisive = decide(&said);
        let lookups = Arc::clone(self);
        let heard = said.clone();
        if decisive.is_some_and(|index| matches!(said[index].saying, Saying::Home { .. })) {
            // Those that come later are not waited for, but a conflict is not to go unseen.
            tokio::spawn(async move {
                let mut all = heard;
                while let Some(late) = asking.next().await {
                    all.extend(late.ok());
                }
                lookups.note_conflict(device, all);
            });
        }
        (said, decisive)
    }

    fn note_conflict(&self, device: DevEui, mut said: Vec<Said>) {
        said.sort_by_key(|said| said.index);
        // Told once while the answers are kept, and not at each join.
        if !said.iter().any(|said| said.origin == Some(Origin::Fetched)) {
            return;
        }
        let claims: Vec<(usize, NetId)> = said
            .iter()
            .filter_map(|said| match said.saying {
                Saying::Home { netid, .. } => Some((said.index, netid)),
                _ => None,
            })
            .collect();
        if let [(first, netid), others @ ..] = &claims[..]
            && !others.is_empty()
        {
            self.counts.conflicts.fetch_add(1, Ordering::Relaxed);
            let federations = self.resolver.federations();
            for (other, theirs) in others {
                federations[*other].counts.conflicts.fetch_add(1, Ordering::Relaxed);
                let (believed, other) = (federations[*first].name(), federations[*other].name());
                tracing::warn!(%device, believed, %netid, other, %theirs, "two federations claim a device: the first is believed");
            }
        }
    }

    async fn ask(&self, index: usize, device: DevEui, patience: Duration) -> Said {
        let begun = Instant::now();
        let asked = self.resolver.device_question(index, device);
        let result = self.resolver.federation(index, &asked, patience).await;
        let said = |saying, resolved: Option<Resolved>| Said {
            index,
            saying,
            origin: resolved.as_ref().map(|resolved| resolved.origin),
            took: begun.elapsed(),
            resolved,
        };
        let resolved = match result {
            Ok(resolved) => resolved,
            Err(failure) => return said(Saying::Failed(failure), None),
        };
        let namespace = self.resolver.federations()[index].namespace();
        let saying = match resolved.answer.home(&asked, &namespace) {
            Some((netid, addresses)) => {
                if resolved.origin == Origin::Fetched {
                    self.resolver.expect_home(index, &asked, &resolved.answer, netid);
                }
                Saying::Home { netid, addresses }
            }
            None if resolved.answer.error == Some(PROHIBITED) => Saying::Prohibited,
            None => Saying::Unknown,
        };
        said(saying, Some(resolved))
    }
}

/// The first home; else a clear no; else unknown if all said so; else why it is not known.
fn decide(said: &[Said]) -> Option<usize> {
    let first = |wanted: fn(&Saying) -> bool| said.iter().position(|said| wanted(&said.saying));
    first(|saying| matches!(saying, Saying::Home { .. }))
        .or_else(|| first(|saying| matches!(saying, Saying::Prohibited)))
        .or_else(|| first(|saying| matches!(saying, Saying::Failed(_))))
        .or_else(|| first(|saying| matches!(saying, Saying::Unknown)))
}

/// A look-up, explained: what `lookup` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The device.
    pub deveui: DevEui,
    /// `home`, `unknown`, `prohibited`, `failed`.
    pub outcome: String,
    /// The federation that is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<String>,
    /// The home network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netid: Option<NetId>,
    /// Addresses of its network server.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// What each federation said, and how that came.
    pub steps: Vec<String>,
    /// Milliseconds.
    pub milliseconds: f64,
}

impl Outcome {
    /// In words.
    pub fn explain(&self, device: DevEui, resolver: &Resolver) -> Explained {
        let federation = |index: usize| resolver.federations()[index].name();
        let step = |said: &Said| {
            let name = resolver.federations()[said.index].namespace().flat_name(device);
            let from = said.origin.map_or("no answer", Origin::label);
            let words = match &said.saying {
                Saying::Home { netid, addresses } => {
                    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    format!("home is {netid} at {}", addresses.join(", "))
                }
                Saying::Unknown => "no member has registered it".to_owned(),
                Saying::Prohibited => "there is no roaming agreement with its home".to_owned(),
                Saying::Failed(failure) => format!("not known: {failure}"),
            };
            let took = said.took.as_secs_f64() * 1_000.0;
            format!("{}: {name} ({from}, {took:.2} ms): {words}", federation(said.index))
        };
        let mut explained = Explained {
            deveui: device,
            outcome: "failed".to_owned(),
            federation: None,
            netid: None,
            addresses: vec![],
            steps: self.said.iter().map(step).collect(),
            milliseconds: self.took.as_secs_f64() * 1_000.0,
        };
        for said in &self.said {
            for broker in resolver.federations()[said.index].brokers().iter() {
                if let Some(trouble) = broker.trouble() {
                    let name = federation(said.index);
                    explained.steps.push(format!("{name}: no answer of {}: {trouble}", broker.place.uri));
                }
            }
        }
        if resolver.federations().is_empty() {
            explained.steps.push("no federation is configured".to_owned());
        }
        let Some(decisive) = &self.decisive else { return explained };
        explained.outcome = match &decisive.saying {
            Saying::Home { netid, addresses } => {
                explained.netid = Some(*netid);
                explained.addresses.clone_from(addresses);
                explained.federation = Some(federation(decisive.index));
                "home"
            }
            Saying::Unknown => "unknown",
            Saying::Prohibited => "prohibited",
            Saying::Failed(_) => "failed",
        }
        .to_owned();
        explained
    }
}
