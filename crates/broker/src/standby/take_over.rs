//! What a broker does that takes the primary's place, and what it tells the old one.
//!
//! Promotion is one act, [`Promote`]: it counts up the epoch and sets the serial of the zones far ahead, so that no
//! secondary takes an old serial for a new one. Numbers of revocation lists follow the clock and so do not go back either.
//! What nobody here can know is what the old primary has acknowledged and not sent; that is said, and not hidden.
//!
//! The old primary may come back and know nothing of it. So the new one knocks at its door until it has been told; it then
//! refuses all changes and answers nobody, over restarts too, until an administrator makes it a standby.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dnsbroker_api::standby::TakenOver;
use dnsbroker_federation::DomainName;
use dnsbroker_store::Actor;
use dnsbroker_store::act::{Promote, Reached};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::link::{Link, Refused};
use super::{Fence, Following, Role};
use crate::app::App;
use crate::committer::CommitError;
use crate::config::Config;
use crate::key::{KeyError, write_whole};
use crate::public_zone;

/// Between two attempts to tell the old primary.
const KNOCK: Duration = Duration::from_secs(5);
/// What is on its way has this long to come. A connection that is silent for five seconds is given up before.
const SETTLE: Duration = Duration::from_secs(8);
/// The file in which an old primary remembers that it is none.
const FENCED: &str = "fenced.json";

/// The change of roles.
#[derive(Default)]
pub struct TakeOver {
    /// The task that follows the primary, and what stops it.
    follower: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
    /// Wakes what only a primary does.
    pub promoted: Notify,
    /// Wakes whoever publishes the brokers' names.
    pub brokers: Notify,
}

/// Why a broker is not promoted.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// It is no standby.
    #[error("this broker is {0} and no standby")]
    Role(&'static str),
    /// The act was not done.
    #[error("the standby could not take over; start it again and it follows as before")]
    Commit(#[from] CommitError),
}

impl TakeOver {
    /// A task follows the primary.
    pub async fn following(&self, stop: CancellationToken, task: JoinHandle<()>) {
        *self.follower.lock().await = Some((stop, task));
    }

    /// Takes the primary's place; tells what is to be known of that.
    pub async fn promote(&self, app: &App, actor: Actor) -> Result<Vec<String>, PromoteError> {
        let mut follower = self.follower.lock().await;
        let standing = &app.shared.standing;
        let Role::Standby { primary } = standing.role() else {
            return Err(PromoteError::Role(standing.role().label()));
        };
        // What is on its way is still taken: either the old primary says that there is no more, or it is not there.
        let asked = Instant::now();
        let settled = |known: &Following| !known.connected || known.heard.is_some_and(|heard| heard >= asked);
        let following = standing.once(settled, SETTLE).await;
        if let Some((stop, task)) = follower.take() {
            stop.cancel();
            // What was being taken is taken to its end.
            let _ = task.await;
        }
        let act = app.view().audit.number;
        let taken = app.committer.promote(actor, Promote(reached(app))).await?;
        standing.set(Role::Primary);
        self.promoted.notify_one();
        let (epoch, name) = (taken.epoch, &taken.name);
        tracing::warn!(epoch, %name, act, old = primary, "this broker is the primary now");
        let mut notes =
            vec![format!("{name} is the primary since epoch {epoch}; act {act} was the last that came from {primary}")];
        if following.connected && following.heard.is_some_and(|heard| heard >= asked) {
            notes.push(format!(
                "the old primary was there and had no act that is not here when it was asked last; it is told to stop at \
                 {primary}, and what it acknowledged between is in its own audit alone"
            ));
        } else {
            let heard = following.heard.map_or_else(
                || "since this broker started".to_owned(),
                |heard| format!("for {} seconds", heard.elapsed().as_secs()),
            );
            notes.push(format!(
                "nothing was heard of the old primary {heard}: what it has acknowledged after act {act} and not sent is not here, \
                 and cannot be known here. That may be devices, members and certificates, and revocations: revoke again what \
                 you know to have been revoked lately"
            ));
            notes.push(format!(
                "should the old primary come back it is told at {primary}, and refuses changes; its own audit has what was lost"
            ));
        }
        notes.extend(following.unready);
        Ok(notes)
    }
}

/// Where this broker is reached.
pub fn reached(app: &App) -> Reached {
    let config = app.config.load();
    Reached {
        name: own_name(&config),
        doh_url: app.listeners.doh_url.clone(),
        api_url: app.listeners.api_url.clone(),
        addresses: public_zone::addresses(&config, &app.listeners.doh),
    }
}

/// This broker's own name: the federation's broker's, unless it was made as a standby.
pub fn own_name(config: &Config) -> DomainName {
    // A configuration that was read has a broker's name.
    config
        .standby
        .as_ref()
        .map(|standby| standby.name.clone())
        .or_else(|| config.broker().ok())
        .unwrap_or(config.federation.clone())
}

/// What a broker is when it starts.
pub fn role(config: &Config, primary: Option<&dnsbroker_store::record::Primary>) -> Role {
    if let Some(fence) = fence(config) {
        return Role::Fenced(fence);
    }
    match &config.standby {
        Some(standby) if primary.is_none_or(|primary| primary.name != standby.name) => {
            Role::Standby { primary: standby.primary.clone() }
        }
        _ => Role::Primary,
    }
}

fn fence_file(config: &Config) -> PathBuf {
    config.dir.join(FENCED)
}

/// Who has taken this broker's place, if somebody has.
fn fence(config: &Config) -> Option<Fence> {
    let text = std::fs::read(fence_file(config)).ok()?;
    // A file that does not read is no reason to take changes again.
    let unknown = || Fence { epoch: 0, primary: "another broker".to_owned() };
    Some(serde_json::from_slice(&text).unwrap_or_else(|_| unknown()))
}

/// Another broker is the primary: this one takes no changes any more, and answers nobody.
pub fn step_down(app: &App, fence: Fence) -> Result<(), KeyError> {
    let config = app.config.load();
    write_whole(&fence_file(&config), &serde_json::to_vec(&fence).unwrap_or_default(), 0o644)?;
    app.sources.stop();
    app.announcer.stop();
    tracing::error!(
        epoch = fence.epoch,
        primary = fence.primary,
        act = app.view().audit.number,
        "another broker has taken the place of this one: changes are refused and nobody is answered from now on"
    );
    app.shared.standing.set(Role::Fenced(fence));
    Ok(())
}

/// Removes the mark of an old primary, when it is made a standby.
pub fn forget_fence(dir: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_file(dir.join(FENCED)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Knocks at the old primary's door until it has been told, or the daemon stops.
pub async fn tell_old(app: App, link: Link) {
    let view = app.view();
    let Some(primary) = view.primary.clone() else { return };
    let told = TakenOver { epoch: primary.epoch, primary: primary.name.clone() };
    loop {
        match link.post::<()>("/api/v1/replication/fence", &told).await {
            Ok(()) => {
                tracing::info!(old = link.url, epoch = told.epoch, "the old primary knows that it is none any more");
                return;
            }
            // It knows already, or follows.
            Err(error)
                if error
                    .downcast_ref::<Refused>()
                    .is_some_and(|Refused(problem)| ["fenced", "standby"].contains(&problem.code.as_ref())) =>
            {
                return;
            }
            Err(error) => tracing::debug!(old = link.url, error = format!("{error:#}"), "the old primary is not there"),
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(KNOCK) => {}
        }
    }
}
