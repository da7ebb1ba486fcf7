//! Renewal at two thirds of a certificate's life, with jitter so that members do not all come at once, and again until it
//! works; also when another CA has taken the place of the one that issued it. A certificate that somebody else puts in place
//! (`enroll` with a new token) is taken over without a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dnsbroker_api::message::Issued;
use dnsbroker_api::operator::Renew;
use tokio_util::sync::CancellationToken;

use crate::api::Call;
use crate::clock::now;
use crate::hook;
use crate::identity::{Identity, KeyId, renew_at, request};
use crate::slot::CLIENT;
use crate::upstream::federation::Federation;

/// How often the files are looked at.
pub const LOOK: Duration = Duration::from_secs(2);
/// Seconds until a failed renewal is tried again, at least and at most.
const AGAIN: (i64, i64) = (2, 3_600);

/// What is counted.
#[derive(Default)]
pub struct Counts {
    /// Certificates renewed.
    pub renewed: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
}

/// Renews the certificate of a federation until told to stop.
pub struct Renewal {
    /// Whose.
    pub federation: Arc<Federation>,
    /// Whether to renew, or only to follow the files.
    pub renew: bool,
    /// The operator's command.
    pub hook: Vec<String>,
    /// Who else may read the key.
    pub key_group: Option<String>,
    /// What is counted.
    pub counts: Arc<Counts>,
}

impl Renewal {
    /// Runs.
    pub async fn run(self, stop: CancellationToken) {
        let (mut at, mut failures, mut serial) = (i64::MAX, 0_u32, String::new());
        let (mut change, mut early) = (Change::default(), false);
        self.share_key();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            self.take_over().await;
            let Some(identity) = self.federation.identity() else { continue };
            let issuers = self.federation.issuers();
            let was_early = std::mem::replace(&mut early, change.calls_for_another(&issuers, identity.issuer.as_ref()));
            if identity.serial != serial || early != was_early {
                serial.clone_from(&identity.serial);
                (at, failures) = (if early { now() } else { due(identity.life) }, 0);
            }
            if !self.renew || now() < at {
                continue;
            }
            if early && failures == 0 {
                let federation = self.federation.name();
                tracing::info!(federation, serial, "another CA issues now: the certificate is renewed before its time");
            }
            match self.attempt(&identity).await {
                Ok(()) => {
                    change.heeded(issuers);
                    self.renewed().await;
                }
                Err(reason) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    let pause = pause(identity.life, now(), failures);
                    failures += 1;
                    at = now() + pause;
                    self.complain(&identity, &reason, pause);
                }
            }
        }
    }

    async fn attempt(&self, identity: &Identity) -> Result<(), String> {
        if now() > identity.life.1 {
            return Err("it has expired: ask the federation's administrator for a token and enrol again".to_owned());
        }
        let home = &self.federation.home;
        let words = |error: &dyn std::error::Error| dnsbroker_api::problem::chain(error);
        let key = home.pending_key().map_err(|error| words(&error))?;
        let csr = request(&key).map_err(|error| words(&error))?;
        let renew = Call::Post(Call::json(&Renew { csr }));
        let issued: Issued = self.federation.api("/api/v1/renew", &renew).await?;
        home.install(&issued).map_err(|error| words(&error))
    }

    async fn renewed(&self) {
        self.counts.renewed.fetch_add(1, Ordering::Relaxed);
        self.take_over().await;
    }

    /// Takes over what stands in the files, if that is another certificate than ours.
    async fn take_over(&self) {
        let home = &self.federation.home;
        let ours = self.federation.identity().map(|identity| identity.serial.clone());
        let there = CLIENT.serial(home.path());
        if there.is_none() || there == ours {
            return;
        }
        match home.identity() {
            Ok(identity) => {
                let (name, serial) = (self.federation.name(), identity.serial.clone());
                let until = dnsbroker_api::Timestamp(identity.life.1);
                tracing::info!(federation = name, serial, %until, "a new certificate is in use");
                self.federation.take_identity(identity).await;
                self.share_key();
                hook::run(&self.hook, "certificate", &name, home.path()).await;
            }
            Err(error) => {
                let error = dnsbroker_api::problem::chain(&error);
                tracing::error!(federation = self.federation.name(), error, "the new certificate cannot be used");
            }
        }
    }

    fn share_key(&self) {
        CLIENT.share_key(self.federation.home.path(), self.key_group.as_deref(), &self.federation.name());
    }

    fn complain(&self, identity: &Identity, reason: &str, pause: i64) {
        let (from, to) = identity.life;
        let (federation, left) = (self.federation.name(), to - now());
        if left < (to - from) / 6 {
            tracing::error!(federation, reason, left, "the certificate is not renewed and ends soon (seconds)");
        } else {
            tracing::warn!(federation, reason, again_in = pause, "the certificate could not be renewed yet");
        }
    }
}

