//! What standbys ask of their primary: the stream of commits, a certificate, and that it step down.
//!
//! Each route asks for the certificate of a replica that an administrator has registered as a standby, and looks at it
//! again each second while the stream goes on. Nothing here is open to anybody else, members and administrators included.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Json, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dnsbroker_api::message::Issued;
use dnsbroker_api::problem::chain;
use dnsbroker_api::standby::{Follow, Heard, StandbyCertificate, StandbyLogin, TakenOver};
use dnsbroker_ca::{Principal, Profile, ReplicaId, ServerName, Subject};
use dnsbroker_store::audit::Head;
use dnsbroker_store::record::StandbyAt;
use dnsbroker_store::{AccountRefusal, act};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::certificates::{issued, new_serial, unavailable, verified};
use super::events::admitted;
use super::sessions::totp_needed;
use super::{ApiError, Who};
use crate::app::App;
use crate::committer::{CommitError, Dumped, now};
use crate::events::Audience;
use crate::standby::Fence;
use crate::standby::frame::{Frame, Heartbeat, shipment};
use crate::standby::take_over::step_down;

/// Frames that wait for the standby to read.
const QUEUE: usize = 16;
/// A standby that takes nothing, or says nothing, for so long is cut.
const STALL: Duration = Duration::from_secs(20);
/// Characters of what a standby says of itself.
const MAX_WORDS: usize = 1_000;
/// How often a heartbeat goes out.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Octets of a piece of a copy.
const PIECE: usize = 256 * 1024;

/// The standby that calls, and where it answers.
fn standby(app: &App, who: &Who) -> Result<(ReplicaId, StandbyAt), ApiError> {
    let refused = || {
        let detail = "this is for standby brokers: an administrator registers one with `replica add ID --standby NAME`";
        ApiError::new(StatusCode::FORBIDDEN, "standbys-only", detail)
    };
    match who.certificate.as_ref().and_then(|certificate| certificate.principal()) {
        Some(Principal::Replica(id)) => {
            let at = app.view().replicas.get(&id).and_then(|replica| replica.standby.clone());
            Ok((id, at.ok_or_else(refused)?))
        }
        _ => Err(refused()),
    }
}

fn is_primary(app: &App) -> Result<(), ApiError> {
    match app.shared.standing.elsewhere() {
        None => Ok(()),
        Some(elsewhere) => Err(CommitError::from(elsewhere).into()),
    }
}

fn epoch(app: &App) -> u64 {
    app.view().primary.as_ref().map_or(0, |primary| primary.epoch)
}

