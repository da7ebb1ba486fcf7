//! Enrolment over Secure Transport (RFC 7030, clarified by RFC 8951), beside the REST route: for clients that have it built
//! in.
//!
//! `simpleenroll` takes the member's id and its token as HTTP Basic credentials, and asks for them first (401).
//! `simplereenroll` takes the certificate of the connection. Bodies that come are base64, in lines or not. Those that go are
//! base64 in one line, without an end of line: RFC 8951 wants that of RFC 4648 (section 4) in place of MIME's, and strongSwan
//! reads nothing else. OpenSSL reads it with `base64 -d -A`.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dnsbroker_ca::{TokenKind, TokenSecret, csr, pkcs7};
use dnsbroker_federation::MemberId;
use zeroize::Zeroizing;

use super::certificates::{enrolled_by_token, renewed};
use super::{ApiError, Who};
use crate::app::App;

const ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");
const CERTIFICATES: &str = "application/pkcs7-mime; smime-type=certs-only";
const ATTRIBUTES: &str = "application/csrattrs";
const REQUEST: &str = "application/pkcs10";
const CHALLENGE: &str = "Basic realm=\"dnsbroker: member and token\", charset=\"UTF-8\"";

/// An error as EST clients show it to people: plain text (RFC 7030, section 4.2.3).
pub struct EstError {
    error: ApiError,
    /// Whether to ask for credentials.
    challenge: bool,
}

impl From<ApiError> for EstError {
    fn from(error: ApiError) -> Self {
        Self { error, challenge: false }
    }
}

impl IntoResponse for EstError {
    fn into_response(self) -> Response {
        let status = if self.challenge { StatusCode::UNAUTHORIZED } else { self.error.status() };
        let text = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
        let mut response = (status, text, format!("{}\n", self.error)).into_response();
        if self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        response
    }
}

/// Member and token of HTTP Basic (RFC 7617).
pub struct Basic {
    member: String,
    token: Zeroizing<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Basic {
    type Rejection = EstError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, EstError> {
        let ask = |detail: &str| EstError {
            error: ApiError::new(StatusCode::UNAUTHORIZED, "credentials-needed", detail),
            challenge: true,
        };
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.ok_or_else(|| ask("give the member's id as user and its one-time token as password"))?;
        let unreadable = || ask("the credentials are not those of HTTP Basic: the member's id, a colon, its token");
        let (scheme, encoded) = given.split_once(' ').ok_or_else(unreadable)?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(unreadable());
        }
        let octets = Zeroizing::new(BASE64_STANDARD.decode(encoded.trim()).map_err(|_| unreadable())?);
        let text = std::str::from_utf8(&octets).map_err(|_| unreadable())?;
        let (member, token) = text.split_once(':').ok_or_else(unreadable)?;
        Ok(Self { member: member.to_owned(), token: Zeroizing::new(token.to_owned()) })
    }
}

/// The CAs: the root and the issuing CAs below it.
pub async fn cacerts(State(app): State<App>) -> Response {
    let authorities = app.pki.authorities();
    let all = std::iter::once(&app.pki.root[..]).chain(authorities.all().map(|issuer| issuer.certificate()));
    encoded(CERTIFICATES, &pkcs7::certs_only(all))
}

/// What a request should have: a P-256 key. Names come from the profile, whatever a request says.
pub async fn csrattrs() -> Response {
    encoded(ATTRIBUTES, &csr::attributes())
}

/// A certificate for the bearer of a token.
pub async fn simpleenroll(
    State(app): State<App>,
    credentials: Result<Basic, EstError>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, EstError> {
    // The body has been read by now: left unread it would cost the client its connection, and it has to ask again.
    let Basic { member, token } = credentials?;
    let unknown = || EstError {
        error: ApiError::new(StatusCode::UNAUTHORIZED, "token-unknown", "this member has no such token"),
        challenge: true,
    };
    let member: MemberId = member.parse().map_err(|_| unknown())?;
    let secret = TokenSecret::read(TokenKind::Enrolment, &token).map_err(|_| unknown())?;
    // Somebody else's token is as unknown as one that was never made.
    if app.view().tokens.get(&secret.hash()).is_none_or(|token| token.member != member) {
        return Err(unknown());
    }
    let request = decoded(&headers, &body)?;
    let enrolled = enrolled_by_token(&app, &secret, &request).await?;
    Ok(encoded(CERTIFICATES, &pkcs7::certs_only([&enrolled.der[..]])))
}

/// A new certificate for the holder of the one of this connection.
pub async fn simplereenroll(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, EstError> {
    let request = decoded(&headers, &body)?;
    let enrolled = renewed(&app, &who, &request).await?;
    Ok(encoded(CERTIFICATES, &pkcs7::certs_only([&enrolled.der[..]])))
}

/// The request of a body: base64 in lines or not; PEM and DER too, which some clients send.
fn decoded(headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(REQUEST) {
        let detail = format!("the body is {media_type:?}; send a certificate request as {REQUEST}");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail));
    }
    let is_der = matches!(body, [0x30, second, ..] if !second.is_ascii());
    if is_der || body.trim_ascii_start().starts_with(b"-----BEGIN") {
        return Ok(body.to_vec());
    }
    let characters: Vec<u8> = body.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(characters).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "csr-refused", format!("the body is not base64 of a request: {error}"))
    })
}

fn encoded(media_type: &'static str, octets: &[u8]) -> Response {
    let headers =
        [(header::CONTENT_TYPE, HeaderValue::from_static(media_type)), (ENCODING, HeaderValue::from_static("base64"))];
    (headers, BASE64_STANDARD.encode(octets)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(body: &[u8]) -> Result<Vec<u8>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/pkcs10; charset=us-ascii"));
        decoded(&headers, body)
    }

    #[test]
    fn requests_are_read_in_lines_in_one_line_in_pem_and_in_der() {
        let der = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
        let text = BASE64_STANDARD.encode(&der);
        let wrapped: String =
            text.as_bytes().chunks(76).map(|l| format!("{}\r\n", String::from_utf8_lossy(l))).collect();
        for body in [text.as_bytes(), wrapped.as_bytes(), &der] {
            assert_eq!(body_of(body).expect("reads"), der);
        }
        let pem = b"-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n";
        assert_eq!(body_of(pem).expect("is handed on"), pem);
        assert!(body_of(b"***").is_err());
        assert!(decoded(&HeaderMap::new(), text.as_bytes()).is_err(), "the media type is needed");
    }
}
