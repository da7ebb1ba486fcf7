//! Tokens, enrolment, certificates and the CA.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Json, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dnsbroker_api::Timestamp;
use dnsbroker_api::listed::{ListCertificates, ListTokens, RootCrlOptions, SortCertificates, SortTokens};
use dnsbroker_api::message::{
    Ca, Certificate, Crl, Enroll, Enrolment, InstallCa, IssueCertificate, Issued, IssuingRequest, NewToken, Page,
    Reason, RenewCertificate, RequestIssuing, RevokeCertificates, RootCrl, Token,
};
use dnsbroker_api::problem::chain;
use dnsbroker_ca::{
    Principal, Profile, RevocationReason, SerialNumber, ServerName, Subject, TokenKind, TokenSecret, VerifiedCsr,
    ca_id, certified_key, chain as pem,
};
use dnsbroker_store::act::{self, Renewer, Which, bearer};
use dnsbroker_store::{Refusal, View, record};
use zeroize::Zeroizing;

use super::call::Call;
use super::caller::Role;
use super::paging::page;
use super::{ApiError, At, Who};
use crate::app::App;
use crate::committer::{CommitError, now};
use crate::key::{entropy, new_token};
use crate::pki::{Candidate, Office, PkiError};
use crate::publication;

type Body<T> = Result<Json<T>, JsonRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) fn unavailable(error: impl std::error::Error) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ca-failed", chain(&error))
}

pub async fn tokens(State(app): State<App>, query: Asked<ListTokens>) -> Result<Json<Page<Token>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let wanted = |token: &record::Token| {
        query.member.as_ref().is_none_or(|member| token.member == *member)
            && query.used.is_none_or(|used| token.used.is_some() == used)
    };
    let (tokens, paging) = (view.tokens.values().filter(|token| wanted(token)), query.paging());
    let place = |token: &&Arc<record::Token>| {
        let by = match paging.sort {
            SortTokens::Expires => token.expires.into(),
            SortTokens::Created => token.created.into(),
            SortTokens::Member => (&token.member).into(),
        };
        (by, token.id().into())
    };
    Ok(Json(page(tokens, &paging, place, |token| shown_token(token))?))
}

pub async fn create_token(State(app): State<App>, call: Call, body: Body<NewToken>) -> Result<Response, ApiError> {
    let Json(new) = body?;
    let NewToken { member, ttl, key_pin } = new.clone();
    let key_pin = match &key_pin {
        Some(text) => Some(text.parse().map_err(|error| ApiError::parameter("key_pin", text, error))?),
        None => None,
    };
    let secret = new_token(TokenKind::Enrolment).map_err(unavailable)?;
    let profile = Profile::OPERATOR.to_owned();
    let create = act::CreateToken { hash: secret.hash(), member, profile, ttl, key_pin };
    let instructions = Enrolment { url: app.listeners.api_url.clone(), ca_pin: app.pki.pin().to_string() };
    call.create(&app, &new, create, move |token| Token {
        token: Some(secret.reveal().to_string()),
        instructions: Some(instructions),
        ..shown_token(token)
    })
    .await
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

/// What a request by token gets; for REST and EST.
pub(super) async fn enrolled_by_token(app: &App, secret: &TokenSecret, csr: &[u8]) -> Result<act::Enrolled, ApiError> {
    let hash = secret.hash();
    // The profile comes from the token; an unknown token is refused by the act, with the operator's rules for the key.
    let name = app.view().tokens.get(&hash).map_or(Profile::OPERATOR.to_owned(), |token| token.profile.clone());
    let profile = app.pki.profile(&name).map_err(unavailable)?;
    let csr = verified(csr, &profile)?;
    let issuer = app.pki.issuer_of(&profile);
    let enrol = act::Enrol { token: hash, csr, issuer, profile, serial: new_serial()? };
    Ok(app.committer.commit(bearer(&hash), enrol).await?)
}

/// What the holder of a certificate gets in its place; for REST and EST.
pub(super) async fn renewed(app: &App, who: &Who, csr: &[u8]) -> Result<act::Enrolled, ApiError> {
    match &who.certificate {
        Some(old) => renew_with(app, who, old, Renewer::Holder, csr).await,
        None => {
            let detail = "you have shown no certificate that could be renewed; administrators name it in the path";
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "no-certificate", detail))
        }
    }
}

