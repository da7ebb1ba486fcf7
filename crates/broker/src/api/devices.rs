//! Devices: lists in, lists out, and look-ups explained.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Json, Path, Query, State};
use axum::http::StatusCode;
use dnsbroker_api::listing::{self, Format, Item};
use dnsbroker_api::message::{Device, ImportReport, Lookup, Page, Reject};
use dnsbroker_api::problem::chain;
use dnsbroker_federation::{DevEui, MemberId, NetId};
use dnsbroker_store::View;
use dnsbroker_store::act::{Import, Mode};
use futures_util::TryStreamExt;
use serde::Deserialize;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{ApiError, At, By};
use crate::app::App;
use crate::explain::explain;

type Asked<T> = Result<Query<T>, QueryRejection>;

/// Devices of one list at most: a list is held in memory while it is worked in.
const MAX_LIST: usize = 50_000_000;
/// Rejected rows that are named one by one; all are counted.
const REJECTS_SHOWN: usize = 1_000;
/// Items of a page, unless asked for otherwise, and at most.
const PAGE: usize = 1_000;
const MAX_PAGE: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    #[serde(default = "ImportQuery::default_mode")]
    mode: Mode,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    allow_shrink: bool,
}

impl ImportQuery {
    fn default_mode() -> Mode {
        Mode::Add
    }
}

/// What was read of a list.
#[derive(Default)]
struct Listed {
    devices: Vec<DevEui>,
    rejected: u64,
    rejects: Vec<Reject>,
}

type Listing = Result<Path<(MemberId, NetId)>, PathRejection>;

/// The whole list of a NetID.
pub async fn replace(
    State(app): State<App>,
    By(actor): By,
    at: Listing,
    query: Asked<ImportQuery>,
    body: Body,
) -> Result<Json<ImportReport>, ApiError> {
    let query = query.map(|Query(query)| Query(ImportQuery { mode: Mode::Full, ..query }));
    import(State(app), By(actor), at, query, body).await
}

pub async fn import(
    State(app): State<App>,
    By(actor): By,
    at: Listing,
    query: Asked<ImportQuery>,
    body: Body,
) -> Result<Json<ImportReport>, ApiError> {
    let (Path((member, netid)), Query(query)) = (at?, query?);
    let format = match &query.format {
        Some(text) => Some(text.parse::<Format>().map_err(|error| ApiError::parameter("format", text, error))?),
        None => None,
    };
    let reader = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let bridge = SyncIoBridge::new(reader);
    let listed = tokio::task::spawn_blocking(move || read(bridge, format)).await;
    let listed =
        listed.map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "reading failed"))??;
    let ImportQuery { mode, dry_run, allow_shrink, .. } = query;
    let import = Import { member, netid, mode, devices: listed.devices, allow_shrink, dry_run };
    let done = app.committer.commit(actor, import).await?;
    Ok(Json(ImportReport {
        added: done.added,
        moved: done.moved,
        removed: done.removed,
        unchanged: done.unchanged,
        absent: done.absent,
        repeated: done.repeated,
        claimed: done.claimed,
        claims: done.claims,
        rejected: listed.rejected,
        rejects: listed.rejects,
        serial: done.serial.unwrap_or_else(|| app.view().zones.serial()),
        dry_run: done.dry_run,
    }))
}

/// Reads a list to its end; called where blocking is allowed.
fn read(input: impl std::io::Read, format: Option<Format>) -> Result<Listed, ApiError> {
    let mut listed = Listed::default();
    let mut too_many = false;
    let done = listing::read(std::io::BufReader::new(input), format, &mut |item| match item {
        Item::Device(_) if listed.devices.len() == MAX_LIST => too_many = true,
        Item::Device(device) => listed.devices.push(device),
        Item::Reject(reject) => {
            listed.rejected += 1;
            if listed.rejects.len() < REJECTS_SHOWN {
                listed.rejects.push(reject);
            }
        }
    });
    match done {
        Ok(_) if too_many => {
            let detail = format!("the list has more than {MAX_LIST} devices: send it in parts");
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "list-too-long", detail))
        }
        Ok(_) => Ok(listed),
        Err(error) => Err(ApiError::new(StatusCode::BAD_REQUEST, "list-unreadable", chain(&error))),
    }
}

pub async fn list(State(app): State<App>, query: Asked<ListQuery>) -> Result<Json<Page<Device>>, ApiError> {
    let Query(ListQuery { after, limit, member, netid }) = query?;
    let limit = limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let view = app.view();
    let from = after.map_or(0, |device| device.as_u64().saturating_add(1));
    let devices = view.zones.devices();
    let mut items = Vec::new();
    for (deveui, held) in devices.iter_from(from) {
        if netid.is_some_and(|netid| netid != held) {
            continue;
        }
        let Some(device) = shown(&view, deveui, held) else { continue };
        if member.as_ref().is_some_and(|member| *member != device.member) {
            continue;
        }
        items.push(device);
        if items.len() == limit {
            break;
        }
    }
    let next = (items.len() == limit).then(|| items.last().map(|device| device.deveui.to_string())).flatten();
    Ok(Json(Page { items, next }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    after: Option<DevEui>,
    limit: Option<usize>,
    member: Option<MemberId>,
    netid: Option<NetId>,
}

pub async fn show(State(app): State<App>, At(deveui): At<DevEui>) -> Result<Json<Device>, ApiError> {
    let view = app.view();
    let found = view.zones.devices().get(deveui).and_then(|netid| shown(&view, deveui, netid));
    found.map(Json).ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, "device-unknown", format!("device {deveui} is not registered"))
    })
}

fn shown(view: &View, deveui: DevEui, netid: NetId) -> Option<Device> {
    let member = view.zones.network(netid)?.member.clone();
    Some(Device { deveui, netid, member })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookupQuery {
    r#as: Option<MemberId>,
}

pub async fn lookup(
    State(app): State<App>,
    At(deveui): At<DevEui>,
    query: Asked<LookupQuery>,
) -> Result<Json<Lookup>, ApiError> {
    let Query(LookupQuery { r#as: member }) = query?;
    Ok(Json(explain(&app.view(), deveui, member)))
}
