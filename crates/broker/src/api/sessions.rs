//! Sessions, administrators and API tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Json, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dnsbroker_api::Timestamp;
use dnsbroker_api::account::{
    Administrator, ApiToken, ChangeAdministrator, Login, NewAdministrator, NewApiToken, NewPassword, OpenSession,
    Session, TotpCode, TotpSecret, TotpShown,
};
use dnsbroker_api::listed::{ListAdministrators, ListApiTokens, SortAdministrators, SortApiTokens};
use dnsbroker_api::message::Page;
use dnsbroker_api::standby::StandbyLogin;
use dnsbroker_ca::TokenKind;
use dnsbroker_store::record::{self, Scope, TokenOwner};
use dnsbroker_store::{AccountRefusal, Actor, Edited, Object, act};
use zeroize::Zeroizing;

use super::call::{Call, tagged};
use super::caller::Role;
use super::paging::{Value, page};
use super::{ApiError, At, Who};
use crate::account::password::{self, PasswordError};
use crate::account::session::{Opened, Seen, clear_cookie, csrf_of, set_cookie};
use crate::account::totp::OneTime;
use crate::app::App;
use crate::committer::{CommitError, now};
use crate::key::new_token;
use crate::standby::link::{Link, Refused};

type Body<T> = Result<Json<T>, JsonRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

fn failed(error: impl std::error::Error) -> ApiError {
    ApiError::internal(&error)
}

/// Logs in. Name, password and code are right or wrong together: which of them was wrong is not told.
pub async fn open(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    body: Body<Login>,
) -> Result<Response, ApiError> {
    let Json(Login { name, password, code }) = body?;
    let standing = &app.shared.standing;
    if standing.is_stale(now()) {
        return Err(ApiError::stale(standing));
    }
    let (password, now, address) = (Zeroizing::new(password), now(), who.identity());
    let from = who.address.map(|address| address.to_string()).unwrap_or_default();
    let waits = [&name, &address].iter().filter_map(|who| app.sessions.must_wait(who, now)).max();
    if let Some(seconds) = waits {
        return Err(ApiError::too_many("too many failed logins", seconds));
    }
    let wrong = |app: &App| {
        app.sessions.failed(&name, now);
        app.sessions.failed(&address, now);
        tracing::warn!(name, client = address, "a login failed");
        ApiError::new(StatusCode::UNAUTHORIZED, "login-wrong", "name, password or one-time code is wrong")
    };
    let known = app.view().accounts.administrators.get(&name).filter(|known| known.disabled.is_none()).cloned();
    let hash = known.as_ref().map(|known| known.password.clone());
    let right = password::verify(password, hash).await;
    let Some(known) = known.filter(|_| right) else { return Err(wrong(&app)) };
    let step = match &known.totp {
        None => None,
        Some(sealed) => {
            let Some(code) = code else {
                return Err(totp_needed());
            };
            let federation = app.config.load().federation.to_string();
            let secret = OneTime::open(&app.sealer, sealed, &federation, &name);
            match secret.and_then(|secret| secret.step(&code, now)) {
                Some(step) => Some(step),
                None => return Err(wrong(&app)),
            }
        }
    };
    let actor = Actor::Administrator(name.clone());
    let known = match step {
        _ if app.shared.standing.elsewhere().is_some() => {
            at_standby(&app, &known, step).await?;
            known
        }
        Some(step) => app.committer.commit(actor, act::UseTotp { name: name.clone(), step }).await?,
        None => {
            let detail = serde_json::Value::Null;
            let witness = act::Witness { act: "administrator.login", object: name.clone(), detail };
            app.committer.commit(actor, witness).await?;
            known
        }
    };
    app.sessions.succeeded(&name);
    let opened = app.sessions.open(&known, &from, now).map_err(failed)?;
    let session = shown(&known, Some(&opened));
    let mut response = (StatusCode::CREATED, Json(session)).into_response();
    put_cookie(&mut response, &set_cookie(&opened.cookie));
    Ok(response)
}

