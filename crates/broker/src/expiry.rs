//! What ends soon: certificates of the CAs, of the broker and of members, in metrics, log and status.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dnsbroker_api::Timestamp;
use dnsbroker_ca::Principal;
use dnsbroker_federation::MemberId;
use dnsbroker_store::View;
use dnsbroker_store::record::Certificate;
use serde_json::json;

use crate::app::App;
use crate::committer::now;
use crate::events::Audience;

const DAY: i64 = 86_400;
/// CAs are warned about this long before their end, in days: a ceremony needs people.
const CA_DAYS: i64 = 90;
/// A server certificate that the administrator brought is warned about this long before its end, in days.
const BROUGHT_DAYS: i64 = 14;

/// Members and when the last of their certificates ends, for those that have or had one.
pub fn members(view: &View) -> Vec<(MemberId, i64)> {
    let now = now();
    let end = |id: &MemberId| {
        let holder = Principal::Member(id.clone());
        if let Some(current) = view.current_certificate(&holder, now) {
            return Some(current.not_after);
        }
        let own = view.certificates.values().filter(|known| known.revoked.is_none());
        own.filter(|known| known.principal().as_ref() == Some(&holder)).map(|known| known.not_after).max()
    };
    view.members.keys().filter_map(|id| end(id).map(|end| (id.clone(), end))).collect()
}

/// Whether a certificate should have been renewed by now: half of what comes after the time for it has passed.
fn overdue(certificate: &Certificate, now: i64) -> bool {
    let renew_at = certificate.renew_at();
    now > renew_at + (certificate.not_after - renew_at) / 2
}

/// Members whose certificate ends soon and was not renewed, with when it ends.
pub fn overdue_members(view: &View) -> Vec<(MemberId, i64)> {
    let now = now();
    let current = |id: &MemberId| view.current_certificate(&Principal::Member(id.clone()), now);
    let active = view.members.values().filter(|member| member.suspended.is_none());
    let late = active.filter_map(|member| Some((member.id.clone(), current(&member.id)?)));
    late.filter(|(_, certificate)| overdue(certificate, now)).map(|(id, known)| (id, known.not_after)).collect()
}

/// What was told of already, by kind and name, and on which day: once a day is enough.
#[derive(Default)]
pub struct Reminders(Mutex<BTreeMap<(&'static str, String), i64>>);

impl Reminders {
    fn due(&self, kind: &'static str, name: &str, now: i64) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, day| *day == now / DAY);
        told.insert((kind, name.to_owned()), now / DAY).is_none()
    }
}

/// Says in the log and in events what ends soon.
pub fn warn(app: &App) {
    let now = now();
    let tell = |kind, name: &str, not_after: i64, audience| {
        if app.reminders.due(kind, name, now) {
            app.shared.events.notice(kind, name, audience, json!({ "not_after": Timestamp(not_after) }));
        }
    };
    for (name, not_after) in app.expiries.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let (days, ahead) = ((not_after - now) / DAY, if name.ends_with("CA") { CA_DAYS } else { BROUGHT_DAYS });
        if *not_after < now {
            tracing::error!("the {name} certificate has expired");
            tell("certificate.overdue", name, *not_after, Audience::Administrators);
        } else if days < ahead {
            tracing::warn!("the {name} certificate ends in {days} days");
            tell("certificate.expiring", name, *not_after, Audience::Administrators);
        }
    }
    if let Some(end) = app.pki.root_crl().and_then(|list| dnsbroker_ca::crl_times(&list).ok()).map(|(_, next)| next)
        && end < now + BROUGHT_DAYS * DAY
    {
        let hours = (end - now) / 3_600;
        tracing::warn!(
            "the root's list of revoked CAs ends in {hours} hours: sign another with `dnsbroker ca sign-crl`"
        );
        tell("certificate.expiring", "the root's list of revoked CAs", end, Audience::Administrators);
    }
    for (member, not_after) in overdue_members(&app.view()) {
        let hours = (not_after - now) / 3_600;
        tracing::warn!(%member, "its certificate ends in {hours} hours and has not been renewed");
        tell("certificate.overdue", member.as_str(), not_after, Audience::member(&member));
    }
}
