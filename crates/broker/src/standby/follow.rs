//! What a standby does: it keeps a connection to its primary, takes what comes, and knows how old its knowledge is.
//!
//! A heartbeat says that all that was sent before it was all there was. So when it has been read, everything before it is
//! durable and visible here, and the standby knows of all revocations as of the moment it was sent. That moment is told by
//! the primary's clock; since clocks differ, it is compared with the quickest heartbeat of the connection, and a heartbeat
//! that was held up on its way counts for as much less.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use dnsbroker_api::endpoint::query_of;
use dnsbroker_api::problem::chain;
use dnsbroker_api::standby::{Follow, Heard};
use dnsbroker_ca::Facts;
use dnsbroker_store::act::PublishedZones;
use dnsbroker_store::engine::{Engine, Switch};
use dnsbroker_store::{Identity, ReplayError, Settings, Shipment, Store, audit, backup};
use dnsbroker_zone::zones::PublicZone;
use http_body_util::BodyExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Role;
use super::frame::{Frame, Frames, Heartbeat};
use super::link::Link;
use crate::app::App;
use crate::committer::now;
use crate::config::Config;
use crate::events::Audience;
use crate::pki::private_dir;
use crate::public_zone;

/// Heartbeats come each second; without one for so long the connection is given up.
const SILENCE: Duration = Duration::from_secs(5);
/// How often the primary is told what is here.
const SAY: Duration = Duration::from_secs(5);
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the standby's own certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(600);
/// What is added to the store's directory where a copy is put before it takes the store's place...
const BESIDE: &str = ".copy";
/// ...and where the store goes then.
const ASIDE: &str = ".before-copy";

/// A standby at work.
pub struct Follower {
    app: App,
    link: Link,
    /// The engine that readers hold.
    engine: Arc<Switch>,
    /// Look-ups are answered for so long after the last heartbeat.
    max_age: Duration,
    /// What is here has nothing to do with what the primary has: a copy must come first.
    foreign: bool,
    certificates: Instant,
}

/// What was learnt of the primary's clock on one connection.
#[derive(Default)]
struct Clock(Option<i128>);

impl Clock {
    /// How long a heartbeat was held up, compared with the quickest one.
    fn held_up(&mut self, sent: u64, got: i128) -> Duration {
        let took = got - i128::from(sent);
        let quickest = self.0.map_or(took, |quickest| quickest.min(took));
        self.0 = Some(quickest);
        Duration::from_millis((took - quickest).clamp(0, 86_400_000) as u64)
    }
}

impl Follower {
    /// Of a standby's parts.
    pub fn new(app: App, link: Link, engine: Arc<Switch>, max_age: Duration) -> Self {
        Self { app, link, engine, max_age, foreign: false, certificates: Instant::now() }
    }