pub(super) fn totp_needed() -> ApiError {
    let detail = "this administrator has a second factor: send its one-time code as well";
    ApiError::new(StatusCode::UNAUTHORIZED, "totp-needed", detail)
}

/// A login that this broker cannot write into the audit. The primary does, and uses the one-time code up for all brokers.
/// Where it cannot be reached the administrator gets in to read all the same, and this broker takes no code twice.
async fn at_standby(app: &App, known: &record::Administrator, step: Option<u64>) -> Result<(), ApiError> {
    let replayed = || CommitError::Refused(AccountRefusal::TotpReplayed.into());
    if let Some(step) = step
        && (known.last_step.is_some_and(|last| step <= last) || !app.sessions.use_step(&known.name, step))
    {
        return Err(replayed().into());
    }
    let Some(link) = Link::of(&app.config.load()) else { return Ok(()) };
    let login = StandbyLogin { name: known.name.clone(), step };
    let Err(error) = link.post::<()>("/api/v1/replication/login", &login).await else { return Ok(()) };
    match error.downcast::<Refused>() {
        Ok(Refused(problem)) if OF_THE_ADMINISTRATOR.contains(&problem.code.as_ref()) => Err(problem.into()),
        Ok(refused) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "standby-refused", refused)),
        Err(error) => {
            let cause = format!("{error:#}");
            tracing::warn!(name = known.name, cause, "an administrator logs in here and is not in the primary's audit");
            Ok(())
        }
    }
}

/// What the primary says of an administrator who logs in at a standby, by its codes.
const OF_THE_ADMINISTRATOR: [&str; 4] =
    ["totp-replayed", "totp-needed", "administrator-unknown", "administrator-disabled"];

fn put_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

fn shown(known: &record::Administrator, opened: Option<&Opened>) -> Session {
    Session {
        name: known.name.clone(),
        role: role_name(known.role).to_owned(),
        csrf: opened.map(|opened| opened.csrf.clone()),
        expires: opened.map(|opened| Timestamp(opened.expires)),
        totp: known.totp.is_some(),
    }
}

fn role_name(role: record::Role) -> &'static str {
    match role {
        record::Role::Admin => "admin",
        record::Role::Auditor => "auditor",
    }
}

fn role(text: &str) -> Result<record::Role, ApiError> {
    match text {
        "admin" => Ok(record::Role::Admin),
        "auditor" => Ok(record::Role::Auditor),
        other => Err(ApiError::parameter("role", other, "is neither admin nor auditor")),
    }
}

/// Who is calling; for a session with its CSRF token, so that a page that was loaded again can go on.
pub async fn show(State(app): State<App>, Extension(who): Extension<Who>) -> Result<Json<Session>, ApiError> {
    let (view, now) = (app.view(), now());
    if let Some(cookie) = &who.session {
        let known = app.sessions.known(cookie, None, &view, now);
        let known = known.map_err(|error| ApiError::new(StatusCode::UNAUTHORIZED, "session-over", error))?;
        let administrator = view.accounts.administrators.get(&known.name);
        return Ok(Json(Session {
            name: known.name.clone(),
            role: role_name(known.role).to_owned(),
            csrf: Some(csrf_of(cookie)),
            expires: Some(Timestamp(known.expires)),
            totp: administrator.is_some_and(|known| known.totp.is_some()),
        }));
    }
    let role = match &who.role {
        Role::Nobody | Role::Holder => {
            let detail = "nobody is logged in: POST /api/v1/session, show a certificate, or bring an API token";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "login-needed", detail));
        }
        Role::Member(_) => "member",
        Role::Auditor => "auditor",
        Role::Administrator => "admin",
    };
    let name = who.own().map_or_else(|| who.actor.to_string(), ToString::to_string);
    Ok(Json(Session { name, role: role.to_owned(), csrf: None, expires: None, totp: false }))
}

