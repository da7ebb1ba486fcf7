//! Members and their NetIDs.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Json, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dnsbroker_api::Timestamp;
use dnsbroker_api::listed::{ListMembers, ListNetids, SortMembers, SortNetids};
use dnsbroker_api::message::{ChangeMember, Grace, Member, Network, NewMember, Page, Reason, SetNetwork};
use dnsbroker_ca::Principal;
use dnsbroker_federation::{DomainName, MemberId, NetId};
use dnsbroker_store::{Edited, Object, View, act, record};
use dnsbroker_zone::delta;

use super::call::{Call, tagged};
use super::paging::page;
use super::{ApiError, At};
use crate::app::App;
use crate::committer::now;

type Body<T> = Result<Json<T>, JsonRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

pub async fn list(State(app): State<App>, query: Asked<ListMembers>) -> Result<Json<Page<Member>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let text = query.text.as_ref().map(|text| text.to_lowercase());
    let wanted = |member: &record::Member| {
        query.suspended.is_none_or(|suspended| member.suspended.is_some() == suspended)
            && text
                .as_ref()
                .is_none_or(|text| member.id.as_str().contains(text) || member.name.to_lowercase().contains(text))
    };
    let paging = query.paging();
    let sums = Sums::of(&view, paging.sort);
    let place = |member: &&Arc<record::Member>| {
        let by = match paging.sort {
            SortMembers::Id => (&member.id).into(),
            SortMembers::Name => member.name.to_lowercase().into(),
            SortMembers::Since => member.since.into(),
            SortMembers::Devices => sums.devices.get(&member.id).copied().unwrap_or_default().into(),
            SortMembers::CertifiedUntil => sums.certified.get(&member.id).copied().into(),
        };
        (by, (&member.id).into())
    };
    let members = view.members.values().filter(|member| wanted(member));
    Ok(Json(page(members, &paging, place, |member| shown(&view, member))?))
}

/// What is no field of a member's row, for all members in one pass.
#[derive(Default)]
struct Sums {
    devices: HashMap<MemberId, u64>,
    certified: HashMap<MemberId, i64>,
}

impl Sums {
    fn of(view: &View, sort: SortMembers) -> Self {
        let mut sums = Self::default();
        match sort {
            SortMembers::Devices => {
                for network in view.zones.networks() {
                    let count = view.zones.devices().count(network.netid);
                    *sums.devices.entry(network.member.clone()).or_default() += count;
                }
            }
            SortMembers::CertifiedUntil => {
                for (member, certificate) in view.current_certificates(now()) {
                    sums.certified.insert(member.clone(), certificate.not_after);
                }
            }
            _ => {}
        }
        sums
    }
}

pub async fn add(State(app): State<App>, call: Call, body: Body<NewMember>) -> Result<Response, ApiError> {
    let Json(new) = body?;
    let (id, name) = (new.id.clone(), new.name.clone().unwrap_or_else(|| new.id.to_string()));
    let parts = app.clone();
    call.create(&app, &new, act::AddMember { id, name }, move |member| shown(&parts.view(), member)).await
}

pub async fn show(State(app): State<App>, At(id): At<MemberId>) -> Result<Response, ApiError> {
    let view = app.view();
    match view.members.get(&id) {
        Some(member) => Ok(tagged(view.revision(&Object::Member(id)), shown(&view, member))),
        None => Err(crate::committer::CommitError::Refused(dnsbroker_store::Refusal::NoMember(id)).into()),
    }
}

pub async fn change(
    State(app): State<App>,
    call: Call,
    At(id): At<MemberId>,
    body: Body<ChangeMember>,
) -> Result<Response, ApiError> {
    let Json(ChangeMember { name }) = body?;
    let rename = act::RenameMember { id: id.clone(), name };
    let Edited { done: member, revision } = call.change(&app, Object::Member(id), rename).await?;
    Ok(tagged(revision, shown(&app.view(), &member)))
}

