//! Webhooks: a member's for its own events, administrators' for all.

use std::time::Instant;

use axum::Extension;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Json, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dnsbroker_api::Timestamp;
use dnsbroker_api::event::{Event, EventId, KINDS, is_beginning};
use dnsbroker_api::listed::{ListWebhooks, SortWebhooks};
use dnsbroker_api::message::Page;
use dnsbroker_api::webhook::{SetWebhook, Webhook, WebhookTest};
use dnsbroker_store::record::{self, Sealed};
use dnsbroker_store::{AccountRefusal, Edited, Object, View, act};
use zeroize::Zeroizing;

use super::call::{Call, tagged};
use super::paging::page;
use super::{ApiError, At, Who};
use crate::app::App;
use crate::committer::{CommitError, now};
use crate::webhook::message::{Message, new_secret};
use crate::webhook::post::{PostError, Poster};
use crate::webhook::{PURPOSE, Status};

fn shown(app: &App, webhook: &record::Webhook) -> Webhook {
    let Status { delivered, failures, error } = app.webhooks.status(webhook.id);
    Webhook {
        id: webhook.id,
        url: webhook.url.clone(),
        events: webhook.events.clone(),
        member: webhook.member.clone(),
        created: Timestamp(webhook.created),
        disabled: webhook.disabled.as_ref().map(|disabled| disabled.reason.clone()),
        delivered: delivered.map(|id| id.to_string()).or_else(|| webhook.delivered.clone()),
        failures,
        error,
        secret: None,
    }
}

/// A webhook of the caller; another's is as unknown as none.
fn known(view: &View, who: &Who, id: u64) -> Result<std::sync::Arc<record::Webhook>, ApiError> {
    let webhook = view.accounts.webhooks.get(&id).filter(|webhook| who.may_see(webhook.member.as_ref()));
    webhook.cloned().ok_or_else(|| CommitError::Refused(AccountRefusal::NoWebhook(id).into()).into())
}

/// A webhook of a kind that there is not would wait for ever, and nobody would know.
fn check_kinds(wanted: &SetWebhook) -> Result<(), ApiError> {
    let unknown = wanted.events.iter().find(|kind| !is_beginning(kind));
    unknown.map_or(Ok(()), |unknown| {
        let why = format!("is no kind of events and begins none; the kinds are {}", KINDS.join(", "));
        Err(ApiError::parameter("events", unknown, why))
    })
}

pub async fn list(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    query: Result<Query<ListWebhooks>, QueryRejection>,
) -> Result<Json<Page<Webhook>>, ApiError> {
    let (Query(query), view) = (query?, app.view());
    let wanted = |webhook: &record::Webhook| {
        who.may_see(webhook.member.as_ref())
            && query.member.as_ref().is_none_or(|member| webhook.member.as_ref() == Some(member))
    };
    let webhooks = view.accounts.webhooks.values().filter(|webhook| wanted(webhook));
    let (webhooks, paging) = (webhooks.map(|webhook| shown(&app, webhook)), query.paging());
    let place = |webhook: &Webhook| {
        let by = match paging.sort {
            SortWebhooks::Id => webhook.id.into(),
            SortWebhooks::Url => webhook.url.as_str().into(),
            SortWebhooks::Failures => i64::from(webhook.failures).into(),
        };
        (by, webhook.id.into())
    };
    Ok(Json(page(webhooks, &paging, place, |webhook| webhook)?))
}

pub async fn add(
    State(app): State<App>,
    call: Call,
    body: Result<Json<SetWebhook>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(wanted) = body?;
    check_kinds(&wanted)?;
    let unavailable = |error| ApiError::internal(&error);
    let (secret, octets) = new_secret().map_err(unavailable)?;
    let sealed = app.sealer.seal_for(PURPOSE, &octets).map_err(unavailable)?;
    let set = act::SetWebhook {
        id: None,
        url: wanted.url.clone(),
        events: wanted.events.clone(),
        secret: Some(Sealed(sealed)),
        member: call.who.own().cloned(),
    };
    let parts = app.clone();
    let show = move |webhook: &std::sync::Arc<record::Webhook>| Webhook {
        secret: Some(secret.to_string()),
        ..shown(&parts, webhook)
    };
    call.create(&app, &wanted, set, show).await
}

pub async fn show(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(id): At<u64>,
) -> Result<Response, ApiError> {
    let view = app.view();
    let webhook = known(&view, &who, id)?;
    Ok(tagged(view.revision(&Object::Webhook(id)), shown(&app, &webhook)))
}

pub async fn set(
    State(app): State<App>,
    call: Call,
    At(id): At<u64>,
    body: Result<Json<SetWebhook>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(wanted) = body?;
    check_kinds(&wanted)?;
    let SetWebhook { url, events } = wanted;
    // Whoever changes it, it stays whose it is.
    let member = known(&app.view(), &call.who, id)?.member.clone();
    let set = act::SetWebhook { id: Some(id), url, events, secret: None, member };
    let Edited { done: webhook, revision } = call.change(&app, Object::Webhook(id), set).await?;
    Ok(tagged(revision, shown(&app, &webhook)))
}

pub async fn remove(State(app): State<App>, call: Call, At(id): At<u64>) -> Result<StatusCode, ApiError> {
    let remove = act::RemoveWebhook { id, member: call.who.own().cloned() };
    call.change(&app, Object::Webhook(id), remove).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Posts a message of a kind that no event has, once.
pub async fn test(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    At(id): At<u64>,
) -> Result<Json<WebhookTest>, ApiError> {
    let view = app.view();
    let webhook = known(&view, &who, id)?;
    let secret = app.sealer.unseal_for(PURPOSE, &webhook.secret.0).unwrap_or_else(|| Zeroizing::new(vec![]));
    let event = Event {
        id: EventId { act: view.audit.number, beside: now().unsigned_abs() }.to_string(),
        kind: "webhook.test".to_owned(),
        at: Timestamp(now()),
        actor: None,
        object: id.to_string(),
        members: webhook.member.iter().cloned().collect(),
        detail: serde_json::Value::Null,
        serial: view.zones.serial(),
    };
    let begun = Instant::now();
    let poster = Poster::new(&app.config.load(), webhook.member.is_some());
    let posted = poster.post(&webhook.url, &Message::new(id, &event), &secret).await;
    let milliseconds = begun.elapsed().as_millis() as u64;
    Ok(Json(match posted {
        Ok(()) => WebhookTest { ok: true, status: None, error: None, milliseconds },
        Err(PostError::Status(status)) => {
            let error = Some(PostError::Status(status).to_string());
            WebhookTest { ok: false, status: Some(status.as_u16()), error, milliseconds }
        }
        Err(error) => WebhookTest { ok: false, status: None, error: Some(error.to_string()), milliseconds },
    }))
}
