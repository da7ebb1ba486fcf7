//! What the CA publishes for everybody, over plain HTTP (RFC 5280, section 8): lists of revoked certificates, answers about
//! single ones (OCSP, RFC 6960), and the CAs' own certificates.
//!
//! ```text
//! GET  /crl/<ca>.crl     the list, DER; made anew when somebody is revoked, and at half of its life
//! POST /ocsp             an OCSP request; GET /ocsp/<base64> the same (RFC 6960, appendix A.1)
//! GET  /ca/<ca>.cer      the certificate, DER
//! ```
//!
//! All of it is signed, so that nobody need trust the transport. A list's number is taken in a transaction before the list
//! is signed: a number is never used twice, and one that was taken and not used is no fault.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dnsbroker_api::problem::chain;
use dnsbroker_ca::ocsp::{MAX_REQUEST_OCTETS, OcspError, OcspRequest, Status};
use dnsbroker_ca::{Issuer, Revoked, crl_times};
use dnsbroker_store::Actor;
use dnsbroker_store::act::NumberCrl;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::committer::now;
use crate::pki::Pki;

/// Between two looks at whether a list is due, in case nothing else wakes us.
const LOOK: Duration = Duration::from_secs(60);
/// Lists are made this often at most, so that a hundred revocations in a row are one list.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks of one who waits for a list.
const SETTLE: Duration = Duration::from_millis(20);
/// An OCSP answer holds this long, in seconds.
const OCSP_LIFE: i64 = 3_600;

/// The lists as they are published, by the CA's id.
#[derive(Default)]
pub struct Lists(ArcSwap<BTreeMap<String, Arc<List>>>);

/// One list.
struct List {
    der: Bytes,
    this_update: i64,
    next_update: i64,
    revoked: Vec<Revoked>,
}

impl Lists {
    fn get(&self, ca: &str) -> Option<Arc<List>> {
        self.0.load().get(ca).cloned()
    }

    /// All lists, DER, by the CA's id, with when each was made.
    pub fn all(&self) -> Vec<(String, i64, Bytes)> {
        self.0.load().iter().map(|(ca, list)| (ca.clone(), list.this_update, list.der.clone())).collect()
    }

    /// Takes a list that the primary has signed, to publish it here too.
    pub fn take(&self, pki: &Pki, ca: &str, der: Vec<u8>) -> Result<(), String> {
        let authorities = pki.authorities();
        let issuer = authorities.by_id(ca).ok_or("no CA of that id is here: `dnsbroker standby status` says why")?;
        let (_, revoked) = dnsbroker_ca::read_crl(&der, issuer.certificate()).map_err(|error| chain(&error))?;
        let (this_update, next_update) = crl_times(&der).map_err(|error| chain(&error))?;
        if self.get(ca).is_some_and(|known| known.this_update > this_update) {
            return Err("it is older than the one that is here".to_owned());
        }
        self.put(ca.to_owned(), List { der: der.into(), this_update, next_update, revoked });
        Ok(())
    }

    /// How many certificates the list of a CA names.
    pub fn revoked(&self, ca: &str) -> Option<usize> {
        self.get(ca).map(|list| list.revoked.len())
    }

    fn put(&self, ca: String, list: List) {
        let mut all = BTreeMap::clone(&self.0.load());
        all.insert(ca, Arc::new(list));
        self.0.store(Arc::new(all));
    }
}

/// Keeps the lists of all issuing CAs current, until told to stop.
pub async fn keep(app: App, stop: CancellationToken) {
    let (mut admissions, mut authorities) = (app.shared.admissions(), app.pki.changes());
    loop {
        refresh(&app).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            changed = authorities.changed() => if changed.is_err() { return },
            changed = admissions.changed() => if changed.is_err() { return },
        }
    }
}

/// Waits until the lists say what is so now: whoever revokes and looks sees the list that names it, and not the one before.
pub async fn settled(app: &App) {
    let current = || {
        let (view, lists, now) = (app.view(), app.lists.0.load(), now());
        lists.iter().all(|(ca, list)| list.revoked == view.revoked_of(ca, now))
    };
    let wait = async {
        while !current() {
            tokio::time::sleep(SETTLE).await;
        }
    };
    // What does not settle, as where nothing can be signed, is shown as it is.
    let _ = tokio::time::timeout(2 * PAUSE, wait).await;
}

/// Makes the lists that are due. Before anything is served, so that nobody is told that there is none.
pub async fn refresh(app: &App) {
    let authorities = app.pki.authorities();
    for issuer in authorities.all() {
        if let Err(error) = renew(app, issuer).await {
            tracing::error!(ca = issuer.id(), error, "the list of revoked certificates could not be made");
        }
    }
}

