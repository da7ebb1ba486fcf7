//! What happens, as it is told: over `GET /api/v1/events` (server-sent events), and to webhooks.

use std::fmt;
use std::str::FromStr;

use dnsbroker_federation::{MemberId, Serial};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// All kinds of events: names of acts, as in the audit, and what is told beside them.
pub const KINDS: &[&str] = &[
    "administrator.add",
    "administrator.change",
    "administrator.login",
    "administrator.remove",
    "api-token.create",
    "api-token.revoke",
    "backup",
    "ca.install",
    "ca.publish",
    "ca.request",
    "ca.retire",
    "certificate.enrol",
    "certificate.expiring",
    "certificate.issue",
    "certificate.overdue",
    "certificate.renew",
    "certificate.revoke",
    "claim.decide",
    "claim.open",
    "claim.withdraw",
    "crl.install",
    "crl.issue",
    "devices.change",
    "devices.import",
    "devices.move",
    "devices.release",
    "devices.update",
    "key.create",
    "key.revoke",
    "limits.set",
    "member.add",
    "member.grace",
    "member.name.approve",
    "member.name.withdraw",
    "member.remove",
    "member.rename",
    "member.resume",
    "member.suspend",
    "move.accept",
    "move.cancel",
    "move.done",
    "move.fail",
    "move.offer",
    "move.plan",
    "move.prepare",
    "netid.anchors",
    "netid.remove",
    "netid.set",
    "policy.change",
    "policy.set",
    "primary.promote",
    "primary.set",
    "private.publish",
    "public.publish",
    "replica.remove",
    "replica.set",
    "source.accept",
    "source.expire",
    "source.failed",
    "source.held",
    "source.recovered",
    "source.remove",
    "source.set",
    "source.transfer",
    "standby.current",
    "standby.gone",
    "standby.stale",
    "standby.unready",
    "store.recovered",
    "store.restore",
    "store.trouble",
    "token.create",
    "webhook.disable",
    "webhook.remove",
    "webhook.set",
    "zone.serial",
];

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Grows from event to event: the number of the audit row where it is an act, else that of the last one and a number
    /// of its own behind a dot. Give it as `after`, or as the header `Last-Event-ID`, to go on behind it.
    pub id: String,
    /// What: the name of the act as in the audit (`member.add`, `devices.import`...), or `source.failed`, `source.held`,
    /// `source.recovered`, `transfer.failed`, `notify.failed`, `notify.recovered`, `certificate.expiring`,
    /// `certificate.overdue`, `store.trouble`, `store.recovered`, `zone.serial`, `standby.stale`, `standby.current`,
    /// `standby.unready`, `standby.gone`.
    pub kind: String,
    /// When.
    pub at: Timestamp,
    /// Who did it, if it was an act; to a member only where it was the member itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// To what it happened.
    pub object: String,
    /// The members whose business it is; a member sees no other than itself here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberId>,
    /// Particulars.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
    /// The serial of the private zones afterwards.
    pub serial: Serial,
}

/// Of `GET /api/v1/events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenEvents {
    /// Begin behind this event; `0` is the beginning of the audit. Without it, and without `Last-Event-ID`, with what comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Only kinds that begin with one of these, with commas between them: `claim.,source.`. `statistics` is a kind that only
    /// those get who name it: an administrator, each second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<String>,
}

/// The place of an event among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    /// The number of the last audit row.
    pub act: u64,
    /// For what is no act: its own number, which is greater than 0.
    pub beside: u64,
}

/// Why a text is no id of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no id of an event: write the number of an audit row, or the id of an event as it came")]
pub struct EventIdError;

impl EventId {
    /// Of an act, by the number of its audit row.
    pub fn of_act(act: u64) -> Self {
        Self { act, beside: 0 }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.beside {
            0 => write!(f, "{}", self.act),
            beside => write!(f, "{}.{beside}", self.act),
        }
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let number = |text: &str| match text.bytes().all(|octet| octet.is_ascii_digit()) {
            true => text.parse().map_err(|_| EventIdError),
            false => Err(EventIdError),
        };
        match text.split_once('.') {
            None => Ok(Self::of_act(number(text)?)),
            Some((act, beside)) => Ok(Self { act: number(act)?, beside: number(beside)? }),
        }
    }
}

/// Whether a text is a kind, or how one begins.
pub fn is_beginning(text: &str) -> bool {
    KINDS.iter().any(|kind| kind.starts_with(text))
}

/// Whether a kind begins with one of the beginnings that are asked for; all are where nothing is.
pub fn wanted<'k>(kind: &str, mut kinds: impl Iterator<Item = &'k str>) -> bool {
    let first = kinds.next();
    first.is_none_or(|first| kind.starts_with(first) || kinds.any(|begin| kind.starts_with(begin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_what_happened() {
        let ids = ["0", "7", "7.1", "7.1700000000000000", "8", "10"];
        let read: Vec<EventId> = ids.iter().map(|id| id.parse().expect("an id")).collect();
        assert!(read.is_sorted() && read.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), ids);
        for wrong in ["", "x", "-1", "+1", "1.", ".1", "1.2.3", "18446744073709551616"] {
            assert!(wrong.parse::<EventId>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_beginning_that_no_kind_has_is_told_from_one() {
        assert!(KINDS.is_sorted());
        for good in ["claim.open", "claim.", "devices", "backup", "member.name."] {
            assert!(is_beginning(good), "{good}");
        }
        for wrong in ["device.", "nonsense", "claim.opened", "Claim.", " claim.", "statistics", "webhook.test"] {
            assert!(!is_beginning(wrong), "{wrong}");
        }
    }

    #[test]
    fn kinds_are_asked_for_by_their_beginning() {
        assert!(wanted("claim.open", [].into_iter()));
        assert!(wanted("claim.open", ["source.", "claim."].into_iter()));
        assert!(!wanted("claim.open", ["source.", "claim.decide"].into_iter()));
    }
}
