//! One request that changes something: by whom, on what condition, and whether it was made before.
//!
//! - `If-Match` and `If-None-Match` (RFC 9110, section 13.1) name the state that the caller has seen; it is compared inside
//!   the transaction, so that of two who edit the same, the second is told.
//! - `Idempotency-Key` (the IETF draft of that name) makes a repeated request get the answer of the first. The answer is
//!   stored with what was done, under the broker's sealing key, since it may hold a secret that is shown once.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dnsbroker_store::act::{Act, Once};
use dnsbroker_store::{Actor, Edit, Edited, Object, Precondition, Revision};
use serde::Serialize;

use super::{ApiError, Who};
use crate::app::App;

const IDEMPOTENCY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// What sealed answers are for.
const PURPOSE: &str = "answer";

/// Who asks, and how.
pub struct Call {
    /// Who.
    pub who: Who,
    method: Method,
    path: String,
    precondition: Option<Precondition>,
    key: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let who = parts.extensions.get::<Who>().cloned();
        // `permit` stands before each handler and puts it there.
        let who = who.ok_or_else(|| ApiError::new(StatusCode::UNAUTHORIZED, "login-needed", "nobody is calling"))?;
        let key = parts.headers.get(&IDEMPOTENCY).map(|value| value.to_str().unwrap_or_default().to_owned());
        let path = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        Ok(Self { who, method: parts.method.clone(), path, precondition: precondition(&parts.headers)?, key })
    }
}

fn precondition(headers: &HeaderMap) -> Result<Option<Precondition>, ApiError> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim().to_owned());
    if let Some(none) = text(header::IF_NONE_MATCH) {
        return match none.as_str() {
            "*" => Ok(Some(Precondition::Absent)),
            other => Err(ApiError::parameter("If-None-Match", other, "is to be * where something is changed")),
        };
    }
    match text(header::IF_MATCH).as_deref() {
        None => Ok(None),
        Some("*") => Ok(Some(Precondition::Exists)),
        Some(tag) => {
            let revision = tag.trim_matches('"').parse();
            Ok(Some(Precondition::Is(revision.map_err(|error| ApiError::parameter("If-Match", tag, error))?)))
        }
    }
}

impl Call {
    /// The caller's name in the audit.
    pub fn actor(&self) -> Actor {
        self.who.actor.clone()
    }

    /// Does an act on an object, if that is as the caller has seen it.
    pub async fn change<A: Act>(&self, app: &App, object: Object, act: A) -> Result<Edited<A::Done>, ApiError> {
        let edit = Edit { object, precondition: self.precondition, act };
        Ok(app.committer.commit(self.actor(), edit).await?)
    }

    /// Does an act that makes something, once for each idempotency key, and answers with what `show` says of it.
    pub async fn create<A: Act, T: Serialize>(
        &self,
        app: &App,
        body: &impl Serialize,
        act: A,
        show: impl FnOnce(&A::Done) -> T + Send + 'static,
    ) -> Result<Response, ApiError> {
        let Some(key) = self.key.clone() else {
            let done = app.committer.commit(self.actor(), act).await?;
            return Ok((StatusCode::CREATED, axum::Json(show(&done))).into_response());
        };
        let request = serde_json::to_vec(&(self.method.as_str(), &self.path, body));
        let request = request.map_err(|error| ApiError::internal(&error))?;
        let sealer = std::sync::Arc::clone(&app.sealer);
        let answer = move |done: &A::Done| {
            let shown = serde_json::to_vec(&show(done)).unwrap_or_default();
            let sealed = sealer.seal_for(PURPOSE, &shown).unwrap_or_default();
            (StatusCode::CREATED.as_u16(), BASE64_STANDARD.encode(sealed))
        };
        let once = Once { identity: self.who.identity(), key, request, act, answer: Box::new(answer) };
        let answered = app.committer.commit(self.actor(), once).await?;
        let sealed = answered.body.and_then(|text| BASE64_STANDARD.decode(text).ok());
        let Some(shown) = sealed.and_then(|sealed| app.sealer.unseal_for(PURPOSE, &sealed)) else {
            let detail = "this was done before, and its answer cannot be shown again: look for what it made";
            return Err(ApiError::new(StatusCode::CONFLICT, "answer-lost", detail));
        };
        let status = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::CREATED);
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut response = (status, json, shown.to_vec()).into_response();
        if answered.repeated {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response)
    }
}

/// An answer about an object, with the revision of what is shown as the entity tag: a later one would be of what the caller has
/// not seen.
pub fn tagged<T: Serialize>(revision: Option<Revision>, shown: T) -> Response {
    let mut response = axum::Json(shown).into_response();
    if let Some(tag) = revision.and_then(|revision| HeaderValue::try_from(format!("\"{revision}\"")).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &'static str) -> Result<Option<Precondition>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        precondition(&headers)
    }

    #[test]
    fn preconditions_are_those_of_http() {
        assert_eq!(precondition(&HeaderMap::new()).expect("none"), None);
        assert_eq!(with(header::IF_MATCH, "*").expect("reads"), Some(Precondition::Exists));
        assert_eq!(with(header::IF_NONE_MATCH, "*").expect("reads"), Some(Precondition::Absent));
        let revision = "0123456789abcdef".parse().expect("valid");
        assert_eq!(with(header::IF_MATCH, "\"0123456789abcdef\"").expect("reads"), Some(Precondition::Is(revision)));
        assert!(with(header::IF_MATCH, "\"other\"").is_err() && with(header::IF_NONE_MATCH, "\"x\"").is_err());
    }
}
