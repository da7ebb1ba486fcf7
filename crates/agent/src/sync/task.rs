//! One NetID: when to look at its source, what to send, what came of it.
//!
//! The broker is told the whole list first. From then on the list that it has acknowledged is remembered, and a small
//! difference is sent as one. What would take away more than half goes as a whole list again, so that the broker's shrink
//! guard sees it; and so does everything when another broker has become the primary. A source that fails changes nothing.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dnsbroker_api::Timestamp;
use dnsbroker_api::message::{ImportReport, Reject};
use dnsbroker_api::operator::DeviceChanges;
use dnsbroker_federation::{DevEui, NetId};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::config::{Kind, SyncConfig};
use super::postgres;
use super::source::{self, Listing, stamp};
use crate::api::Call;
use crate::clock::now;
use crate::limits::{DELTA, SHOWN};
use crate::upstream::federation::Federation;

/// How often files are looked at.
const STAMP: Duration = Duration::from_secs(2);
/// Changes that come together are sent together.
const SETTLE: Duration = Duration::from_millis(500);
/// How soon a source or broker that failed is tried again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// What a synchronisation does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The federation.
    pub federation: String,
    /// The NetID.
    pub netid: NetId,
    /// The source.
    pub source: String,
    /// `new`, `sending`, `current`, `held`, `failing`.
    pub state: String,
    /// Devices of the source.
    pub devices: u64,
    /// Rows of the source that hold no DevEUI.
    pub rejected: u64,
    /// The first of those.
    #[serde(default)]
    pub rejects: Vec<Reject>,
    /// Devices that another member holds.
    pub claimed: u64,
    /// The first of those.
    #[serde(default)]
    pub claims: Vec<DevEui>,
    /// When the broker last acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Timestamp>,
    /// What it made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ImportReport>,
    /// What was sent last: `full` or `delta`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// Why it fails or is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Lists and differences sent since the start.
    pub passes: u64,
    /// Failures since the start.
    pub failures: u64,
}

/// How a pass is to be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Change nothing, and say what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Take away more than half.
    #[serde(default)]
    pub allow_shrink: bool,
}

/// One NetID.
pub struct Sync {
    federation: Arc<Federation>,
    config: SyncConfig,
    dir: PathBuf,
    status: Mutex<Status>,
    acknowledged: tokio::sync::Mutex<Option<Acknowledged>>,
}

/// The list that the broker has acknowledged.
struct Acknowledged {
    devices: Vec<DevEui>,
    /// When it was sent as a whole.
    since: Instant,
    /// The broker that was the primary then. Another one may not have heard of all that it acknowledged.
    primary: Option<String>,
}

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    Delta(DeviceChanges),
    Full,
}

impl Sync {
    /// Of an entry of the configuration; `dir` is where that stands.
    pub fn new(federation: Arc<Federation>, config: SyncConfig, dir: PathBuf) -> Arc<Self> {
        let status = Status {
            federation: federation.name(),
            netid: config.netid,
            source: config.source.label().to_owned(),
            state: "new".to_owned(),
            devices: 0,
            rejected: 0,
            rejects: vec![],
            claimed: 0,
            claims: vec![],
            acknowledged: None,
            report: None,
            sent: None,
            error: None,
            passes: 0,
            failures: 0,
        };
        let acknowledged = tokio::sync::Mutex::new(None);
        Arc::new(Self { federation, config, dir, status: Mutex::new(status), acknowledged })
    }

    /// What it does.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the source and sends what is to be sent.
    pub async fn pass(&self, options: Options) -> Result<Status, String> {
        // One at a time: the difference is to what the last one has sent.
        let mut acknowledged = self.acknowledged.lock().await;
        let result = self.attempt(options, &mut acknowledged).await;
        if let Err(reason) = &result {
            self.note_failure(reason);
            // What the broker has is not known for sure: the whole list comes next.
            *acknowledged = None;
        }
        result.map(|()| self.status())
    }

