//! Who calls, and what each route asks of its caller: decided before a handler runs or a body is read.
//!
//! The listener that took the connection says how the other side proved itself ([`Caller`]); a request may bring a session or
//! an API token. For each request that becomes a [`Who`] under the current view, so that revocation, suspension and
//! logout bite on connections that are open, and is held against the route's [`Need`]. A handler cannot be reached
//! without it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dnsbroker_ca::{Principal, SerialNumber, TokenKind, TokenSecret};
use dnsbroker_federation::MemberId;
use dnsbroker_store::record::{self, Certificate, Scope, TokenOwner};
use dnsbroker_store::{Actor, Denial, View};
use hyper::body::{Frame, SizeHint};

use super::ApiError;
use super::quota::Left;
use crate::account::session::{CSRF, SessionError, cookie};
use crate::app::App;
use crate::committer::now;

/// How the other side of a connection proved itself, put into each request by the listener that took it.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Over TLS, without a certificate.
    Nobody(IpAddr),
    /// On the control socket, by the user id that the kernel tells.
    Local(u32),
    /// Over TLS, by a certificate of ours.
    Certificate(SerialNumber, IpAddr),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(address) => write!(f, "{address}"),
            Self::Local(user) => write!(f, "local:{user}"),
            Self::Certificate(serial, address) => write!(f, "certificate:{serial} {address}"),
        }
    }
}

/// What a caller may be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Anybody on the network.
    Nobody,
    /// Whoever has a certificate of ours that speaks for no member: a replica, a server, a gateway, or a member in grace.
    Holder,
    /// A member, for itself.
    Member(MemberId),
    /// Reads everything, and changes nothing.
    Auditor,
    /// An administrator of the federation.
    Administrator,
}

/// Who calls, as of this request.
#[derive(Debug, Clone)]
pub struct Who {
    /// Its name in the audit.
    pub actor: Actor,
    /// What it may be.
    pub role: Role,
    /// The certificate it has shown.
    pub certificate: Option<Arc<Certificate>>,
    /// What its API token allows; everything that its role may where it has none.
    pub scopes: Option<BTreeSet<Scope>>,
    /// The cookie of its session.
    pub session: Option<String>,
    /// Where it is.
    pub address: Option<IpAddr>,
}

impl Who {
    fn plain(actor: Actor, role: Role) -> Self {
        Self { actor, role, certificate: None, scopes: None, session: None, address: None }
    }

    /// By what the request brings, else by what the connection proved.
    fn of(app: &App, caller: &Caller, request: &Request) -> Result<Self, ApiError> {
        let (method, headers) = (request.method(), request.headers());
        let (view, now) = (app.view(), now());
        let address = match caller {
            Caller::Local(user) => return Ok(Self::plain(Actor::Local(*user), Role::Administrator)),
            Caller::Nobody(address) | Caller::Certificate(_, address) => Some(*address),
        };
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        // EST has its own credentials (RFC 7030, section 3.2.3), and says so itself when there are others.
        let est = request.uri().path().starts_with("/.well-known/est/");
        let bearer = text(header::AUTHORIZATION).filter(|_| !est).and_then(|value| value.strip_prefix("Bearer "));
        let who = if let Some(token) = bearer {
            Self::by_token(&view, token, now)?
        } else if let Some(cookie) = text(header::COOKIE).and_then(cookie) {
            let csrf = (*method != Method::GET).then(|| headers.get(CSRF).and_then(|v| v.to_str().ok()).unwrap_or(""));
            let known = app.sessions.known(cookie, csrf, &view, now).map_err(|error| match error {
                SessionError::Over => ApiError::new(StatusCode::UNAUTHORIZED, "session-over", error),
                SessionError::Csrf => ApiError::new(StatusCode::FORBIDDEN, "csrf", error),
            });
            match known {
                Ok(known) => {
                    let who = Self::plain(Actor::Administrator(known.name), role_of(known.role));
                    Self { session: Some(cookie.to_owned()), ..who }
                }
                // A cookie that is over must not stand in the way of a new login, or of a certificate.
                Err(error) if error.status() == StatusCode::UNAUTHORIZED => match caller {
                    Caller::Certificate(serial, _) => Self::by_certificate(&view, serial, now).map_err(denied)?,
                    _ => Self::plain(Actor::Nobody, Role::Nobody),
                },
                Err(error) => return Err(error),
            }
        } else {
            match caller {
                Caller::Certificate(serial, _) => Self::by_certificate(&view, serial, now).map_err(denied)?,
                _ => Self::plain(Actor::Nobody, Role::Nobody),
            }
        };
        Ok(Self { address, ..who })
    }

