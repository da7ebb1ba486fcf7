//! Who calls, and what each route asks of its caller: decided before a handler runs or a body is read.
//!
//! The listener that took the connection says how the caller proved itself ([`Caller`]). For each request that becomes a
//! [`Who`] under the current view, so that revocation and suspension bite on connections that are open, and is held
//! against the route's [`Need`]. A handler cannot be reached without it.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use dnsbroker_ca::{Principal, SerialNumber};
use dnsbroker_federation::MemberId;
use dnsbroker_store::record::Certificate;
use dnsbroker_store::{Actor, Denial, View};

use super::ApiError;
use crate::app::App;
use crate::committer::now;

/// How a caller proved itself, put into each request by the listener that took the connection.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Over TLS, without a certificate.
    Nobody,
    /// On the control socket, by the user id that the kernel tells.
    Local(u32),
    /// Over TLS, by a certificate of ours.
    Certificate(SerialNumber),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Local(user) => write!(f, "local:{user}"),
            Self::Certificate(serial) => write!(f, "certificate:{serial}"),
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
}

impl Who {
    fn of(caller: &Caller, view: &View, now: i64) -> Result<Self, Denial> {
        Ok(match caller {
            Caller::Nobody => Self { actor: Actor::Nobody, role: Role::Nobody, certificate: None },
            Caller::Local(user) => Self { actor: Actor::Local(*user), role: Role::Administrator, certificate: None },
            Caller::Certificate(serial) => {
                let certificate = Arc::clone(view.admit_holder(serial, now)?);
                let (actor, role) = match certificate.principal() {
                    Some(Principal::Member(member)) if certificate.not_after >= now => {
                        (Actor::Member(member.clone()), Role::Member(member))
                    }
                    _ => (Actor::Certificate(*serial), Role::Holder),
                };
                Self { actor, role, certificate: Some(certificate) }
            }
        })
    }

    /// The member for which alone it may act; none for an administrator.
    pub fn own(&self) -> Option<&MemberId> {
        match &self.role {
            Role::Member(member) => Some(member),
            _ => None,
        }
    }

    /// Whether something of this member is its business.
    pub fn may_see(&self, member: Option<&MemberId>) -> bool {
        match &self.role {
            Role::Administrator => true,
            Role::Member(own) => member == Some(own),
            Role::Holder | Role::Nobody => false,
        }
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// Any certificate of ours, for what concerns that certificate.
    Certificate,
    /// A member or an administrator; the handler shows each what is its business.
    Member,
    /// The member that the path names as `id`, or an administrator.
    Own,
    /// An administrator.
    Administrator,
}

impl Need {
    /// Whether `who` has it. `named` is the member that the path names.
    fn met(self, who: &Who, named: Option<&str>) -> Result<(), ApiError> {
        let member_or_administrator = match (&who.role, self) {
            (_, Self::Nothing) | (Role::Administrator, _) => return Ok(()),
            (Role::Member(_) | Role::Holder, Self::Certificate) | (Role::Member(_), Self::Member) => return Ok(()),
            (Role::Member(own), Self::Own) => {
                if named == Some(own.as_str()) {
                    return Ok(());
                }
                let detail = format!("your certificate is of member {own}, which acts for itself alone");
                return Err(ApiError::new(StatusCode::FORBIDDEN, "not-yours", detail));
            }
            (_, Self::Member | Self::Own) => true,
            _ => false,
        };
        Err(match (&who.role, member_or_administrator || self == Self::Certificate) {
            (Role::Nobody, true) => ApiError::new(
                StatusCode::UNAUTHORIZED,
                "no-certificate",
                "this needs a client certificate of the federation: show yours, or enrol with a token first",
            ),
            (Role::Holder, _) => ApiError::new(
                StatusCode::FORBIDDEN,
                "certificate-limited",
                "this certificate is good for its own renewal here, and for nothing else",
            ),
            _ => ApiError::new(
                StatusCode::FORBIDDEN,
                "administrators-only",
                "this is for administrators: use `dnsbroker` on the broker's machine",
            ),
        })
    }
}

/// Stands before each handler.
pub async fn permit(
    need: Need,
    State(app): State<App>,
    parameters: RawPathParams,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Nobody);
    if matches!(caller, Caller::Certificate(_)) && app.shared.standing.is_stale(now()) {
        let detail = app.shared.standing.trouble(now()).unwrap_or_default();
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "standby-stale", detail));
    }
    let who = Who::of(&caller, &app.view(), now()).map_err(denied)?;
    let named = parameters.iter().find_map(|(name, value)| (name == "id").then_some(value));
    need.met(&who, named)?;
    request.extensions_mut().insert(who);
    Ok(next.run(request).await)
}

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

/// The caller's name in the audit.
pub struct By(pub Actor);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // `permit` stands before each handler and puts it there.
        Ok(Self(parts.extensions.get::<Who>().map_or(Actor::Nobody, |who| who.actor.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(role: Role) -> Who {
        Who { actor: Actor::Nobody, role, certificate: None }
    }

    #[test]
    fn each_need_is_met_by_those_it_is_for_and_by_nobody_else() {
        let roles = [Role::Nobody, Role::Holder, Role::Member("a".parse().expect("valid")), Role::Administrator];
        let table = [
            (Need::Nothing, [true, true, true, true]),
            (Need::Certificate, [false, true, true, true]),
            (Need::Member, [false, false, true, true]),
            (Need::Own, [false, false, true, true]),
            (Need::Administrator, [false, false, false, true]),
        ];
        for (need, allowed) in table {
            for (role, allowed) in roles.iter().zip(allowed) {
                assert_eq!(need.met(&who(role.clone()), Some("a")).is_ok(), allowed, "{need:?} {role:?}");
            }
        }
        let member = who(roles[2].clone());
        assert!(Need::Own.met(&member, Some("b")).is_err() && Need::Own.met(&member, None).is_err());
    }
}