async fn renew_with(
    app: &App,
    who: &Who,
    old: &record::Certificate,
    by: Renewer,
    csr: &[u8],
) -> Result<act::Enrolled, ApiError> {
    let profile = app.pki.profile(&old.profile).map_err(unavailable)?;
    let csr = verified(csr, &profile)?;
    let issuer = app.pki.issuer_of(&profile);
    let renew = act::Renew { old: old.serial, by, csr, issuer, profile, serial: new_serial()? };
    Ok(app.committer.commit(who.actor.clone(), renew).await?)
}

pub async fn enroll(State(app): State<App>, body: Body<Enroll>) -> Result<(StatusCode, Json<Issued>), ApiError> {
    let Json(Enroll { token, csr }) = body?;
    let token = Zeroizing::new(token);
    let secret = TokenSecret::read(TokenKind::Enrolment, &token)
        .map_err(|error| ApiError::new(StatusCode::FORBIDDEN, "token-malformed", chain(&error)))?;
    let enrolled = enrolled_by_token(&app, &secret, csr.as_bytes()).await?;
    Ok((StatusCode::CREATED, Json(issued(&app, &enrolled))))
}

pub async fn issue(State(app): State<App>, call: Call, body: Body<IssueCertificate>) -> Result<Response, ApiError> {
    let Json(new) = body?;
    let (who, IssueCertificate { member, replica, gateway, names, csr }) = (&call.who, new.clone());
    // A member asks for itself, and for nothing that speaks for it: that is what renewal and tokens are for.
    let member = match who.own() {
        Some(own) if member.as_ref().is_some_and(|member| member != own) || replica.is_some() => {
            let detail = format!("member {own} can ask for certificates of its own servers and gateways alone");
            return Err(ApiError::new(StatusCode::FORBIDDEN, "not-yours", detail));
        }
        Some(own) => Some(own.clone()),
        None => member,
    };
    let (subject, server_of, profile) = match (member, replica, gateway) {
        (Some(member), None, None) if !names.is_empty() => {
            (Subject::Server(names.into_iter().map(ServerName::Dns).collect()), Some(member), Profile::LNS)
        }
        (Some(member), None, Some(gateway)) if names.is_empty() => {
            (Subject::Gateway { member, gateway }, None, Profile::GATEWAY)
        }
        (Some(member), None, None) if who.role == Role::Administrator => {
            (Subject::Principal(Principal::Member(member)), None, Profile::OPERATOR)
        }
        (None, Some(text), None) if names.is_empty() => {
            let replica = text.parse().map_err(|error| ApiError::parameter("replica", &text, error))?;
            (Subject::Principal(Principal::Replica(replica)), None, Profile::REPLICA)
        }
        _ => {
            let why = "is one of: a member; a member with the names of its server; a member with a gateway; a replica";
            return Err(ApiError::parameter("holder", "", why));
        }
    };
    let profile = app.pki.profile(profile).map_err(unavailable)?;
    let csr = verified(csr.as_bytes(), &profile)?;
    let (key, issuer, serial) = (csr.public_key().clone(), app.pki.issuer_of(&profile), new_serial()?);
    let issue = act::Issue { subject, server_of, key, issuer, profile, serial };
    let parts = app.clone();
    call.create(&app, &new, issue, move |enrolled| issued(&parts, enrolled)).await
}

pub async fn renew(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(serial): At<SerialNumber>,
    body: Body<RenewCertificate>,
) -> Result<(StatusCode, Json<Issued>), ApiError> {
    let Json(RenewCertificate { csr }) = body?;
    let old = known(&app.view(), &who, serial)?;
    let enrolled = renew_with(&app, &who, &old, Renewer::Administrator, csr.as_bytes()).await?;
    Ok((StatusCode::CREATED, Json(issued(&app, &enrolled))))
}

pub(super) fn verified(csr: &[u8], profile: &Profile) -> Result<VerifiedCsr, ApiError> {
    VerifiedCsr::new(csr, &profile.key_policy())
        .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "csr-refused", chain(&error)))
}

pub(super) fn new_serial() -> Result<SerialNumber, ApiError> {
    Ok(SerialNumber::from_entropy(entropy().map_err(unavailable)?))
}