    fn by_certificate(view: &View, serial: &SerialNumber, now: i64) -> Result<Self, Denial> {
        let certificate = Arc::clone(view.admit_holder(serial, now)?);
        let (actor, role) = match certificate.principal() {
            Some(Principal::Member(member)) if certificate.not_after >= now => {
                (Actor::Member(member.clone()), Role::Member(member))
            }
            _ => (Actor::Certificate(*serial), Role::Holder),
        };
        Ok(Self { certificate: Some(certificate), ..Self::plain(actor, role) })
    }

    fn by_token(view: &View, token: &str, now: i64) -> Result<Self, ApiError> {
        let refused = |why: &dyn fmt::Display| ApiError::new(StatusCode::UNAUTHORIZED, "api-token-refused", why);
        let secret = TokenSecret::read(TokenKind::Api, token).map_err(|error| refused(&error))?;
        let token = view.api_token(&secret.hash(), now).map_err(|denial| refused(&denial))?;
        let role = match &token.owner {
            TokenOwner::Member(member) => Role::Member(member.clone()),
            TokenOwner::Administrator(name) => {
                view.accounts.administrators.get(name).map_or(Role::Nobody, |owner| role_of(owner.role))
            }
        };
        let actor = Actor::ApiToken(token.id(), token.owner.clone());
        Ok(Self { scopes: Some(token.scopes.clone()), ..Self::plain(actor, role) })
    }

    /// The member for which alone it may act; none for an administrator or auditor.
    pub fn own(&self) -> Option<&MemberId> {
        match &self.role {
            Role::Member(member) => Some(member),
            _ => None,
        }
    }

    /// Whether something of this member is its business.
    pub fn may_see(&self, member: Option<&MemberId>) -> bool {
        match &self.role {
            Role::Administrator | Role::Auditor => true,
            Role::Member(own) => member == Some(own),
            Role::Holder | Role::Nobody => false,
        }
    }

    /// Under which name its requests are counted and repeated: a person's or program's, else the address.
    pub fn identity(&self) -> String {
        match (&self.actor, self.address) {
            (Actor::Nobody, Some(address)) => format!("address:{address}"),
            (actor, _) => actor.to_string(),
        }
    }
}

fn role_of(role: record::Role) -> Role {
    match role {
        record::Role::Admin => Role::Administrator,
        record::Role::Auditor => Role::Auditor,
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// Any certificate of ours, for what concerns that certificate.
    Certificate,
    /// A session.
    Session,
    /// A member or an administrator; the handler shows each what is its business. Auditors read.
    Member,
    /// The member that the path names as `id`, or an administrator. Auditors read.
    Own,
    /// An administrator or an auditor.
    Look,
    /// An administrator.
    Administrator,
}

impl Need {
    /// Whether `who` has it. `named` is the member that the path names; `reads` says that the request changes nothing.
    pub fn met(self, who: &Who, named: Option<&str>, reads: bool) -> Result<(), ApiError> {
        match (&who.role, self) {
            (_, Self::Nothing) => return Ok(()),
            (_, Self::Session) if who.session.is_some() => return Ok(()),
            (_, Self::Certificate) if who.certificate.is_some() => return Ok(()),
            (_, Self::Session | Self::Certificate) => {}
            (Role::Administrator, _) | (Role::Member(_), Self::Member) | (Role::Auditor, Self::Look) => return Ok(()),
            (Role::Auditor, Self::Member | Self::Own) if reads => return Ok(()),
            (Role::Member(own), Self::Own) => {
                if named == Some(own.as_str()) {
                    return Ok(());
                }
                let detail = format!("you are member {own}, and act for yourself alone");
                return Err(ApiError::new(StatusCode::FORBIDDEN, "not-yours", detail));
            }
            _ => {}
        }
        let (status, code, detail) = match (&who.role, self) {
            (_, Self::Session) => (
                StatusCode::UNAUTHORIZED,
                "session-needed",
                "this is for who has logged in: POST /api/v1/session first",
            ),
            (_, Self::Certificate) => (
                StatusCode::UNAUTHORIZED,
                "no-certificate",
                "this needs a client certificate of the federation: show yours, or enrol with a token first",
            ),
            (Role::Nobody, Self::Member | Self::Own) => (
                StatusCode::UNAUTHORIZED,
                "no-certificate",
                "this needs a client certificate of the federation, an API token or a session: show yours, or enrol first",
            ),
            (Role::Nobody, _) => (
                StatusCode::UNAUTHORIZED,
                "login-needed",
                "this is for administrators: log in, bring an API token, or use `dnsbroker` on the broker's machine",
            ),
            (Role::Holder, _) => (
                StatusCode::FORBIDDEN,
                "certificate-limited",
                "this certificate is good for its own renewal here, and for nothing else",
            ),
            (Role::Auditor, _) => {
                (StatusCode::FORBIDDEN, "auditors-read", "auditors read everything and change nothing")
            }
            _ => (StatusCode::FORBIDDEN, "administrators-only", "this is for administrators of the federation"),
        };
        Err(ApiError::new(status, code, detail))
    }
}

/// The scope that an API token needs to change something under a path.
pub fn scope_of(path: &str) -> Scope {
    match path.split('/').nth(3).unwrap_or_default() {
        "devices" | "claims" | "moves" => Scope::Devices,
        "members" if path.ends_with("/devices") => Scope::Devices,
        "members" | "netids" | "tokens" => Scope::Members,
        "sources" | "replicas" | "keys" => Scope::Transfers,
        "certificates" | "ca" => Scope::Certificates,
        "policy" => Scope::Policy,
        _ => Scope::Admin,
    }
}

/// What is known of a route before a request comes.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// Who may.
    pub need: Need,
    /// The scope that changes need.
    pub scope: Scope,
    /// Whether the answer holds secrets, so that reading it is not enough.
    pub secret: bool,
}

