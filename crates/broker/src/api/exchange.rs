//! TSIG keys, replicas and sources.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Json, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dnsbroker_api::Timestamp;
use dnsbroker_api::exchange::{Key, LastTransfer, NewKey, Replica, SetReplica, SetSource, Source};
use dnsbroker_api::listed::{ListKeys, ListReplicas, ListSources, SortKeys, SortReplicas, SortSources};
use dnsbroker_api::message::Page;
use dnsbroker_api::standby::StandbyAt;
use dnsbroker_ca::{Principal, ReplicaId};
use dnsbroker_federation::{DomainName, NetId};
use dnsbroker_store::record::{OnExpiry, Permission, SourceTls};
use dnsbroker_store::{Edited, Object, Refusal, View, act, record};
use dnsbroker_zone::transfer::NameForm;
use dnsbroker_zone::tsig::Algorithm;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::de::value::{Error as ValueError, StrDeserializer};
use zeroize::Zeroizing;

use super::call::{Call, tagged};
use super::paging::{Value, page};
use super::{ApiError, At, Who};
use crate::app::App;
use crate::committer::CommitError;
use crate::key::{self, KeyError};

type Body<T> = Result<Json<T>, JsonRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

/// Octets of a secret that is brought: fewer are too easy to guess, more than a block of the hash are of no use.
const SECRET: std::ops::RangeInclusive<usize> = 16..=128;

/// Reads one of a few words, by the names under which they are stored.
fn word<T: DeserializeOwned>(parameter: &str, text: &str) -> Result<T, ApiError> {
    T::deserialize(StrDeserializer::<ValueError>::new(text))
        .map_err(|error| ApiError::parameter(parameter, text, error))
}

/// The name under which one of a few words is stored.
fn name_of(word: &impl serde::Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

fn failed(error: &KeyError) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "key-failed", dnsbroker_api::problem::chain(error))
}

pub async fn keys(State(app): State<App>, query: Asked<ListKeys>) -> Result<Json<Page<Key>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let wanted = |key: &record::TsigKey| query.holder.as_ref().is_none_or(|holder| key.holder.to_string() == *holder);
    let (keys, paging) = (view.tsig_keys.values().filter(|key| wanted(key)), query.paging());
    let place = |key: &&Arc<record::TsigKey>| {
        let name = Value::from(key.name.to_string());
        match paging.sort {
            SortKeys::Name => (name, Value::Absent),
            SortKeys::Holder => (key.holder.to_string().into(), name),
            SortKeys::Created => (key.created.into(), name),
        }
    };
    Ok(Json(page(keys, &paging, place, |key| shown_key(key))?))
}

pub async fn create_key(State(app): State<App>, call: Call, body: Body<NewKey>) -> Result<Response, ApiError> {
    let Json(new) = body?;
    let NewKey { name, member, replica, allows, algorithm, secret } = new.clone();
    let algorithm: Algorithm =
        algorithm.parse().map_err(|error| ApiError::parameter("algorithm", &algorithm, error))?;
    let holder = match (member, replica) {
        (Some(member), None) => Principal::Member(member),
        (None, Some(replica)) => Principal::Replica(
            replica
                .parse()
                .map_err(|error: dnsbroker_ca::ReplicaIdError| ApiError::parameter("replica", &replica, error))?,
        ),
        _ => return Err(ApiError::parameter("holder", "", "is either a member or a replica: give one of them")),
    };
    let allows = allows.iter().map(|text| word::<Permission>("allows", text)).collect::<Result<_, _>>()?;
    let secret = match secret {
        Some(text) => brought(&Zeroizing::new(text))?,
        None => new_secret(algorithm).map_err(|error| failed(&error))?,
    };
    let sealed = app.sealer.seal(&name, algorithm, &secret).map_err(|error| failed(&error))?;
    let create = act::CreateKey { name, algorithm, holder, allows, sealed };
    call.create(&app, &new, create, move |key| Key { secret: Some(STANDARD.encode(&*secret)), ..shown_key(key) }).await
}

/// The refusal does not repeat what was given: it is a secret.
fn brought(text: &str) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let wrong = |why: &str| ApiError::new(StatusCode::BAD_REQUEST, "parameter-invalid", format!("the secret {why}"));
    let secret = STANDARD.decode(text.trim()).map(Zeroizing::new).map_err(|_| wrong("is not base64"))?;
    if SECRET.contains(&secret.len()) { Ok(secret) } else { Err(wrong("does not have 16 to 128 octets")) }
}

fn new_secret(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    key::new_secret(algorithm.secret_len())
}

fn shown_key(key: &record::TsigKey) -> Key {
    Key {
        name: key.name.clone(),
        algorithm: key.algorithm.to_string(),
        holder: key.holder.to_string(),
        allows: key.allows.iter().map(name_of).collect(),
        created: Timestamp(key.created),
        secret: None,
    }
}

