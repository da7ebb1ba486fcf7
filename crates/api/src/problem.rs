//! Errors as problem documents (RFC 9457): what was wrong, with which object, and what to do, under a stable code.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error of the API. `code` is for programs and never changes its meaning; `detail` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `about:blank` is meant where it is absent: the code tells the kind.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: Cow<'static, str>,
    /// The HTTP status in words.
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: Cow<'static, str>,
    /// What happened and what to do.
    pub detail: String,
    /// The request's id, as in the broker's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

fn about_blank() -> Cow<'static, str> {
    "about:blank".into()
}

impl Problem {
    /// A problem under a code.
    pub fn new(status: http::StatusCode, code: impl Into<Cow<'static, str>>, detail: impl fmt::Display) -> Self {
        Self {
            kind: about_blank(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            code: code.into(),
            detail: detail.to_string(),
            request: None,
        }
    }

    /// An error with all its sources, joined, as the detail.
    pub fn from_error(status: http::StatusCode, code: &'static str, error: &dyn std::error::Error) -> Self {
        Self::new(status, code, chain(error))
    }

    /// The octets to send.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The HTTP status.
    pub fn status(&self) -> http::StatusCode {
        http::StatusCode::from_u16(self.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)
    }
}

impl std::error::Error for Problem {}

/// An error and its sources in one line: `what: because: because`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_back_as_it_was_sent() {
        let problem = Problem::new(http::StatusCode::CONFLICT, "netid-held", "NetID 60002d is held");
        let back: Problem = serde_json::from_slice(&problem.to_json()).expect("JSON");
        assert_eq!(back, problem);
        assert_eq!(back.status(), http::StatusCode::CONFLICT);
        assert_eq!(back.to_string(), "NetID 60002d is held (netid-held)");
    }
}