/// Whether another CA has taken the place of the one that has issued a certificate of ours. Members look into the directory at
/// times of their own, so that they do not all come at once.
#[derive(Default)]
pub struct Change(Vec<KeyId>);

impl Change {
    /// Tells that the CAs that issue now have not issued this one, and that none was gotten from them yet: a broker whose words
    /// and certificates disagree is not asked over and over.
    pub fn calls_for_another(&self, now: &[KeyId], issuer: Option<&KeyId>) -> bool {
        !now.is_empty() && self.0 != now && issuer.is_some_and(|issuer| !now.contains(issuer))
    }

    /// There is one from these CAs now.
    pub fn heeded(&mut self, now: Vec<KeyId>) {
        self.0 = now;
    }
}

/// When to renew: after two thirds of the life and a little more.
pub fn due(life: (i64, i64)) -> i64 {
    let at = renew_at(life);
    let spread = (life.1 - at) / 10;
    at + if spread > 0 { i64::from(random()) % spread } else { 0 }
}

/// Seconds until the next attempt: a share of what is left, doubled with each failure.
pub fn pause((_, to): (i64, i64), now: i64, failures: u32) -> i64 {
    let first = ((to - now) / 60).clamp(AGAIN.0, 60);
    (first << failures.min(8)).min(((to - now) / 8).max(AGAIN.0)).clamp(AGAIN.0, AGAIN.1)
}

fn random() -> u32 {
    use aws_lc_rs::rand::{SecureRandom, SystemRandom};
    let mut octets = [0; 4];
    // Without entropy there is no jitter, and no certificate either.
    let _ = SystemRandom::new().fill(&mut octets);
    u32::from_be_bytes(octets) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_a_ca_that_was_replaced_is_renewed_until_there_is_another() {
        let keys = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<KeyId>>();
        let (mine, mut change) = ("a1".to_owned(), Change::default());
        assert!(!change.calls_for_another(&[], Some(&mine)), "an older broker does not tell");
        assert!(!change.calls_for_another(&keys(&["a1", "b2"]), Some(&mine)));
        assert!(!change.calls_for_another(&keys(&["b2"]), None), "nobody knows whose it is");
        assert!(change.calls_for_another(&keys(&["b2"]), Some(&mine)));
        assert!(change.calls_for_another(&keys(&["b2"]), Some(&mine)), "also when that has failed");
        change.heeded(keys(&["b2"]));
        assert!(!change.calls_for_another(&keys(&["b2"]), Some(&mine)), "whatever came of it");
        assert!(change.calls_for_another(&keys(&["c3"]), Some(&mine)));
    }

    #[test]
    fn attempts_come_often_enough_to_succeed_before_the_end() {
        let week = (0, 7 * 86_400);
        for life in [week, (0, 60), (0, 3_600)] {
            let (mut at, mut attempts) = (renew_at(life), 0);
            while at < life.1 {
                at += pause(life, at, attempts);
                attempts += 1;
                assert!(attempts < 500, "{life:?}: not a flood");
            }
            assert!(attempts >= 4, "{life:?}: only {attempts}");
        }
        assert_eq!(pause(week, renew_at(week), 0), 60);
        assert_eq!(pause(week, week.1 + 100, 3), AGAIN.0.max(2), "after the end the files are looked at");
    }
}
