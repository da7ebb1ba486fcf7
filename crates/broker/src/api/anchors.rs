//! What the servers of members are trusted by: the federation's CAs, and what members have published for their own.

use axum::Extension;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, State};
use dnsbroker_api::Timestamp;
use dnsbroker_api::message::SetAnchors;
use dnsbroker_api::operator::{Bundle, NetIdAnchors};
use dnsbroker_ca::chain;
use dnsbroker_federation::NetId;
use dnsbroker_store::record::Anchors;
use dnsbroker_store::{View, act};

use super::{ApiError, At, Who};
use crate::app::App;

/// Everything a member's server trusts, for the agent to write into files.
pub async fn bundle(State(app): State<App>) -> Json<Bundle> {
    let (view, authorities) = (app.view(), app.pki.authorities());
    // The issuing CAs too: servers that send their certificate alone are understood as well.
    let all = std::iter::once(&app.pki.root[..]).chain(authorities.all().map(|issuer| issuer.certificate()));
    let anchors = view.anchors.values().filter_map(|anchors| shown(&view, anchors)).collect();
    Json(Bundle { federation: chain::to_pem(all), anchors })
}

/// Publishes the anchors of a NetID, or takes them back.
pub async fn set(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(netid): At<NetId>,
    body: Result<Json<SetAnchors>, JsonRejection>,
) -> Result<Json<Option<NetIdAnchors>>, ApiError> {
    let Json(SetAnchors { pem }) = body?;
    let set = act::SetAnchors { netid, of: who.own().cloned(), pem };
    let published = app.committer.commit(who.actor, set).await?;
    Ok(Json(published.and_then(|anchors| shown(&app.view(), &anchors))))
}

fn shown(view: &View, anchors: &Anchors) -> Option<NetIdAnchors> {
    let network = view.zones.network(anchors.netid)?;
    Some(NetIdAnchors {
        netid: anchors.netid,
        member: network.member.clone(),
        pem: anchors.pem.clone(),
        tlsa: network.tlsa.iter().map(ToString::to_string).collect(),
        since: Timestamp(anchors.since),
    })
}