pub(super) fn issued(app: &App, enrolled: &act::Enrolled) -> Issued {
    Issued {
        certificate: shown(&app.view(), &enrolled.certificate),
        pem: pem::to_pem([&enrolled.der[..]]),
        chain: app.pki.chain_pem(&enrolled.der, &enrolled.certificate.ca),
        ca: app.pki.root_pem(),
    }
}

pub async fn list(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    query: Asked<ListCertificates>,
) -> Result<Json<Page<Certificate>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let wanted = |known: &record::Certificate| {
        who.may_see(known.member.as_ref())
            && query.member.as_ref().is_none_or(|member| known.member.as_ref() == Some(member))
            && query.profile.as_ref().is_none_or(|profile| known.profile == *profile)
            // "revoked" is told with its reason.
            && query.state.as_ref().is_none_or(|wanted| state(&view, known).split(' ').next() == Some(wanted))
    };
    let (known, paging) = (view.certificates.values().filter(|known| wanted(known)), query.paging());
    let place = |known: &&Arc<record::Certificate>| {
        let by = match paging.sort {
            SortCertificates::Issued => known.issued.into(),
            SortCertificates::NotAfter => known.not_after.into(),
            SortCertificates::RenewAt => known.renew_at().into(),
            SortCertificates::Member => known.member.as_ref().into(),
            SortCertificates::Revoked => view.revoked(known).map(|revoked| revoked.at).into(),
        };
        (by, known.serial.to_string().into())
    };
    Ok(Json(page(known, &paging, place, |known| shown(&view, known))?))
}

pub async fn show(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(serial): At<SerialNumber>,
) -> Result<Json<Certificate>, ApiError> {
    let view = app.view();
    let certificate = known(&view, &who, serial)?;
    Ok(Json(shown(&view, &certificate)))
}

/// A certificate that is the caller's business; another member's is as unknown as none.
fn known(view: &View, who: &Who, serial: SerialNumber) -> Result<Arc<record::Certificate>, ApiError> {
    let certificate = view.certificates.get(&serial).filter(|known| who.may_see(known.member.as_ref()));
    certificate.cloned().ok_or_else(|| CommitError::Refused(Refusal::NoCertificate(serial)).into())
}

pub async fn revoke(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(serial): At<SerialNumber>,
    body: Body<Reason>,
) -> Result<Json<Certificate>, ApiError> {
    let Json(Reason { reason }) = body?;
    let revoke = act::Revoke { serial, reason: revocation_reason(&reason)?, of: who.own().cloned() };
    let certificate = app.committer.commit(who.actor, revoke).await?;
    Ok(Json(shown(&app.view(), &certificate)))
}

pub async fn revoke_several(
    State(app): State<App>,
    call: Call,
    body: Body<RevokeCertificates>,
) -> Result<Json<Page<Certificate>>, ApiError> {
    let Json(RevokeCertificates { key, lineage, member, replica, reason }) = body?;
    let which = match (key, lineage, member, replica) {
        (Some(text), None, None, None) => {
            Which::Key(text.parse().map_err(|error| ApiError::parameter("key", &text, error))?)
        }
        (None, Some(text), None, None) => {
            Which::Lineage(text.parse().map_err(|error| ApiError::parameter("lineage", &text, error))?)
        }
        (None, None, Some(member), None) => Which::Member(member),
        (None, None, None, Some(text)) => {
            Which::Replica(text.parse().map_err(|error| ApiError::parameter("replica", &text, error))?)
        }
        _ => {
            return Err(ApiError::parameter(
                "which",
                "",
                "is one of key, lineage, member and replica: give one of them",
            ));
        }
    };
    let revoked =
        app.committer.commit(call.actor(), act::RevokeAll { which, reason: revocation_reason(&reason)? }).await?;
    let view = app.view();
    Ok(Json(Page { items: revoked.iter().map(|certificate| shown(&view, certificate)).collect(), next: None }))
}

fn revocation_reason(text: &str) -> Result<RevocationReason, ApiError> {
    match text.parse() {
        Ok(RevocationReason::CertificateHold) => {
            let why = "is what suspending a member says; a certificate that is revoked stays so";
            Err(ApiError::parameter("reason", text, why))
        }
        Ok(reason) => Ok(reason),
        Err(error) => Err(ApiError::parameter("reason", text, error)),
    }
}