    /// Follows until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut stale = true;
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.session(&mut stale) => ended,
            };
            let reason = match ended {
                Ok(()) => "the primary has ended the connection".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            let last = self.app.shared.standing.following().error;
            self.app.shared.standing.follow(|following| {
                following.connected = false;
                following.error = Some(reason.clone());
            });
            if last.as_ref() != Some(&reason) {
                tracing::warn!(primary = self.link.url, cause = reason, "the standby does not follow");
            }
            self.tell_age(&mut stale);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// One connection, to its end.
    async fn session(&mut self, stale: &mut bool) -> anyhow::Result<()> {
        let view = self.app.view();
        let head = if self.foreign { audit::Head { number: 0, hash: String::new() } } else { view.audit.clone() };
        let epoch = view.primary.as_ref().map_or(0, |primary| primary.epoch);
        let query = query_of(&Follow { after: head.number, hash: head.hash, epoch });
        let mut body = self.link.stream(&format!("/api/v1/replication{query}")).await?;
        // Beside what is taken, which may be long: the primary shall know that there is somebody.
        let _saying = AbortOnDropHandle::new(tokio::spawn(say(self.app.clone(), self.link.clone())));
        let (mut frames, mut clock, mut copy) = (Frames::default(), Clock::default(), None);
        tracing::info!(primary = self.link.url, act = head.number, "the standby follows");
        loop {
            let piece = match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(Some(piece)) => piece.context("the connection broke")?,
                Ok(None) => return Ok(()),
                Err(_) => bail!("nothing was heard for {} seconds", SILENCE.as_secs()),
            };
            let Ok(octets) = piece.into_data() else { continue };
            frames.push(&octets);
            while let Some(frame) = frames.next()? {
                self.take(frame, &mut clock, &mut copy).await?;
            }
            self.tell_age(stale);
            if self.certificates.elapsed() > CERTIFICATES {
                self.certificates = Instant::now();
                self.renew_certificates().await;
            }
        }
    }

    async fn take(&mut self, frame: Frame, clock: &mut Clock, copy: &mut Option<File>) -> anyhow::Result<()> {
        match frame {
            Frame::Heartbeat(heartbeat) => self.heartbeat(&heartbeat, clock)?,
            Frame::Shipment(octets) => {
                let shipment = Shipment::read(octets)?;
                let rows = match self.app.committer.replay(shipment).await? {
                    Ok(rows) => rows,
                    Err(error @ (ReplayError::Engine(_) | ReplayError::Open(_))) => return Err(error.into()),
                    Err(error) => {
                        self.foreign = true;
                        return Err(error).context("what the primary has sent does not fit: a copy is fetched");
                    }
                };
                if rows.iter().any(|row| row.act.ends_with(".publish")) {
                    configure(&self.app).await?;
                }
            }
            Frame::Copy => {
                tracing::info!(primary = self.link.url, "a copy of the primary's store is fetched");
                let dir = self.app.config.load().dir.clone();
                *copy = Some(tokio::task::spawn_blocking(move || tempfile::tempfile_in(dir)).await??);
            }
            Frame::Piece(octets) => {
                let file = copy.as_mut().context("a piece of a copy that has not begun")?;
                file.write_all(&octets).context("the copy cannot be written")?;
            }
            Frame::Whole => {
                let file = copy.take().context("the end of a copy that has not begun")?;
                self.adopt(file).await?;
            }
            Frame::List(ca, der) => {
                if let Err(reason) = self.app.lists.take(&self.app.pki, &ca, der) {
                    tracing::warn!(ca, reason, "a list of revoked certificates from the primary is not taken");
                }
            }
            Frame::Authorities(files) => self.take_authorities(files).await?,
        }
        Ok(())
    }

    /// Takes the files of the issuing CAs, so that this broker can issue when it is promoted. Without them it follows on.
    async fn take_authorities(&mut self, files: BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
        let app = self.app.clone();
        let taken = tokio::task::spawn_blocking(move || app.pki.take_files(&app.config.load(), &files)).await?;
        let issuing = self.app.pki.authorities().issuer.id();
        let unready = taken.as_ref().err().map(|error| {
            format!(
                "the primary's issuing CA is not here, and promoted this broker would issue under CA {issuing}: {}. Put the \
                 primary's passphrase in place, or make this standby anew from a backup",
                chain(error)
            )
        });
        let before = self.app.shared.standing.following().unready;
        if let Some(words) = unready.as_ref().filter(|words| before.as_ref() != Some(*words)) {
            tracing::error!("{words}");
            let detail = json!({ "reason": words });
            self.app.shared.events.notice("standby.unready", "standby", Audience::Administrators, detail);
        }
        self.app.shared.standing.follow(|following| following.unready = unready.clone());
        if taken.unwrap_or(false) {
            tracing::info!(
                ca = self.app.pki.authorities().issuer.id(),
                "the primary's issuing CA is another one, and is here now"
            );
            self.renew_certificates().await;
        }
        Ok(())
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat, clock: &mut Clock) -> anyhow::Result<()> {
        let view = self.app.view();
        let known = view.primary.as_ref().map_or(0, |primary| primary.epoch);
        if heartbeat.epoch < known {
            bail!("the broker at {} has epoch {}, and epoch {known} has begun", self.link.url, heartbeat.epoch);
        }
        let behind = heartbeat.act.saturating_sub(view.audit.number);
        let system = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let held_up = clock.held_up(heartbeat.clock, system.map_or(0, |elapsed| elapsed.as_millis() as i128));
        self.app.shared.standing.follow(|following| {
            (following.connected, following.theirs, following.error) = (true, heartbeat.act, None);
            if behind == 0 {
                following.heard = Instant::now().checked_sub(held_up);
            }
        });
        if behind == 0 {
            let left = self.max_age.saturating_sub(held_up);
            self.app.shared.standing.answer_until(now() + left.as_secs() as i64);
        }
        Ok(())
    }

    /// Says once when look-ups are no longer answered, and when they are again.
    fn tell_age(&self, stale: &mut bool) {
        let standing = &self.app.shared.standing;
        let is_stale = standing.is_stale(now());
        if is_stale == *stale {
            return;
        }
        *stale = is_stale;
        if is_stale {
            let words = standing.trouble(now()).unwrap_or_default();
            tracing::error!("{words}");
            self.app.shared.events.notice(
                "standby.stale",
                "standby",
                Audience::Administrators,
                json!({ "reason": words }),
            );
        } else {
            tracing::info!(primary = self.link.url, "the standby knows all that its primary does, and answers");
            self.app.shared.events.notice(
                "standby.current",
                "standby",
                Audience::Administrators,
                serde_json::Value::Null,
            );
        }
    }

    /// Puts a copy in the place of the store.
    async fn adopt(&mut self, mut file: File) -> anyhow::Result<()> {
        let config = self.app.config.load_full();
        let (engine, store) = tokio::task::spawn_blocking(move || {
            file.rewind()?;
            let [_, beside, _] = places(&config);
            copied(&config, &beside, file)
        })
        .await??;
        self.app.committer.adopt(store).await?;
        self.engine.set(engine);
        let config = self.app.config.load_full();
        tokio::task::spawn_blocking(move || swap(&config)).await??;
        configure(&self.app).await?;
        self.foreign = false;
        self.app.shared.standing.follow(|following| following.copies += 1);
        let view = self.app.view();
        tracing::info!(
            act = view.audit.number,
            devices = view.zones.devices().len(),
            "a copy of the primary's store is here"
        );
        Ok(())
    }

    /// Has certificates renewed whose time has come, or whose CA issues no more.
    async fn renew_certificates(&self) {
        let config = self.app.config.load_full();
        let (view, ca) = (self.app.view(), self.app.pki.authorities().issuer.id());
        let due = |path: &Path| {
            let facts = dnsbroker_ca::chain::from_pem(&std::fs::read(path).unwrap_or_default())
                .ok()
                .and_then(|chain| chain.into_iter().next())
                .and_then(|leaf| Facts::of(&leaf).ok());
            facts.is_none_or(|facts| {
                let left = view.certificates.get(&facts.serial).is_some_and(|known| known.ca != ca);
                left || now() >= facts.renew_at()
            })
        };
        if due(&self.link.credential.join("client.pem"))
            && let Err(error) = self.link.renew().await
        {
            tracing::error!(error = format!("{error:#}"), "the standby's certificate was not renewed by the primary");
        }
        let ca = config.path(&config.ca.dir);
        if due(&ca.join("server.pem")) {
            match self.link.certify(&ca).await {
                Ok(()) => self.app.pki.wake(),
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "the standby's server certificate was not renewed");
                }
            }
        }
    }
}

