//! Status, zones and the audit.

use std::io::{Seek, SeekFrom};

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Json, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dnsbroker_api::Timestamp;
use dnsbroker_api::listed::{ExportOptions, ListAudit, Order};
use dnsbroker_api::message::{AuditCheck, AuditHead, AuditRow, Expiry, Page, Status, ZoneCheck, ZoneInfo};
use dnsbroker_federation::{Serial, Zone};
use dnsbroker_store::{act, audit as chain};
use dnsbroker_zone::presentation::{self, NameForm};
use dnsbroker_zone::zones::Zones;
use tokio_util::io::ReaderStream;

use super::ApiError;
use super::call::Call;
use super::paging::limit;
use super::statistics::{claims, troubled};
use crate::app::App;
use crate::config::Config;

/// The zones, by their names in commands.
pub const ZONES: [(&str, Zone); 3] = [("public", Zone::Public), ("deveuis", Zone::DevEui), ("netids", Zone::NetId)];

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
        overdue: crate::expiry::overdue(&view)
            .into_iter()
            .map(|(name, not_after)| Expiry { name, not_after: Timestamp(not_after) })
            .collect(),
        notices: crate::pki::published::notices(&app),
        sources: troubled(&app, &view, None),
        claims: claims(&view, None).waiting,
        audit: AuditHead { number: view.audit.number, hash: view.audit.hash.clone() },
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

pub async fn export(
    State(app): State<App>,
    zone: Result<Path<String>, PathRejection>,
    query: Result<Query<ExportOptions>, QueryRejection>,
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

pub async fn audit(
    State(app): State<App>,
    query: Result<Query<ListAudit>, QueryRejection>,
) -> Result<Json<Page<AuditRow>>, ApiError> {
    let Query(query) = query?;
    let paging = query.paging();
    let limit = limit(&paging)?;
    let after: Option<u64> = match &paging.after {
        None => None,
        Some(text) => Some(text.parse().map_err(|error| ApiError::parameter("after", text, error))?),
    };
    let engine = app.engine.clone();
    let mut rows = blocking(move || {
        let wanted = |row: &chain::Row| {
            query.actor.as_ref().is_none_or(|actor| row.actor == *actor)
                && query.act.as_ref().is_none_or(|act| row.act.starts_with(act.as_str()))
                && query.object.as_ref().is_none_or(|object| row.object == *object)
        };
        match paging.order {
            Order::Asc => chain::list(&*engine, after.unwrap_or(0).saturating_add(1), limit + 1, &wanted),
            Order::Desc => {
                chain::list_back(&*engine, after.map_or(u64::MAX, |n| n.saturating_sub(1)), limit + 1, &wanted)
            }
        }
    })
    .await??;
    let next = (rows.len() > limit).then(|| rows[limit - 1].number.to_string());
    rows.truncate(limit);
    let items = rows.into_iter().map(|row| AuditRow {
        number: row.number,
        at: Timestamp(row.at),
        actor: row.actor,
        act: row.act,
        object: row.object,
        detail: row.detail,
        serial: row.serial,
        concerns: row.concerns,
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

/// A backup: the store, and the CA's files but for the root's key and the passphrase.
pub async fn backup(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let failed = |error: &dyn std::error::Error| ApiError::internal(error);
    let config = app.config.load_full();
    let witness = act::Witness { act: "backup", object: "store".to_owned(), detail: serde_json::Value::Null };
    app.committer.commit(call.actor(), witness).await?;
    let parts = app.clone();
    let files = blocking(move || backup_files(&parts.config.load())).await?.map_err(|error| failed(&error))?;
    // It has no name: what is left of an answer that broke off is nothing.
    let dir = config.path(&config.store.dir);
    let file = blocking(move || tempfile::tempfile_in(dir)).await?.map_err(|error| failed(&error))?;
    let mut file = app.committer.dump(file, files).await?.map_err(|error| failed(&error))?.file;
    file.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 * 1024);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(stream)).into_response())
}

/// What a restored broker needs beside its store.
fn backup_files(config: &Config) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = vec![("dnsbroker.toml".to_owned(), std::fs::read(&config.file)?)];
    let ca = config.path(&config.ca.dir);
    for dir in ["", "previous"] {
        let Ok(entries) = std::fs::read_dir(ca.join(dir)) else { continue };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            // The broker's own certificate is made again.
            if path.is_file() && !name.starts_with("server.") && !name.ends_with(".new") {
                let name = if dir.is_empty() { format!("ca/{name}") } else { format!("ca/{dir}/{name}") };
                files.push((name, std::fs::read(&path)?));
            }
        }
    }
    files.sort();
    Ok(files)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the work was cut off"))
}
