//! Planned moves of devices: done when their time has come, whoever is awake.

use std::time::Duration;

use dnsbroker_api::problem::chain;
use dnsbroker_store::Actor;
use dnsbroker_store::act::{Due, RunMove};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::committer::now;

/// The clock is looked at this often at least: it may be put right meanwhile.
const LOOK: Duration = Duration::from_secs(30);
/// After a failure of the store.
const RETRY: Duration = Duration::from_secs(5);

/// Wakes the task when something was planned.
#[derive(Default)]
pub struct Moves(Notify);

impl Moves {
    /// There may be something to do earlier than was thought.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Does moves when they are due, until told to stop.
pub async fn run(app: App, stop: CancellationToken) {
    loop {
        let wait = match app.view().next_move().map(|next| next - now()) {
            Some(..=0) => match app.committer.commit(Actor::Broker, RunMove).await {
                Ok(due) => {
                    tell(&due);
                    if due == Due::Nothing { LOOK } else { continue }
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), "a planned move could not be done now");
                    RETRY
                }
            },
            Some(seconds) => Duration::from_secs(seconds.unsigned_abs()).min(LOOK),
            None => LOOK,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = app.moves.0.notified() => {}
        }
    }
}

fn tell(due: &Due) {
    match due {
        Due::Nothing => {}
        Due::Prepared(id) => tracing::info!(id, "a planned move is near: its devices are cached for seconds only"),
        Due::Done(id, moved) => {
            let filled = moved.filled.len();
            tracing::info!(id, moved.moved, moved.stayed, filled, "a planned move is done");
        }
        Due::Failed(id, reason) => tracing::warn!(id, reason, "a planned move was not done, and is off"),
    }
}
