//! What a path names: read by the same rules as everywhere, refused with the value and the reason.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::ApiError;

/// The one parameter of a path.
pub struct At<T>(pub T);

impl<S, T> FromRequestParts<S> for At<T>
where
    S: Send + Sync,
    T: FromStr,
    T::Err: Display,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "parameter-invalid", error))?;
        match params.iter().next() {
            Some((name, value)) => value.parse().map(Self).map_err(|error| ApiError::parameter(name, value, error)),
            None => Err(ApiError::new(StatusCode::NOT_FOUND, "no-route", "the path names nothing")),
        }
    }
}
