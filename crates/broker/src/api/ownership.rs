//! Who may have, see and hand over devices: claims, moves, limits, history, roaming policy.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Json, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dnsbroker_api::Timestamp;
use dnsbroker_api::listed::{ChangeOptions, ListClaims, ListMoves, Order, SortClaims, SortMoves};
use dnsbroker_api::message::{ImportReport, Page};
use dnsbroker_api::operator::DeviceChanges;
use dnsbroker_api::ownership::{
    AcceptMove, CancelMove, Claim, DecideClaims, DeviceEvent, Limits, Move, Moved, NewMove, Policy, PolicyChange,
    ReleaseDevices, Settled, WithdrawClaims,
};
use dnsbroker_federation::{DevEui, MemberId, NetId};
use dnsbroker_store::record::{self, OpenClaim};
use dnsbroker_store::{ClaimFilter, Edited, Object, View, act, history};
use dnsbroker_zone::policy;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{Call, tagged};
use super::devices::report;
use super::paging::{Value, after, limit, page};
use super::{ApiError, At, Who};
use crate::app::App;
use crate::committer::now;

type Body<T> = Result<Json<T>, JsonRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

/// Changes of the policy that one member makes in a minute.
const POLICY_CHANGES: u32 = 10;
/// Devices of a move that are named in a list of moves.
const SHOWN: usize = 100;
/// Devices of a move whose holders are looked up for a list of moves.
const HOLDERS_OF: usize = 1_000;

pub async fn claims(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    query: Asked<ListClaims>,
) -> Result<Json<Page<Claim>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    // There may be many: 100,000 a member.
    let listed = tokio::task::spawn_blocking(move || list_claims(&view, &who, query)).await;
    Ok(Json(listed.map_err(|error| ApiError::internal(&error))??))
}

fn list_claims(view: &View, who: &Who, query: ListClaims) -> Result<Page<Claim>, ApiError> {
    let paging = query.paging();
    let filter = ClaimFilter { claimant: query.claimant, holder: query.holder, deveui: query.deveui };
    // A member sees claims by it, without the holder, and claims against it. To ask for the holder would be to be told.
    let by_holder = filter.holder.is_some();
    let seen = |claim: OpenClaim| match who.own() {
        None => Some(claim),
        Some(own) if claim.claimant == *own => (!by_holder).then(|| claim.without_holder()),
        Some(own) => (claim.holder.as_ref() == Some(own)).then_some(claim),
    };
    let place = |claim: &OpenClaim| {
        let (claimant, device) = (claim.claimant.as_str(), claim.deveui);
        match paging.sort {
            SortClaims::Claimant => (claimant.into(), device.into()),
            SortClaims::Deveui => (device.into(), claimant.into()),
            SortClaims::Since => (claim.since.into(), format!("{device}/{claimant}").into()),
            SortClaims::Seen => (claim.seen.into(), format!("{device}/{claimant}").into()),
        }
    };
    if (paging.sort, paging.order) != (SortClaims::Claimant, Order::Asc) {
        return page(view.claims(&filter, None).filter_map(seen), &paging, place, shown_claim);
    }
    // As they are kept: nothing is looked at but the page.
    let from = match after(&paging)? {
        Some((Value::Text(claimant), Value::Text(device))) => claimant.parse().ok().zip(device.parse().ok()),
        _ => None,
    };
    let most = limit(&paging)? + 1;
    page(view.claims(&filter, from.as_ref()).filter_map(seen).take(most), &paging, place, shown_claim)
}

fn shown_claim(claim: OpenClaim) -> Claim {
    Claim {
        deveui: claim.deveui,
        claimant: claim.claimant,
        netid: claim.netid,
        holder: claim.holder,
        held: claim.held,
        since: Timestamp(claim.since),
        seen: Timestamp(claim.seen),
        rejected: claim.rejected.map(|rejection| rejection.reason),
    }
}

fn settled(settled: act::Settled) -> Json<Settled> {
    let act::Settled { moved, removed, closed, serial } = settled;
    Json(Settled { moved, removed, closed, serial })
}

