//! Revisions: what somebody looked at, so that a change made on the strength of it is refused when it is no longer so.
//!
//! A revision is a digest of what the record says (a list of devices has the serial of its last change instead). It is not
//! a counter: nothing need be stored for it, it is the same after a restart, and what was changed and changed back is what
//! was looked at.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use dnsbroker_ca::ReplicaId;
use dnsbroker_federation::{MemberId, NetId};
use serde::Serialize;

use crate::act::Act;
use crate::record::{Source, Webhook};
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};
use crate::view::View;

/// Which state of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision(u64);

impl Revision {
    fn of(record: &impl Serialize) -> Self {
        // A record that has no JSON form could not have been stored.
        let octets = serde_json::to_vec(record).unwrap_or_default();
        let digest = digest(&SHA256, &octets);
        Self(digest.as_ref().first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets)))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is no revision of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no revision: 16 hexadecimal digits, as ETag gave them")]
pub struct RevisionError(String);

impl FromStr for Revision {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Self, RevisionError> {
        let all_digits = text.len() == 16 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        let value = if all_digits { u64::from_str_radix(text, 16).ok() } else { None };
        value.map(Self).ok_or_else(|| RevisionError(text.to_owned()))
    }
}

/// What two people may edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A member.
    Member(MemberId),
    /// A NetID.
    Network(NetId),
    /// The devices of a NetID.
    Devices(NetId),
    /// A replica.
    Replica(ReplicaId),
    /// A source; what its transfers do is no edit.
    Source(NetId),
    /// The roaming policy.
    Policy,
    /// A member's ranges and quota.
    Limits(MemberId),
    /// An administrator; what logging in does is no edit.
    Administrator(String),
    /// A webhook.
    Webhook(u64),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(id) => write!(f, "member {id}"),
            Self::Network(netid) => write!(f, "NetID {netid}"),
            Self::Devices(netid) => write!(f, "the list of devices of NetID {netid}"),
            Self::Replica(id) => write!(f, "replica {id}"),
            Self::Source(netid) => write!(f, "the source of NetID {netid}"),
            Self::Policy => f.write_str("the roaming policy"),
            Self::Limits(id) => write!(f, "the limits of member {id}"),
            Self::Administrator(name) => write!(f, "administrator {name}"),
            Self::Webhook(id) => write!(f, "webhook {id}"),
        }
    }
}

impl View {
    /// The revision of an object; none where it is not there.
    pub fn revision(&self, object: &Object) -> Option<Revision> {
        let ownership = &self.ownership;
        Some(match object {
            Object::Member(id) => Revision::of(&**self.members.get(id)?),
            Object::Network(netid) => Revision::of(self.zones.network(*netid)?),
            Object::Devices(netid) => {
                self.zones.network(*netid)?;
                Revision(ownership.lists.get(netid).map_or(0, |serial| u64::from(serial.get())))
            }
            Object::Replica(id) => Revision::of(&**self.replicas.get(id)?),
            Object::Source(netid) => {
                Revision::of(&Source { progress: None, ..Source::clone(self.sources.get(netid)?) })
            }
            Object::Policy => Revision::of(self.zones.policy()),
            Object::Limits(id) => Revision::of(&**ownership.limits.get(id)?),
            Object::Administrator(name) => {
                let administrator = self.accounts.administrators.get(name)?;
                Revision::of(&crate::record::Administrator { last_step: None, ..(**administrator).clone() })
            }
            // How far it is is no part of what somebody edits.
            Object::Webhook(id) => {
                Revision::of(&Webhook { delivered: None, ..Webhook::clone(self.accounts.webhooks.get(id)?) })
            }
        })
    }
}

/// What must hold of an object before an act is done on it (RFC 9110, section 13.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// It is as it was seen: `If-Match: "..."`.
    Is(Revision),
    /// It is there: `If-Match: *`.
    Exists,
    /// It is not there: `If-None-Match: *`.
    Absent,
}

/// An act on an object that two people may edit. It is done only if the object is as it was seen, which is looked at inside the
/// transaction.
pub struct Edit<A> {
    /// The object.
    pub object: Object,
    /// What must hold of it.
    pub precondition: Option<Precondition>,
    /// The act.
    pub act: A,
}

/// What an edit has done, and what the object was right after it: later it may be what another edit has made of it, which who
/// gets this answer has not seen.
#[derive(Debug)]
pub struct Edited<T> {
    /// What the act has done.
    pub done: T,
    /// The revision; none where the object is gone.
    pub revision: Option<Revision>,
}

impl<A: Act> Act for Edit<A> {
    type Done = Edited<A::Done>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let Self { object, precondition, act } = self;
        let found = transaction.view.revision(&object);
        let holds = match precondition {
            None => true,
            Some(Precondition::Is(seen)) => found == Some(seen),
            Some(Precondition::Exists) => found.is_some(),
            Some(Precondition::Absent) => found.is_none(),
        };
        if !holds {
            return Err(Refusal::Changed(object.to_string()));
        }
        let (done, note) = act.apply(transaction)?;
        Ok((Edited { done, revision: transaction.view.revision(&object) }, note))
    }
}
