//! Sources: one task for each primary that fills a NetID. It looks at the primary's serial when a timer or a NOTIFY says
//! so, fetches what is new, and hands it to the committer as one change.
//!
//! | module | what |
//! |---|---|
//! | [`fetch`] | one look: connect, SOA, IXFR or AXFR, signatures |
//! | [`task`] | when to look, and what becomes of what was fetched |

mod fetch;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dnsbroker_federation::{NetId, Serial};
use dnsbroker_store::record::Source;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::committer::Committer;
use crate::limits::Limits;
use crate::seal::Sealer;
use crate::shared::Shared;
use crate::tls::TlsMaterial;

/// What a source is doing, for `source show`.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// In one word.
    pub state: State,
    /// When the primary was last asked.
    pub looked: Option<i64>,
    /// When it last answered well.
    pub succeeded: Option<i64>,
    /// When it will be asked next.
    pub next: Option<i64>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure, in words; none since a success.
    pub error: Option<String>,
    /// The primary's serial when it was last asked.
    pub theirs: Option<Serial>,
    /// A transfer that would drop most devices, and waits for an administrator.
    pub held: Option<Held>,
}

/// States of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// It has not been asked yet.
    #[default]
    New,
    /// It is being asked.
    Busy,
    /// What it has is here.
    Current,
    /// A transfer waits for an administrator's word.
    Held,
    /// The last look failed.
    Failing,
    /// It has not been heard for as long as its SOA says.
    Expired,
}

impl State {
    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Busy => "transferring",
            Self::Current => "current",
            Self::Held => "held",
            Self::Failing => "failing",
            Self::Expired => "expired",
        }
    }
}

/// A transfer that is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The primary's serial.
    pub serial: Serial,
    /// Why, in words.
    pub reason: String,
}

/// What the task of a source shares with those who ask about it.
pub(in crate::source) struct Desk {
    pub(in crate::source) status: Mutex<Status>,
    /// Wakes the task.
    pub(in crate::source) wake: Notify,
    /// An administrator has said yes to the transfer of this serial.
    pub(in crate::source) accepted: Mutex<Option<Serial>>,
}

impl Desk {
    fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(in crate::source) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

struct Running {
    source: Arc<Source>,
    desk: Arc<Desk>,
    task: AbortHandle,
}

/// What the tasks need of the broker.
pub struct Means {
    /// State and counters.
    pub shared: Arc<Shared>,
    /// Where transfers go.
    pub committer: Committer,
    /// Opens the secrets of TSIG keys.
    pub sealer: Arc<Sealer>,
    /// Bounds.
    pub limits: Limits,
    /// Certificate and key that are shown to primaries.
    pub material: Arc<ArcSwap<TlsMaterial>>,
}

/// All sources.
pub struct Sources {
    means: Mutex<Option<Arc<Means>>>,
    running: Mutex<BTreeMap<NetId, Running>>,
}

impl Sources {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { means: Mutex::new(None), running: Mutex::default() })
    }

    /// Starts the tasks of all sources there are.
    pub fn start(&self, means: Means) {
        *self.means.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(means));
        self.reconcile();
    }

    /// Ends all tasks. A transfer that is not committed yet is forgotten, and fetched again at the next start.
    pub fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        running.values().for_each(|running| running.task.abort());
        *self.means.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Brings the tasks in line with the sources that are configured.
    pub fn reconcile(&self) {
        let means = self.means.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(means) = means else { return };
        let view = means.shared.view.load_full();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|netid, running| {
            let same = view.sources.get(netid).is_some_and(|source| same_settings(source, &running.source));
            if !same {
                running.task.abort();
            }
            same
        });
        for (netid, source) in &view.sources {
            running.entry(*netid).or_insert_with(|| {
                let desk = Arc::new(Desk { status: Mutex::default(), wake: Notify::new(), accepted: Mutex::default() });
                let task = tokio::spawn(task::run(*netid, Arc::clone(&desk), Arc::clone(&means)));
                Running { source: Arc::clone(source), desk, task: task.abort_handle() }
            });
        }
    }

    /// What a source is doing.
    pub fn status(&self, netid: NetId) -> Option<Status> {
        self.of(netid).map(|desk| desk.status())
    }

    /// A NOTIFY has come, or an administrator wants to know: look now.
    pub fn notified(&self, netid: NetId) {
        if let Some(desk) = self.of(netid) {
            desk.wake.notify_one();
        }
    }

    /// An administrator says yes to what is held under this serial.
    pub fn accept(&self, netid: NetId, serial: Serial) {
        if let Some(desk) = self.of(netid) {
            *desk.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(serial);
            desk.wake.notify_one();
        }
    }

    fn of(&self, netid: NetId) -> Option<Arc<Desk>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&netid).map(|running| Arc::clone(&running.desk))
    }
}

/// Whether two differ in their progress only.
fn same_settings(one: &Source, other: &Source) -> bool {
    let bare = |source: &Source| Source { progress: None, ..source.clone() };
    bare(one) == bare(other)
}
