//! The rows of people and programs that use the API: administrators, API tokens, webhooks, and what was asked already.

use std::collections::BTreeSet;
use std::fmt;

use dnsbroker_ca::TokenHash;
use dnsbroker_federation::MemberId;
use serde::{Deserialize, Serialize};

use super::{Seconds, from_base64, to_base64, token_id};

/// What an administrator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Read everything.
    Auditor,
}

/// A person who administers the federation with a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Administrator {
    /// The name to log in with.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The password's hash in PHC form (argon2id).
    pub password: String,
    /// The secret of the one-time codes, encrypted; none while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<Sealed>,
    /// The time step of the last one-time code that was used (RFC 6238, section 5.2: each once).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_step: Option<u64>,
    /// When they were added.
    pub created: Seconds,
    /// Since when they may not log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Seconds>,
}

impl fmt::Debug for Administrator {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, role, created, disabled, last_step, .. } = self;
        write!(f, "Administrator({name} {role:?} {created} {disabled:?} {last_step:?})")
    }
}

/// A secret under the broker's sealing key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(#[serde(serialize_with = "to_base64", deserialize_with = "from_base64")] pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

/// What an API token allows. Each is a part of the API; writing one allows reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// To read what its owner may read.
    Read,
    /// To change devices: lists, claims, moves.
    Devices,
    /// To change members and NetIDs.
    Members,
    /// To change sources, replicas and keys.
    Transfers,
    /// To issue and revoke certificates.
    Certificates,
    /// To change the roaming policy.
    Policy,
    /// Everything that its owner may do.
    Admin,
}

/// For whom an API token speaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenOwner {
    /// An administrator, by name; with the rights that they have when it is used.
    Administrator(String),
    /// A member, for its own things.
    Member(MemberId),
}

impl fmt::Display for TokenOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Administrator(name) => write!(f, "administrator:{name}"),
            Self::Member(member) => write!(f, "member:{member}"),
        }
    }
}

/// A token that programs use the API with. The secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// SHA-256 of the secret.
    pub hash: TokenHash,
    /// What it is for, in words.
    pub name: String,
    /// For whom it speaks.
    pub owner: TokenOwner,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created: Seconds,
    /// When it ends; never where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Seconds>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Seconds>,
}

impl ApiToken {
    /// The name people use for it in lists and logs: the first digits of its hash.
    pub fn id(&self) -> String {
        token_id(&self.hash)
    }

    /// Whether it allows something.
    pub fn allows(&self, scope: Scope) -> bool {
        scope == Scope::Read || self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// Where events are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its number; never used again.
    pub id: u64,
    /// Where to.
    pub url: String,
    /// Which kinds of events.
    pub events: BTreeSet<String>,
    /// The secret that its messages are signed with, encrypted.
    pub secret: Sealed,
    /// The member whose events alone it gets; everybody's where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// When it was added.
    pub created: Seconds,
    /// Since when, and why, nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// The id of the last event that it has taken, as of the last time that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<String>,
}

/// A webhook that nothing is sent to for the time being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// Since when.
    pub since: Seconds,
    /// Why.
    pub reason: String,
}

/// The answer to a request that must not happen twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// SHA-256 of the request.
    pub request: String,
    /// When it was done.
    pub at: Seconds,
    /// The answer's status.
    pub status: u16,
    /// The answer's body; none where it was too long to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}
