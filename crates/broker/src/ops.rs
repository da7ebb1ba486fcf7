//! `/metrics`, `/health` and `/ready`, over plain HTTP on loopback, for the machine's own monitoring.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::committer::now;
use crate::shared::Shared;

/// The media type of the Prometheus text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn routes(app: App) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .with_state(app)
}

/// Serves until told to stop.
pub async fn serve(listener: TcpListener, app: App, stop: CancellationToken) {
    let address = listener.local_addr().map_or_else(|_| String::new(), |address: SocketAddr| address.to_string());
    let served = axum::serve(listener, routes(app)).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, %address, "metrics ended");
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let expiries = app.expiries.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let mut text = app.shared.metrics.render(&app.view(), &app.shared.tallies());
    text.push_str(
        "# HELP dnsbroker_certificate_expiry_seconds Time until a certificate of the broker or its CA ends.\n",
    );
    text.push_str("# TYPE dnsbroker_certificate_expiry_seconds gauge\n");
    for (name, not_after) in expiries {
        text.push_str(&format!("dnsbroker_certificate_expiry_seconds{{name=\"{name}\"}} {}\n", not_after - now()));
    }
    text.push_str(
        "# HELP dnsbroker_holder_certificate_expiry_seconds Time until the last certificate of a member, server, gateway or \
         replica ends.\n",
    );
    text.push_str("# TYPE dnsbroker_holder_certificate_expiry_seconds gauge\n");
    for (holder, certificate) in crate::expiry::holders(&app.view(), now()) {
        let left = certificate.not_after - now();
        text.push_str(&format!("dnsbroker_holder_certificate_expiry_seconds{{holder=\"{holder}\"}} {left}\n"));
    }
    text.push_str(&crate::standby::follow::metrics(&app));
    let ready = u8::from(app.shared.trouble().is_none());
    text.push_str("# HELP dnsbroker_ready Whether zones are served and changes are taken.\n");
    text.push_str(&format!("# TYPE dnsbroker_ready gauge\ndnsbroker_ready {ready}\n"));
    ([(header::CONTENT_TYPE, HeaderValue::from_static(PROMETHEUS))], text).into_response()
}

/// The process is alive, and no part of it has died.
async fn health(State(app): State<App>) -> (StatusCode, String) {
    health_of(&app.shared)
}

/// What `/health` says.
pub fn health_of(shared: &Shared) -> (StatusCode, String) {
    match shared.broken() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(broken) => (StatusCode::SERVICE_UNAVAILABLE, format!("not well: {broken}\n")),
    }
}

/// Zones are served and changes are taken.
async fn ready(State(app): State<App>) -> (StatusCode, String) {
    readiness(&app.shared)
}

/// What `/ready` says.
pub fn readiness(shared: &Shared) -> (StatusCode, String) {
    match shared.trouble() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {trouble}\n")),
    }
}