pub async fn close(State(app): State<App>, Extension(who): Extension<Who>) -> Response {
    if let Some(cookie) = &who.session {
        app.sessions.close(cookie);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    put_cookie(&mut response, &clear_cookie());
    response
}

/// One's own sessions.
pub async fn list(State(app): State<App>, Extension(who): Extension<Who>) -> Result<Json<Page<OpenSession>>, ApiError> {
    let (known, cookie) = own_session(&app, &who)?;
    let shown = |seen: Seen| OpenSession {
        id: seen.id,
        address: seen.address,
        began: Timestamp(seen.began),
        used: Timestamp(seen.used),
        current: seen.current,
    };
    let items = app.sessions.of(&known.name, &cookie, &app.view(), now()).into_iter().map(shown).collect();
    Ok(Json(Page { items, next: None }))
}

/// Ends one of one's own sessions.
pub async fn end(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(id): At<String>,
) -> Result<StatusCode, ApiError> {
    let (known, _) = own_session(&app, &who)?;
    match app.sessions.end(&known.name, &id) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("session-unknown", format!("you have no session {id:?}"))),
    }
}

/// The administrator of this session, and its cookie.
fn own_session(app: &App, who: &Who) -> Result<(Arc<record::Administrator>, String), ApiError> {
    let over = || ApiError::new(StatusCode::UNAUTHORIZED, "session-over", "the session is over: log in again");
    let (Actor::Administrator(name), Some(cookie)) = (&who.actor, &who.session) else { return Err(over()) };
    let known = app.view().accounts.administrators.get(name).cloned().ok_or_else(over)?;
    Ok((known, cookie.clone()))
}

async fn hashed(text: String) -> Result<String, ApiError> {
    password::hash(Zeroizing::new(text)).await.map_err(|error| match error {
        PasswordError::Length => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "password-length", error),
        PasswordError::Hash => failed(error),
    })
}

pub async fn change_password(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    body: Body<NewPassword>,
) -> Result<Json<Session>, ApiError> {
    let Json(NewPassword { old, new }) = body?;
    let (known, cookie) = own_session(&app, &who)?;
    if let Some(seconds) = app.sessions.must_wait(&known.name, now()) {
        return Err(ApiError::too_many("too many wrong passwords", seconds));
    }
    if !password::verify(Zeroizing::new(old), Some(known.password.clone())).await {
        app.sessions.failed(&known.name, now());
        return Err(ApiError::new(StatusCode::FORBIDDEN, "login-wrong", "the old password is wrong"));
    }
    let password = Some(hashed(new).await?);
    let change = act::ChangeAdministrator { name: known.name.clone(), password, ..Default::default() };
    let changed = app.committer.commit(who.actor, change).await?;
    app.sessions.keep(&cookie, &changed);
    Ok(Json(shown(&changed, None)))
}

pub async fn begin_totp(State(app): State<App>, Extension(who): Extension<Who>) -> Result<Json<TotpSecret>, ApiError> {
    let (known, cookie) = own_session(&app, &who)?;
    let secret = OneTime::generate(&app.config.load().federation.to_string(), &known.name).map_err(failed)?;
    let shown = TotpSecret { secret: secret.base32(), uri: secret.uri() };
    app.sessions.pend(&cookie, secret);
    Ok(Json(shown))
}

pub async fn confirm_totp(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    body: Body<TotpCode>,
) -> Result<Json<Session>, ApiError> {
    let Json(TotpCode { code }) = body?;
    let (known, cookie) = own_session(&app, &who)?;
    let Some((secret, step)) = app.sessions.confirm(&cookie, &code, now()) else {
        let detail = "this is not a code of the secret that was shown: is the clock of your device right?";
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "totp-wrong", detail));
    };
    let totp = Some(Some(secret.sealed(&app.sealer, &known.name).map_err(failed)?));
    let change = act::ChangeAdministrator { name: known.name.clone(), totp, ..Default::default() };
    app.committer.commit(who.actor.clone(), change).await?;
    let used = app.committer.commit(who.actor, act::UseTotp { name: known.name.clone(), step }).await?;
    Ok(Json(shown(&used, None)))
}