pub async fn remove(State(app): State<App>, call: Call, At(id): At<MemberId>) -> Result<StatusCode, ApiError> {
    call.change(&app, Object::Member(id.clone()), act::RemoveMember { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn suspend(
    State(app): State<App>,
    call: Call,
    At(id): At<MemberId>,
    body: Body<Reason>,
) -> Result<Json<Member>, ApiError> {
    let Json(Reason { reason }) = body?;
    let member = call.change(&app, Object::Member(id.clone()), act::SuspendMember { id, reason }).await?.done;
    Ok(Json(shown(&app.view(), &member)))
}

pub async fn resume(State(app): State<App>, call: Call, At(id): At<MemberId>) -> Result<Json<Member>, ApiError> {
    let member = call.change(&app, Object::Member(id.clone()), act::ResumeMember { id }).await?.done;
    Ok(Json(shown(&app.view(), &member)))
}

pub async fn networks(State(app): State<App>, query: Asked<ListNetids>) -> Result<Json<Page<Network>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let wanted = |network: &&delta::Network| query.member.as_ref().is_none_or(|member| network.member == *member);
    let (networks, paging) = (view.zones.networks().filter(wanted), query.paging());
    let place = |network: &&delta::Network| {
        let by = match paging.sort {
            SortNetids::Netid => network.netid.into(),
            SortNetids::Member => (&network.member).into(),
            SortNetids::Devices => view.zones.devices().count(network.netid).into(),
        };
        (by, network.netid.into())
    };
    Ok(Json(page(networks, &paging, place, |network| shown_network(&view, network))?))
}

pub async fn network(State(app): State<App>, At(netid): At<NetId>) -> Result<Response, ApiError> {
    let view = app.view();
    match view.zones.network(netid) {
        Some(network) => {
            let revision = view.revision(&Object::Network(netid));
            Ok(tagged(revision, shown_network(&view, network)))
        }
        None => Err(crate::committer::CommitError::Refused(dnsbroker_store::Refusal::NoNetwork(netid)).into()),
    }
}

pub async fn set_network(
    State(app): State<App>,
    call: Call,
    At(netid): At<NetId>,
    body: Body<SetNetwork>,
) -> Result<Response, ApiError> {
    let Json(SetNetwork { member, addresses, port, target }) = body?;
    let network = delta::Network { netid, member, addresses, port, target, tlsa: vec![] };
    let set = act::SetNetwork { network };
    let Edited { done: network, revision } = call.change(&app, Object::Network(netid), set).await?;
    Ok(tagged(revision, shown_network(&app.view(), &network)))
}

pub async fn remove_network(State(app): State<App>, call: Call, At(netid): At<NetId>) -> Result<StatusCode, ApiError> {
    call.change(&app, Object::Network(netid), act::RemoveNetwork { netid }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn grace(
    State(app): State<App>,
    call: Call,
    At(id): At<MemberId>,
    body: Body<Grace>,
) -> Result<Json<Member>, ApiError> {
    let Json(Grace { seconds }) = body?;
    let until = (seconds != 0).then(|| now().saturating_add(seconds));
    let member = call.change(&app, Object::Member(id.clone()), act::OpenGrace { id, until }).await?.done;
    Ok(Json(shown(&app.view(), &member)))
}

type Named = Result<Path<(MemberId, DomainName)>, PathRejection>;

pub async fn approve(State(app): State<App>, call: Call, at: Named) -> Result<Json<Member>, ApiError> {
    let Path((id, name)) = at?;
    let member =
        call.change(&app, Object::Member(id.clone()), act::ApproveName { id, name, approved: true }).await?.done;
    Ok(Json(shown(&app.view(), &member)))
}

pub async fn withdraw(State(app): State<App>, call: Call, at: Named) -> Result<Json<Member>, ApiError> {
    let Path((id, name)) = at?;
    let member =
        call.change(&app, Object::Member(id.clone()), act::ApproveName { id, name, approved: false }).await?.done;
    Ok(Json(shown(&app.view(), &member)))
}

fn shown(view: &View, member: &record::Member) -> Member {
    let netids: Vec<NetId> =
        view.zones.networks().filter(|network| network.member == member.id).map(|network| network.netid).collect();
    Member {
        id: member.id.clone(),
        name: member.name.clone(),
        since: Timestamp(member.since),
        suspended: member.suspended.as_ref().map(|suspension| suspension.reason.clone()),
        grace: member.grace.filter(|until| *until > now()).map(Timestamp),
        names: member.names.iter().cloned().collect(),
        certified_until: view
            .current_certificate(&Principal::Member(member.id.clone()), now())
            .map(|certificate| Timestamp(certificate.not_after)),
        devices: netids.iter().map(|netid| view.zones.devices().count(*netid)).sum(),
        netids,
    }
}

fn shown_network(view: &View, network: &delta::Network) -> Network {
    Network {
        netid: network.netid,
        member: network.member.clone(),
        addresses: network.addresses.clone(),
        port: network.port,
        target: network.target.clone(),
        devices: view.zones.devices().count(network.netid),
        name: view.zones.names().network_name(network.netid),
    }
}
