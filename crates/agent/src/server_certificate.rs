//! The certificate of the member's own network server: what other members' servers see when they call it.
//!
//! The operator's certificate is a client's and names a member, which TLS clients refuse in a server. This one has the names of
//! the member's NetIDs, and those that the directory sends others to. It is asked for with the operator's, renewed at two thirds
//! of its life, and asked for anew when the member's names change.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use dnsbroker_api::message::{IssueCertificate, Issued};
use dnsbroker_federation::DomainName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::Call;
use crate::clock::now;
use crate::hook;
use crate::identity::{Facts, IdentityError, facts, renew_at, request};
use crate::renew::{Change, Counts, LOOK, due, pause};
use crate::slot::SERVER;
use crate::upstream::federation::Federation;

/// What is told of it.
#[derive(Default)]
pub struct State {
    /// What is counted.
    pub counts: Counts,
    trouble: Mutex<Option<String>>,
}

impl State {
    /// Why there is no certificate, or no new one.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// What is in place, if it can be used.
pub fn in_place(federation: &Federation) -> Option<Facts> {
    let dir = federation.home.path();
    let found = facts(&SERVER.certificate_in(dir)).ok()?;
    SERVER.key_in(dir).exists().then_some(found)
}

fn there(federation: &Federation) -> bool {
    let dir = federation.home.path();
    SERVER.certificate_in(dir).exists() && SERVER.key_in(dir).exists()
}

/// A name as certificates have it.
pub fn plain(name: &DomainName) -> String {
    name.dotless().to_ascii_lowercase()
}

/// The names by which others call our servers, as the directory has them.
pub fn names(federation: &Federation) -> Result<Vec<DomainName>, String> {
    let identity = federation.identity().ok_or("there is no certificate of the operator: enrol first")?;
    let directory = federation.home.directory().map_err(|error| dnsbroker_api::problem::chain(&error))?;
    let directory = directory.ok_or("the federation's directory has not been fetched yet")?;
    let own = directory.networks.into_iter().filter(|network| network.member == identity.member);
    let names: BTreeSet<DomainName> = own.flat_map(|network| [Some(network.name), network.target]).flatten().collect();
    if names.is_empty() {
        return Err(format!("member {} holds no NetID that it could be named by yet", identity.member));
    }
    Ok(names.into_iter().collect())
}

/// Asks for a certificate and puts it in place.
async fn issue(federation: &Federation, names: Vec<DomainName>) -> Result<(), String> {
    if federation.identity().is_some_and(|identity| now() > identity.life.1) {
        return Err("the operator's certificate has expired: enrol again with a new token".to_owned());
    }
    let words = |error: IdentityError| dnsbroker_api::problem::chain(&error);
    let dir = federation.home.path();
    let key = SERVER.pending_key(dir).map_err(words)?;
    let csr = request(&key).map_err(|error| words(error.into()))?;
    let order = IssueCertificate { member: None, replica: None, gateway: None, names, csr };
    let issued: Issued = federation.api("/api/v1/certificates", &Call::Post(Call::json(&order))).await?;
    let fits = |facts: &Facts| {
        let (path, reason) = ("the broker's answer".to_owned(), "it is no server's".to_owned());
        if facts.server && !facts.names.is_empty() { Ok(()) } else { Err(IdentityError::Certificate { path, reason }) }
    };
    SERVER.install(dir, &issued, fits).map_err(words)
}

/// The names that were asked for last, and the CAs that were asked: whatever the answer was, it is not asked for again.
#[derive(Default)]
pub struct Asked {
    names: Vec<DomainName>,
    change: Change,
}

/// One look; tells when the next is due, and whether there is a new certificate.
pub async fn pass(federation: &Federation, asked: &mut Asked) -> Result<(i64, bool), String> {
    let (names, issuers) = (names(federation)?, federation.issuers());
    let wanted: BTreeSet<String> = names.iter().map(plain).collect();
    if let Some(facts) = in_place(federation)
        && (facts.names == wanted || asked.names == names)
        && now() < renew_at(facts.life)
        && !asked.change.calls_for_another(&issuers, facts.issuer.as_ref())
    {
        return Ok((due(facts.life), false));
    }
    issue(federation, names.clone()).await?;
    asked.names = names;
    asked.change.heeded(issuers);
    let life = in_place(federation).map_or((0, 0), |facts| facts.life);
    Ok((due(life), true))
}

/// Keeps the certificate of one federation until told to stop.
pub struct Keeper {
    /// Whose.
    pub federation: Arc<Federation>,
    /// The operator's command for the network server.
    pub hook: Vec<String>,
    /// Who else may read the key.
    pub key_group: Option<String>,
    /// Counts up when something has changed: in the directory, or here.
    pub changed: watch::Sender<u64>,
    /// What is told of it.
    pub state: Arc<State>,
}

impl Keeper {
    /// Runs.
    pub async fn run(self, stop: CancellationToken) {
        let mut changed = self.changed.subscribe();
        let (mut at, mut failures, mut asked) = (0, 0, Asked::default());
        self.share_key();
        loop {
            // Whoever takes it away wants another one.
            if now() >= at || (failures == 0 && !there(&self.federation)) {
                match pass(&self.federation, &mut asked).await {
                    Ok((next, new)) => {
                        (at, failures) = (next, 0);
                        self.state.tell(None);
                        if new {
                            self.installed().await;
                        }
                    }
                    Err(reason) => {
                        let pause = self.pause(failures);
                        failures += 1;
                        at = now() + pause;
                        self.failed(reason, pause);
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
                told = changed.changed() => {
                    if told.is_err() {
                        return;
                    }
                    at = 0;
                }
            }
        }
    }

    /// Seconds until it is tried again: what there is decides how long can be waited.
    fn pause(&self, failures: u32) -> i64 {
        let there = in_place(&self.federation).map(|facts| facts.life).filter(|(_, to)| *to > now());
        // A start without a directory is over in a moment.
        there.map_or_else(|| (2_i64 << failures.min(9)).min(600), |life| pause(life, now(), failures))
    }

    async fn installed(&self) {
        self.state.counts.renewed.fetch_add(1, Ordering::Relaxed);
        let (federation, names) = (self.federation.name(), names(&self.federation).unwrap_or_default());
        let names: Vec<String> = names.iter().map(plain).collect();
        tracing::info!(federation, ?names, "the network server has a new certificate");
        self.share_key();
        // The network server's configuration may have waited for it.
        self.changed.send_modify(|count| *count += 1);
        hook::run(&self.hook, "lns-certificate", &federation, self.federation.home.path()).await;
    }

    fn failed(&self, reason: String, again_in: i64) {
        let federation = self.federation.name();
        self.state.counts.failed.fetch_add(1, Ordering::Relaxed);
        let left = in_place(&self.federation).map(|facts| facts.life.1 - now());
        match left {
            None => tracing::warn!(federation, reason, again_in, "the network server has no certificate yet"),
            Some(left) => {
                tracing::warn!(federation, reason, again_in, left, "its certificate could not be renewed yet")
            }
        }
        self.state.tell(Some(reason));
    }

    fn share_key(&self) {
        let dir = self.federation.home.path();
        if SERVER.key_in(dir).exists() {
            SERVER.share_key(dir, self.key_group.as_deref(), &self.federation.name());
        }
    }
}