pub async fn decide(State(app): State<App>, call: Call, body: Body<DecideClaims>) -> Result<Json<Settled>, ApiError> {
    let Json(DecideClaims { claimant, devices, grant, reason }) = body?;
    let decide = act::DecideClaims { claimant, devices, grant, reason };
    Ok(settled(app.committer.commit(call.actor(), decide).await?))
}

pub async fn withdraw(
    State(app): State<App>,
    call: Call,
    body: Body<WithdrawClaims>,
) -> Result<Json<Settled>, ApiError> {
    let Json(WithdrawClaims { claimant, devices }) = body?;
    let claimant = on_behalf(&call.who, claimant, "claimant")?;
    Ok(settled(app.committer.commit(call.actor(), act::WithdrawClaims { claimant, devices }).await?))
}

/// The member that a request is about: the caller itself, or whom an administrator names.
fn on_behalf(who: &Who, named: Option<MemberId>, parameter: &str) -> Result<MemberId, ApiError> {
    match (who.own(), named) {
        (Some(own), Some(named)) if named != *own => {
            let detail = format!("you are member {own}, and act for yourself alone");
            Err(ApiError::new(StatusCode::FORBIDDEN, "not-yours", detail))
        }
        (Some(own), _) => Ok(own.clone()),
        (None, Some(named)) => Ok(named),
        (None, None) => Err(ApiError::parameter(parameter, "", "is missing: an administrator has to name the member")),
    }
}

pub async fn release(
    State(app): State<App>,
    call: Call,
    body: Body<ReleaseDevices>,
) -> Result<Json<Settled>, ApiError> {
    let Json(ReleaseDevices { devices, to, reason }) = body?;
    let release = act::Release { devices, holder: call.who.own().cloned(), to, reason };
    Ok(settled(app.committer.commit(call.actor(), release).await?))
}

pub async fn moves(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    query: Asked<ListMoves>,
) -> Result<Json<Page<Move>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let concerns =
        |planned: &record::Move, member: &MemberId| planned.to == *member || planned.from.as_ref() == Some(member);
    let wanted = |planned: &record::Move| {
        who.own().is_none_or(|own| concerns(planned, own))
            && query.member.as_ref().is_none_or(|member| concerns(planned, member))
    };
    let (moves, paging) = (view.ownership.moves.values().filter(|planned| wanted(planned)), query.paging());
    let place = |planned: &&Arc<record::Move>| {
        let by = match paging.sort {
            SortMoves::Id => planned.id.into(),
            SortMoves::At => planned.at.into(),
            SortMoves::Created => planned.created.into(),
            SortMoves::Devices => (planned.devices.len() as u64).into(),
        };
        (by, planned.id.into())
    };
    let holders = |planned: &record::Move| match who.own() {
        None => holders(&view, planned),
        // Who holds what another member gets by an administrator's order is not for it to know.
        Some(_) => vec![],
    };
    Ok(Json(page(moves, &paging, place, |planned| Move { holders: holders(planned), ..shown_move(planned) })?))
}

