//! Devices: lists in, lists out, and look-ups explained.

use std::collections::{HashMap, VecDeque};
use std::io::Read;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Json, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use dnsbroker_api::listed::{ImportOptions, ListDevices, LookUp, Order, prefix_range};
use dnsbroker_api::listing::{self, Format, Item};
use dnsbroker_api::message::{Device, ImportReport, Lookup, Page, Reject};
use dnsbroker_api::problem::chain;
use dnsbroker_federation::{DevEui, MemberId, NetId};
use dnsbroker_store::act::{Import, Imported, Mode};
use dnsbroker_store::{Edited, Object};
use dnsbroker_zone::wire::Rcode;
use futures_util::TryStreamExt;
use ruzstd::decoding::StreamingDecoder;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::call::{Call, tagged};
use super::paging::limit;
use super::{ApiError, At, Who};
use crate::app::App;
use crate::committer::now;
use crate::explain::{Candour, explain};
use crate::zone_file;

type Asked<T> = Result<Query<T>, QueryRejection>;

/// Devices of one list at most: a list is held in memory while it is worked in.
const MAX_LIST: usize = 50_000_000;
/// Octets of one list at most, unpacked: few that are sent may stand for very many.
const MAX_OCTETS: u64 = 8 * 1024 * 1024 * 1024;
/// Octets of a zone file.
const MAX_ZONE: u64 = 512 * 1024 * 1024;
/// Octets of a zstd window (RFC 8878, section 3.1.1.1.2, recommends to support 8 MiB).
const MAX_WINDOW: u64 = 8 * 1024 * 1024;
/// Rejected rows that are named one by one; all are counted.
const REJECTS_SHOWN: usize = 1_000;

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
    call: Call,
    at: Listing,
    query: Asked<ImportOptions>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let query = query.map(|Query(query)| Query(ImportOptions { mode: Some("full".to_owned()), ..query }));
    import(State(app), call, at, query, headers, body).await
}

pub async fn import(
    State(app): State<App>,
    call: Call,
    at: Listing,
    query: Asked<ImportOptions>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (Path((member, netid)), Query(query)) = (at?, query?);
    let ImportOptions { mode, format, dry_run, allow_shrink } = query;
    let mode = match mode.as_deref() {
        None | Some("add") => Mode::Add,
        Some("full") => Mode::Full,
        Some("remove") => Mode::Remove,
        Some(other) => return Err(ApiError::parameter("mode", other, "is none of add, full, remove")),
    };
    let format = Form::of(format.as_deref(), &headers)?;
    let packing = Packing::of(&headers)?;
    let reader = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let bridge = SyncIoBridge::new(reader);
    let listed = tokio::task::spawn_blocking(move || {
        let input: Box<dyn Read> = match packing {
            Packing::None => Box::new(bridge),
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bridge)),
            Packing::Zstd => Box::new(unpacked(bridge)?),
        };
        read(input.take(MAX_OCTETS), format)
    })
    .await;
    let listed =
        listed.map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "reading failed"))??;
    let import =
        Import { member, netid, mode, devices: listed.devices, rejected: listed.rejected, allow_shrink, dry_run };
    let Edited { done, revision } = call.change(&app, Object::Devices(netid), import).await?;
    Ok(tagged(revision, report(&app, done, listed.rejected, listed.rejects)))
}

/// What a list did.
pub(super) fn report(app: &App, done: Imported, rejected: u64, rejects: Vec<Reject>) -> ImportReport {
    ImportReport {
        added: done.added,
        moved: done.moved,
        removed: done.removed,
        unchanged: done.unchanged,
        absent: done.absent,
        repeated: done.repeated,
        claimed: done.claimed,
        claims: done.claims,
        outside: done.outside,
        outsiders: done.outsiders,
        filled: done.filled,
        filled_shown: done.filled_shown,
        rejected,
        rejects,
        serial: done.serial.unwrap_or_else(|| app.view().zones.serial()),
        dry_run: done.dry_run,
    }
}

/// How a list is written.
enum Form {
    /// One of the formats of lists, or to be guessed.
    List(Option<Format>),
    /// A zone file (RFC 1035), with or without SOA.
    Zone,
}

impl Form {
    fn of(named: Option<&str>, headers: &HeaderMap) -> Result<Self, ApiError> {
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match (named, media_type.split(';').next().unwrap_or_default().trim()) {
            (Some("zone"), _) | (None, "text/dns") => Ok(Self::Zone),
            (None, _) => Ok(Self::List(None)),
            (Some(text), _) => {
                let format = text.parse().map_err(|error| ApiError::parameter("format", text, error))?;
                Ok(Self::List(Some(format)))
            }
        }
    }
}

/// How a list is compressed.
#[derive(Clone, Copy)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let named = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim());
        match named {
            None | Some("" | "identity") => Ok(Self::None),
            Some("gzip" | "x-gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some(other) => {
                let detail = format!("the list is packed as {other:?}: send it as gzip, zstd, or not packed");
                Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "packing-unknown", detail))
            }
        }
    }
}

/// A zstd stream that claims little memory, whatever its head says.
fn unpacked(input: impl Read) -> Result<impl Read, ApiError> {
    let decoder = StreamingDecoder::new_with_max_window_size(input, MAX_WINDOW);
    decoder.map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "list-unreadable", format!("the list is no zstd: {error}"))
    })
}