/// Stands before each handler.
pub async fn permit(
    gate: Gate,
    State(app): State<App>,
    parameters: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let (left, permitted) = decide(gate, &app, &parameters, &request);
    let mut response = match permitted {
        Ok(who) => {
            request.extensions_mut().insert(who);
            let (parts, body) = request.into_parts();
            let lent = Lent::of(body);
            let response = next.run(Request::from_parts(parts, Body::new(lent.clone()))).await;
            if response.status().is_client_error() {
                discard(Body::new(lent)).await;
            }
            response
        }
        Err(refused) => {
            discard(request.into_body()).await;
            refused.into_response()
        }
    };
    if let Some(left) = left {
        left.tell(response.headers_mut());
    }
    response
}

/// Who calls, if they may; and what is left of the requests they may make.
fn decide(
    gate: Gate,
    app: &App,
    parameters: &RawPathParams,
    request: &Request,
) -> (Option<Left>, Result<Who, ApiError>) {
    let caller = request.extensions().get::<Caller>().cloned();
    // Each listener says who calls; without that nobody does.
    let caller = caller.unwrap_or(Caller::Nobody(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)));
    if comes_from_elsewhere(request) {
        let detail = "this request comes from a page of another site, which may change nothing here";
        return (None, Err(ApiError::new(StatusCode::FORBIDDEN, "cross-site", detail)));
    }
    let stale = app.shared.standing.is_stale(now());
    if matches!(caller, Caller::Certificate(..)) && stale {
        return (None, Err(ApiError::stale(&app.shared.standing)));
    }
    let who = match Who::of(app, &caller, request) {
        Ok(who) => who,
        Err(refused) => return (None, Err(refused)),
    };
    // Who is on the machine itself, by the control socket, is the one who can put it right.
    if stale && who.role != Role::Nobody && !matches!(caller, Caller::Local(_)) {
        return (None, Err(ApiError::stale(&app.shared.standing)));
    }
    let config = app.config.load();
    let limit = match who.role {
        Role::Nobody => Some(config.limits.api_requests_per_minute_anonymous),
        _ if matches!(caller, Caller::Local(_)) => None,
        _ => Some(config.limits.api_requests_per_minute),
    };
    let left = limit.map(|limit| app.quotas.count(&who.identity(), limit, now()));
    if let Some(left) = left.filter(|left| left.exceeded) {
        return (Some(left), Err(ApiError::too_many("too many requests", left.reset)));
    }
    let reads = request.method() == Method::GET;
    let named = parameters.iter().find_map(|(name, value)| (name == "id").then_some(value));
    let met = gate.need.met(&who, named, reads && !gate.secret).and_then(|()| scoped(&who, gate, reads));
    (left, met.map(|()| who))
}

/// Whether a page of another site wants to change something. A browser shows a client certificate for whoever asks it to, so
/// the certificate alone does not prove that the member meant it. Browsers say where a request comes from (Fetch
/// Metadata, or Origin); programs say nothing, and are asked for nothing.
fn comes_from_elsewhere(request: &Request) -> bool {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text("origin") else { return false };
    let host = request.uri().authority().map(|authority| authority.as_str()).or_else(|| text("host"));
    host.is_none_or(|host| origin.split_once("://").is_none_or(|(_, site)| !site.eq_ignore_ascii_case(host)))
}

fn scoped(who: &Who, gate: Gate, reads: bool) -> Result<(), ApiError> {
    let Some(scopes) = &who.scopes else { return Ok(()) };
    let needed = match (gate.need, reads && !gate.secret) {
        (Need::Nothing, _) => return Ok(()),
        (_, true) => Scope::Read,
        (_, false) => gate.scope,
    };
    if needed == Scope::Read || scopes.contains(&needed) || scopes.contains(&Scope::Admin) {
        return Ok(());
    }
    let name = serde_json::to_value(needed).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
    let detail = format!("the API token lacks the scope {name}");
    Err(ApiError::new(StatusCode::FORBIDDEN, "scope-lacking", detail))
}