/// Says now and then what is here, for as long as the connection stands.
async fn say(app: App, link: Link) {
    loop {
        let unready = app.shared.standing.following().unready;
        let heard = Heard { act: app.view().audit.number, unready };
        if let Err(error) = link.post::<()>("/api/v1/replication/heard", &heard).await {
            tracing::debug!(error = format!("{error:#}"), "the primary was not told what is here");
        }
        tokio::time::sleep(SAY).await;
    }
}

/// Where the store is, where a copy is put, and where the store before it goes.
fn places(config: &Config) -> [PathBuf; 3] {
    let data = config.path(&config.store.dir);
    let with = |suffix: &str| {
        let mut path = data.clone().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    };
    [data.clone(), with(BESIDE), with(ASIDE)]
}

/// A store of a copy.
fn copied(config: &Config, dir: &Path, file: File) -> anyhow::Result<(Arc<dyn Engine>, Store)> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).context("cannot remove a copy that broke off")?;
    }
    private_dir(dir)?;
    let engine = config.engine()?.open(dir)?;
    backup::read(&mut BufReader::new(file), Some(&*engine)).context("the copy is not whole")?;
    let identity = Identity { federation: config.federation.clone(), labels: config.zones.labels.clone() };
    let settings = settings_of(config, &*engine)?;
    let store = Store::open(Arc::clone(&engine), identity, settings).context("the copy does not open")?;
    let verdict = audit::verify(&*engine, &store.view().audit)?;
    if let Some(broken) = verdict.broken {
        bail!("the audit of the copy is not whole: {broken}");
    }
    Ok((engine, store))
}

