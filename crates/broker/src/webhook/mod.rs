//! Webhooks: events are posted to where members and administrators want them, signed, again until they are taken.
//!
//! ```text
//! Events ──▶ one task a webhook: kind, audience ──▶ sign ──▶ POST ──▶ 2xx: next · else again, later · lasting: disabled
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`message`] | what is posted, and its signature |
//! | [`post`] | one POST: which addresses may be reached, TLS, times |
//! | [`task`] | the order of events, attempts, giving up |
//!
//! A webhook's place among the events is the last one it has taken. It is written at most once a minute for all webhooks
//! together, and at a stop; after a crash some events may be posted again, with the same `webhook-id`. None is left out.

pub mod message;
pub mod post;
mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dnsbroker_api::event::EventId;
use dnsbroker_store::Actor;
use dnsbroker_store::act::NoteDelivered;
use dnsbroker_store::record::Webhook;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// What secrets of webhooks are sealed for.
pub const PURPOSE: &str = "webhook";
/// How often the places of webhooks are written.
const WRITE: Duration = Duration::from_secs(60);

/// Webhooks in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Whether members' webhooks may reach loopback, link-local and private addresses, and need no TLS. Those of
    /// administrators always may.
    pub allow_private: bool,
    /// CAs (PEM) that servers are trusted by; the system's where it is absent.
    pub ca_file: Option<PathBuf>,
    /// A webhook that takes nothing for so long is disabled.
    pub give_up_seconds: u64,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self { allow_private: false, ca_file: None, give_up_seconds: 86_400 }
    }
}

/// What a webhook is doing.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The last event that it has taken, or that was none of its.
    pub delivered: Option<EventId>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure, in words.
    pub error: Option<String>,
}

/// All webhooks.
#[derive(Default)]
pub struct Webhooks(Mutex<BTreeMap<u64, Arc<Mutex<Status>>>>);

impl Webhooks {
    /// What a webhook is doing.
    pub fn status(&self, id: u64) -> Status {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        known.map_or_else(Status::default, |status| status.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn desk(&self, id: u64) -> Arc<Mutex<Status>> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default())
    }

    fn forget(&self, id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// What is to be written of their places.
    fn places(&self) -> Vec<(u64, String)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |(id, status): (&u64, &Arc<Mutex<Status>>)| {
            let delivered = status.lock().unwrap_or_else(PoisonError::into_inner).delivered?;
            Some((*id, delivered.to_string()))
        };
        known.iter().filter_map(place).collect()
    }
}

struct Running {
    webhook: Arc<Webhook>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs the webhooks there are until the daemon stops.
pub async fn keep(app: App) {
    let mut running: BTreeMap<u64, Running> = BTreeMap::new();
    // Webhooks are changed by acts, and acts are events.
    let mut acts = app.shared.events.listen(None);
    let mut write = tokio::time::interval(WRITE);
    write.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        reconcile(&app, &mut running);
        loop {
            tokio::select! {
                () = app.stop.cancelled() => {
                    for (_, known) in running {
                        known.stop.cancel();
                        let _ = known.task.await;
                    }
                    return write_places(&app).await;
                }
                _ = write.tick() => write_places(&app).await,
                told = acts.next(&app.engine) => match told {
                    Ok(told) if told.kind().starts_with("webhook.") || told.kind().starts_with("member.") => break,
                    Ok(_) => {}
                    // It was too slow, or the audit cannot be read: the webhooks there are now are looked at all the same.
                    Err(_) => {
                        acts = app.shared.events.listen(None);
                        break;
                    }
                },
            }
        }
    }
}

/// Brings the tasks in line with the webhooks there are.
fn reconcile(app: &App, running: &mut BTreeMap<u64, Running>) {
    let view = app.view();
    let bare = |webhook: &Webhook| Webhook { delivered: None, ..webhook.clone() };
    running.retain(|id, known| {
        let now = view.accounts.webhooks.get(id);
        let same = now.is_some_and(|webhook| bare(webhook) == bare(&known.webhook) && webhook.disabled.is_none());
        if !same {
            known.stop.cancel();
        }
        if now.is_none() {
            app.webhooks.forget(*id);
        }
        same
    });
    for (id, webhook) in view.accounts.webhooks.iter().filter(|(_, webhook)| webhook.disabled.is_none()) {
        running.entry(*id).or_insert_with(|| {
            let stop = app.stop.child_token();
            let desk = app.webhooks.desk(*id);
            let task = tokio::spawn(task::run(app.clone(), Arc::clone(webhook), desk, stop.clone()));
            Running { webhook: Arc::clone(webhook), stop, task }
        });
    }
}

async fn write_places(app: &App) {
    let view = app.view();
    let changed = |(id, place): &(u64, String)| {
        view.accounts.webhooks.get(id).is_some_and(|webhook| webhook.delivered.as_ref() != Some(place))
    };
    let places: Vec<(u64, String)> = app.webhooks.places().into_iter().filter(changed).collect();
    if places.is_empty() {
        return;
    }
    if let Err(error) = app.committer.commit(Actor::Broker, NoteDelivered { places }).await {
        tracing::warn!(%error, "the places of webhooks are not written; some events may be posted again");
    }
}
