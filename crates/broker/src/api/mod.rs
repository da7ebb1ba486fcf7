//! REST under `/api/v1`: each handler reads its input, calls one act or view, and shapes the answer.
//!
//! The same routes will serve operators and the admin UI; which of them a listener has is decided here, and who calls
//! comes from the connection. The control socket has all of them; the TLS listener has what an operator without a
//! certificate needs: enrolment and the CA.

mod certificates;
mod devices;
mod error;
mod exchange;
mod members;
mod path;
mod zones;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use dnsbroker_store::Actor;

use crate::app::App;
pub use error::ApiError;
pub use path::At;
pub use zones::ZONES;

/// JSON bodies are at most this long, in octets.
const MAX_JSON: usize = 64 * 1024;

/// Who calls, put into each request by the listener that took the connection.
#[derive(Debug, Clone)]
pub struct Caller(pub Actor);

/// All routes, for the control socket.
pub fn control(app: App) -> Router {
    let devices = Router::new()
        .route("/api/v1/members/{id}/netids/{netid}/devices", post(devices::import))
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/api/v1/status", get(zones::status))
        .route("/api/v1/members", get(members::list).post(members::add))
        .route("/api/v1/members/{id}", get(members::show).delete(members::remove))
        .route("/api/v1/members/{id}/suspend", post(members::suspend))
        .route("/api/v1/members/{id}/resume", post(members::resume))
        .route("/api/v1/netids", get(members::networks))
        .route("/api/v1/netids/{netid}", put(members::set_network).delete(members::remove_network))
        .route("/api/v1/tokens", get(certificates::tokens).post(certificates::create_token))
        .route("/api/v1/certificates", get(certificates::list).post(certificates::issue))
        .route("/api/v1/certificates/{serial}", get(certificates::show))
        .route("/api/v1/certificates/{serial}/revoke", post(certificates::revoke))
        .route("/api/v1/devices", get(devices::list))
        .route("/api/v1/devices/{deveui}", get(devices::show))
        .route("/api/v1/devices/{deveui}/lookup", get(devices::lookup))
        .route("/api/v1/keys", get(exchange::keys).post(exchange::create_key))
        .route("/api/v1/keys/{name}", delete(exchange::revoke_key))
        .route("/api/v1/replicas", get(exchange::replicas))
        .route("/api/v1/replicas/{id}", put(exchange::set_replica).delete(exchange::remove_replica))
        .route("/api/v1/sources", get(exchange::sources))
        .route(
            "/api/v1/sources/{netid}",
            get(exchange::source).put(exchange::set_source).delete(exchange::remove_source),
        )
        .route("/api/v1/sources/{netid}/refresh", post(exchange::refresh_source))
        .route("/api/v1/sources/{netid}/accept", post(exchange::accept_source))
        .route("/api/v1/zones", get(zones::list))
        .route("/api/v1/zones/check", get(zones::check))
        .route("/api/v1/zones/{zone}/export", get(zones::export))
        .route("/api/v1/audit", get(zones::audit))
        .route("/api/v1/audit/verify", get(zones::verify_audit))
        .merge(public_routes())
        .layer(DefaultBodyLimit::max(MAX_JSON))
        .merge(devices)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(log))
        .with_state(app)
}

/// What an operator needs before it has a certificate.
pub fn public(app: App) -> Router {
    public_routes()
        .layer(DefaultBodyLimit::max(MAX_JSON))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(log))
        .with_state(app)
}

fn public_routes() -> Router<App> {
    Router::new().route("/api/v1/enroll", post(certificates::enroll)).route("/api/v1/ca", get(certificates::ca))
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
    let caller = request.extensions().get::<Caller>().map(|caller| caller.0.to_string());
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