/// Makes a list if the last one does not say what is so now, or has lived for half of its time.
async fn renew(app: &App, issuer: &Arc<Issuer>) -> Result<(), String> {
    let (id, now) = (issuer.id(), now());
    let life = app.config.load().ca.crl_hours * 3_600;
    let revoked = app.view().revoked_of(&id, now);
    let current =
        |list: &Arc<List>| list.revoked == revoked && list.this_update <= now && now < list.this_update + life / 2;
    if app.lists.get(&id).as_ref().is_some_and(current) {
        return Ok(());
    }
    let head = app.committer.commit(Actor::Broker, NumberCrl { ca: id.clone(), life }).await;
    let head = head.map_err(|error| chain(&error))?;
    let der = issuer.crl(revoked.iter().copied(), head.number, head.this_update, head.next_update);
    let der = Bytes::from(der.map_err(|error| chain(&error))?);
    tracing::info!(ca = id, number = head.number, revoked = revoked.len(), "list of revoked certificates");
    app.lists.put(id, List { der, this_update: head.this_update, next_update: head.next_update, revoked });
    Ok(())
}

/// The routes of the listener.
pub fn routes(app: App) -> Router {
    Router::new()
        .route("/crl/{file}", get(crl))
        .route("/ca/{file}", get(certificate))
        .route("/ocsp", post(ocsp))
        .route("/ocsp/{*request}", get(ocsp_by_url))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_OCTETS))
        .with_state(app)
}

async fn crl(State(app): State<App>, Path(file): Path<String>) -> Response {
    let Some(id) = file.strip_suffix(".crl") else { return not_found() };
    if let Some(list) = app.lists.get(id) {
        return published("application/pkix-crl", list.der.clone(), list.next_update - now());
    }
    match app.pki.root_crl().filter(|_| id == app.pki.root_id()) {
        Some(list) => {
            let next = crl_times(&list).map_or(0, |(_, next)| next);
            published("application/pkix-crl", list.into(), (next - now()).min(86_400))
        }
        None => not_found(),
    }
}

async fn certificate(State(app): State<App>, Path(file): Path<String>) -> Response {
    let Some(id) = file.strip_suffix(".cer") else { return not_found() };
    let authorities = app.pki.authorities();
    let der = match authorities.by_id(id) {
        Some(issuer) => issuer.certificate().to_vec(),
        None if id == app.pki.root_id() => app.pki.root.clone(),
        None => return not_found(),
    };
    published("application/pkix-cert", der.into(), 86_400)
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "no such CA\n").into_response()
}

fn published(media_type: &'static str, octets: Bytes, seconds: i64) -> Response {
    let age = HeaderValue::try_from(format!("public, max-age={}", seconds.max(0))).ok();
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], octets).into_response();
    if let Some(age) = age {
        response.headers_mut().insert(header::CACHE_CONTROL, age);
    }
    response
}

async fn ocsp(State(app): State<App>, body: Bytes) -> Response {
    answer(&app, &body)
}

async fn ocsp_by_url(State(app): State<App>, Path(request): Path<String>) -> Response {
    // The path is decoded already; some clients leave `/` and `+` of base64 as they are, which is the same here.
    match BASE64_STANDARD.decode(request.trim_start_matches('/')) {
        Ok(request) => answer(&app, &request),
        Err(_) => response(OcspError::Malformed.response(), None),
    }
}

fn answer(app: &App, request: &[u8]) -> Response {
    let Ok(request) = OcspRequest::read(request) else { return response(OcspError::Malformed.response(), None) };
    let authorities = app.pki.authorities();
    let Some(issuer) = authorities.all().find(|issuer| request.is_for(issuer)) else {
        return response(OcspError::Unauthorized.response(), None);
    };
    if app.shared.standing.is_stale(now()) {
        // A standby that does not know what was revoked lately must not call anything good.
        return response(OcspError::TryLater.response(), None);
    }
    let (view, now, id) = (app.view(), now(), issuer.id());
    let status = |serial: &_| match view.certificates.get(serial).filter(|known| known.ca == id) {
        None => Status::Unknown,
        Some(known) => match view.revoked(known) {
            Some(revoked) => Status::Revoked { at: revoked.at, reason: revoked.reason },
            None => Status::Good,
        },
    };
    match issuer.ocsp(&request, status, now, now + OCSP_LIFE) {
        // A revocation shall be seen soon: answers are cached for a minute, and hold for longer where we cannot be reached.
        Ok(signed) => response(signed, request.is_cacheable().then_some(60)),
        Err(error) => {
            tracing::error!(error = chain(&error), "an OCSP answer could not be signed");
            response(OcspError::TryLater.response(), None)
        }
    }
}

fn response(octets: Vec<u8>, cached: Option<i64>) -> Response {
    let mut response = published("application/ocsp-response", octets.into(), cached.unwrap_or_default());
    if cached.is_none() {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