/// Reads a list to its end; called where blocking is allowed.
fn read(input: impl Read, form: Form) -> Result<Listed, ApiError> {
    match form {
        Form::List(format) => read_list(input, format),
        Form::Zone => read_zone(input),
    }
}

/// A zone file is read as a whole: what a name stands for may be said by a line before it.
fn read_zone(input: impl Read) -> Result<Listed, ApiError> {
    let unreadable = |why: String| ApiError::new(StatusCode::BAD_REQUEST, "list-unreadable", why);
    let mut octets = Vec::new();
    let read = input.take(MAX_ZONE + 1).read_to_end(&mut octets);
    read.map_err(|error| unreadable(format!("the list broke off: {error}")))?;
    if octets.len() as u64 > MAX_ZONE {
        let detail = format!("the zone file has more than {MAX_ZONE} octets: send the DevEUIs alone");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "list-too-long", detail));
    }
    let text = String::from_utf8(octets).map_err(|_| unreadable("the zone file is not UTF-8 text".to_owned()))?;
    let found = zone_file::devices(&text, None).map_err(|error| unreadable(chain(&error)))?;
    let reject = |name: String| Reject { line: 0, text: name, reason: "is no DevEUI, flat or as nibbles".to_owned() };
    Ok(Listed {
        devices: found.devices,
        rejected: found.strangers,
        rejects: found.shown.into_iter().map(reject).collect(),
    })
}

fn read_list(input: impl Read, format: Option<Format>) -> Result<Listed, ApiError> {
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

pub async fn list(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    query: Asked<ListDevices>,
) -> Result<Json<Page<Device>>, ApiError> {
    let Query(query) = query?;
    let paging = query.paging();
    let (limit, view) = (limit(&paging)?, app.view());
    let (first, last) = match &query.prefix {
        None => (0, u64::MAX),
        Some(prefix) => prefix_range(prefix).ok_or_else(|| {
            ApiError::parameter("prefix", prefix, "is to be 1 to 16 hexadecimal digits, the first of the DevEUI")
        })?,
    };
    let after: Option<DevEui> = match &paging.after {
        None => None,
        Some(text) => Some(text.parse().map_err(|error| ApiError::parameter("after", text, error))?),
    };
    // Whose devices are shown does not change from one to the next, so it is decided once a NetID.
    let shown: HashMap<NetId, MemberId> = view
        .zones
        .networks()
        .filter(|network| query.netid.is_none_or(|netid| netid == network.netid))
        .filter(|network| query.member.as_ref().is_none_or(|member| *member == network.member))
        .filter(|network| who.may_see(Some(&network.member)))
        .map(|network| (network.netid, network.member.clone()))
        .collect();
    let found = move || {
        let devices = view.zones.devices();
        let wanted =
            |(deveui, netid): (DevEui, NetId)| Some(Device { deveui, netid, member: shown.get(&netid)?.clone() });
        match paging.order {
            Order::Asc => {
                let from = after.map_or(first, |device| device.as_u64().saturating_add(1).max(first));
                let within = devices.iter_from(from).take_while(|(device, _)| device.as_u64() <= last);
                within.filter_map(wanted).take(limit + 1).collect::<Vec<_>>()
            }
            // The table goes one way; the last ones before the cursor are kept while it is walked.
            Order::Desc => {
                let end = after.map_or(last, |device| device.as_u64().saturating_sub(1).min(last));
                let mut kept = VecDeque::with_capacity(limit + 2);
                for device in
                    devices.iter_from(first).take_while(|(device, _)| device.as_u64() <= end).filter_map(wanted)
                {
                    kept.push_front(device);
                    kept.truncate(limit + 1);
                }
                kept.into()
            }
        }
    };
    let mut items = tokio::task::spawn_blocking(found).await.unwrap_or_default();
    let next = (items.len() > limit).then(|| items[limit - 1].deveui.to_string());
    items.truncate(limit);
    Ok(Json(Page { items, next }))
}

pub async fn show(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(deveui): At<DevEui>,
) -> Result<Json<Device>, ApiError> {
    let view = app.view();
    let found = view.zones.devices().get(deveui).and_then(|netid| {
        let member = view.zones.network(netid)?.member.clone();
        Some(Device { deveui, netid, member })
    });
    // A member that wants to know where another's device is looks it up.
    found.filter(|device| who.may_see(Some(&device.member))).map(Json).ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, "device-unknown", format!("device {deveui} is not registered"))
    })
}

pub async fn lookup(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(deveui): At<DevEui>,
    query: Asked<LookUp>,
) -> Result<Json<Lookup>, ApiError> {
    let Query(LookUp { r#as: asked }) = query?;
    let Some(own) = who.own() else { return Ok(Json(explain(&app.view(), deveui, asked, Candour::All))) };
    if asked.as_ref().is_some_and(|asked| asked != own) {
        let detail = format!("your certificate is of member {own}: you look up as yourself");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "not-yours", detail));
    }
    // As over DoH: who asks for too many that nobody has registered, waits.
    let (tally, now) = (app.shared.tally(own), now());
    if let Some(seconds) = tally.must_wait(app.config.load().limits.nxdomain_per_minute, now) {
        return Err(ApiError::too_many("too many devices were asked for that nobody has registered", seconds));
    }
    let shown = explain(&app.view(), deveui, Some(own.clone()), Candour::AsAnswered);
    if shown.rcode == Rcode::NXDOMAIN.mnemonic() {
        tally.count_unknown(now);
    }
    Ok(Json(shown))
}
