//! What ends soon: certificates of the CAs, of the broker, and of members, their servers and gateways, and replicas; in
//! metrics, log and status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dnsbroker_api::Timestamp;
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
/// The name of the root's list of revoked CAs among what ends.
pub const ROOT_LIST: &str = "root CRL";
/// What ended this long ago is forgotten, in days.
const ENDED_DAYS: i64 = 30;

/// Who has certificates, for people, and the one that ends last: members by their id, and replicas, servers and gateways by
/// what they are. Members that left or are suspended do not count, nor does what is revoked or ended long ago.
pub fn holders(view: &View, now: i64) -> BTreeMap<String, Arc<Certificate>> {
    let mut holders: BTreeMap<String, Arc<Certificate>> = BTreeMap::new();
    for certificate in view.certificates.values() {
        let Some(holder) = holder(certificate) else { continue };
        let active = match (&certificate.member, &certificate.replica) {
            (Some(member), _) => view.members.get(member).is_some_and(|member| member.suspended.is_none()),
            (None, Some(replica)) => view.replicas.contains_key(replica),
            (None, None) => false,
        };
        if !active || certificate.revoked.is_some() || certificate.not_after < now - ENDED_DAYS * DAY {
            continue;
        }
        let last = holders.entry(holder).or_insert_with(|| Arc::clone(certificate));
        if last.not_after < certificate.not_after {
            *last = Arc::clone(certificate);
        }
    }
    holders
}

fn holder(certificate: &Certificate) -> Option<String> {
    let Certificate { member, replica, gateway, names, .. } = certificate;
    match (member, replica, gateway) {
        (Some(member), _, Some(gateway)) => Some(format!("{member}, gateway {gateway}")),
        (Some(member), ..) if !names.is_empty() => Some(format!("{member}, server {}", names.join(" "))),
        (Some(member), ..) => Some(member.to_string()),
        (None, Some(replica), _) => Some(format!("replica {replica}")),
        (None, None, _) => None,
    }
}

/// Whether a certificate should have been renewed by now: half of what comes after the time for it has passed.
fn is_overdue(certificate: &Certificate, now: i64) -> bool {
    let renew_at = certificate.renew_at();
    now > renew_at + (certificate.not_after - renew_at) / 2
}

/// Who has not renewed in time, with when its last certificate ends or has ended.
pub fn overdue(view: &View) -> Vec<(String, i64)> {
    let now = now();
    let late = holders(view, now).into_iter().filter(|(_, certificate)| is_overdue(certificate, now));
    late.map(|(holder, certificate)| (holder, certificate.not_after)).collect()
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
        if name == ROOT_LIST {
            continue;
        }
        let (days, ahead) = ((not_after - now) / DAY, if name.contains("CA") { CA_DAYS } else { BROUGHT_DAYS });
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
    let late = holders(&app.view(), now).into_iter().filter(|(_, certificate)| is_overdue(certificate, now));
    for (holder, certificate) in late {
        let not_after = certificate.not_after;
        match (not_after - now) / 3_600 {
            hours if not_after >= now => {
                tracing::warn!(holder, "its certificate ends in {hours} hours and has not been renewed");
            }
            _ => tracing::warn!(holder, "its certificate has ended and was not renewed"),
        }
        let audience = Audience::of(certificate.member.as_ref());
        tell("certificate.overdue", &holder, not_after, audience);
    }
}
