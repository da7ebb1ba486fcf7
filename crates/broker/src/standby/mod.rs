//! A second broker that follows the first and can take its place.
//!
//! ```text
//! primary: commit ──▶ Outbox (a bounded ring of shipments) ──▶ GET /api/v1/replication, mutual TLS
//!                                                                  │  shipments, CRLs, a heartbeat each second
//! standby: follow ◀────────────────────────────────────────────────┘
//!            └─▶ Store::replay, durable ──▶ View ──▶ the same answers, the same audit, the same serials
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`outbox`] | the primary's ring of shipments |
//! | [`frame`] | what goes over the line |
//! | [`link`] | the standby's connection to its primary |
//! | [`follow`] | what a standby does: take shipments, or a copy of everything; keep its certificates |
//! | [`take_over`] | what a broker does that has become the primary, and what it tells the old one |
//!
//! Two things must not happen. A standby must not answer for a member that was revoked long ago: it answers only as long as
//! it has heard from its primary within a set time, since each heartbeat says that all before it has arrived. And two
//! brokers must not both take changes: a standby refuses all until an administrator promotes it, which counts up the epoch;
//! an old primary that hears of a higher epoch refuses all from then on.

pub mod follow;
pub mod frame;
pub mod link;
pub mod outbox;
pub mod take_over;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What this broker is in its federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It takes changes.
    Primary,
    /// It follows a primary, which is reached there.
    Standby {
        /// URL of the primary's API.
        primary: String,
    },
    /// It was the primary; a standby has taken its place while it was away.
    Fenced(Fence),
}

/// Who has taken the place of this broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The epoch that began then.
    pub epoch: u64,
    /// The name of the new primary.
    pub primary: String,
}

impl Role {
    /// In one word.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby { .. } => "standby",
            Self::Fenced(_) => "fenced",
        }
    }
}

/// Why a change is not taken here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Elsewhere {
    /// This is a standby.
    #[error("this broker is a standby and takes no changes: make them at the primary, {primary}")]
    Standby {
        /// Where the primary is.
        primary: String,
    },
    /// This was the primary.
    #[error(
        "this broker is no longer the primary: {} has taken its place (epoch {}). What was changed here and not there is lost; \
         compare `dnsbroker audit list` of both. Make this one its standby with a backup of it: `dnsbroker standby init --rejoin`",
        .0.primary, .0.epoch
    )]
    Fenced(Fence),
}

/// What a standby knows of its primary.
#[derive(Debug, Clone, Default)]
pub struct Following {
    /// Whether the connection stands.
    pub connected: bool,
    /// The last act of the primary that was heard of.
    pub theirs: u64,
    /// When all that the primary had was here.
    pub heard: Option<Instant>,
    /// The last failure, in words; none while it is connected.
    pub error: Option<String>,
    /// Copies that were taken.
    pub copies: u64,
    /// Why the files of the primary's issuing CAs are not here, in words.
    pub unready: Option<String>,
}

/// What this broker is, for whoever must know.
pub struct Standing {
    role: RwLock<Role>,
    /// Look-ups are answered up to this second since 1970.
    answer_until: AtomicI64,
    following: Mutex<Following>,
    /// Wakes those who wait for something to change in that.
    changed: watch::Sender<()>,
}

impl Standing {
    /// With a role. A standby answers nothing before it has heard from its primary.
    pub fn new(role: Role) -> Self {
        let standing = Self {
            role: RwLock::new(Role::Primary),
            answer_until: AtomicI64::new(0),
            following: Mutex::default(),
            changed: watch::Sender::new(()),
        };
        standing.set(role);
        standing
    }

    /// Takes another role.
    pub fn set(&self, role: Role) {
        let until = if role == Role::Primary { i64::MAX } else { 0 };
        *self.role.write().unwrap_or_else(PoisonError::into_inner) = role;
        self.answer_until.store(until, Ordering::Relaxed);
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why changes are not taken here, if they are not.
    pub fn elsewhere(&self) -> Option<Elsewhere> {
        match &*self.role.read().unwrap_or_else(PoisonError::into_inner) {
            Role::Primary => None,
            Role::Standby { primary } => Some(Elsewhere::Standby { primary: primary.clone() }),
            Role::Fenced(fence) => Some(Elsewhere::Fenced(fence.clone())),
        }
    }

    /// Whether what is known of revocations is too old to answer anybody. One load and one comparison.
    pub fn is_stale(&self, now: i64) -> bool {
        now > self.answer_until.load(Ordering::Relaxed)
    }

    /// The same in words.
    pub fn trouble(&self, now: i64) -> Option<String> {
        match self.role() {
            Role::Primary => None,
            Role::Fenced(fence) => Some(Elsewhere::Fenced(fence).to_string()),
            Role::Standby { .. } if !self.is_stale(now) => None,
            Role::Standby { primary } => {
                let following = self.following();
                let heard = following.heard.map_or_else(
                    || "nothing was heard yet".to_owned(),
                    |heard| format!("nothing was heard for {} seconds", heard.elapsed().as_secs()),
                );
                let why = following.error.map(|error| format!(" ({error})")).unwrap_or_default();
                Some(format!("look-ups are not answered: of revocations at the primary, {primary}, {heard}{why}"))
            }
        }
    }

    /// A standby has heard from its primary: it answers until then.
    pub fn answer_until(&self, until: i64) {
        if matches!(self.role(), Role::Standby { .. }) {
            self.answer_until.store(until, Ordering::Relaxed);
        }
    }

    /// What a standby knows of its primary.
    pub fn following(&self) -> Following {
        self.following.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes that.
    pub fn follow(&self, change: impl FnOnce(&mut Following)) {
        change(&mut self.following.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
    }

    /// What a standby knows of its primary once that is so, or when the time is over.
    pub async fn once(&self, so: impl Fn(&Following) -> bool, within: Duration) -> Following {
        let mut changed = self.changed.subscribe();
        let wait = async { while !so(&self.following()) && changed.changed().await.is_ok() {} };
        // Whether it is so is seen from what is given back.
        let _ = tokio::time::timeout(within, wait).await;
        self.following()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_answers_only_while_it_hears_and_takes_no_changes() {
        let standing = Standing::new(Role::Standby { primary: "https://b".to_owned() });
        assert!(standing.is_stale(100) && standing.trouble(100).is_some_and(|words| words.contains("https://b")));
        standing.answer_until(110);
        assert!(!standing.is_stale(110) && standing.is_stale(111) && standing.trouble(105).is_none());
        assert!(standing.elsewhere().is_some_and(|why| why.to_string().contains("https://b")));
        standing.set(Role::Primary);
        assert!(!standing.is_stale(i64::MAX) && standing.elsewhere().is_none());
        standing.set(Role::Fenced(Fence { epoch: 2, primary: "broker2.fed.example".to_owned() }));
        standing.answer_until(i64::MAX);
        assert!(standing.is_stale(1) && standing.trouble(1).is_some_and(|words| words.contains("epoch 2")));
    }
}
