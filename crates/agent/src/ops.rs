//! `/metrics`, `/health`, `/ready` for monitoring, and the routes of the control socket for our own commands.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dnsbroker_api::problem::{MEDIA_TYPE, Problem};
use dnsbroker_federation::DevEui;

use crate::daemon::Agent;
use crate::lns;
use crate::lookup::Explained;
use crate::metrics;
use crate::status::Status;
use crate::sync::task::Options;

/// For monitoring.
pub fn monitoring(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .with_state(agent)
}

/// For our own commands.
pub fn control(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(agent): State<Arc<Agent>>| Json(Status::of(&agent))))
        .route("/v1/lookup/{eui}", get(lookup))
        .route("/v1/sync", post(sync))
        .route("/v1/lns-config/chirpstack", get(chirpstack))
        .route("/v1/forget", post(forget))
        .with_state(agent)
}

async fn render(State(agent): State<Arc<Agent>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], metrics::render(&agent)).into_response()
}

async fn ready(State(agent): State<Arc<Agent>>) -> (StatusCode, String) {
    match agent.trouble() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {trouble}\n")),
    }
}

async fn lookup(State(agent): State<Arc<Agent>>, Path(eui): Path<String>) -> Result<Json<Explained>, Response> {
    let device: DevEui = eui
        .parse()
        .map_err(|error| problem(StatusCode::BAD_REQUEST, "deveui-invalid", format!("DevEUI {eui:?} {error}")))?;
    Ok(Json(agent.lookups.device(device).await.explain(device, agent.lookups.resolver())))
}

async fn sync(State(agent): State<Arc<Agent>>, Json(options): Json<Options>) -> Response {
    let mut done = Vec::new();
    for sync in &agent.syncs {
        // What failed is in the status, beside what did not.
        let _ = sync.pass(options).await;
        done.push(sync.status());
    }
    Json(done).into_response()
}

async fn chirpstack(State(agent): State<Arc<Agent>>) -> Json<String> {
    Json(lns::chirpstack(&agent.ends, agent.federations()))
}

async fn forget(State(agent): State<Arc<Agent>>) -> Json<()> {
    agent.lookups.resolver().forget();
    Json(())
}

fn problem(status: StatusCode, code: &'static str, detail: String) -> Response {
    let octets = Problem::new(status, code, detail).to_json();
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], octets).into_response()
}