fn holders(view: &View, planned: &record::Move) -> Vec<MemberId> {
    let devices = planned.devices.iter().take(HOLDERS_OF);
    devices.filter_map(|device| view.holder(*device)).collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

fn shown_move(planned: &record::Move) -> Move {
    let state = match planned {
        record::Move { lowered: true, .. } => "prepared",
        record::Move { accepted: Some(_), .. } => "planned",
        _ => "offered",
    };
    Move {
        id: planned.id,
        devices: planned.devices.len() as u64,
        devices_shown: planned.devices.iter().copied().take(SHOWN).collect(),
        from: planned.from.clone(),
        holders: vec![],
        to: planned.to.clone(),
        netid: planned.netid,
        at: planned.at.map(Timestamp),
        reason: planned.reason.clone(),
        created: Timestamp(planned.created),
        state: state.to_owned(),
    }
}

fn moved(moved: &act::Moved) -> Moved {
    let act::Moved { waits, moved, stayed, filled, serial } = moved.clone();
    Moved { waits, moved, stayed, filled, serial }
}

pub async fn create_move(State(app): State<App>, call: Call, body: Body<NewMove>) -> Result<Response, ApiError> {
    let Json(new) = body?;
    let NewMove { devices, netid, to, at, before, reason } = new.clone();
    let at = at.map(|at| at.0);
    let done = match (call.who.own().cloned(), netid, to) {
        (Some(holder), None, Some(to)) => {
            let offer = act::OfferMove { holder, devices, to, at, before, reason };
            call.create(&app, &new, offer, moved).await
        }
        (None, Some(to), None) => {
            let order = act::MoveDevices { devices, to, at, before, reason };
            call.create(&app, &new, order, moved).await
        }
        (Some(_), ..) => {
            let why = "is to be named with `to`, and nothing else: the receiver says under which NetID";
            return Err(ApiError::parameter("receiver", "", why));
        }
        (None, ..) => {
            return Err(ApiError::parameter(
                "netid",
                "",
                "is to be given, and nothing else: its holder gets the devices",
            ));
        }
    };
    app.moves.wake();
    done
}

pub async fn accept_move(
    State(app): State<App>,
    call: Call,
    At(id): At<u64>,
    body: Body<AcceptMove>,
) -> Result<Json<Moved>, ApiError> {
    let Json(AcceptMove { netid }) = body?;
    let holder = app.view().zones.network(netid).map(|network| network.member.clone());
    let receiver = match call.who.own() {
        Some(own) => own.clone(),
        None => holder.ok_or_else(|| ApiError::not_found("netid-unknown", format!("NetID {netid} is not here")))?,
    };
    let done = app.committer.commit(call.actor(), act::AcceptMove { id, receiver, netid }).await?;
    app.moves.wake();
    Ok(Json(moved(&done)))
}

pub async fn cancel_move(
    State(app): State<App>,
    call: Call,
    At(id): At<u64>,
    body: Body<CancelMove>,
) -> Result<StatusCode, ApiError> {
    let Json(CancelMove { reason }) = body?;
    let cancel = act::CancelMove { id, member: call.who.own().cloned(), reason };
    app.committer.commit(call.actor(), cancel).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A device's history. A member sees it while it holds the device.
pub async fn history(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(deveui): At<DevEui>,
) -> Result<Json<Page<DeviceEvent>>, ApiError> {
    let view = app.view();
    if who.own().is_some() && !who.may_see(view.holder(deveui)) {
        return Err(ApiError::not_found("device-unknown", format!("device {deveui} is not registered by you")));
    }
    let (engine, now) = (app.engine.clone(), view.zones.devices().get(deveui));
    let found = tokio::task::spawn_blocking(move || history::of_device(&*engine, deveui, now)).await;
    let found = found.map_err(|error| ApiError::internal(&error))??;
    let items = found.into_iter().map(|event| DeviceEvent {
        number: event.number,
        at: Timestamp(event.at),
        actor: event.actor,
        act: event.act,
        serial: event.serial,
        from: event.from,
        to: event.to,
        among: event.among,
    });
    Ok(Json(Page { items: items.collect(), next: None }))
}

type Listing = Result<Path<(MemberId, NetId)>, PathRejection>;

/// Devices that come and go, in one step.
pub async fn change_devices(
    State(app): State<App>,
    call: Call,
    at: Listing,
    query: Asked<ChangeOptions>,
    body: Body<DeviceChanges>,
) -> Result<Response, ApiError> {
    let (Path((member, netid)), Query(ChangeOptions { dry_run, allow_shrink })) = (at?, query?);
    let Json(DeviceChanges { add, remove }) = body?;
    let change = act::DeviceChanges { member, netid, add, remove, allow_shrink, dry_run };
    let Edited { done, revision } = call.change(&app, Object::Devices(netid), change).await?;
    let report: ImportReport = report(&app, done, 0, vec![]);
    Ok(tagged(revision, report))
}

pub async fn limits(State(app): State<App>, At(id): At<MemberId>) -> Result<Response, ApiError> {
    let view = app.view();
    if !view.members.contains_key(&id) {
        return Err(ApiError::not_found("member-unknown", format!("there is no member {id}")));
    }
    let shown = view.ownership.limits.get(&id).map(|limits| shown_limits(limits)).unwrap_or_default();
    Ok(tagged(view.revision(&Object::Limits(id)), shown))
}

fn shown_limits(limits: &record::Limits) -> Limits {
    Limits { ranges: limits.ranges.iter().map(ToString::to_string).collect(), quota: limits.quota }
}

pub async fn set_limits(
    State(app): State<App>,
    call: Call,
    At(id): At<MemberId>,
    body: Body<Limits>,
) -> Result<Response, ApiError> {
    let Json(Limits { ranges, quota }) = body?;
    let ranges = ranges.iter().map(|text| text.parse().map_err(|error| ApiError::parameter("range", text, error)));
    let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
    let set = act::SetLimits { member: id.clone(), ranges, quota };
    let Edited { done: limits, revision } = call.change(&app, Object::Limits(id), set).await?;
    Ok(tagged(revision, shown_limits(&limits)))
}

/// The same document in the words of another crate: both have the same JSON form.
fn reworded<T: DeserializeOwned>(name: &str, document: &impl Serialize) -> Result<T, ApiError> {
    let value = serde_json::to_value(document).map_err(|error| ApiError::internal(&error))?;
    serde_json::from_value(value).map_err(|error| ApiError::parameter(name, "document", error))
}

/// To a member what it has set and may change, and its own agreements; who hides from it is not for it to know.
pub async fn policy(State(app): State<App>, Extension(who): Extension<Who>) -> Result<Response, ApiError> {
    let view = app.view();
    let mut shown: Policy = reworded("policy", view.zones.policy())?;
    let Some(own) = who.own() else { return Ok(tagged(view.revision(&Object::Policy), shown)) };
    let holds = |netid: &NetId| view.zones.network(*netid).is_some_and(|network| network.member == *own);
    shown.agreements.retain(|pair| pair.contains(own));
    shown.deny.retain(|ban| ban.holder.as_ref() == Some(own) || ban.netid.as_ref().is_some_and(holds));
    shown.netids.retain(|netid, _| holds(netid));
    Ok(Json(shown).into_response())
}

pub async fn set_policy(State(app): State<App>, call: Call, body: Body<Policy>) -> Result<Response, ApiError> {
    let Json(document) = body?;
    let set = act::SetPolicy { policy: reworded("policy", &document)? };
    call.change(&app, Object::Policy, set).await?;
    policy(State(app), Extension(call.who)).await
}

pub async fn change_policy(State(app): State<App>, call: Call, body: Body<PolicyChange>) -> Result<Response, ApiError> {
    let Json(change) = body?;
    let change = the_one(change)?;
    let member = call.who.own().cloned();
    // Each change makes every secondary fetch the zones as a whole.
    if let Some(own) = &member {
        let left = app.quotas.count(&format!("policy:{own}"), POLICY_CHANGES, now());
        if left.exceeded {
            return Err(ApiError::too_many("a member changes the policy a few times a minute", left.reset));
        }
    }
    call.change(&app, Object::Policy, act::ChangePolicy { change, member }).await?;
    policy(State(app), Extension(call.who)).await
}

fn the_one(change: PolicyChange) -> Result<act::PolicyChange, ApiError> {
    use act::PolicyChange as Change;
    let PolicyChange { default, tell, agree, part, deny, permit, share, unshare } = change;
    let agreement = |pair: [MemberId; 2]| {
        let [one, other] = pair;
        policy::Agreement::new(one, other)
            .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "policy-invalid", error))
    };
    let mut changes = Vec::new();
    changes.extend(default.map(|stance| reworded("default", &stance).map(Change::Default)));
    changes.extend(tell.map(|tell| Ok(Change::Tell(tell))));
    changes.extend(agree.map(|pair| agreement(pair).map(Change::Agree)));
    changes.extend(part.map(|pair| agreement(pair).map(Change::Part)));
    changes.extend(deny.map(|ban| reworded("deny", &ban).map(Change::Deny)));
    changes.extend(permit.map(|ban| reworded("permit", &ban).map(Change::Permit)));
    changes.extend(share.map(|share| reworded("sharing", &share.sharing).map(|to| Change::Share(share.netid, to))));
    changes.extend(unshare.map(|netid| Ok(Change::Unshare(netid))));
    match (changes.pop(), changes.is_empty()) {
        (Some(change), true) => change,
        _ => Err(ApiError::parameter("change", "", "is one rule: give exactly one of the fields")),
    }
}
