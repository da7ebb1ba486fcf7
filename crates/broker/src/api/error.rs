//! Errors of the API: every refusal becomes a problem document under its stable code.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dnsbroker_api::problem::{MEDIA_TYPE, Problem, chain};
use dnsbroker_store::engine::EngineError;
use dnsbroker_store::{AccountRefusal, OwnershipRefusal, Refusal};

use crate::committer::{CommitError, now};
use crate::standby::{Elsewhere, Role, Standing};

/// What a caller may bring who is not known.
const CHALLENGE: &str = "Bearer realm=\"dnsbroker\"";

/// An error on its way to the caller.
#[derive(Debug)]
pub struct ApiError {
    /// Apart, so that results that may be an error stay small.
    problem: Box<Problem>,
    /// After how many seconds to come again.
    wait: Option<i64>,
}

impl ApiError {
    /// An error under a code.
    pub fn new(status: StatusCode, code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self { problem: Box::new(Problem::new(status, code, detail)), wait: None }
    }

    /// A fault of ours.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        let problem = Problem::from_error(StatusCode::INTERNAL_SERVER_ERROR, "internal", error);
        Self { problem: Box::new(problem), wait: None }
    }

    /// What is not there, or is not the caller's business.
    pub fn not_found(code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// Too much of something (RFC 6585, section 4).
    pub fn too_many(detail: &str, seconds: i64) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", format!("{detail}: wait {seconds} seconds"));
        Self { wait: Some(seconds), ..error }
    }

    /// A broker that cannot know who was revoked lately says nothing to whoever might have been.
    pub fn stale(standing: &Standing) -> Self {
        let mut detail = standing.trouble(now()).unwrap_or_default();
        if matches!(standing.role(), Role::Standby { .. }) {
            detail.push_str("; whoever is on its machine can promote it with `dnsbroker standby promote`");
        }
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "standby-stale", detail)
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.problem.status()
    }

    /// A parameter that does not read: which, what it was, why.
    pub fn parameter(name: &str, value: &str, why: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "parameter-invalid", format!("{name} {value:?} {why}"))
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.problem.fmt(f)
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        self.problem.request = super::request_id::current();
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))];
        let mut response = (self.problem.status(), content_type, self.problem.to_json()).into_response();
        if self.problem.status() == StatusCode::UNAUTHORIZED {
            // Owed with each 401 (RFC 9110, section 15.5.2); a certificate has no scheme of its own.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        if let Some(seconds) = self.wait {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl From<Problem> for ApiError {
    /// What another broker has said.
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), wait: None }
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        let (status, code) = match &error {
            CommitError::Refused(refusal) => (status(refusal), refusal.code()),
            CommitError::Store { full: true, .. } => (StatusCode::INSUFFICIENT_STORAGE, "store-full"),
            CommitError::Store { .. } => (StatusCode::SERVICE_UNAVAILABLE, "store-failed"),
            CommitError::Elsewhere(Elsewhere::Standby { .. }) => (StatusCode::SERVICE_UNAVAILABLE, "standby"),
            CommitError::Elsewhere(Elsewhere::Fenced(_)) => (StatusCode::SERVICE_UNAVAILABLE, "fenced"),
            CommitError::Failed => (StatusCode::SERVICE_UNAVAILABLE, "writer-failed"),
        };
        Self::new(status, code, chain(&error))
    }
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::NoMember(_)
        | Refusal::NoNetwork(_)
        | Refusal::NoCertificate(_)
        | Refusal::NothingToRevoke(_)
        | Refusal::NoKey(_)
        | Refusal::NoReplica(_)
        | Refusal::NoSource(_)
        | Refusal::NoLnsAuthority => StatusCode::NOT_FOUND,
        Refusal::TokenUnknown | Refusal::TokenUsed | Refusal::TokenExpired { .. } | Refusal::TokenKey => {
            StatusCode::FORBIDDEN
        }
        Refusal::MemberSuspended { .. }
        | Refusal::ForeignNetwork { .. }
        | Refusal::ForeignName { .. }
        | Refusal::RenewRevoked(_)
        | Refusal::RenewLate(_)
        | Refusal::RenewEarly { .. }
        | Refusal::RenewOften { .. } => StatusCode::FORBIDDEN,
        Refusal::MemberExists(_)
        | Refusal::MemberInUse { .. }
        | Refusal::NetworkHeld { .. }
        | Refusal::NetworkInUse { .. }
        | Refusal::Shrink { .. }
        | Refusal::Unread { .. }
        | Refusal::KeyExists(_)
        | Refusal::ReplicaHolder { .. }
        | Refusal::Filled { .. }
        | Refusal::Claimed(_)
        | Refusal::NameHeld { .. }
        | Refusal::NamesConstrained { .. }
        | Refusal::NamesApproved { .. }
        | Refusal::AlreadyRevoked(_) => StatusCode::CONFLICT,
        Refusal::Engine(_) | Refusal::Row(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Changed(_) => StatusCode::PRECONDITION_FAILED,
        Refusal::Account(refusal) => account_status(refusal),
        Refusal::Ownership(refusal) => ownership_status(refusal),
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

fn account_status(refusal: &AccountRefusal) -> StatusCode {
    match refusal {
        AccountRefusal::NoAdministrator(_) | AccountRefusal::NoApiToken(_) | AccountRefusal::NoWebhook(_) => {
            StatusCode::NOT_FOUND
        }
        AccountRefusal::AdministratorExists(_)
        | AccountRefusal::LastAdministrator(_)
        | AccountRefusal::ApiTokenExists
        | AccountRefusal::Full { .. } => StatusCode::CONFLICT,
        AccountRefusal::Disabled(_) => StatusCode::FORBIDDEN,
        AccountRefusal::TotpReplayed => StatusCode::UNAUTHORIZED,
        AccountRefusal::KeyForm { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

fn ownership_status(refusal: &OwnershipRefusal) -> StatusCode {
    match refusal {
        OwnershipRefusal::NoDevice(_) | OwnershipRefusal::NoClaim { .. } | OwnershipRefusal::NoMove(_) => {
            StatusCode::NOT_FOUND
        }
        OwnershipRefusal::ForeignRule(_) | OwnershipRefusal::NotHeld { .. } => StatusCode::FORBIDDEN,
        OwnershipRefusal::MoveState { .. } | OwnershipRefusal::NothingMoves(_) => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let problem = Problem::from_error(StatusCode::SERVICE_UNAVAILABLE, "store-failed", &error);
        Self { problem: Box::new(problem), wait: None }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), "body-invalid", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "parameter-invalid", rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        if let PathRejection::FailedToDeserializePathParams(failed) = &rejection
            && let ErrorKind::DeserializeError { key, value, message } = failed.kind()
        {
            return Self::parameter(key, value, message);
        }
        Self::new(StatusCode::BAD_REQUEST, "parameter-invalid", rejection.body_text())
    }
}
