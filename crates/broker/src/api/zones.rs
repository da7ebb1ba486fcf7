//! Status, zones and the audit.

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Json, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dnsbroker_api::Timestamp;
use dnsbroker_api::message::{AuditCheck, AuditRow, Expiry, Page, Status, ZoneCheck, ZoneInfo};
use dnsbroker_federation::{Serial, Zone};
use dnsbroker_store::audit as chain;
use dnsbroker_zone::presentation::{self, NameForm};
use dnsbroker_zone::zones::Zones;
use serde::Deserialize;

use super::ApiError;
use crate::app::App;

/// The zones, by their names in commands.
pub const ZONES: [(&str, Zone); 3] = [("public", Zone::Public), ("deveuis", Zone::DevEui), ("netids", Zone::NetId)];
/// Audit rows of a page, unless asked for otherwise, and at most.
const PAGE: usize = 1_000;
const MAX_PAGE: usize = 10_000;

pub async fn status(State(app): State<App>) -> Json<Status> {
    let view = app.view();
    let trouble = app.shared.trouble();
    let expiries = app.expiries.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        federation: view.zones.names().apex(Zone::Public).clone(),
        broker: view.zones.names().broker().clone(),
        started: Timestamp(app.started),
        ready: trouble.is_none(),
        trouble,
        store: app.engine.kind().to_string(),
        serial: view.zones.serial(),
        devices: view.zones.devices().len(),
        netids: view.zones.networks().len() as u64,
        members: view.members.len() as u64,
        listeners: app.listeners.clone(),
        certificates: expiries
            .into_iter()
            .map(|(name, not_after)| Expiry { name, not_after: Timestamp(not_after) })
            .collect(),
    })
}

pub async fn list(State(app): State<App>) -> Json<Page<ZoneInfo>> {
    let view = app.view();
    let items = ZONES.iter().map(|(id, zone)| info(&view.zones, id, *zone)).collect();
    Json(Page { items, next: None })
}

fn info(zones: &Zones, id: &str, zone: Zone) -> ZoneInfo {
    let names = match zone {
        Zone::Public => zones.public().iter().map(|r| &r.owner).collect::<std::collections::BTreeSet<_>>().len() as u64,
        Zone::DevEui => zones.devices().len(),
        Zone::NetId => zones.networks().len() as u64,
    };
    ZoneInfo {
        id: id.to_owned(),
        name: zones.names().apex(zone).clone(),
        private: zone.is_private(),
        serial: if zone.is_private() { zones.serial() } else { Serial::new(zones.public().serial) },
        names,
    }
}

pub async fn check(State(app): State<App>) -> Json<ZoneCheck> {
    let view = app.view();
    let found = tokio::task::spawn_blocking(move || presentation::check(&view.zones)).await.unwrap_or_default();
    Json(ZoneCheck { ok: found.errors.is_empty(), errors: found.errors, warnings: found.warnings })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    names: Option<String>,
}

pub async fn export(
    State(app): State<App>,
    zone: Result<Path<String>, PathRejection>,
    query: Result<Query<ExportQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path(wanted), Query(query)) = (zone?, query?);
    let view = app.view();
    let named = |(id, zone): &&(&str, Zone)| {
        *id == wanted || wanted.parse().is_ok_and(|name| view.zones.names().apex(*zone) == &name)
    };
    let Some((_, zone)) = ZONES.iter().find(named) else {
        let detail = format!("there is no zone {wanted:?}: the zones are public, deveuis and netids");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "zone-unknown", detail));
    };
    let form = match query.names.as_deref() {
        None | Some("nibble") => NameForm::Nibble,
        Some("flat") => NameForm::Flat,
        Some("both") => NameForm::Both,
        Some(other) => return Err(ApiError::parameter("names", other, "is none of nibble, flat, both")),
    };
    let pieces = presentation::export(view.zones.clone(), *zone, form);
    let stream = futures_util::stream::iter(pieces.map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece))));
    Ok(([(header::CONTENT_TYPE, "text/dns")], Body::from_stream(stream)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

pub async fn audit(
    State(app): State<App>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<Page<AuditRow>>, ApiError> {
    let Query(AuditQuery { after, limit }) = query?;
    let limit = limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let from = after.unwrap_or_default().saturating_add(1);
    let engine = app.engine.clone();
    let rows = blocking(move || chain::list(&*engine, from, limit)).await??;
    let next = (rows.len() == limit).then(|| rows.last().map(|row| row.number.to_string())).flatten();
    let items = rows.into_iter().map(|row| AuditRow {
        number: row.number,
        at: Timestamp(row.at),
        actor: row.actor,
        act: row.act,
        object: row.object,
        detail: row.detail,
        serial: row.serial,
    });
    Ok(Json(Page { items: items.collect(), next }))
}

pub async fn verify_audit(State(app): State<App>) -> Result<Json<AuditCheck>, ApiError> {
    let (engine, head) = (app.engine.clone(), app.view().audit.clone());
    let verdict = blocking(move || chain::verify(&*engine, &head)).await??;
    Ok(Json(AuditCheck {
        ok: verdict.broken.is_none(),
        rows: verdict.rows,
        head: verdict.head.hash,
        broken: verdict.broken,
    }))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the work was cut off"))
}
