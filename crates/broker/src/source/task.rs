//! When to look at a primary (RFC 1035, section 3.3.13; RFC 1996), and what becomes of what was fetched.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use dnsbroker_api::Timestamp;
use dnsbroker_api::problem::chain;
use dnsbroker_api::statistics::TransferShown;
use dnsbroker_federation::{NetId, Serial};
use dnsbroker_store::act::{Imported, TakeTransfer, Withdraw};
use dnsbroker_store::record::{OnExpiry, Progress, Source};
use dnsbroker_store::{Actor, Refusal};
use dnsbroker_zone::transfer::inbound::{Asked, Content, Received};
use serde_json::json;

use super::fetch::{Fetched, Fetcher};
use super::{Desk, Held, Means, State};
use crate::committer::{CommitError, now};
use crate::events::Audience;
use crate::key::entropy;
use crate::metrics::{Direction, TransferKind};

/// A primary is asked this seldom and this often at least and at most, whatever its SOA says, in seconds.
const REFRESH: (u32, u32) = (5, 86_400);
const RETRY: (u32, u32) = (2, 3_600);
/// Without a SOA yet, the first retry comes after this many seconds.
const FIRST_RETRY: u32 = 5;
/// The interval doubles with each failure, at most this many times.
const DOUBLINGS: u32 = 6;
/// Devices that others hold, or that another source brings, may be released without the primary knowing, and limits may become
/// wider: then the whole zone is fetched this often.
const CLAIMS_AGAIN: Duration = Duration::from_secs(3_600);
/// A source expires after this many seconds at least.
const EXPIRE_LEAST: u32 = 60;
/// Two looks are this far apart, however many NOTIFYs come; after looks that brought nothing, up to 64 times that.
const APART: Duration = Duration::from_millis(20);

/// Runs until the source is taken out or changed.
pub(super) async fn run(netid: NetId, desk: Arc<Desk>, means: Arc<Means>) {
    let mut task = Task {
        netid,
        desk,
        means,
        failures: 0,
        succeeded: Instant::now(),
        whole_at: Instant::now(),
        withdrawn: false,
        fruitless: 0,
    };
    loop {
        let Some(source) = task.source() else { return };
        let outcome = task.look(&source).await;
        let wait = task.settle(&source, outcome).await;
        tokio::time::sleep(APART * (1 << task.fruitless.min(DOUBLINGS))).await;
        // A NOTIFY that came meanwhile is remembered.
        let _ = tokio::time::timeout(wait, task.desk.wake.notified()).await;
    }
}

struct Task {
    netid: NetId,
    desk: Arc<Desk>,
    means: Arc<Means>,
    failures: u32,
    succeeded: Instant,
    /// When the whole zone was last fetched.
    whole_at: Instant,
    withdrawn: bool,
    /// Looks in a row that brought nothing new.
    fruitless: u32,
}

/// What one look came to.
enum Outcome {
    /// All that the primary has is here.
    Current(Serial),
    /// It would drop most devices, and nobody has said yes yet.
    Held(Held),
    /// It failed, in words.
    Failed(String),
}

impl Task {
    fn source(&self) -> Option<Arc<Source>> {
        self.means.shared.view.load().sources.get(&self.netid).cloned()
    }

    /// One look at the primary.
    async fn look(&mut self, source: &Source) -> Outcome {
        self.fruitless = self.fruitless.saturating_add(1);
        self.desk.change(|status| {
            status.looked = Some(now());
            status.next = None;
            status.state = if status.held.is_some() { State::Held } else { State::Busy };
        });
        let fetcher = match Fetcher::new(source, &self.means) {
            Ok(fetcher) => fetcher,
            Err(reason) => return Outcome::Failed(reason),
        };
        let theirs = match fetcher.serial().await {
            Ok(theirs) => theirs,
            Err(reason) => return Outcome::Failed(reason),
        };
        self.desk.change(|status| status.theirs = Some(theirs));
        let accepted = *self.desk.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.desk.status().held;
        if let Some(held) = held.filter(|held| held.serial == theirs && accepted != Some(theirs)) {
            return Outcome::Held(held);
        }
        let asked = match &source.progress {
            None => Asked::Whole,
            Some(Progress { claimed, filled, outside, .. })
                if claimed + filled + outside > 0 && self.whole_at.elapsed() > CLAIMS_AGAIN =>
            {
                Asked::Whole
            }
            Some(progress) if progress.serial == theirs => return Outcome::Current(theirs),
            Some(progress) if progress.serial > theirs => {
                let ours = progress.serial;
                let reason = format!(
                    "the primary's serial {theirs} is older than {ours}, which we have: was its zone set back?"
                );
                return Outcome::Failed(format!("{reason} Remove the source and add it again to take it all the same"));
            }
            Some(progress) if progress.several => Asked::Whole,
            Some(progress) => Asked::Since(progress.serial),
        };
        self.transfer(source, &fetcher, asked, accepted).await
    }

