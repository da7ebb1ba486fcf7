//! What operators do for themselves, with their certificate.

use axum::Extension;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use dnsbroker_api::Timestamp;
use dnsbroker_api::message::Issued;
use dnsbroker_api::operator::{BrokerAddress, Directory, DirectoryNetwork, Myself, Renew};
use dnsbroker_federation::Zone;
use dnsbroker_store::View;
use dnsbroker_store::act::Reached;

use super::certificates::{issued, renewed, shown};
use super::{ApiError, Who};
use crate::app::App;
use crate::daemon::{DOH_PATH, https_url};
use crate::standby::take_over::reached;

/// A new certificate for the holder of the one it shows.
pub async fn renew(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    body: Result<Json<Renew>, JsonRejection>,
) -> Result<(StatusCode, Json<Issued>), ApiError> {
    let Json(Renew { csr }) = body?;
    let enrolled = renewed(&app, &who, csr.as_bytes()).await?;
    Ok((StatusCode::CREATED, Json(issued(&app, &enrolled))))
}

/// Who the caller is here.
pub async fn myself(State(app): State<App>, Extension(who): Extension<Who>) -> Result<Json<Myself>, ApiError> {
    let view = app.view();
    let (Some(member), Some(certificate)) = (who.own().and_then(|id| view.members.get(id)), &who.certificate) else {
        let detail = "you are an administrator: this is what a member is told of itself";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no-member", detail));
    };
    let held = view.zones.networks().filter(|network| network.member == member.id);
    Ok(Json(Myself {
        member: member.id.clone(),
        name: member.name.clone(),
        netids: held.map(|network| network.netid).collect(),
        certificate: shown(&view, certificate),
        renew_at: Timestamp(certificate.renew_at()),
    }))
}

/// The federation as its members see it.
pub async fn directory(State(app): State<App>) -> Result<Json<Directory>, ApiError> {
    let view = app.view();
    let names = view.zones.names();
    let mut networks = Vec::new();
    for network in view.zones.networks() {
        let label = network.netid.to_string();
        let name = names.apex(Zone::NetId).child(&label).map_err(|error| ApiError::internal(&error))?;
        let member_name = view.members.get(&network.member).map(|member| member.name.clone()).unwrap_or_default();
        networks.push(DirectoryNetwork {
            netid: network.netid,
            member: network.member.clone(),
            member_name,
            name,
            port: network.port,
            target: network.target.clone(),
        });
    }
    Ok(Json(Directory {
        federation: names.apex(Zone::Public).clone(),
        deveuis: names.apex(Zone::DevEui).clone(),
        netids: names.apex(Zone::NetId).clone(),
        brokers: brokers(&app, &view),
        networks,
        issuers: app.pki.authorities().in_use().map(|issuer| issuer.public_key().identifier_text()).collect(),
    }))
}

/// The primary first, then those that stand by.
fn brokers(app: &App, view: &View) -> Vec<BrokerAddress> {
    let primary = view.primary.as_ref().map_or_else(
        || {
            let Reached { name, doh_url, api_url, addresses } = reached(app);
            (name, doh_url, api_url, addresses)
        },
        |known| (known.name.clone(), known.doh_url.clone(), known.api_url.clone(), known.addresses.clone()),
    );
    let (name, doh_url, api_url, addresses) = primary;
    let standbys = view.replicas.values().filter_map(|replica| replica.standby.as_ref());
    let standbys = standbys.filter(|at| at.name != name).map(|at| BrokerAddress {
        name: at.name.clone(),
        doh_url: https_url(&at.name, at.port) + DOH_PATH,
        api_url: at.api_port.map(|port| https_url(&at.name, port)),
        addresses: at.addresses.clone(),
    });
    let api_url = Some(api_url).filter(|url| !url.is_empty());
    let standbys: Vec<BrokerAddress> = standbys.collect();
    std::iter::once(BrokerAddress { name, doh_url, api_url, addresses }).chain(standbys).collect()
}