pub async fn follow(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    query: Result<Query<Follow>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (id, at) = standby(&app, &who)?;
    let Query(Follow { after, hash, epoch: theirs }) = query?;
    is_primary(&app)?;
    if theirs > epoch(&app) {
        let fence = Fence { epoch: theirs, primary: at.name.to_string() };
        step_down(&app, fence).map_err(|error| ApiError::internal(&error))?;
        is_primary(&app)?;
    }
    let (pieces, body) = mpsc::channel(QUEUE);
    let authorities = app.pki.changes();
    let number = app.shared.outbox.joined(&id);
    let line = Line { app, who, id, number, pieces, lists: BTreeMap::new(), authorities, told: BTreeMap::new() };
    tokio::spawn(line.run(Head { number: after, hash }));
    let body = futures_util::stream::unfold(body, |mut body: mpsc::Receiver<Bytes>| async move {
        let piece = body.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), body))
    });
    let content = [(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
    Ok((content, Body::from_stream(body)).into_response())
}

/// The stream to one standby.
struct Line {
    app: App,
    who: Who,
    id: ReplicaId,
    /// The connection's number.
    number: u64,
    pieces: mpsc::Sender<Bytes>,
    /// When the lists of revoked certificates were made that the standby has, by CA.
    lists: BTreeMap<String, i64>,
    /// Tells when the files of the issuing CAs may have changed.
    authorities: watch::Receiver<()>,
    /// Those files as the standby has them; none yet at the beginning.
    told: BTreeMap<String, Vec<u8>>,
}

impl Line {
    async fn run(mut self, head: Head) {
        tracing::info!(standby = %self.id, act = head.number, "a standby follows");
        if let Err(reason) = self.tell(head).await {
            tracing::warn!(standby = %self.id, reason, "a standby follows no more");
            self.app.shared.outbox.left(&self.id, self.number);
            self.miss(reason).await;
        }
    }

    /// Tells of a standby that does not come back soon.
    async fn miss(self, reason: String) {
        let Self { app, id, number, pieces, .. } = self;
        // The answer ends.
        drop(pieces);
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(STALL) => {}
        }
        if app.shared.outbox.is_gone(&id, number) {
            let detail = serde_json::json!({ "reason": reason });
            app.shared.events.notice("standby.gone", &id.to_string(), Audience::Administrators, detail);
        }
    }

    async fn tell(&mut self, head: Head) -> Result<(), String> {
        let outbox = &Arc::clone(&self.app.shared).outbox;
        let (mut place, mut act) = match outbox.resume(&head) {
            Some(place) => (place, head.number),
            None => self.copy().await?,
        };
        let mut wake = outbox.wake();
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = false;
        loop {
            // What is there; when there is no more, the proof that it was all at that moment.
            let clock = milliseconds();
            if let Some(next) = outbox.at(place).map_err(|_| "it was too slow, and must take a copy")? {
                self.put(shipment(&next.octets)).await?;
                (place, act) = (place + 1, next.after.number);
                outbox.sent(&self.id, self.number, act);
                continue;
            }
            if std::mem::take(&mut due) {
                outbox.sent(&self.id, self.number, act);
                self.put(Frame::Heartbeat(Heartbeat { act, clock, epoch: epoch(&self.app) }).encode()).await?;
            }
            tokio::select! {
                _ = beat.tick() => {
                    self.check()?;
                    self.authorities().await?;
                    self.lists().await?;
                    due = true;
                }
                changed = wake.changed() => changed.map_err(|_| "the broker is stopping")?,
                () = self.pieces.closed() => return Err("it has gone".to_owned()),
                () = self.app.stop.cancelled() => return Err("the broker is stopping".to_owned()),
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        admitted(&self.app, &self.who, now())?;
        standby(&self.app, &self.who).map_err(|_| "it is registered as a standby no more".to_owned())?;
        self.app.shared.outbox.alive(&self.id, self.number, STALL)?;
        is_primary(&self.app).map_err(|error| error.to_string())
    }

    /// The files of the issuing CAs, if the standby has others. They are what a backup has of them.
    async fn authorities(&mut self) -> Result<(), String> {
        let changed = self.authorities.has_changed().map_err(|_| "the broker is stopping")?;
        if !changed && !self.told.is_empty() {
            return Ok(());
        }
        self.authorities.mark_unchanged();
        let app = self.app.clone();
        let files = tokio::task::spawn_blocking(move || app.pki.files()).await.map_err(|error| error.to_string())?;
        let files = files.map_err(|error| format!("the CA's files cannot be read: {}", chain(&error)))?;
        if files != self.told {
            self.put(Frame::Authorities(files.clone()).encode()).await?;
            self.told = files;
        }
        Ok(())
    }

    /// Lists of revoked certificates that are newer than what the standby has.
    async fn lists(&mut self) -> Result<(), String> {
        for (ca, made, der) in self.app.lists.all() {
            if self.lists.get(&ca) != Some(&made) {
                self.put(Frame::List(ca.clone(), der.to_vec()).encode()).await?;
                self.lists.insert(ca, made);
            }
        }
        Ok(())
    }

    /// A copy of everything; where what comes after it begins, and its last act. Keys of the CA are not in it.
    async fn copy(&self) -> Result<(u64, u64), String> {
        let dir = {
            let config = self.app.config.load();
            config.path(&config.store.dir)
        };
        let failed = |error: std::io::Error| format!("a copy cannot be made: {error}");
        let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(dir));
        let file = file.await.map_err(|error| error.to_string())?.map_err(failed)?;
        let dumped = self.app.committer.dump(file, vec![]).await.map_err(|error| error.to_string())?;
        let Dumped { mut file, place, act } = dumped.map_err(|error| error.to_string())?;
        file.rewind().map_err(failed)?;
        tracing::info!(standby = %self.id, "a standby gets a copy of everything");
        self.put(Frame::Copy.encode()).await?;
        loop {
            let read = tokio::task::spawn_blocking(move || piece(file)).await.map_err(|error| error.to_string())?;
            let (octets, rest) = read.map_err(failed)?;
            if octets.is_empty() {
                break;
            }
            file = rest;
            self.put(Frame::Piece(octets).encode()).await?;
        }
        self.put(Frame::Whole.encode()).await?;
        Ok((place, act))
    }

    async fn put(&self, piece: Bytes) -> Result<(), String> {
        match tokio::time::timeout(STALL, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("it has gone".to_owned()),
            Err(_) => Err(format!("it has read nothing for {} seconds", STALL.as_secs())),
        }
    }
}

fn milliseconds() -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    clock.map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// The next piece of a file, empty at its end.
fn piece(mut file: File) -> std::io::Result<(Vec<u8>, File)> {
    let mut octets = Vec::with_capacity(PIECE);
    Read::by_ref(&mut file).take(PIECE as u64).read_to_end(&mut octets)?;
    Ok((octets, file))
}

/// A certificate for the standby's own server, by the name and addresses under which it is registered.
pub async fn certificate(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    body: Result<Json<StandbyCertificate>, JsonRejection>,
) -> Result<(StatusCode, Json<Issued>), ApiError> {
    let (id, at) = standby(&app, &who)?;
    let Json(StandbyCertificate { csr }) = body?;
    let profile = app.pki.profile(Profile::BROKER_SERVER).map_err(unavailable)?;
    let csr = verified(csr.as_bytes(), &profile)?;
    let names = std::iter::once(ServerName::Dns(at.name)).chain(at.addresses.into_iter().map(ServerName::Ip));
    let (key, issuer, serial) = (csr.public_key().clone(), app.pki.issuer_of(&profile), new_serial()?);
    let subject = Subject::Server(names.collect());
    let issue = act::Issue { subject, server_of: None, key, issuer, profile, serial };
    let enrolled = app.committer.commit(who.actor, issue).await?;
    tracing::info!(standby = %id, serial = %enrolled.certificate.serial, "a standby's server is certified");
    Ok((StatusCode::CREATED, Json(issued(&app, &enrolled))))
}

/// A standby says that it is there, and what it has.
pub async fn heard(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    body: Result<Json<Heard>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let (id, _) = standby(&app, &who)?;
    let Json(Heard { act, unready }) = body?;
    is_primary(&app)?;
    let unready = unready.map(|words| words.chars().take(MAX_WORDS).collect::<String>());
    if app.shared.outbox.heard(&id, act, unready.clone())
        && let Some(reason) = unready
    {
        tracing::warn!(standby = %id, reason, "a standby could not take this broker's place as it should");
        let detail = serde_json::json!({ "reason": reason });
        app.shared.events.notice("standby.unready", &id.to_string(), Audience::Administrators, detail);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// An administrator logs in at a standby. What the standby says of the password is believed, since it has everything; the rest
/// is looked at here, where nothing is late.
pub async fn login(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    body: Result<Json<StandbyLogin>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let (id, at) = standby(&app, &who)?;
    let Json(StandbyLogin { name, step }) = body?;
    is_primary(&app)?;
    match step {
        Some(step) => drop(app.committer.commit(who.actor, act::UseTotp { name: name.clone(), step }).await?),
        None => {
            let known = app.view().accounts.administrators.get(&name).cloned();
            let refused = |refusal: AccountRefusal| CommitError::Refused(refusal.into());
            let known = known.ok_or_else(|| refused(AccountRefusal::NoAdministrator(name.clone())))?;
            if known.disabled.is_some() {
                return Err(refused(AccountRefusal::Disabled(name)).into());
            }
            if known.totp.is_some() {
                return Err(totp_needed());
            }
            let detail = serde_json::json!({ "at": at.name });
            let witness = act::Witness { act: "administrator.login", object: name.clone(), detail };
            app.committer.commit(who.actor, witness).await?;
        }
    }
    tracing::info!(standby = %id, name, "an administrator has logged in at a standby");
    Ok(StatusCode::NO_CONTENT)
}

/// A standby of ours has become the primary.
pub async fn fence(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    body: Result<Json<TakenOver>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    standby(&app, &who)?;
    let Json(TakenOver { epoch: theirs, primary }) = body?;
    is_primary(&app)?;
    let ours = epoch(&app);
    if theirs <= ours {
        let detail = format!("epoch {theirs} is not after {ours}, which is this broker's own");
        return Err(ApiError::new(StatusCode::CONFLICT, "epoch-over", detail));
    }
    step_down(&app, Fence { epoch: theirs, primary: primary.to_string() })
        .map_err(|error| ApiError::internal(&error))?;
    Ok(StatusCode::NO_CONTENT)
}