pub async fn administrators(
    State(app): State<App>,
    query: Asked<ListAdministrators>,
) -> Result<Json<Page<Administrator>>, ApiError> {
    let Query(query) = query?;
    let wanted = query.role.as_deref().map(role).transpose()?;
    let view = app.view();
    let known = view.accounts.administrators.values().filter(|known| wanted.is_none_or(|role| known.role == role));
    let paging = query.paging();
    let place = |known: &&Arc<record::Administrator>| {
        let name = Value::from(known.name.as_str());
        match paging.sort {
            SortAdministrators::Name => (name, Value::Absent),
            SortAdministrators::Created => (known.created.into(), name),
        }
    };
    Ok(Json(page(known, &paging, place, |known| shown_administrator(known))?))
}

fn shown_administrator(known: &record::Administrator) -> Administrator {
    Administrator {
        name: known.name.clone(),
        role: role_name(known.role).to_owned(),
        totp: known.totp.is_some(),
        created: Timestamp(known.created),
        disabled: known.disabled.map(Timestamp),
        password: None,
        secret: None,
    }
}

pub async fn add_administrator(
    State(app): State<App>,
    call: Call,
    body: Body<NewAdministrator>,
) -> Result<Response, ApiError> {
    let Json(new) = body?;
    let (made, given) = match &new.password {
        Some(given) => (None, given.clone()),
        None => {
            let made = password::random().map_err(failed)?;
            (Some(made.to_string()), made.to_string())
        }
    };
    let federation = app.config.load().federation.to_string();
    let secret = if new.totp { Some(OneTime::generate(&federation, &new.name).map_err(failed)?) } else { None };
    let totp = secret.as_ref().map(|secret| secret.sealed(&app.sealer, &new.name)).transpose().map_err(failed)?;
    let add =
        act::AddAdministrator { name: new.name.clone(), role: role(&new.role)?, password: hashed(given).await?, totp };
    let shown_secret = secret.map(|secret| TotpShown { secret: secret.base32(), uri: secret.uri() });
    call.create(&app, &new, add, move |known| Administrator {
        password: made,
        secret: shown_secret,
        ..shown_administrator(known)
    })
    .await
}

pub async fn change_administrator(
    State(app): State<App>,
    call: Call,
    At(name): At<String>,
    body: Body<ChangeAdministrator>,
) -> Result<Response, ApiError> {
    let Json(ChangeAdministrator { role: to, password, totp, disabled }) = body?;
    if totp == Some(true) {
        let detail = "a second factor is set up by who has it: in a session, or as it is added";
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "totp-own", detail));
    }
    let password = match password {
        Some(password) => Some(hashed(password).await?),
        None => None,
    };
    let role = to.as_deref().map(role).transpose()?;
    let change = act::ChangeAdministrator { name: name.clone(), role, password, totp: totp.map(|_| None), disabled };
    let object = Object::Administrator(name);
    let Edited { done: changed, revision } = call.change(&app, object, change).await?;
    Ok(tagged(revision, shown_administrator(&changed)))
}