pub(super) fn shown(view: &View, certificate: &record::Certificate) -> Certificate {
    Certificate {
        serial: certificate.serial.to_string(),
        member: certificate.member.clone(),
        replica: certificate.replica.as_ref().map(ToString::to_string),
        gateway: certificate.gateway.clone(),
        names: certificate.names.clone(),
        profile: certificate.profile.clone(),
        issuer: certificate.ca.clone(),
        renews: certificate.renews.map(|serial| serial.to_string()),
        lineage: certificate.lineage().to_string(),
        key: certificate.key.to_string(),
        not_before: Timestamp(certificate.not_before),
        not_after: Timestamp(certificate.not_after),
        renew_at: Timestamp(certificate.renew_at()),
        state: state(view, certificate),
        revoked: view.revoked(certificate).map(|revoked| Timestamp(revoked.at)),
    }
}

fn state(view: &View, certificate: &record::Certificate) -> String {
    match view.revoked(certificate) {
        Some(revoked) if revoked.reason == RevocationReason::CertificateHold => "suspended".to_owned(),
        Some(revoked) => format!("revoked ({})", revoked.reason),
        None if certificate.not_after < now() => "expired".to_owned(),
        None => "valid".to_owned(),
    }
}

pub async fn ca(State(app): State<App>) -> Json<Ca> {
    let authorities = app.pki.authorities();
    Json(Ca {
        root: app.pki.root_pem(),
        issuing: pem::to_pem([authorities.issuer.certificate()]),
        lns: pem::to_pem(authorities.lns.iter().map(|issuer| issuer.certificate())),
        previous: pem::to_pem(authorities.previous.iter().map(|issuer| issuer.certificate())),
        pin: app.pki.pin().to_string(),
    })
}

/// The last list of each CA.
pub async fn crls(State(app): State<App>) -> Json<Page<Crl>> {
    publication::settled(&app).await;
    let (view, now, base) = (app.view(), now(), app.pki.base().unwrap_or_default().to_owned());
    let revoked = |ca: &str| app.lists.revoked(ca).unwrap_or_else(|| view.revoked_of(ca, now).len());
    let shown = |head: &record::CrlHead| Crl {
        ca: head.ca.clone(),
        number: head.number,
        this_update: Timestamp(head.this_update),
        next_update: Timestamp(head.next_update),
        revoked: revoked(&head.ca) as u64,
        url: if base.is_empty() { String::new() } else { format!("{base}/crl/{}.crl", head.ca) },
    };
    Json(Page { items: view.crls.values().map(shown).collect(), next: None })
}

/// A request for the certificate of an issuing CA, to be carried to the root's key.
pub async fn request_issuing(
    State(app): State<App>,
    call: Call,
    body: Body<RequestIssuing>,
) -> Result<Json<IssuingRequest>, ApiError> {
    let Json(RequestIssuing { renew, lns }) = body?;
    let office = if lns { Office::Lns } else { Office::General };
    let object = if renew { "renewal" } else { "rotation" };
    let detail = serde_json::json!({ "for": office.name() });
    let witness = act::Witness { act: "ca.request", object: object.to_owned(), detail };
    app.committer.commit(call.actor(), witness).await?;
    let parts = app.clone();
    let request = blocking(move || parts.pki.request(&parts.config.load(), office, renew)).await?;
    let csr = ::pem::encode(&::pem::Pem::new("CERTIFICATE REQUEST", request));
    Ok(Json(IssuingRequest { csr, permitted: app.pki.permitted(office).cloned() }))
}