    async fn attempt(&self, options: Options, acknowledged: &mut Option<Acknowledged>) -> Result<(), String> {
        let listing = source::list(&self.config, &self.dir).await?;
        let primary = self.federation.primary();
        let same = |before: &Acknowledged| before.primary.is_none() || before.primary == primary;
        let before = acknowledged.as_ref().filter(|before| options == Options::default() && same(before));
        let plan = plan(before, &listing.devices, self.config.full_interval);
        self.note_listing(&listing, plan != Plan::Nothing);
        let (report, sent) = match plan {
            Plan::Nothing => {
                self.update(|status| {
                    status.state = "current".to_owned();
                    status.error = None;
                });
                return Ok(());
            }
            Plan::Delta(changes) => match self.send_delta(&changes).await {
                // A broker of an earlier version takes whole lists only.
                Err(reason) if reason.ends_with("(no-method)") => {
                    (self.send_full(&listing.devices, options).await?, "full")
                }
                sent => (sent?, "delta"),
            },
            Plan::Full => (self.send_full(&listing.devices, options).await?, "full"),
        };
        if !options.dry_run {
            let since = match (sent, &acknowledged) {
                ("delta", Some(before)) => before.since,
                _ => Instant::now(),
            };
            *acknowledged = Some(Acknowledged { devices: listing.devices, since, primary });
        }
        self.note_report(report, sent, options);
        Ok(())
    }

    fn path(&self) -> Result<String, String> {
        let identity = self.federation.identity().ok_or("there is no certificate: enrol first")?;
        Ok(format!("/api/v1/members/{}/netids/{}/devices", identity.member, self.config.netid))
    }

    async fn send_full(&self, devices: &[DevEui], options: Options) -> Result<ImportReport, String> {
        let flags = format!("?dry_run={}&allow_shrink={}", options.dry_run, options.allow_shrink);
        let path = self.path()? + &flags;
        let mut body = String::with_capacity(devices.len() * 17);
        for device in devices {
            body.push_str(&device.to_string());
            body.push('\n');
        }
        self.federation.api(&path, &Call::Put(body.into())).await
    }

    async fn send_delta(&self, changes: &DeviceChanges) -> Result<ImportReport, String> {
        self.federation.api(&self.path()?, &Call::Patch(Call::json(changes))).await
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn note_listing(&self, listing: &Listing, sending: bool) {
        let before = self.status();
        if listing.rejected > 0 && (before.rejected, &before.rejects) != (listing.rejected, &listing.rejects) {
            let first = listing.rejects.first().map(|reject| format!("{:?}: {}", reject.text, reject.reason));
            tracing::warn!(netid = %self.config.netid, count = listing.rejected, first, "rows of the source hold no DevEUI");
        }
        self.update(|status| {
            if sending && status.state == "current" {
                status.state = "sending".to_owned();
            }
            status.devices = listing.devices.len() as u64;
            status.rejected = listing.rejected;
            status.rejects.clone_from(&listing.rejects);
        });
    }

    fn note_report(&self, report: ImportReport, sent: &str, options: Options) {
        let ImportReport { added, moved, removed, claimed, .. } = report;
        let (netid, dry_run) = (self.config.netid, options.dry_run);
        let held_before = self.status().state;
        tracing::info!(%netid, sent, added, moved, removed, claimed, dry_run, "devices were synchronised");
        if claimed > 0 {
            let first: Vec<String> = report.claims.iter().take(SHOWN).map(ToString::to_string).collect();
            tracing::warn!(%netid, claimed, first = first.join(" "), "another member holds devices of ours");
        }
        self.update(|status| {
            status.passes += 1;
            status.sent = Some(sent.to_owned());
            if dry_run {
                status.state = if held_before == "sending" { "current".to_owned() } else { held_before };
            } else {
                status.state = "current".to_owned();
                status.error = None;
                status.acknowledged = Some(Timestamp(now()));
                // A difference says nothing of the devices that it does not name.
                if sent == "full" || claimed > 0 {
                    status.claimed = claimed;
                    status.claims = report.claims.iter().take(SHOWN).copied().collect();
                }
            }
            status.report = Some(report);
        });
    }

    fn note_failure(&self, reason: &str) {
        let held = reason.contains("(list-shrinks)");
        let before = self.status();
        if before.error.as_deref() != Some(reason) {
            let netid = self.config.netid;
            if held {
                tracing::error!(%netid, reason, "the list is held back: `dnsbroker-agent sync --allow-shrink` if it is meant");
            } else {
                tracing::error!(%netid, reason, "devices cannot be synchronised");
            }
        }
        self.update(|status| {
            status.failures += 1;
            status.state = if held { "held" } else { "failing" }.to_owned();
            status.error = Some(reason.to_owned());
        });
    }

    /// Runs until told to stop. `directory` counts what has changed in the federation: there may be another primary.
    pub async fn run(self: Arc<Self>, mut directory: watch::Receiver<u64>, stop: CancellationToken) {
        let (tell, mut changed) = mpsc::channel(1);
        if self.config.watch {
            tokio::spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&self).watch(tell.clone())));
        }
        let mut pause = AGAIN.0;
        loop {
            let wait = match self.pass(Options::default()).await {
                Ok(_) => {
                    pause = AGAIN.0;
                    self.config.every()
                }
                Err(_) => {
                    let wait = pause;
                    pause = (pause * 2).min(AGAIN.1);
                    wait
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                Ok(()) = directory.changed() => {}
                Some(()) = changed.recv() => {
                    tokio::time::sleep(SETTLE).await;
                    // Those that came meanwhile are in the list that is read now.
                    while changed.try_recv().is_ok() {}
                }
            }
        }
    }

    /// Tells of changes.
    async fn watch(self: Arc<Self>, tell: mpsc::Sender<()>) {
        let database = matches!(self.config.source, Kind::ChirpstackV4 | Kind::ChirpstackV3);
        if database && self.config.postgres.is_some() {
            loop {
                if let Err(reason) = postgres::listen(&self.config, &self.dir, &tell).await {
                    tracing::debug!(netid = %self.config.netid, reason, "changes are not told");
                }
                tokio::time::sleep(AGAIN.0).await;
                // What changed meanwhile was not heard.
                let _ = tell.try_send(());
            }
        }
        let mut last = stamp(&self.config, &self.dir);
        loop {
            tokio::time::sleep(STAMP).await;
            let next = stamp(&self.config, &self.dir);
            if next != last {
                last = next;
                let _ = tell.try_send(());
            }
        }
    }
}

