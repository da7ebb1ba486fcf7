//! What the broker does and has, in figures.
//!
//! Nothing is counted for this that is not counted for the metrics anyway: once a second a task looks at the counters and
//! keeps what they have grown by. So a query pays nothing for it. What the broker *has* is read from the view when
//! somebody asks; only the devices of each OUI are kept for a while, since counting them walks over the blocks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dnsbroker_api::Timestamp;
use dnsbroker_api::exchange::Fetched;
use dnsbroker_api::statistics::{Answers, OuiShare, Pulse, TransferShown};
use dnsbroker_federation::Serial;
use dnsbroker_store::View;
use dnsbroker_zone::answer::Outcome;
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::committer::now;
use crate::histogram::{BUCKETS, Counts, latency};

/// Seconds that are kept.
const SECONDS: usize = 300;
/// Minutes that are kept.
const MINUTES: usize = 24 * 60;
/// Over so many of the last seconds percentiles are taken.
const RECENT: usize = 60;
/// Transfers that are kept.
const TRANSFERS: usize = 200;
/// Seconds between two tellings that a peer's transfers fail.
const NEWS: i64 = 60;
/// OUIs that are told.
const OUIS: usize = 20;
/// The devices of each OUI are counted this seldom.
const OUIS_AGAIN: Duration = Duration::from_secs(10);

/// The counters at one moment, or what they have grown by.
#[derive(Clone)]
pub struct Sample {
    /// DoH answers, by outcome.
    pub answers: [u64; Outcome::ALL.len()],
    /// Times to make them.
    pub took: Counts,
    /// Durable commits.
    pub commits: u64,
    /// Acts in them.
    pub acts: u64,
}

impl Sample {
    const NONE: Self = Self { answers: [0; Outcome::ALL.len()], took: [0; BUCKETS], commits: 0, acts: 0 };

    fn since(&self, before: &Self) -> Self {
        let less = |after: u64, before: u64| after.saturating_sub(before);
        Self {
            answers: std::array::from_fn(|place| less(self.answers[place], before.answers[place])),
            took: std::array::from_fn(|place| less(self.took[place], before.took[place])),
            commits: less(self.commits, before.commits),
            acts: less(self.acts, before.acts),
        }
    }

    fn add(&mut self, other: &Self) {
        self.answers.iter_mut().zip(other.answers).for_each(|(sum, count)| *sum += count);
        self.took.iter_mut().zip(other.took).for_each(|(sum, count)| *sum += count);
        self.commits += other.commits;
        self.acts += other.acts;
    }
}

/// Answers by outcome, as they are told; a minute's are divided by its seconds.
pub fn answers(counts: &[u64; Outcome::ALL.len()], seconds: f64) -> Answers {
    let [found, nodata, nxdomain, refused, rejected] = counts.map(|count| count as f64 / seconds);
    Answers { found, nodata, nxdomain, refused, rejected }
}

/// What is kept.
#[derive(Default)]
pub struct Statistics {
    kept: Mutex<Kept>,
    ouis: Mutex<Option<Counted>>,
}

/// The OUIs with most devices, when they were counted and under which serial.
struct Counted {
    at: Instant,
    serial: Serial,
    ouis: Arc<Vec<OuiShare>>,
}

#[derive(Default)]
struct Kept {
    last: Option<Sample>,
    seconds: VecDeque<(Pulse, Sample)>,
    minutes: VecDeque<Pulse>,
}

/// What is there beside the counters.
struct State {
    at: i64,
    connections: u64,
    devices: u64,
    serial: Serial,
}

impl State {
    fn pulse(&self, grown: &Sample, seconds: f64) -> Pulse {
        Pulse {
            at: Timestamp(self.at),
            answers: answers(&grown.answers, seconds),
            latency: latency(&grown.took),
            connections: self.connections,
            commits: grown.commits as f64 / seconds,
            acts: grown.acts as f64 / seconds,
            devices: self.devices,
            serial: self.serial,
        }
    }
}

