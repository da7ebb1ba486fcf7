//! What the REST handlers and the daemon's tasks share.

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use dnsbroker_api::message::Listeners;
use dnsbroker_store::View;
use dnsbroker_store::engine::Engine;
use tokio_util::sync::CancellationToken;

use crate::account::session::Sessions;
use crate::announce::Announcer;
use crate::api::Streams;
use crate::api::quota::Quotas;
use crate::committer::Committer;
use crate::config::Config;
use crate::expiry::Reminders;
use crate::moves::Moves;
use crate::pki::Pki;
use crate::publication::Lists;
use crate::seal::Sealer;
use crate::shared::Shared;
use crate::source::Sources;
use crate::standby::take_over::TakeOver;
use crate::statistics::Statistics;
use crate::webhook::Webhooks;

/// The parts of a running broker. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// See [`App`].
pub struct Parts {
    /// What the listeners share.
    pub shared: Arc<Shared>,
    /// The one way to change anything.
    pub committer: Committer,
    /// For reads of rows that are not held in memory.
    pub engine: Arc<dyn Engine>,
    /// Opens the secrets of TSIG keys.
    pub sealer: Arc<Sealer>,
    /// Members' primaries.
    pub sources: Arc<Sources>,
    /// Tells replicas of changes.
    pub announcer: Arc<Announcer>,
    /// The CA.
    pub pki: Arc<Pki>,
    /// Its lists of revoked certificates, as published.
    pub lists: Lists,
    /// Administrators who have logged in.
    pub sessions: Sessions,
    /// How many requests each caller has made.
    pub quotas: Quotas,
    /// Planned moves.
    pub moves: Moves,
    /// The configuration as of the last start or reload.
    pub config: ArcSwap<Config>,
    /// Where the daemon listens.
    pub listeners: Listeners,
    /// What the last seconds and minutes were like.
    pub statistics: Statistics,
    /// How this broker becomes the primary.
    pub take_over: TakeOver,
    /// Where events are posted to.
    pub webhooks: Webhooks,
    /// What of its end was told already.
    pub reminders: Reminders,
    /// Those who listen to events.
    pub streams: Streams,
    /// Ends what goes on for ever, when the daemon stops.
    pub stop: CancellationToken,
    /// When it started.
    pub started: i64,
    /// Certificates of the broker and its CA, and when they end.
    pub expiries: Mutex<Vec<(String, i64)>>,
}

impl App {
    /// Of its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The current state.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