/// What is to be sent, by what the broker has acknowledged and what the source has now. Both are sorted.
fn plan(before: Option<&Acknowledged>, after: &[DevEui], full_interval: u64) -> Plan {
    let Some(Acknowledged { devices: before, since, .. }) = before else { return Plan::Full };
    if since.elapsed() >= Duration::from_secs(full_interval) {
        return Plan::Full;
    }
    let changes = difference(before, after);
    let size = changes.add.len() + changes.remove.len();
    match size {
        0 => Plan::Nothing,
        _ if size > DELTA || changes.remove.len() * 2 > before.len() => Plan::Full,
        _ => Plan::Delta(changes),
    }
}

/// What came and went between two sorted lists.
fn difference(before: &[DevEui], after: &[DevEui]) -> DeviceChanges {
    let mut changes = DeviceChanges::default();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.cmp(new),
        };
        match order {
            Ordering::Less => changes.remove.extend(old.next()),
            Ordering::Greater => changes.add.extend(new.next()),
            Ordering::Equal => {
                old.next();
                new.next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn devices(values: &[u64]) -> Vec<DevEui> {
        values.iter().map(|value| DevEui::from_u64(*value).expect("in range")).collect()
    }

    #[test]
    fn the_first_list_is_whole_and_then_differences_follow() {
        let many: Vec<u64> = (1..=100).collect();
        let before = Acknowledged { devices: devices(&many), since: Instant::now(), primary: None };
        assert_eq!(plan(None, &before.devices, 60), Plan::Full);
        assert_eq!(plan(Some(&before), &before.devices, 60), Plan::Nothing);
        let Plan::Delta(changes) = plan(Some(&before), &devices(&many[1..]), 60) else { panic!("a difference") };
        assert_eq!((changes.add.len(), changes.remove), (0, devices(&[1])));
        assert_eq!(plan(Some(&before), &devices(&many[..40]), 60), Plan::Full, "the shrink guard is to see it");
        assert_eq!(plan(Some(&before), &[], 60), Plan::Full);
        assert_eq!(plan(Some(&before), &before.devices, 0), Plan::Full, "now and then");
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_one_list_to_the_other(
            before in proptest::collection::btree_set(1..200_u64, 0..80),
            after in proptest::collection::btree_set(1..200_u64, 0..80),
        ) {
            let of = |set: &BTreeSet<u64>| devices(&set.iter().copied().collect::<Vec<_>>());
            let changes = difference(&of(&before), &of(&after));
            let mut reached: BTreeSet<DevEui> = of(&before).into_iter().collect();
            for device in &changes.remove {
                prop_assert!(reached.remove(device));
            }
            for device in &changes.add {
                prop_assert!(reached.insert(*device));
            }
            prop_assert_eq!(reached.into_iter().collect::<Vec<_>>(), of(&after));
        }
    }
}
