//! The stream of events: server-sent events (HTML, section 9.2), for as long as the caller is admitted.
//!
//! A task for each listener takes events from [`crate::events`] and puts them into a short queue; the answer's body
//! empties it. So a listener that does not read is noticed, by the queue that stays full, and cut; and one whose certificate
//! is revoked, or whose account is disabled, is cut within a second. What it missed it gets when it comes back with the
//! last id.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use dnsbroker_api::event::{EventId, ListenEvents, wanted};
use dnsbroker_store::Actor;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::caller::Role;
use super::{ApiError, Who};
use crate::app::App;
use crate::committer::now;
use crate::events::{Deaf, Listener, Told};
use crate::listen::{Place, Places};

/// Streams of one caller at once.
const STREAMS_EACH: usize = 16;
/// Streams of all callers together.
const STREAMS: usize = 256;
/// Pieces that wait for the listener to read.
const QUEUE: usize = 64;
/// A listener that takes nothing for so long is cut.
const STALL: Duration = Duration::from_secs(20);
/// How often the caller is looked at again, and statistics are told.
const LOOK: Duration = Duration::from_secs(1);
/// A comment goes out after so many looks, so that nothing between takes the stream for dead.
const KEEP_ALIVE: u32 = 15;
/// What a browser waits before it comes again, in milliseconds.
const RETRY: &str = "retry: 2000\n\n";
/// The kind that only those get who name it.
const STATISTICS: &str = "statistics";

/// Places of listeners, by who they are.
pub struct Streams {
    each: Arc<Places<String>>,
    all: Arc<Places<()>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { each: Places::new(STREAMS_EACH), all: Places::new(STREAMS) }
    }
}

pub async fn listen(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    query: Result<Query<ListenEvents>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(ListenEvents { after, kinds }) = query?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    // A browser that comes back says where it was; what the URL said at first is older.
    let after = last.map(str::to_owned).or(after);
    let parsed = |text: String| text.parse::<EventId>().map_err(|error| ApiError::parameter("after", &text, error));
    let after = after.map(parsed).transpose()?;
    let kinds: Vec<String> =
        kinds.iter().flat_map(|text| text.split(',')).filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
    let places = &app.streams;
    let place = places.each.take(who.actor.to_string()).zip(places.all.take(()));
    let place = place.ok_or_else(|| ApiError::too_many("too many streams of events are open", 5))?;
    let (pieces, body) = mpsc::channel(QUEUE);
    let listener = app.shared.events.listen(after);
    let statistics =
        matches!(who.role, Role::Administrator | Role::Auditor) && kinds.iter().any(|kind| kind == STATISTICS);
    let stream = Stream { app, who, kinds, statistics, pieces, _place: place };
    tokio::spawn(stream.run(listener));
    let body = futures_util::stream::unfold(body, |mut body: mpsc::Receiver<Bytes>| async move {
        let piece = body.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), body))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// One listener's stream.
struct Stream {
    app: App,
    who: Who,
    kinds: Vec<String>,
    statistics: bool,
    pieces: mpsc::Sender<Bytes>,
    _place: (Place<String>, Place<()>),
}

/// Why a stream ends: what the listener is told, or nothing where it has gone.
type Ended = Option<String>;

impl Stream {
    async fn run(self, mut listener: Listener) {
        let ended = self.tell(&mut listener).await;
        if let Err(Some(reason)) = ended {
            tracing::info!(who = %self.who.actor, reason, "a stream of events is cut");
            let data = serde_json::json!({ "reason": reason, "after": listener.seen().to_string() });
            // It may not read this either.
            let _ = self.put(format!("event: cut\ndata: {data}\n\n")).await;
        }
    }

    async fn tell(&self, listener: &mut Listener) -> Result<(), Ended> {
        let mut admissions = self.app.shared.admissions();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = 0;
        self.put(RETRY.to_owned()).await?;
        loop {
            tokio::select! {
                told = listener.next(&self.app.engine) => {
                    let told = told.map_err(|deaf| Some(words(&deaf)))?;
                    if let Some(piece) = self.piece(&told) {
                        self.put(piece).await?;
                        silent = 0;
                    }
                }
                _ = look.tick() => {
                    self.check()?;
                    silent += 1;
                    if self.statistics {
                        self.put(crate::statistics::piece(&self.app)).await?;
                        silent = 0;
                    }
                    if silent >= KEEP_ALIVE {
                        self.put(": keep-alive\n\n".to_owned()).await?;
                        silent = 0;
                    }
                }
                _ = admissions.changed() => self.check()?,
                () = self.pieces.closed() => return Err(None),
                () = self.app.stop.cancelled() => return Err(Some("the broker is stopping".to_owned())),
            }
        }
    }

    fn check(&self) -> Result<(), Ended> {
        admitted(&self.app, &self.who, now()).map_err(Some)
    }

    /// An event as this listener gets it.
    fn piece(&self, told: &Told) -> Option<String> {
        if !wanted(told.kind(), self.kinds.iter().map(String::as_str)) {
            return None;
        }
        let event = told.as_seen_by(self.who.own())?;
        let data = serde_json::to_string(&event).ok()?;
        Some(format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind))
    }

    async fn put(&self, piece: String) -> Result<(), Ended> {
        match tokio::time::timeout(STALL, self.pieces.send(piece.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some(format!("nothing was read for {} seconds", STALL.as_secs()))),
        }
    }
}

fn words(deaf: &Deaf) -> String {
    dnsbroker_api::problem::chain(deaf)
}

/// Whether a caller who was let in would be let in now.
pub fn admitted(app: &App, who: &Who, now: i64) -> Result<(), String> {
    let view = app.view();
    if let Some(cookie) = &who.session {
        return if app.sessions.lives(cookie, &view, now) { Ok(()) } else { Err("the session is over".to_owned()) };
    }
    let gone = |what: &str| Err(format!("{what} is no longer admitted"));
    match &who.actor {
        Actor::Administrator(name) => match view.accounts.administrators.get(name) {
            Some(administrator) if administrator.disabled.is_none() => Ok(()),
            _ => gone("the administrator"),
        },
        Actor::ApiToken(id, _) => {
            let token = view.accounts.api_tokens.values().find(|token| token.id() == *id);
            match token.map(|token| view.api_token(&token.hash, now)) {
                Some(Ok(_)) => Ok(()),
                Some(Err(denial)) => Err(denial.to_string()),
                None => gone("the API token"),
            }
        }
        _ => match &who.certificate {
            None => Ok(()),
            Some(certificate) => match view.admit_holder(&certificate.serial, now) {
                Err(denial) => Err(denial.to_string()),
                Ok(_) if who.own().is_some() && certificate.not_after < now => gone("the certificate"),
                Ok(_) => Ok(()),
            },
        },
    }
}