    async fn transfer(
        &mut self,
        source: &Source,
        fetcher: &Fetcher,
        asked: Asked,
        accepted: Option<Serial>,
    ) -> Outcome {
        let started = Instant::now();
        let fetched = fetcher.transfer(asked).await;
        let metrics = &self.means.shared.metrics;
        let Fetched { received, tally } = fetched;
        let kind = match &received {
            Ok(Received { content: Content::Whole(_), .. }) => TransferKind::Whole,
            Ok(Received { content: Content::Current, .. }) => TransferKind::Current,
            _ if asked == Asked::Whole => TransferKind::Whole,
            _ => TransferKind::Difference,
        };
        let took = started.elapsed();
        metrics.transferred(Direction::In, kind, received.is_ok(), tally.records, tally.octets, took);
        let (primary, zone, records) = (source.primary, &source.zone, tally.records);
        self.means.shared.transfers.add(TransferShown {
            at: Timestamp(now()),
            direction: "in".to_owned(),
            peer: self.netid.to_string(),
            member: Some(source.member.clone()),
            zone: zone.to_string(),
            kind: kind.label().to_owned(),
            records,
            octets: tally.octets,
            seconds: took.as_secs_f64(),
            failure: received.as_ref().err().cloned(),
        });
        let received = match received {
            Ok(received) => received,
            Err(reason) => {
                let (serial, seconds) = (self.desk.status().theirs, took.as_secs_f64());
                let serial = serial.map(tracing::field::display);
                tracing::warn!(
                    netid = %self.netid, %primary, %zone, kind = kind.label(), serial, messages = tally.messages, records,
                    octets = tally.octets, seconds, cause = reason, "transfer in failed; what was there is served on"
                );
                return Outcome::Failed(reason);
            }
        };
        let serial = Serial::new(received.soa.serial);
        if matches!(received.content, Content::Current) {
            return Outcome::Current(serial);
        }
        if matches!(received.content, Content::Whole(_)) {
            self.whole_at = Instant::now();
        }
        let allow_shrink = accepted == Some(serial);
        let act = TakeTransfer { netid: self.netid, zone: source.zone.clone(), received, allow_shrink };
        match self.means.committer.commit(Actor::Source(self.netid), act).await {
            Ok(Imported { added, moved, removed, claimed, outside, filled, .. }) => {
                metrics.rejected([tally.strangers, claimed, outside, filled]);
                tracing::info!(
                    netid = %self.netid, member = %source.member, %primary, %zone, kind = kind.label(), %serial,
                    messages = tally.messages, records, octets = tally.octets, strangers = tally.strangers,
                    mismatches = tally.mismatches, added, moved, removed, claimed, outside, filled,
                    seconds = started.elapsed().as_secs_f64(), "transfer in"
                );
                (self.withdrawn, self.fruitless) = (false, 0);
                Outcome::Current(serial)
            }
            Err(CommitError::Refused(shrink @ Refusal::Shrink { .. })) => {
                let reason = format!("{shrink}");
                let reason = reason.split(';').next().unwrap_or_default();
                let reason = format!("{reason}; if that is meant: `dnsbroker source accept {}`", self.netid);
                let seconds = started.elapsed().as_secs_f64();
                let kind = kind.label();
                tracing::warn!(
                    netid = %self.netid, %primary, kind, %serial, records, seconds, cause = reason,
                    "transfer in is held back"
                );
                Outcome::Held(Held { serial, reason })
            }
            Err(error) => Outcome::Failed(chain(&error)),
        }
    }