/// Takes the certificate that the root has signed.
pub async fn install_issuing(State(app): State<App>, call: Call, body: Body<InstallCa>) -> Result<Json<Ca>, ApiError> {
    let Json(InstallCa { pem }) = body?;
    let certificate = match dnsbroker_ca::chain::from_pem(pem.as_bytes()) {
        Ok(mut all) if all.len() == 1 => all.remove(0),
        Ok(all) => return Err(ApiError::parameter("pem", &format!("{} certificates", all.len()), "is to be one")),
        Err(error) => return Err(ApiError::parameter("pem", "certificate", error)),
    };
    let (parts, der) = (app.clone(), certificate.clone());
    let Candidate { office, facts, .. } = blocking(move || parts.pki.check(&parts.config.load(), &der)).await?;
    // Told before it is done: a CA that nobody is told of would be worse than a line about one that failed.
    let permitted = app.pki.permitted(office).cloned();
    let detail = serde_json::json!({
        "serial": facts.serial, "key": facts.key, "not_after": facts.not_after, "permitted": permitted,
    });
    match permitted {
        None => {
            let witness = act::Witness { act: "ca.install", object: office.name().to_owned(), detail };
            app.committer.commit(call.actor(), witness).await?;
        }
        Some(permitted) => {
            let ca = certified_key(&certificate).map(|key| ca_id(&key)).map_err(unavailable)?;
            let set = act::SetLnsAuthority { authority: record::LnsAuthority { ca, permitted }, detail };
            app.committer.commit(call.actor(), set).await?;
        }
    }
    let parts = app.clone();
    let other = blocking(move || parts.pki.install(&parts.config.load(), &certificate)).await?;
    tracing::info!(serial = %facts.serial, rotated = other, "the {} has a new certificate", office.name());
    Ok(ca(State(app)).await)
}

/// Takes the issuing CA for network servers alone out of use.
pub async fn retire_issuing(State(app): State<App>, call: Call) -> Result<Json<Ca>, ApiError> {
    app.committer.commit(call.actor(), act::RetireLnsAuthority).await?;
    let parts = app.clone();
    blocking(move || parts.pki.retire(&parts.config.load())).await?;
    Ok(ca(State(app)).await)
}

/// Takes the root's list of revoked CAs.
pub async fn install_root_crl(
    State(app): State<App>,
    call: Call,
    query: Asked<RootCrlOptions>,
    body: axum::body::Bytes,
) -> Result<Json<RootCrl>, ApiError> {
    let Query(RootCrlOptions { dry_run }) = query?;
    let parts = app.clone();
    let list = blocking(move || parts.pki.check_root_crl(&body).map(|facts| (facts, body))).await?;
    let ((number, this_update, next_update, revoked), octets) = list;
    let id = app.pki.root_id();
    let url = app.pki.base().map(|base| format!("{base}/crl/{id}.crl")).unwrap_or_default();
    let (made, next) = (Timestamp(this_update), Timestamp(next_update));
    let list = Crl { ca: id, number, this_update: made, next_update: next, revoked, url };
    if dry_run {
        let (view, authorities) = (app.view(), app.pki.authorities_in(&octets));
        let ends = |known: &&Arc<record::Certificate>| known.revoked.is_none() && authorities.contains(&known.ca);
        let ended = view.certificates.values().filter(ends);
        return Ok(Json(RootCrl { list, ended: alive(&view, ended) }));
    }
    let detail = serde_json::json!({ "number": number, "revoked": revoked });
    let witness = act::Witness { act: "crl.install", object: "root CA".to_owned(), detail };
    app.committer.commit(call.actor(), witness).await?;
    let parts = app.clone();
    blocking(move || parts.pki.install_root_crl(&octets)).await?;
    // What a revoked CA has signed is worth nothing any more, on connections that are open too.
    let mut ended = Vec::new();
    for ca in app.pki.revoked_authorities() {
        let which = Which::Issuer(ca);
        match app.committer.commit(call.actor(), act::RevokeAll { which, reason: RevocationReason::Superseded }).await {
            Ok(revoked) => ended.extend(revoked),
            Err(CommitError::Refused(Refusal::NothingToRevoke(_))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(RootCrl { list, ended: alive(&app.view(), &ended) }))
}

/// Those that time has not ended yet.
fn alive<'a>(view: &View, certificates: impl IntoIterator<Item = &'a Arc<record::Certificate>>) -> Vec<Certificate> {
    let now = now();
    let alive = certificates.into_iter().filter(|one| one.not_after >= now);
    alive.map(|certificate| shown(view, certificate)).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PkiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done =
        done.map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the work was cut off"))?;
    done.map_err(|error| match &error {
        PkiError::NoRequest | PkiError::Request { .. } | PkiError::List(_) | PkiError::Issue(_) => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "ca-refused", chain(&error))
        }
        _ => unavailable(error),
    })
}
