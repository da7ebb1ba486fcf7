//! REST under `/api/v1`, EST under `/.well-known/est`: each handler reads its input, calls one act or view, and shapes the
//! answer.
//!
//! Every listener has all routes; who calls comes from the connection, and what each route asks of its caller stands in
//! one table here.

mod anchors;
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
mod paging;
mod path;
mod replication;
mod standby;
mod statistics;
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
use caller::permit;
pub use caller::{By, Caller, Need, Who};
pub use error::ApiError;
pub use events::Streams;
pub use path::At;
pub use zones::ZONES;

/// JSON bodies are at most this long, in octets.
const MAX_JSON: usize = 64 * 1024;

/// An endpoint, what it asks of its caller, and who answers.
pub struct Route {
    /// What is known of it everywhere.
    pub endpoint: &'static Endpoint,
    /// Who may.
    pub need: Need,
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
    Some(Route { endpoint, need, handler: on(method, handler) })
}

/// All endpoints. That none is missing is held by a test: a name that is not known has no route.
pub fn table() -> Vec<Route> {
    use Need::{Administrator, Certificate, Member, Nothing, Own};
    let routes = [
        route("enroll", Nothing, certificates::enroll),
        route("ca_show", Nothing, certificates::ca),
        route("renew", Certificate, operator::renew),
        route("myself", Member, operator::myself),
        route("directory", Member, operator::directory),
        route("bundle", Member, anchors::bundle),
        route("status", Administrator, zones::status),
        route("member_list", Administrator, members::list),
        route("member_add", Administrator, members::add),
        route("member_show", Own, members::show),
        route("member_remove", Administrator, members::remove),
        route("member_suspend", Administrator, members::suspend),
        route("member_resume", Administrator, members::resume),
        route("member_grace", Administrator, members::grace),
        route("member_approve", Administrator, members::approve),
        route("member_withdraw", Administrator, members::withdraw),
        route("device_import", Own, devices::import),
        route("device_replace", Own, devices::replace),
        route("netid_list", Member, members::networks),
        route("netid_set", Administrator, members::set_network),
        route("netid_remove", Administrator, members::remove_network),
        route("netid_anchors", Member, anchors::set),
        route("token_list", Administrator, certificates::tokens),
        route("token_create", Administrator, certificates::create_token),
        route("certificate_list", Member, certificates::list),
        route("certificate_issue", Member, certificates::issue),
        route("certificate_show", Member, certificates::show),
        route("certificate_revoke", Member, certificates::revoke),
        route("certificate_renew", Administrator, certificates::renew),
        route("certificate_revoke_several", Administrator, certificates::revoke_several),
        route("ca_request", Administrator, certificates::request_issuing),
        route("ca_install", Administrator, certificates::install_issuing),
        route("root_crl_install", Administrator, certificates::install_root_crl),
        route("crl_list", Administrator, certificates::crls),
        route("device_list", Member, devices::list),
        route("device_show", Member, devices::show),
        route("device_lookup", Member, devices::lookup),
        route("key_list", Administrator, exchange::keys),
        route("key_create", Administrator, exchange::create_key),
        route("key_revoke", Administrator, exchange::revoke_key),
        route("replica_list", Administrator, exchange::replicas),
        route("replica_set", Administrator, exchange::set_replica),
        route("replica_remove", Administrator, exchange::remove_replica),
        route("source_list", Member, exchange::sources),
        route("source_show", Member, exchange::source),
        route("source_set", Administrator, exchange::set_source),
        route("source_remove", Administrator, exchange::remove_source),
        route("source_refresh", Member, exchange::refresh_source),
        route("source_accept", Administrator, exchange::accept_source),
        route("zone_list", Administrator, zones::list),
        route("zone_check", Administrator, zones::check),
        route("zone_export", Administrator, zones::export),
        route("audit_list", Administrator, zones::audit),
        route("audit_verify", Administrator, zones::verify_audit),
        route("backup", Administrator, zones::backup),
        route("events", Member, events::listen),
        route("statistics", Member, statistics::show),
        route("replication", Certificate, replication::follow),
        route("replication_certificate", Certificate, replication::certificate),
        route("replication_fence", Certificate, replication::fence),
        route("standby", Administrator, standby::show),
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
    let table = table().into_iter().map(|route| (route.endpoint.path, route.need, route.handler));
    let mut router = Router::new();
    for (path, need, handler) in table.chain(others()) {
        // Lists are read as they come, and bounded by what they hold.
        let limit =
            if path.ends_with("/devices") { DefaultBodyLimit::disable() } else { DefaultBodyLimit::max(MAX_JSON) };
        let permit = from_fn_with_state(app.clone(), move |state, parameters, request, next| {
            permit(need, state, parameters, request, next)
        });
        router = router.route(path, handler.route_layer(limit).route_layer(permit));
    }
    router.fallback(no_route).method_not_allowed_fallback(no_method).layer(from_fn(log)).with_state(app)
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
    let response = next.run(request).await;
    let status = response.status().as_u16();
    if method == Method::GET && status < 400 {
        tracing::debug!(caller, %method, path, status, "api");
    } else {
        tracing::info!(caller, %method, path, status, "api");
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