impl Statistics {
    /// Takes the counters as they are at the end of a second.
    fn second(&self, sample: Sample, state: &State) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = kept.last.replace(sample.clone()) else { return };
        let grown = sample.since(&last);
        kept.seconds.push_back((state.pulse(&grown, 1.0), grown));
        if kept.seconds.len() > SECONDS {
            kept.seconds.pop_front();
        }
        if state.at % 60 == 0 && kept.minutes.back().is_none_or(|minute| minute.at.0 < state.at) {
            let mut minute = Sample::NONE;
            kept.seconds.iter().rev().take(60).for_each(|(_, second)| minute.add(second));
            kept.minutes.push_back(state.pulse(&minute, 60.0));
            if kept.minutes.len() > MINUTES {
                kept.minutes.pop_front();
            }
        }
    }

    /// The last seconds and minutes, oldest first.
    pub fn pulses(&self) -> (Vec<Pulse>, Vec<Pulse>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.seconds.iter().map(|(pulse, _)| pulse.clone()).collect(), kept.minutes.iter().cloned().collect())
    }

    /// Times to make an answer over the last minute.
    pub fn recent(&self) -> Counts {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recent = Sample::NONE;
        kept.seconds.iter().rev().take(RECENT).for_each(|(_, second)| recent.add(second));
        recent.took
    }

    fn last(&self) -> Option<Pulse> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.seconds.back().map(|(pulse, _)| pulse.clone())
    }

    /// The OUIs with most devices. Walks over the blocks unless it has done so lately: not for a thread that serves others.
    pub fn ouis(&self, view: &View) -> Arc<Vec<OuiShare>> {
        let mut kept = self.ouis.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Counted { at, serial, ouis }) = &*kept
            && (*serial == view.zones.serial() || at.elapsed() < OUIS_AGAIN)
        {
            return Arc::clone(ouis);
        }
        let mut counted: Vec<(u32, u64)> = view.zones.devices().ouis().into_iter().collect();
        counted.sort_by_key(|(oui, devices)| (std::cmp::Reverse(*devices), *oui));
        counted.truncate(OUIS);
        let ouis = counted.into_iter().map(|(oui, devices)| OuiShare { oui: format!("{oui:06x}"), devices });
        let ouis = Arc::new(ouis.collect());
        *kept = Some(Counted { at: Instant::now(), serial: view.zones.serial(), ouis: Arc::clone(&ouis) });
        ouis
    }
}

/// The last transfers, newest last, and the last that each replica has taken of each zone.
#[derive(Default)]
pub struct Transfers {
    ended: Mutex<VecDeque<TransferShown>>,
    /// When it was last told that a peer's failed.
    told: Mutex<BTreeMap<String, i64>>,
    fetched: Mutex<BTreeMap<String, BTreeMap<String, Fetched>>>,
}

impl Transfers {
    /// A replica has taken one to its end.
    pub fn fetched(&self, replica: &str, fetched: Fetched) {
        let mut kept = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(replica.to_owned()).or_default().insert(fetched.zone.clone(), fetched);
    }

    /// What a replica that was added then has taken since the broker started.
    pub fn of(&self, replica: &str, since: i64) -> Vec<Fetched> {
        let kept = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        let of = kept.get(replica).into_iter().flat_map(BTreeMap::values);
        // Another one may have had its name.
        of.filter(|fetched| fetched.at.0 >= since).cloned().collect()
    }

    /// Remembers one that has ended.
    pub fn add(&self, transfer: TransferShown) {
        let mut kept = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(transfer);
        if kept.len() > TRANSFERS {
            kept.pop_front();
        }
    }

    /// Whether it is to be told that a peer's transfer failed: once a minute, whatever the peer does.
    pub fn is_news(&self, peer: &str, now: i64) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now < *at + NEWS);
        if told.contains_key(peer) {
            return false;
        }
        told.insert(peer.to_owned(), now);
        true
    }

    /// The newest first.
    pub fn list(&self) -> Vec<TransferShown> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

/// Looks at the counters each second, until the daemon stops.
pub async fn keep(app: App) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = second.tick() => {}
        }
        let (view, metrics) = (app.view(), &app.shared.metrics);
        let state = State {
            at: now(),
            connections: metrics.connections(),
            devices: view.zones.devices().len(),
            serial: view.zones.serial(),
        };
        app.statistics.second(metrics.sample(), &state);
    }
}

/// The event of the last second.
pub fn piece(app: &App) -> String {
    let pulse = app.statistics.last().and_then(|pulse| serde_json::to_string(&pulse).ok());
    pulse.map_or_else(
        || ": no second has passed yet\n\n".to_owned(),
        |pulse| format!("event: statistics\ndata: {pulse}\n\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(at: i64) -> State {
        State { at, connections: 1, devices: 2, serial: Serial::FIRST }
    }

    #[test]
    fn seconds_have_what_the_counters_grew_by_and_minutes_their_mean() {
        let statistics = Statistics::default();
        let mut sample = Sample::NONE;
        for second in 0..=(SECONDS as i64 + 30) {
            sample.answers[0] += 10;
            sample.took[20] += 10;
            sample.commits += 2;
            statistics.second(sample.clone(), &state(600 + second));
        }
        let (seconds, minutes) = statistics.pulses();
        assert_eq!(seconds.len(), SECONDS);
        assert!(seconds.iter().all(|second| second.answers.found == 10.0 && second.commits == 2.0));
        assert_eq!(minutes.len(), 5);
        assert!(minutes.iter().all(|minute| minute.answers.found == 10.0 && minute.at.0 % 60 == 0), "{minutes:?}");
        assert_eq!(statistics.recent().iter().sum::<u64>(), 600);
    }
}
