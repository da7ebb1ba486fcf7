//! What this broker is in its federation, and how it becomes the primary.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use dnsbroker_api::Timestamp;
use dnsbroker_api::problem::chain;
use dnsbroker_api::standby::{Follower, Following, Standing};

use super::{ApiError, Who};
use crate::app::App;
use crate::committer::now;
use crate::standby::Role;
use crate::standby::take_over::{PromoteError, own_name};

pub async fn show(State(app): State<App>) -> Json<Standing> {
    Json(standing(&app, vec![]))
}

pub async fn promote(State(app): State<App>, Extension(who): Extension<Who>) -> Result<Json<Standing>, ApiError> {
    match app.take_over.promote(&app, who.actor).await {
        Ok(notes) => Ok(Json(standing(&app, notes))),
        Err(error @ PromoteError::Role(_)) => Err(ApiError::new(StatusCode::CONFLICT, "no-standby", error)),
        Err(error) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "promotion-failed", chain(&error))),
    }
}

fn standing(app: &App, mut notes: Vec<String>) -> Standing {
    let (view, config, standing) = (app.view(), app.config.load(), &app.shared.standing);
    let role = standing.role();
    let (act, followers) = (view.audit.number, app.shared.outbox.followers());
    let following = match (&role, &config.standby) {
        (Role::Standby { primary }, Some(standby)) => {
            let known = standing.following();
            Some(Following {
                url: primary.clone(),
                connected: known.connected,
                answers: !standing.is_stale(now()),
                theirs: known.theirs,
                behind: known.theirs.saturating_sub(act),
                age: known.heard.map(|heard| heard.elapsed().max(Duration::ZERO).as_secs_f64()),
                max_age: standby.max_age_seconds,
                copies: known.copies,
                error: known.error,
            })
        }
        _ => None,
    };
    notes.extend(standing.trouble(now()));
    if following.is_some() {
        notes.extend(standing.following().unready);
    }
    let own = own_name(&config);
    let standbys = view.replicas.values().filter_map(|replica| {
        // Once it is the primary, a standby's own registration stays for the day when it is a standby again.
        let at = replica.standby.as_ref().filter(|at| at.name != own)?;
        Some(Follower {
            id: replica.id.to_string(),
            name: at.name.clone(),
            connected: followers.contains_key(&replica.id),
            act: followers.get(&replica.id).and_then(|known| known.sent),
            has: followers.get(&replica.id).and_then(|known| known.has),
            unready: followers.get(&replica.id).and_then(|known| known.unready.clone()),
            since: Timestamp(replica.since),
        })
    });
    Standing {
        role: role.label().to_owned(),
        name: own.clone(),
        epoch: view.primary.as_ref().map_or(0, |primary| primary.epoch),
        act,
        primary: match &role {
            // Its store still says that it is the primary itself.
            Role::Fenced(fence) => fence.primary.parse().ok(),
            _ => view.primary.as_ref().map(|primary| primary.name.clone()),
        },
        following,
        standbys: if role == Role::Primary { standbys.collect() } else { vec![] },
        notes,
    }
}
