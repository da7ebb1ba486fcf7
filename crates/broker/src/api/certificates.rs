//! Tokens, enrolment, certificates and the CA.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use dnsbroker_api::Timestamp;
use dnsbroker_api::message::{
    Ca, Certificate, Enroll, Enrolment, IssueCertificate, Issued, NewToken, Page, Reason, Token,
};
use dnsbroker_api::problem::chain;
use dnsbroker_ca::{
    Principal, Profile, ReplicaIdError, RevocationReason, SerialNumber, Subject, TokenSecret, VerifiedCsr,
};
use dnsbroker_store::act::{self, bearer};
use dnsbroker_store::record;

use super::{ApiError, At, Caller};
use crate::app::App;
use crate::committer::now;
use crate::key::entropy;

type Body<T> = Result<Json<T>, JsonRejection>;

fn unavailable(error: impl std::error::Error) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ca-failed", chain(&error))
}

pub async fn tokens(State(app): State<App>) -> Json<Page<Token>> {
    let items = app.view().tokens.values().map(|token| shown_token(token)).collect();
    Json(Page { items, next: None })
}

pub async fn create_token(
    State(app): State<App>,
    Extension(Caller(actor)): Extension<Caller>,
    body: Body<NewToken>,
) -> Result<(StatusCode, Json<Token>), ApiError> {
    let Json(NewToken { member, ttl, key_pin }) = body?;
    let key_pin = match &key_pin {
        Some(text) => Some(text.parse().map_err(|error| ApiError::parameter("key_pin", text, error))?),
        None => None,
    };
    let secret = TokenSecret::from_entropy(entropy().map_err(unavailable)?);
    let profile = Profile::OPERATOR.to_owned();
    let create = act::CreateToken { hash: secret.hash(), member, profile, ttl, key_pin };
    let token = app.committer.commit(actor, create).await?;
    let instructions = Enrolment { url: app.listeners.api_url.clone(), ca_pin: app.pki.pin().to_string() };
    let shown =
        Token { token: Some(secret.reveal().to_string()), instructions: Some(instructions), ..shown_token(&token) };
    Ok((StatusCode::CREATED, Json(shown)))
}

fn shown_token(token: &record::Token) -> Token {
    Token {
        id: token.id(),
        member: token.member.clone(),
        expires: Timestamp(token.expires),
        certificate: token.used.as_ref().map(|used| used.certificate.to_string()),
        token: None,
        instructions: None,
    }
}

pub async fn enroll(State(app): State<App>, body: Body<Enroll>) -> Result<(StatusCode, Json<Issued>), ApiError> {
    let Json(Enroll { token, csr }) = body?;
    let secret: TokenSecret =
        token.parse().map_err(|error| ApiError::new(StatusCode::FORBIDDEN, "token-malformed", chain(&error)))?;
    let hash = secret.hash();
    // The profile comes from the token; an unknown token is refused by the act, with the operator's rules for the key.
    let name = app.view().tokens.get(&hash).map_or(Profile::OPERATOR.to_owned(), |token| token.profile.clone());
    let profile = app.pki.profile(&name).map_err(unavailable)?;
    let csr = verified(&csr, &profile)?;
    let enrol = act::Enrol { token: hash, csr, issuer: Arc::clone(&app.pki.issuer), profile, serial: new_serial()? };
    let enrolled = app.committer.commit(bearer(&hash), enrol).await?;
    Ok((StatusCode::CREATED, Json(issued(&app, &enrolled))))
}

pub async fn issue(
    State(app): State<App>,
    Extension(Caller(actor)): Extension<Caller>,
    body: Body<IssueCertificate>,
) -> Result<(StatusCode, Json<Issued>), ApiError> {
    let Json(IssueCertificate { member, replica, csr }) = body?;
    let (principal, profile) = match (member, replica) {
        (Some(member), None) => (Principal::Member(member), Profile::OPERATOR),
        (None, Some(text)) => {
            let replica = text.parse().map_err(|error: ReplicaIdError| ApiError::parameter("replica", &text, error))?;
            (Principal::Replica(replica), Profile::REPLICA)
        }
        _ => return Err(ApiError::parameter("holder", "", "is either a member or a replica: give one of them")),
    };
    let profile = app.pki.profile(profile).map_err(unavailable)?;
    let csr = verified(&csr, &profile)?;
    let issue = act::Issue {
        subject: Subject::Principal(principal),
        server_of: None,
        key: csr.public_key().clone(),
        issuer: Arc::clone(&app.pki.issuer),
        profile,
        serial: new_serial()?,
    };
    let enrolled = app.committer.commit(actor, issue).await?;
    Ok((StatusCode::CREATED, Json(issued(&app, &enrolled))))
}

fn verified(csr: &str, profile: &Profile) -> Result<VerifiedCsr, ApiError> {
    VerifiedCsr::new(csr.as_bytes(), &profile.key_policy())
        .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "csr-refused", chain(&error)))
}

fn new_serial() -> Result<SerialNumber, ApiError> {
    Ok(SerialNumber::from_entropy(entropy().map_err(unavailable)?))
}

fn issued(app: &App, enrolled: &act::Enrolled) -> Issued {
    Issued {
        certificate: shown(&enrolled.certificate),
        pem: dnsbroker_ca::chain::to_pem([&enrolled.der[..]]),
        chain: app.pki.chain_pem(&enrolled.der),
        ca: app.pki.root_pem(),
    }
}

pub async fn list(State(app): State<App>) -> Json<Page<Certificate>> {
    let view = app.view();
    let mut items: Vec<Certificate> = view.certificates.values().map(|certificate| shown(certificate)).collect();
    items.sort_by(|a, b| (a.not_before, &a.serial).cmp(&(b.not_before, &b.serial)));
    Json(Page { items, next: None })
}

pub async fn show(State(app): State<App>, At(serial): At<SerialNumber>) -> Result<Json<Certificate>, ApiError> {
    match app.view().certificates.get(&serial) {
        Some(certificate) => Ok(Json(shown(certificate))),
        None => Err(crate::committer::CommitError::Refused(dnsbroker_store::Refusal::NoCertificate(serial)).into()),
    }
}

pub async fn revoke(
    State(app): State<App>,
    Extension(Caller(actor)): Extension<Caller>,
    At(serial): At<SerialNumber>,
    body: Body<Reason>,
) -> Result<Json<Certificate>, ApiError> {
    let Json(Reason { reason }) = body?;
    let reason: RevocationReason = reason.parse().map_err(|error| ApiError::parameter("reason", &reason, error))?;
    let certificate = app.committer.commit(actor, act::Revoke { serial, reason, of: None }).await?;
    Ok(Json(shown(&certificate)))
}

fn shown(certificate: &record::Certificate) -> Certificate {
    let state = match &certificate.revoked {
        Some(revoked) => format!("revoked ({})", revoked.reason),
        None if certificate.not_after < now() => "expired".to_owned(),
        None => "valid".to_owned(),
    };
    Certificate {
        serial: certificate.serial.to_string(),
        member: certificate.member.clone(),
        replica: certificate.replica.as_ref().map(ToString::to_string),
        profile: certificate.profile.clone(),
        key: certificate.key.to_string(),
        not_before: Timestamp(certificate.not_before),
        not_after: Timestamp(certificate.not_after),
        state,
    }
}

pub async fn ca(State(app): State<App>) -> Json<Ca> {
    Json(Ca { root: app.pki.root_pem(), issuing: app.pki.issuing_pem(), pin: app.pki.pin().to_string() })
}