pub async fn revoke_key(State(app): State<App>, call: Call, At(name): At<DomainName>) -> Result<StatusCode, ApiError> {
    app.committer.commit(call.actor(), act::RevokeKey { name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn replicas(State(app): State<App>, query: Asked<ListReplicas>) -> Result<Json<Page<Replica>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let wanted = |replica: &record::Replica| query.member.as_ref().is_none_or(|member| replica.is_of(member));
    let (replicas, paging) = (view.replicas.values().filter(|replica| wanted(replica)), query.paging());
    let place = |replica: &&Arc<record::Replica>| {
        let id = Value::from(replica.id.to_string());
        match paging.sort {
            SortReplicas::Id => (id, Value::Absent),
            SortReplicas::Since => (replica.since.into(), id),
        }
    };
    Ok(Json(page(replicas, &paging, place, |replica| shown_replica(&app, replica))?))
}

pub async fn replica(State(app): State<App>, At(id): At<ReplicaId>) -> Result<Response, ApiError> {
    let view = app.view();
    match view.replicas.get(&id) {
        Some(known) => {
            let revision = view.revision(&Object::Replica(id));
            Ok(tagged(revision, shown_replica(&app, known)))
        }
        None => Err(CommitError::Refused(Refusal::NoReplica(id)).into()),
    }
}

pub async fn set_replica(
    State(app): State<App>,
    call: Call,
    At(id): At<ReplicaId>,
    body: Body<SetReplica>,
) -> Result<Response, ApiError> {
    let Json(SetReplica { holder, only, names, notify, notify_key, clear_text, standby }) = body?;
    let names: NameForm = word("names", &names)?;
    let object = Object::Replica(id.clone());
    let standby = standby.map(|StandbyAt { name, addresses, port, api_port }| record::StandbyAt {
        name,
        addresses,
        port,
        api_port,
    });
    let set = act::SetReplica { id, holder, only, names, notify, notify_key, clear_text, standby };
    let Edited { done: replica, revision } = call.change(&app, object, set).await?;
    app.announcer.reconcile();
    app.take_over.brokers.notify_one();
    Ok(tagged(revision, shown_replica(&app, &replica)))
}

pub async fn remove_replica(State(app): State<App>, call: Call, At(id): At<ReplicaId>) -> Result<StatusCode, ApiError> {
    call.change(&app, Object::Replica(id.clone()), act::RemoveReplica { id }).await?;
    app.announcer.reconcile();
    app.take_over.brokers.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

fn shown_replica(app: &App, replica: &record::Replica) -> Replica {
    Replica {
        id: replica.id.to_string(),
        settings: SetReplica {
            holder: replica.holder.clone(),
            only: replica.only.clone(),
            names: name_of(&replica.names),
            notify: replica.notify.clone(),
            notify_key: replica.notify_key.clone(),
            clear_text: replica.clear_text,
            standby: replica.standby.as_ref().map(|at| StandbyAt {
                name: at.name.clone(),
                addresses: at.addresses.clone(),
                port: at.port,
                api_port: at.api_port,
            }),
        },
        since: Timestamp(replica.since),
        fetched: app.shared.transfers.of(replica.id.as_str(), replica.since),
    }
}

pub async fn sources(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    query: Asked<ListSources>,
) -> Result<Json<Page<Source>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let wanted = |source: &record::Source| {
        who.may_see(Some(&source.member)) && query.member.as_ref().is_none_or(|member| source.member == *member)
    };
    let sources = view.sources.values().filter(|source| wanted(source));
    let shown = sources.map(|source| shown_source(&app, &view, source));
    let shown = shown.filter(|source| query.state.as_ref().is_none_or(|state| source.state == *state));
    let paging = query.paging();
    let place = |source: &Source| {
        let by = match paging.sort {
            SortSources::Netid => source.netid.into(),
            SortSources::Member => (&source.settings.member).into(),
            SortSources::State => source.state.as_str().into(),
            SortSources::Devices => source.devices.into(),
            SortSources::Succeeded => source.succeeded.into(),
        };
        (by, source.netid.into())
    };
    Ok(Json(page(shown, &paging, place, |source| source)?))
}

pub async fn source(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(netid): At<NetId>,
) -> Result<Response, ApiError> {
    let view = app.view();
    Ok(tagged(view.revision(&Object::Source(netid)), theirs(&app, &view, &who, netid)?))
}

/// A source that is the caller's business; another member's is as unknown as none.
fn theirs(app: &App, view: &View, who: &Who, netid: NetId) -> Result<Source, ApiError> {
    let shown = shown(app, view, netid)?;
    let unknown = || CommitError::Refused(Refusal::NoSource(netid)).into();
    if who.may_see(Some(&shown.settings.member)) { Ok(shown) } else { Err(unknown()) }
}

fn shown(app: &App, view: &View, netid: NetId) -> Result<Source, ApiError> {
    let known = view.sources.get(&netid).ok_or(CommitError::Refused(Refusal::NoSource(netid)))?;
    Ok(shown_source(app, view, known))
}

pub async fn set_source(
    State(app): State<App>,
    call: Call,
    At(netid): At<NetId>,
    body: Body<SetSource>,
) -> Result<Response, ApiError> {
    let Json(SetSource { member, primary, zone, key, tls_name, tls_ca, tls_pin, on_expiry }) = body?;
    let on_expiry: OnExpiry = word("on_expiry", &on_expiry)?;
    let tls = source_tls(tls_name, tls_ca, tls_pin)?;
    let set = act::SetSource { netid, member, primary, zone, key, tls, on_expiry };
    call.change(&app, Object::Source(netid), set).await?;
    app.sources.reconcile();
    let view = app.view();
    Ok(tagged(view.revision(&Object::Source(netid)), shown(&app, &view, netid)?))
}

fn source_tls(
    name: Option<DomainName>,
    ca: Option<String>,
    pin: Option<String>,
) -> Result<Option<SourceTls>, ApiError> {
    let together = |what| ApiError::new(StatusCode::BAD_REQUEST, "parameter-invalid", what);
    match (name, ca, pin) {
        (None, None, None) => Ok(None),
        (Some(name), None, None) => Ok(Some(SourceTls::Ca { name, ca: String::new() })),
        (Some(name), Some(ca), None) => {
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca.as_bytes()).collect();
            if !read.is_ok_and(|certificates| !certificates.is_empty()) {
                return Err(together("tls_ca holds no certificate in PEM"));
            }
            Ok(Some(SourceTls::Ca { name, ca }))
        }
        (None, None, Some(pin)) => {
            let pin = pin.parse().map_err(|error| ApiError::parameter("tls_pin", &pin, error))?;
            Ok(Some(SourceTls::Pin(pin)))
        }
        (None, Some(_), _) => Err(together("tls_ca needs tls_name: the name in the primary's certificate")),
        (Some(_), _, Some(_)) => Err(together("tls_pin stands alone: it takes the place of tls_name and tls_ca")),
    }
}

pub async fn remove_source(State(app): State<App>, call: Call, At(netid): At<NetId>) -> Result<StatusCode, ApiError> {
    call.change(&app, Object::Source(netid), act::RemoveSource { netid }).await?;
    app.sources.reconcile();
    Ok(StatusCode::NO_CONTENT)
}

pub async fn refresh_source(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(netid): At<NetId>,
) -> Result<Json<Source>, ApiError> {
    let view = app.view();
    theirs(&app, &view, &who, netid)?;
    app.sources.notified(netid);
    shown(&app, &view, netid).map(Json)
}

pub async fn accept_source(State(app): State<App>, call: Call, At(netid): At<NetId>) -> Result<Json<Source>, ApiError> {
    let shown = shown(&app, &app.view(), netid)?;
    let Some(held) = app.sources.status(netid).and_then(|status| status.held) else {
        let detail = format!("no transfer of NetID {netid} is held back");
        return Err(ApiError::new(StatusCode::CONFLICT, "source-not-held", detail));
    };
    let detail = serde_json::json!({ "serial": held.serial, "reason": held.reason });
    let witness = act::Witness { act: "source.accept", object: netid.to_string(), detail };
    app.committer.commit(call.actor(), witness).await?;
    app.sources.accept(netid, held.serial);
    Ok(Json(shown))
}

fn shown_source(app: &App, view: &View, source: &record::Source) -> Source {
    let status = app.sources.status(source.netid).unwrap_or_default();
    let (tls_name, tls_ca, tls_pin) = match &source.tls {
        None => (None, None, None),
        Some(SourceTls::Pin(pin)) => (None, None, Some(pin.to_string())),
        Some(SourceTls::Ca { name, ca }) => (Some(name.clone()), (!ca.is_empty()).then(|| ca.clone()), None),
    };
    Source {
        netid: source.netid,
        settings: SetSource {
            member: source.member.clone(),
            primary: source.primary,
            zone: source.zone.clone(),
            key: source.key.clone(),
            tls_name,
            tls_ca,
            tls_pin,
            on_expiry: name_of(&source.on_expiry),
        },
        since: Timestamp(source.since),
        state: status.state.label().to_owned(),
        devices: view.zones.devices().count(source.netid),
        theirs: status.theirs,
        looked: status.looked.map(Timestamp),
        succeeded: status.succeeded.map(Timestamp),
        next: status.next.map(Timestamp),
        failures: status.failures,
        error: status.error,
        held: status.held.map(|held| held.reason),
        last: source.progress.as_ref().map(last_transfer),
    }
}

fn last_transfer(progress: &record::Progress) -> LastTransfer {
    LastTransfer {
        serial: progress.serial,
        at: Timestamp(progress.at),
        kind: if progress.incremental { "ixfr" } else { "axfr" }.to_owned(),
        records: progress.records,
        strangers: progress.strangers,
        strangers_shown: progress.strangers_shown.clone(),
        mismatches: progress.mismatches,
        mismatches_shown: progress.mismatches_shown.clone(),
        claimed: progress.claimed,
        claims_shown: progress.claims_shown.clone(),
        outside: progress.outside,
        outside_shown: progress.outside_shown.clone(),
        filled: progress.filled,
        filled_shown: progress.filled_shown.clone(),
    }
}
