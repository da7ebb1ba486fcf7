//! The id of a request: in its log line, in its answer, and in an error, so that who sees one finds the other.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::key::entropy;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of an id that a caller brings.
const MAX: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// The id that the caller brings, or a new one.
pub fn of(headers: &HeaderMap) -> String {
    let brought = headers.get(HEADER).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| (1..=MAX).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_graphic());
    match brought.filter(plain) {
        Some(id) => id.to_owned(),
        None => entropy::<8>().unwrap_or_default().iter().map(|octet| format!("{octet:02x}")).collect(),
    }
}

/// Runs what answers a request, which can ask for its id.
pub async fn scope<F: Future>(id: String, answer: F) -> F::Output {
    CURRENT.scope(id, answer).await
}

/// The id of the request that is being answered.
pub fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Tells it in an answer.
pub fn tell(id: &str, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::try_from(id) {
        headers.insert(HEADER, value);
    }
}
