//! The endpoint that network servers ask, as if it were their Join Server: LoRaWAN Backend Interfaces (TS002), JSON over HTTP.
//!
//! A `HomeNSReq` is answered from the federations. Everything else goes to a configured Join Server, or gets a proper answer
//! that says no. Errors are HTTP 200 with a `ResultCode`: of a 4xx or 5xx a network server does not read the body.
//!
//! The answer always has a `Result`: ChirpStack takes its absence for success.

pub mod join;
pub mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dnsbroker_federation::DevEui;

use crate::limits::TS002_BODY;
use crate::lookup::{Lookups, Saying};
use join::JoinServers;
use message::{Request, ResultCode};

/// What answers.
pub struct Endpoint {
    /// Where devices are looked up.
    pub lookups: Arc<Lookups>,
    /// Who gets the rest.
    pub join_servers: JoinServers,
    /// What is counted.
    pub counts: Counts,
}

/// What is counted.
#[derive(Default)]
pub struct Counts {
    /// `HomeNSReq` by result, in the order of [`ResultCode::COUNTED`].
    pub results: [AtomicU64; ResultCode::COUNTED.len()],
    /// Microseconds until the answer to `HomeNSReq`, of all together.
    pub micros: AtomicU64,
    /// Messages passed on to a Join Server.
    pub passed_on: AtomicU64,
    /// Those that no Join Server answered.
    pub join_failed: AtomicU64,
    /// Messages for which there is no Join Server.
    pub not_ours: AtomicU64,
    /// Bodies that are no TS002 message.
    pub malformed: AtomicU64,
}

/// Its routes: any path, since network servers are configured with whatever their Join Server wants.
pub fn routes(endpoint: Arc<Endpoint>) -> Router {
    Router::new().fallback(axum::routing::post(receive)).layer(DefaultBodyLimit::max(TS002_BODY)).with_state(endpoint)
}

async fn receive(State(endpoint): State<Arc<Endpoint>>, body: Bytes) -> Response {
    let request = match Request::parse(&body) {
        Ok(request) => request,
        Err(reason) => {
            endpoint.counts.malformed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(reason, "a body that is no TS002 message");
            return (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response();
        }
    };
    if request.message_type == "HomeNSReq" {
        return json(endpoint.home_ns(&request).await);
    }
    match endpoint.join_servers.pass_on(&request, body.clone()).await {
        Some(Ok((status, body))) => {
            endpoint.counts.passed_on.fetch_add(1, Ordering::Relaxed);
            (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
        }
        Some(Err(reason)) => {
            endpoint.counts.join_failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(reason, message_type = request.message_type, "the Join Server does not answer");
            json(request.refuse(request.failed(), "the Join Server does not answer"))
        }
        None => {
            endpoint.counts.not_ours.fetch_add(1, Ordering::Relaxed);
            json(request.refuse(request.failed(), "no Join Server is configured for this JoinEUI"))
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn json(octets: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], octets).into_response()
}

impl Endpoint {
    async fn home_ns(&self, request: &Request) -> Vec<u8> {
        let begun = Instant::now();
        let device: Option<DevEui> = request.deveui.as_ref().and_then(|text| text.parse().ok());
        let (code, words, netid) = match device {
            None => (ResultCode::MalformedRequest, "DevEUI is missing, or is none".to_owned(), None),
            Some(device) => self.home_of(device).await,
        };
        let index = ResultCode::COUNTED.iter().position(|counted| *counted == code).unwrap_or_default();
        self.counts.results[index].fetch_add(1, Ordering::Relaxed);
        self.counts.micros.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        match netid {
            Some(netid) => request.home(netid),
            None => request.refuse(code, &words),
        }
    }

    async fn home_of(&self, device: DevEui) -> (ResultCode, String, Option<dnsbroker_federation::NetId>) {
        let outcome = self.lookups.device(device).await;
        match outcome.decisive.map(|said| said.saying) {
            Some(Saying::Home { netid, .. }) => (ResultCode::Success, String::new(), Some(netid)),
            Some(Saying::Prohibited) => {
                (ResultCode::NoRoamingAgreement, "no roaming agreement with the device's home".to_owned(), None)
            }
            Some(Saying::Unknown) => {
                (ResultCode::UnknownDevEui, "no federation of ours has this device".to_owned(), None)
            }
            Some(Saying::Failed(failure)) => {
                tracing::warn!(%device, %failure, "a device cannot be looked up");
                (ResultCode::Other, format!("the device cannot be looked up: {failure}"), None)
            }
            None => (ResultCode::Other, "no federation answered in time".to_owned(), None),
        }
    }
}