/// Gives the copy the store's name, under which the next start looks for it.
fn swap(config: &Config) -> anyhow::Result<()> {
    let [data, beside, aside] = places(config);
    if aside.exists() {
        std::fs::remove_dir_all(&aside).context("cannot remove the store before the last one")?;
    }
    std::fs::rename(&data, &aside).context("cannot move the old store aside")?;
    std::fs::rename(&beside, &data).context("cannot put the copy in place")?;
    std::fs::remove_dir_all(&aside).context("cannot remove the old store")
}

/// Finishes a change of stores that was cut off between its two steps.
pub fn finish_swap(config: &Config) -> anyhow::Result<()> {
    let [data, beside, aside] = places(config);
    if !data.exists() && beside.exists() && aside.exists() {
        std::fs::rename(&beside, &data).context("cannot put the copy in place")?;
    }
    Ok(())
}

/// What the primary has published, whatever the configuration here says: both shall give the same answers.
pub fn settings_of(config: &Config, engine: &dyn Engine) -> anyhow::Result<Settings> {
    Ok(match PublishedZones::read(engine)? {
        None => crate::daemon::settings(config, PublicZone::default())?,
        Some(PublishedZones { timing, broker, public_serial, public_records }) => {
            let records = public_zone::read(&public_records).context("the public zone of the primary does not read")?;
            Settings { broker, timing, public: PublicZone::new(public_serial, records) }
        }
    })
}

/// Takes what the primary has published.
pub async fn configure(app: &App) -> anyhow::Result<()> {
    let settings = settings_of(&app.config.load(), &*app.engine)?;
    app.committer.configure(settings).await.map_err(|reason| anyhow::anyhow!("the zones cannot be published: {reason}"))
}

/// What a standby is to be shown as.
pub fn metrics(app: &App) -> String {
    let standing = &app.shared.standing;
    let role = standing.role();
    let mut text =
        String::from("# HELP dnsbroker_role What this broker is in its federation.\n# TYPE dnsbroker_role gauge\n");
    for label in ["primary", "standby", "fenced"] {
        text.push_str(&format!("dnsbroker_role{{role=\"{label}\"}} {}\n", u8::from(role.label() == label)));
    }
    if let Role::Standby { .. } = role {
        let following = standing.following();
        let behind = following.theirs.saturating_sub(app.view().audit.number);
        let age = following.heard.map_or(f64::INFINITY, |heard| heard.elapsed().as_secs_f64());
        let age = if age.is_finite() { age.to_string() } else { "+Inf".to_owned() };
        text.push_str(&format!(
            "# HELP dnsbroker_standby_connected Whether the standby hears its primary.\n# TYPE dnsbroker_standby_connected gauge\n\
             dnsbroker_standby_connected {}\n\
             # HELP dnsbroker_standby_lag_acts Acts of the primary that are not here yet.\n# TYPE dnsbroker_standby_lag_acts gauge\n\
             dnsbroker_standby_lag_acts {behind}\n\
             # HELP dnsbroker_standby_lag_seconds Time since all that the primary had was here.\n\
             # TYPE dnsbroker_standby_lag_seconds gauge\ndnsbroker_standby_lag_seconds {age}\n\
             # HELP dnsbroker_standby_copies_total Copies of everything that were taken.\n\
             # TYPE dnsbroker_standby_copies_total counter\ndnsbroker_standby_copies_total {}\n",
            u8::from(following.connected),
            following.copies,
        ));
    } else {
        let (act, followers) = (app.view().audit.number, app.shared.outbox.followers());
        text.push_str(
            "# HELP dnsbroker_standby_behind_acts Acts that a connected standby does not have yet, as it last said.\n\
             # TYPE dnsbroker_standby_behind_acts gauge\n",
        );
        for (id, sent) in followers.iter().filter_map(|(id, known)| Some((id, known.has.or(known.sent)?))) {
            text.push_str(&format!("dnsbroker_standby_behind_acts{{standby=\"{id}\"}} {}\n", act.saturating_sub(sent)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_that_was_held_up_counts_for_less() {
        let mut clock = Clock::default();
        // The primary's clock is five seconds ahead; the line takes 20 ms.
        assert_eq!(clock.held_up(5_000, 20), Duration::ZERO);
        assert_eq!(clock.held_up(6_000, 1_030), Duration::from_millis(10));
        assert_eq!(clock.held_up(7_000, 62_020), Duration::from_secs(60), "it was a minute on its way");
        assert_eq!(clock.held_up(8_000, 3_010), Duration::ZERO, "quicker than all before");
    }
}
