//! REST under `/api/v1`, EST under `/.well-known/est`: each handler reads its input, calls one act or view, and shapes the
//! answer.
//!
//! Every listener has all routes; who calls comes from the connection, and what each route asks of its caller stands in
//! one table here.

mod anchors;
mod call;
pub mod caller;
mod certificates;
mod devices;
mod error;
mod est;
mod events;
mod exchange;
mod members;
mod openapi;
mod operator;
mod ownership;
mod paging;
mod path;
pub mod quota;
#[cfg(test)]
mod reference;
mod replication;
mod request_id;
mod sessions;
mod standby;
mod statistics;
mod webhooks;
mod zones;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::Method;
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, on, post};
use dnsbroker_api::endpoint::Endpoint;
use dnsbroker_api::endpoints;

use crate::app::App;
pub use caller::{Caller, Gate, Need, Who};
use caller::{permit, scope_of};
use dnsbroker_store::record::Scope;
pub use error::ApiError;
pub use events::Streams;
pub use path::At;
pub use zones::ZONES;

/// JSON bodies are at most this long, in octets.
const MAX_JSON: usize = 1024 * 1024;
/// Lists of devices are at most this long, in octets, as they are sent.
const MAX_LIST: usize = 4 * 1024 * 1024 * 1024;

/// An endpoint, what it asks of its caller, and who answers.
pub struct Route {
    /// What is known of it everywhere.
    pub endpoint: &'static Endpoint,
    /// Who may.
    pub gate: Gate,
    handler: MethodRouter<App>,
}

/// The route of an endpoint.
fn route<H, T>(name: &str, need: Need, handler: H) -> Option<Route>
where
    H: Handler<T, App>,
    T: 'static,
{
    let endpoint = endpoints::named(name)?;
    let method = Method::from_bytes(endpoint.method.as_bytes()).ok().and_then(|method| method.try_into().ok())?;
    // A backup has sealed secrets and the issuing key: who only reads does not read that.
    let gate = Gate { need, scope: scope_of(endpoint.path), secret: name == "backup" };
    Some(Route { endpoint, gate, handler: on(method, handler) })
}

/// All endpoints. That none is missing is held by a test: a name that is not known has no route.
pub fn table() -> Vec<Route> {
    use Need::{Administrator, Certificate, Look, Member, Nothing, Own, Session};
    let routes = [
        route("enroll", Nothing, certificates::enroll),
        route("ca_show", Nothing, certificates::ca),
        route("renew", Certificate, operator::renew),
        route("myself", Member, operator::myself),
        route("directory", Member, operator::directory),
        route("bundle", Member, anchors::bundle),
        route("session_open", Nothing, sessions::open),
        route("session_show", Nothing, sessions::show),
        route("session_close", Nothing, sessions::close),
        route("session_password", Session, sessions::change_password),
        route("session_totp_begin", Session, sessions::begin_totp),
        route("session_totp_confirm", Session, sessions::confirm_totp),
        route("session_list", Session, sessions::list),
        route("session_end", Session, sessions::end),
        route("administrator_list", Look, sessions::administrators),
        route("administrator_add", Administrator, sessions::add_administrator),
        route("administrator_change", Administrator, sessions::change_administrator),
        route("administrator_remove", Administrator, sessions::remove_administrator),
        route("api_token_list", Member, sessions::api_tokens),
        route("api_token_create", Member, sessions::create_api_token),
        route("api_token_revoke", Member, sessions::revoke_api_token),
        route("claim_list", Member, ownership::claims),
        route("claim_decide", Administrator, ownership::decide),
        route("claim_withdraw", Member, ownership::withdraw),
        route("device_release", Member, ownership::release),
        route("move_list", Member, ownership::moves),
        route("move_create", Member, ownership::create_move),
        route("move_accept", Member, ownership::accept_move),
        route("move_cancel", Member, ownership::cancel_move),
        route("device_history", Member, ownership::history),
        route("device_change", Own, ownership::change_devices),
        route("limits_show", Own, ownership::limits),
        route("limits_set", Administrator, ownership::set_limits),
        route("policy_show", Member, ownership::policy),
        route("policy_set", Administrator, ownership::set_policy),
        route("policy_change", Member, ownership::change_policy),
        route("status", Look, zones::status),
        route("member_list", Look, members::list),
        route("member_add", Administrator, members::add),
        route("member_show", Own, members::show),
        route("member_change", Administrator, members::change),
        route("member_remove", Administrator, members::remove),
        route("member_suspend", Administrator, members::suspend),
        route("member_resume", Administrator, members::resume),
        route("member_grace", Administrator, members::grace),
        route("member_approve", Administrator, members::approve),
        route("member_withdraw", Administrator, members::withdraw),
        route("device_import", Own, devices::import),
        route("device_replace", Own, devices::replace),
        route("netid_list", Member, members::networks),
        route("netid_show", Member, members::network),
        route("netid_set", Administrator, members::set_network),
        route("netid_remove", Administrator, members::remove_network),
        route("netid_anchors", Member, anchors::set),
        route("token_list", Look, certificates::tokens),
        route("token_create", Administrator, certificates::create_token),
        route("certificate_list", Member, certificates::list),
        route("certificate_issue", Member, certificates::issue),
        route("certificate_show", Member, certificates::show),
        route("certificate_revoke", Member, certificates::revoke),
        route("certificate_renew", Administrator, certificates::renew),
        route("certificate_revoke_several", Administrator, certificates::revoke_several),
        route("ca_request", Administrator, certificates::request_issuing),
        route("ca_install", Administrator, certificates::install_issuing),
        route("ca_retire", Administrator, certificates::retire_issuing),
        route("root_crl_install", Administrator, certificates::install_root_crl),
        route("crl_list", Look, certificates::crls),
        route("device_list", Member, devices::list),
        route("device_show", Member, devices::show),
        route("device_lookup", Member, devices::lookup),
        route("key_list", Look, exchange::keys),
        route("key_create", Administrator, exchange::create_key),
        route("key_revoke", Administrator, exchange::revoke_key),
        route("replica_list", Look, exchange::replicas),
        route("replica_show", Look, exchange::replica),
        route("replica_set", Administrator, exchange::set_replica),
        route("replica_remove", Administrator, exchange::remove_replica),
        route("source_list", Member, exchange::sources),
        route("source_show", Member, exchange::source),
        route("source_set", Administrator, exchange::set_source),
        route("source_remove", Administrator, exchange::remove_source),
        route("source_refresh", Member, exchange::refresh_source),
        route("source_accept", Administrator, exchange::accept_source),
        route("zone_list", Look, zones::list),
        route("zone_check", Look, zones::check),
        route("zone_export", Look, zones::export),
        route("audit_list", Look, zones::audit),
        route("audit_verify", Look, zones::verify_audit),
        route("backup", Administrator, zones::backup),
        route("events", Member, events::listen),
        route("statistics", Member, statistics::show),
        route("replication", Certificate, replication::follow),
        route("replication_certificate", Certificate, replication::certificate),
        route("replication_heard", Certificate, replication::heard),
        route("replication_login", Certificate, replication::login),
        route("replication_fence", Certificate, replication::fence),
        route("webhook_list", Member, webhooks::list),
        route("webhook_add", Member, webhooks::add),
        route("webhook_show", Member, webhooks::show),
        route("webhook_set", Member, webhooks::set),
        route("webhook_remove", Member, webhooks::remove),
        route("webhook_test", Member, webhooks::test),
        route("standby", Look, standby::show),
        route("standby_promote", Administrator, standby::promote),
    ];
    routes.into_iter().flatten().collect()
}