pub async fn remove_administrator(
    State(app): State<App>,
    call: Call,
    At(name): At<String>,
) -> Result<StatusCode, ApiError> {
    call.change(&app, Object::Administrator(name.clone()), act::RemoveAdministrator { name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn api_tokens(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    query: Asked<ListApiTokens>,
) -> Result<Json<Page<ApiToken>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let wanted = |token: &record::ApiToken| {
        let member = match &token.owner {
            TokenOwner::Member(member) => Some(member),
            TokenOwner::Administrator(_) => None,
        };
        who.may_see(member) && query.owner.as_ref().is_none_or(|owner| token.owner.to_string() == *owner)
    };
    let (tokens, paging) = (view.accounts.api_tokens.values().filter(|token| wanted(token)), query.paging());
    let place = |token: &&Arc<record::ApiToken>| {
        let by = match paging.sort {
            SortApiTokens::Created => token.created.into(),
            SortApiTokens::Expires => token.expires.into(),
            SortApiTokens::Name => token.name.to_lowercase().into(),
            SortApiTokens::Owner => token.owner.to_string().into(),
        };
        (by, token.id().into())
    };
    Ok(Json(page(tokens, &paging, place, |token| shown_token(token))?))
}

fn shown_token(token: &record::ApiToken) -> ApiToken {
    let scope = |scope: &Scope| serde_json::to_value(scope).ok().and_then(|name| name.as_str().map(str::to_owned));
    ApiToken {
        id: token.id(),
        name: token.name.clone(),
        owner: token.owner.to_string(),
        scopes: token.scopes.iter().filter_map(scope).collect(),
        created: Timestamp(token.created),
        expires: token.expires.map(Timestamp),
        revoked: token.revoked.map(Timestamp),
        token: None,
    }
}

/// Whose tokens a caller may make and revoke: its own, and an administrator anybody's.
fn own_owner(who: &Who) -> Option<TokenOwner> {
    match (&who.role, &who.actor) {
        (Role::Member(member), _) => Some(TokenOwner::Member(member.clone())),
        (Role::Auditor, Actor::Administrator(name)) => Some(TokenOwner::Administrator(name.clone())),
        _ => None,
    }
}

pub async fn create_api_token(
    State(app): State<App>,
    call: Call,
    body: Body<NewApiToken>,
) -> Result<Response, ApiError> {
    let Json(new) = body?;
    let asked = new.owner.as_deref().map(owner).transpose()?;
    let own = own_owner(&call.who);
    let owner = match (asked, own, &call.who.actor) {
        (Some(asked), Some(own), _) if asked != own => {
            let detail = format!("you make tokens of {own} alone");
            return Err(ApiError::new(StatusCode::FORBIDDEN, "not-yours", detail));
        }
        (Some(owner), ..) | (None, Some(owner), _) => owner,
        (None, None, Actor::Administrator(name)) => TokenOwner::Administrator(name.clone()),
        (None, None, _) => {
            return Err(ApiError::parameter("owner", "", "is to be administrator:<name> or member:<id> here"));
        }
    };
    let mut scopes = BTreeSet::new();
    for text in &new.scopes {
        let scope = serde_json::from_value(serde_json::Value::String(text.clone()));
        scopes.insert(scope.map_err(|_| {
            ApiError::parameter(
                "scope",
                text,
                "is none of read, devices, members, transfers, certificates, policy, admin",
            )
        })?);
    }
    let secret = new_token(TokenKind::Api).map_err(failed)?;
    let expires = new.ttl.map(|ttl| now().saturating_add(ttl));
    let create = act::CreateApiToken { hash: secret.hash(), name: new.name.clone(), owner, scopes, expires };
    call.create(&app, &new, create, move |token| ApiToken {
        token: Some(secret.reveal().to_string()),
        ..shown_token(token)
    })
    .await
}

fn owner(text: &str) -> Result<TokenOwner, ApiError> {
    let wrong = || ApiError::parameter("owner", text, "is neither administrator:<name> nor member:<id>");
    match text.split_once(':') {
        Some(("administrator", name)) => Ok(TokenOwner::Administrator(name.to_owned())),
        Some(("member", id)) => Ok(TokenOwner::Member(id.parse().map_err(|_| wrong())?)),
        _ => Err(wrong()),
    }
}

pub async fn revoke_api_token(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(id): At<String>,
) -> Result<StatusCode, ApiError> {
    let owner = own_owner(&who);
    app.committer.commit(who.actor, act::RevokeApiToken { id, owner }).await?;
    Ok(StatusCode::NO_CONTENT)
}