    /// Notes what a look came to; tells how long to wait until the next.
    async fn settle(&mut self, source: &Source, outcome: Outcome) -> Duration {
        let progress = self.source().and_then(|source| source.progress.clone());
        let bounded = |seconds: u32, (least, most): (u32, u32)| seconds.clamp(least, most);
        let refresh = progress.as_ref().map_or(FIRST_RETRY, |known| bounded(known.refresh, REFRESH));
        let retry = progress.as_ref().map_or(FIRST_RETRY, |known| bounded(known.retry, RETRY));
        let wait = match &outcome {
            Outcome::Failed(_) => {
                let doublings = self.failures.min(DOUBLINGS);
                self.failures += 1;
                bounded(retry.saturating_mul(1 << doublings), (1, RETRY.1))
            }
            _ => {
                self.failures = 0;
                self.succeeded = Instant::now();
                refresh
            }
        };
        let expired = self.expired(progress.as_ref());
        if expired && source.on_expiry == OnExpiry::Withdraw && !self.withdrawn {
            self.withdraw().await;
        }
        let wait = jittered(wait);
        let failures = self.failures;
        self.tell(source, &outcome);
        self.desk.change(|status| {
            status.failures = failures;
            status.next = Some(now() + wait.as_secs() as i64);
            match outcome {
                Outcome::Current(serial) => {
                    status.state = State::Current;
                    status.succeeded = Some(now());
                    (status.error, status.held, status.theirs) = (None, None, Some(serial));
                }
                Outcome::Held(held) => {
                    status.state = State::Held;
                    status.succeeded = Some(now());
                    (status.error, status.held) = (None, Some(held));
                }
                Outcome::Failed(reason) => {
                    if status.error.as_ref() != Some(&reason) {
                        tracing::warn!(netid = %self.netid, primary = %source.primary, cause = reason, "a source fails");
                    }
                    status.state = if expired { State::Expired } else { State::Failing };
                    status.error = Some(reason);
                }
            }
        });
        wait
    }

    /// Tells of a state that is another one than before.
    fn tell(&self, source: &Source, outcome: &Outcome) {
        let before = self.desk.status();
        let (kind, detail) = match outcome {
            Outcome::Failed(reason) if before.error.as_ref() != Some(reason) => {
                ("source.failed", json!({ "reason": reason, "primary": source.primary, "zone": source.zone }))
            }
            Outcome::Held(held) if before.held.as_ref() != Some(held) => {
                ("source.held", json!({ "reason": held.reason, "theirs": held.serial }))
            }
            Outcome::Current(serial) if before.error.is_some() || before.held.is_some() => {
                ("source.recovered", json!({ "theirs": serial }))
            }
            _ => return,
        };
        let audience = Audience::member(&source.member);
        self.means.shared.events.notice(kind, &self.netid.to_string(), audience, detail);
    }

    /// Whether the primary has not been heard for as long as its SOA says; counted from the start of the broker.
    fn expired(&self, progress: Option<&Progress>) -> bool {
        let Some(progress) = progress else { return self.withdrawn };
        self.succeeded.elapsed() > Duration::from_secs(progress.expire.max(EXPIRE_LEAST).into())
    }

    async fn withdraw(&mut self) {
        match self.means.committer.commit(Actor::Broker, Withdraw { netid: self.netid }).await {
            Ok(report) => {
                self.withdrawn = true;
                tracing::warn!(netid = %self.netid, removed = report.removed, "a source has expired: its devices are out");
            }
            Err(error) => tracing::error!(netid = %self.netid, error = chain(&error), "a source cannot expire"),
        }
    }
}

/// A tenth less at most, so that sources that were added together do not stay together.
fn jittered(seconds: u32) -> Duration {
    let random = entropy::<1>().map_or(0, |[octet]| octet);
    let whole = Duration::from_secs(seconds.into());
    whole - whole * u32::from(random) / 2_560
}
