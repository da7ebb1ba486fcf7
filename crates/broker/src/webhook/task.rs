//! One webhook: events in their order, each posted until it is taken, and giving up when nothing is taken for long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dnsbroker_api::event::{Event, EventId, wanted};
use dnsbroker_store::Actor;
use dnsbroker_store::act::DisableWebhook;
use dnsbroker_store::record::Webhook;
use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::message::Message;
use super::post::{PostError, Poster};
use super::{PURPOSE, Status};
use crate::app::App;
use crate::events::Deaf;
use crate::key::entropy;

/// Why a webhook whose secret does not open is disabled.
const SEALED: &str = "its secret does not open: is ca/tsig-seal.key the file it was sealed with?";
/// Between the first attempt and the second; it doubles...
const FIRST: Duration = Duration::from_secs(1);
/// ...up to this.
const LONGEST: Duration = Duration::from_secs(600);
/// Between two attempts to read the audit.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Runs until the webhook is changed, disabled or removed, or the daemon stops.
pub(super) async fn run(app: App, webhook: Arc<Webhook>, desk: Arc<Mutex<Status>>, stop: CancellationToken) {
    if app.sealer.unseal_for(PURPOSE, &webhook.secret.0).is_none() {
        return disable(&app, &webhook, SEALED).await;
    }
    let stored = webhook.delivered.as_ref().and_then(|id| id.parse().ok());
    let change = |change: &dyn Fn(&mut Status)| change(&mut desk.lock().unwrap_or_else(PoisonError::into_inner));
    let known = desk.lock().unwrap_or_else(PoisonError::into_inner).delivered;
    // Its number is that of the act that made it: what came before is not its business.
    let mut seen: EventId = known.or(stored).unwrap_or(EventId::of_act(webhook.id));
    let mut listener = app.shared.events.listen(Some(seen));
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return,
            told = listener.next(&app.engine) => told,
        };
        let told = match told {
            Ok(told) => told,
            Err(Deaf::Stopping) => return,
            // Many events came while one was being posted: they are in the audit.
            Err(Deaf::Slow(_)) => {
                listener = app.shared.events.listen(Some(seen));
                continue;
            }
            Err(Deaf::Engine(error)) => {
                tracing::error!(webhook = webhook.id, %error, "events cannot be read");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(READ_AGAIN) => {}
                }
                listener = app.shared.events.listen(Some(seen));
                continue;
            }
        };
        let is_wanted = wanted(told.kind(), webhook.events.iter().map(String::as_str));
        if let Some(event) = is_wanted.then(|| told.as_seen_by(webhook.member.as_ref())).flatten()
            && !deliver(&app, &webhook, &event, &desk, &stop).await
        {
            return;
        }
        seen = told.id;
        change(&|status| status.delivered = Some(seen));
    }
}

/// Posts an event until it is taken; tells whether it was.
async fn deliver(app: &App, webhook: &Webhook, event: &Event, desk: &Mutex<Status>, stop: &CancellationToken) -> bool {
    let message = Message::new(webhook.id, event);
    let (begun, mut wait) = (Instant::now(), FIRST);
    loop {
        let config = app.config.load_full();
        let poster = Poster::new(&config, webhook.member.is_some());
        // Open for as long as it is needed, and not for the life of the webhook.
        let Some(secret) = app.sealer.unseal_for(PURPOSE, &webhook.secret.0) else {
            disable(app, webhook, SEALED).await;
            return false;
        };
        let posted = tokio::select! {
            () = stop.cancelled() => return false,
            posted = poster.post(&webhook.url, &message, &secret) => posted,
        };
        drop(secret);
        let failure = match posted {
            Ok(()) => {
                let mut status = desk.lock().unwrap_or_else(PoisonError::into_inner);
                (status.failures, status.error) = (0, None);
                return true;
            }
            Err(failure) => failure,
        };
        let words = failure.to_string();
        {
            let mut status = desk.lock().unwrap_or_else(PoisonError::into_inner);
            status.failures += 1;
            status.error = Some(words.clone());
        }
        tracing::debug!(webhook = webhook.id, event = event.id, cause = words, "a webhook does not take an event");
        let gone = matches!(failure, PostError::Status(StatusCode::GONE));
        if gone || begun.elapsed() + wait > Duration::from_secs(config.webhooks.give_up_seconds) {
            let hours = begun.elapsed().as_secs_f64() / 3_600.0;
            let reason = if gone { words } else { format!("it took nothing for {hours:.1} hours: {words}") };
            disable(app, webhook, &reason).await;
            return false;
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(jittered(wait)) => {}
        }
        wait = (wait * 2).min(LONGEST);
    }
}

async fn disable(app: &App, webhook: &Webhook, reason: &str) {
    tracing::warn!(webhook = webhook.id, url = webhook.url, cause = reason, "a webhook is disabled");
    let mut reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    while reason.len() > dnsbroker_store::act::MAX_TEXT {
        reason.pop();
    }
    if let Err(error) = app.committer.commit(Actor::Broker, DisableWebhook { id: webhook.id, reason }).await {
        tracing::warn!(webhook = webhook.id, %error, "that it is disabled could not be written");
    }
}

/// A quarter less at most, so that webhooks that failed together do not come together.
fn jittered(wait: Duration) -> Duration {
    let random = entropy::<1>().map_or(0, |[octet]| octet);
    wait - wait * u32::from(random) / 1_024
}