/// What is not part of the API: its description, and EST.
fn others() -> [(&'static str, Need, MethodRouter<App>); 5] {
    [
        ("/api/v1/openapi.json", Need::Nothing, get(openapi::serve)),
        ("/.well-known/est/cacerts", Need::Nothing, get(est::cacerts)),
        ("/.well-known/est/csrattrs", Need::Nothing, get(est::csrattrs)),
        ("/.well-known/est/simpleenroll", Need::Nothing, post(est::simpleenroll)),
        ("/.well-known/est/simplereenroll", Need::Certificate, post(est::simplereenroll)),
    ]
}

/// All routes.
pub fn routes(app: App) -> Router {
    let table = table().into_iter().map(|route| (route.endpoint.path, route.gate, route.handler));
    let others = others()
        .into_iter()
        .map(|(path, need, handler)| (path, Gate { need, scope: Scope::Certificates, secret: false }, handler));
    let mut router = Router::new();
    for (path, gate, handler) in table.chain(others) {
        // Lists are read as they come, and bounded by what they hold.
        let limit = match path.ends_with("/devices") || path.starts_with("/api/v1/devices") {
            true => DefaultBodyLimit::max(MAX_LIST),
            false => DefaultBodyLimit::max(MAX_JSON),
        };
        let permit = from_fn_with_state(app.clone(), move |state, parameters, request, next| {
            permit(gate, state, parameters, request, next)
        });
        router = router.route(path, handler.route_layer(limit).route_layer(permit));
    }
    router
        .merge(crate::ui::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(log))
        .with_state(app)
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no-route", format!("there is nothing at {}", uri.path()))
}

async fn no_method(request: Request) -> ApiError {
    let detail = format!("{} is not a method of {}", request.method(), request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "no-method", detail)
}

/// One line a request: who, what, result. Queries and bodies stay out of it; they may have secrets.
async fn log(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().map(ToString::to_string);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request_id::of(request.headers());
    let mut response = request_id::scope(id.clone(), next.run(request)).await;
    request_id::tell(&id, response.headers_mut());
    let (status, request) = (response.status().as_u16(), id);
    if method == Method::GET && status < 400 {
        tracing::debug!(request, caller, %method, path, status, "api");
    } else {
        tracing::info!(request, caller, %method, path, status, "api");
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_endpoint_has_one_route() {
        let routed: Vec<&str> = table().iter().map(|route| route.endpoint.name).collect();
        let known: BTreeSet<&str> = endpoints::all().map(|endpoint| endpoint.name).collect();
        assert_eq!(routed.len(), known.len(), "some endpoint has no route, or two");
        assert_eq!(routed.into_iter().collect::<BTreeSet<_>>(), known);
    }
}
