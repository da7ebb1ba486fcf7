//! Figures: all of them to administrators, its own share to a member.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::extract::{Json, State};
use dnsbroker_api::Timestamp;
use dnsbroker_api::statistics::{
    ClaimsWaiting, Ending, MemberShare, NetworkShare, SourceTrouble, Statistics, TransferShown,
};
use dnsbroker_federation::MemberId;
use dnsbroker_store::{ClaimFilter, View};

use super::{ApiError, Who};
use crate::app::App;
use crate::committer::now;
use crate::expiry::holders;
use crate::histogram::latency;
use crate::source::State as SourceState;
use crate::statistics::answers;

/// Certificates that end within so many seconds are told.
const SOON: i64 = 30 * 86_400;

pub async fn show(State(app): State<App>, Extension(who): Extension<Who>) -> Result<Json<Statistics>, ApiError> {
    // Claims, certificates and OUIs are walked over: not on a thread that serves others.
    let made = tokio::task::spawn_blocking(move || match who.own() {
        Some(member) => of_member(&app, member),
        None => of_all(&app),
    });
    made.await.map(Json).map_err(|error| ApiError::internal(&error))
}

fn of_all(app: &App) -> Statistics {
    let view = app.view();
    let (seconds, minutes) = app.statistics.pulses();
    let sample = app.shared.metrics.sample();
    Statistics {
        seconds,
        minutes,
        latency: latency(&app.statistics.recent()),
        answers: answers(&sample.answers, 1.0),
        connections: app.shared.metrics.connections(),
        ouis: app.statistics.ouis(&view).to_vec(),
        ..shared(app, &view, None)
    }
}

fn of_member(app: &App, member: &MemberId) -> Statistics {
    let tally = app.shared.tally(member);
    Statistics {
        answers: answers(&tally.answers(), 1.0),
        connections: tally.connections.load(Ordering::Relaxed) as u64,
        ..shared(app, &app.view(), Some(member))
    }
}

/// What both get: of all, or of one member.
fn shared(app: &App, view: &View, own: Option<&MemberId>) -> Statistics {
    let is_own = |member: &MemberId| own.is_none_or(|own| own == member);
    let devices = view.zones.devices();
    let mut networks: Vec<NetworkShare> = view
        .zones
        .networks()
        .filter(|network| is_own(&network.member))
        .map(|network| NetworkShare {
            netid: network.netid,
            member: network.member.clone(),
            devices: devices.count(network.netid),
        })
        .collect();
    networks.sort_by_key(|network| (Reverse(network.devices), network.netid));
    let mut held: BTreeMap<&MemberId, u64> = BTreeMap::new();
    networks.iter().for_each(|network| *held.entry(&network.member).or_default() += network.devices);
    let share = |member: &MemberId| {
        let tally = app.shared.tally(member);
        MemberShare {
            member: member.clone(),
            devices: held.get(member).copied().unwrap_or_default(),
            queries: tally.answers().iter().sum(),
            connections: tally.connections.load(Ordering::Relaxed) as u64,
        }
    };
    let mut members: Vec<MemberShare> = view.members.keys().filter(|id| is_own(id)).map(share).collect();
    members.sort_by_key(|share| (Reverse(share.devices), share.member.clone()));
    let of_own = |transfer: &TransferShown| own.is_none_or(|own| transfer.member.as_ref() == Some(own));
    Statistics {
        devices: members.iter().map(|share| share.devices).sum(),
        certificates: ending(app, view, own),
        sources: troubled(app, view, own),
        claims: claims(view, own),
        transfers: app.shared.transfers.list().into_iter().filter(of_own).collect(),
        members,
        networks,
        ..Statistics::default()
    }
}

/// Certificates whose holder has no better one.
fn ending(app: &App, view: &View, own: Option<&MemberId>) -> Vec<Ending> {
    let now = now();
    let mut ending = Vec::new();
    if own.is_none() {
        let expiries = app.expiries.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        ending.extend(expiries.into_iter().filter(|(_, end)| *end < now + SOON).map(|(name, not_after)| Ending {
            name,
            serial: None,
            member: None,
            not_after: Timestamp(not_after),
        }));
    }
    // The last to end of each holder. One that is not yet due is renewed by its holder in time.
    for (name, certificate) in holders(view, now) {
        let of_another = own.is_some_and(|own| certificate.member.as_ref() != Some(own));
        if of_another || certificate.not_after >= now + SOON || now < certificate.renew_at() {
            continue;
        }
        ending.push(Ending {
            name,
            serial: Some(certificate.serial.to_string()),
            member: certificate.member.clone(),
            not_after: Timestamp(certificate.not_after),
        });
    }
    ending.sort_by_key(|ending| ending.not_after);
    ending
}

pub(super) fn troubled(app: &App, view: &View, own: Option<&MemberId>) -> Vec<SourceTrouble> {
    let sources = view.sources.values().filter(|source| own.is_none_or(|own| source.member == *own));
    let trouble = sources.filter_map(|source| {
        let status = app.sources.status(source.netid)?;
        let reason = match status.state {
            SourceState::Held => status.held.map(|held| held.reason),
            SourceState::Failing | SourceState::Expired => status.error,
            SourceState::New | SourceState::Busy | SourceState::Current => return None,
        };
        Some(SourceTrouble {
            netid: source.netid,
            member: source.member.clone(),
            state: status.state.label().to_owned(),
            reason: reason.unwrap_or_default(),
        })
    });
    trouble.collect()
}

pub(super) fn claims(view: &View, own: Option<&MemberId>) -> ClaimsWaiting {
    let count =
        |filter: ClaimFilter| view.claims(&filter, None).filter(|claim| claim.rejected.is_none()).count() as u64;
    match own {
        None => ClaimsWaiting { waiting: count(ClaimFilter::default()), made: None, against: None },
        Some(own) => {
            let made = count(ClaimFilter { claimant: Some(own.clone()), ..ClaimFilter::default() });
            let against = count(ClaimFilter { holder: Some(own.clone()), ..ClaimFilter::default() });
            ClaimsWaiting { waiting: made + against, made: Some(made), against: Some(against) }
        }
    }
}