/// A body that is lent to a handler: what it leaves unread can be read afterwards.
#[derive(Clone)]
struct Lent(Arc<Mutex<Body>>);

impl Lent {
    fn of(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

/// Reads a short body that nobody wants: left unread it would cost the client the connection, and perhaps the answer.
async fn discard(body: Body) {
    if !body.is_end_stream() && body.size_hint().lower() <= DISCARDED as u64 {
        // Longer than announced, too slow or broken off: the connection ends then, which is what it deserves.
        let _ = tokio::time::timeout(DISCARD_WITHIN, to_bytes(body, DISCARDED)).await;
    }
}

/// Octets of a refused request's body that are read at most.
const DISCARDED: usize = 64 * 1024;
/// How long that may take.
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// A certificate that was good when the connection was made, and is so no more.
fn denied(denial: Denial) -> ApiError {
    let code = match denial {
        Denial::Revoked(_) => "certificate-revoked",
        Denial::Expired(_) => "certificate-expired",
        Denial::Suspended(_) => "member-suspended",
        _ => "certificate-refused",
    };
    ApiError::new(StatusCode::FORBIDDEN, code, denial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_need_is_met_by_those_it_is_for_and_by_nobody_else() {
        let member = Role::Member("a".parse().expect("valid"));
        let roles = [Role::Nobody, Role::Holder, member.clone(), Role::Auditor, Role::Administrator];
        let table = [
            (Need::Nothing, true, [true, true, true, true, true]),
            (Need::Member, true, [false, false, true, true, true]),
            (Need::Member, false, [false, false, true, false, true]),
            (Need::Own, true, [false, false, true, true, true]),
            (Need::Own, false, [false, false, true, false, true]),
            (Need::Look, true, [false, false, false, true, true]),
            (Need::Administrator, true, [false, false, false, false, true]),
            (Need::Certificate, true, [false, false, false, false, false]),
            (Need::Session, true, [false, false, false, false, false]),
        ];
        for (need, reads, allowed) in table {
            for (role, allowed) in roles.iter().zip(allowed) {
                let who = Who::plain(Actor::Nobody, role.clone());
                assert_eq!(need.met(&who, Some("a"), reads).is_ok(), allowed, "{need:?} {role:?} {reads}");
            }
        }
        let member = Who::plain(Actor::Nobody, member);
        assert!(Need::Own.met(&member, Some("b"), true).is_err() && Need::Own.met(&member, None, true).is_err());
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let asks = |method: Method, headers: &[(&str, &str)]| {
            let mut request = http::Request::builder().method(method).uri("/api/v1/members");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            comes_from_elsewhere(&request.body(Body::empty()).expect("a request"))
        };
        let host = ("host", "broker.fed.example:8443");
        assert!(!asks(Method::POST, &[host]), "a program");
        assert!(!asks(Method::POST, &[host, ("sec-fetch-site", "same-origin")]));
        assert!(!asks(Method::POST, &[host, ("origin", "https://broker.fed.example:8443")]));
        assert!(!asks(Method::GET, &[host, ("sec-fetch-site", "cross-site")]));
        for site in ["cross-site", "same-site", ""] {
            assert!(asks(Method::POST, &[host, ("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["https://evil.example", "null", "https://broker.fed.example"] {
            assert!(asks(Method::PUT, &[host, ("origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn changes_need_the_scope_of_their_part_of_the_api() {
        assert_eq!(scope_of("/api/v1/members/{id}/netids/{netid}/devices"), Scope::Devices);
        assert_eq!(scope_of("/api/v1/members/{id}/suspend"), Scope::Members);
        assert_eq!(scope_of("/api/v1/administrators"), Scope::Admin);
        let gate = Gate { need: Need::Member, scope: Scope::Devices, secret: false };
        let with = |scopes: &[Scope]| Who {
            scopes: Some(scopes.iter().copied().collect()),
            ..Who::plain(Actor::Nobody, Role::Administrator)
        };
        assert!(scoped(&with(&[Scope::Read]), gate, true).is_ok());
        assert!(scoped(&with(&[Scope::Read, Scope::Policy]), gate, false).is_err());
        assert!(scoped(&with(&[Scope::Devices]), gate, false).is_ok());
        assert!(scoped(&with(&[Scope::Admin]), gate, false).is_ok());
        assert!(scoped(&with(&[Scope::Read]), Gate { secret: true, ..gate }, true).is_err());
    }
}
