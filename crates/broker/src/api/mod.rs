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
mod exchange;
mod members;
mod operator;
mod path;
mod zones;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post, put};

use crate::app::App;
use caller::permit;
pub use caller::{By, Caller, Need, Who};
pub use error::ApiError;
pub use path::At;
pub use zones::ZONES;

/// JSON bodies are at most this long, in octets.
const MAX_JSON: usize = 64 * 1024;

/// Path, what it asks of its caller, and who answers.
type Route = (&'static str, Need, MethodRouter<App>);

fn table() -> Vec<Route> {
    use Need::{Administrator, Certificate, Member, Nothing, Own};
    vec![
        ("/api/v1/enroll", Nothing, post(certificates::enroll)),
        ("/api/v1/ca", Nothing, get(certificates::ca)),
        ("/.well-known/est/cacerts", Nothing, get(est::cacerts)),
        ("/.well-known/est/csrattrs", Nothing, get(est::csrattrs)),
        ("/.well-known/est/simpleenroll", Nothing, post(est::simpleenroll)),
        ("/.well-known/est/simplereenroll", Certificate, post(est::simplereenroll)),
        ("/api/v1/renew", Certificate, post(operator::renew)),
        ("/api/v1/self", Member, get(operator::myself)),
        ("/api/v1/directory", Member, get(operator::directory)),
        ("/api/v1/bundle", Member, get(anchors::bundle)),
        ("/api/v1/status", Administrator, get(zones::status)),
        ("/api/v1/members", Administrator, get(members::list).post(members::add)),
        ("/api/v1/members/{id}", Own, get(members::show)),
        ("/api/v1/members/{id}", Administrator, delete(members::remove)),
        ("/api/v1/members/{id}/suspend", Administrator, post(members::suspend)),
        ("/api/v1/members/{id}/resume", Administrator, post(members::resume)),
        ("/api/v1/members/{id}/grace", Administrator, put(members::grace)),
        ("/api/v1/members/{id}/names/{name}", Administrator, put(members::approve).delete(members::withdraw)),
        ("/api/v1/members/{id}/netids/{netid}/devices", Own, post(devices::import).put(devices::replace)),
        ("/api/v1/netids", Member, get(members::networks)),
        ("/api/v1/netids/{netid}", Administrator, put(members::set_network).delete(members::remove_network)),
        ("/api/v1/netids/{netid}/anchors", Member, put(anchors::set)),
        ("/api/v1/tokens", Administrator, get(certificates::tokens).post(certificates::create_token)),
        ("/api/v1/certificates", Member, get(certificates::list).post(certificates::issue)),
        ("/api/v1/certificates/revoke", Administrator, post(certificates::revoke_several)),
        ("/api/v1/certificates/{serial}", Member, get(certificates::show)),
        ("/api/v1/certificates/{serial}/revoke", Member, post(certificates::revoke)),
        ("/api/v1/certificates/{serial}/renew", Administrator, post(certificates::renew)),
        ("/api/v1/ca/request", Administrator, post(certificates::request_issuing)),
        ("/api/v1/ca/issuing", Administrator, put(certificates::install_issuing)),
        ("/api/v1/ca/root-crl", Administrator, put(certificates::install_root_crl)),
        ("/api/v1/crls", Administrator, get(certificates::crls)),
        ("/api/v1/devices", Administrator, get(devices::list)),
        ("/api/v1/devices/{deveui}", Administrator, get(devices::show)),
        ("/api/v1/devices/{deveui}/lookup", Administrator, get(devices::lookup)),
        ("/api/v1/keys", Administrator, get(exchange::keys).post(exchange::create_key)),
        ("/api/v1/keys/{name}", Administrator, delete(exchange::revoke_key)),
        ("/api/v1/replicas", Administrator, get(exchange::replicas)),
        ("/api/v1/replicas/{id}", Administrator, put(exchange::set_replica).delete(exchange::remove_replica)),
        ("/api/v1/sources", Administrator, get(exchange::sources)),
        (
            "/api/v1/sources/{netid}",
            Administrator,
            get(exchange::source).put(exchange::set_source).delete(exchange::remove_source),
        ),
        ("/api/v1/sources/{netid}/refresh", Administrator, post(exchange::refresh_source)),
        ("/api/v1/sources/{netid}/accept", Administrator, post(exchange::accept_source)),
        ("/api/v1/zones", Administrator, get(zones::list)),
        ("/api/v1/zones/check", Administrator, get(zones::check)),
        ("/api/v1/zones/{zone}/export", Administrator, get(zones::export)),
        ("/api/v1/audit", Administrator, get(zones::audit)),
        ("/api/v1/audit/verify", Administrator, get(zones::verify_audit)),
        ("/api/v1/backup", Administrator, get(zones::backup)),
    ]
}

/// All routes.
pub fn routes(app: App) -> Router {
    let mut router = Router::new();
    for (path, need, handlers) in table() {
        let limit =
            if path.ends_with("/devices") { DefaultBodyLimit::disable() } else { DefaultBodyLimit::max(MAX_JSON) };
        let permit = from_fn_with_state(app.clone(), move |state, parameters, request, next| {
            permit(need, state, parameters, request, next)
        });
        router = router.route(path, handlers.route_layer(limit).route_layer(permit));
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
    if method == http::Method::GET && status < 400 {
        tracing::debug!(caller, %method, path, status, "api");
    } else {
        tracing::info!(caller, %method, path, status, "api");
    }
    response
}
