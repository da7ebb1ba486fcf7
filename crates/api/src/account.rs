//! Messages about who uses the API: sessions, administrators, API tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// `POST /api/v1/session`: an administrator logs in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The administrator's name.
    pub name: String,
    /// The password.
    pub password: String,
    /// The one-time code (RFC 6238), six digits, if the administrator has a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// A session. Its cookie (`__Host-session`) comes with the answer to the login, and is seen by no script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// The administrator.
    pub name: String,
    /// `admin` or `auditor`; `member` for who shows the certificate of one.
    pub role: String,
    /// To be sent back as `X-CSRF-Token` with each request that changes something; absent without a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<String>,
    /// When it ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Whether the administrator has a second factor.
    pub totp: bool,
}

/// One of the sessions that an administrator has open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenSession {
    /// Its id; it opens nothing.
    pub id: String,
    /// Where it was opened from.
    pub address: String,
    /// When it was opened.
    pub began: Timestamp,
    /// When it was last used.
    pub used: Timestamp,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// `PUT /api/v1/session/password`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The one in use.
    pub old: String,
    /// The one from now on: 12 to 1024 characters.
    pub new: String,
}

/// `POST /api/v1/session/totp`: a secret for a second factor, which is used once a code of it was given.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TotpSecret {
    /// The secret, base32 (RFC 4648), to be typed.
    pub secret: String,
    /// The same as a URI, for a QR code.
    pub uri: String,
}

/// `PUT /api/v1/session/totp`: the first code of the secret that was given last.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TotpCode {
    /// Six digits.
    pub code: String,
}

/// An administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Administrator {
    /// The name to log in with.
    pub name: String,
    /// `admin` or `auditor`.
    pub role: String,
    /// Whether there is a second factor.
    pub totp: bool,
    /// When they were added.
    pub created: Timestamp,
    /// Since when they may not log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Timestamp>,
    /// The first password, which was made for them: shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The secret of the second factor, which was made for them: shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<TotpShown>,
}

/// A secret of a second factor, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TotpShown {
    /// Base32.
    pub secret: String,
    /// The same as a URI.
    pub uri: String,
}

/// `POST /api/v1/administrators`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAdministrator {
    /// The name to log in with: lower-case letters, digits and any of `. _ @ -`.
    pub name: String,
    /// `admin` (everything) or `auditor` (reads everything, changes nothing).
    pub role: String,
    /// The password; one is made where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whether to make a second factor at once; they can do that later themselves.
    #[serde(default)]
    pub totp: bool,
}

/// `PATCH /api/v1/administrators/{name}`: what is given changes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeAdministrator {
    /// `admin` or `auditor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Another password: their sessions end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// `false` takes the second factor away, for who has lost it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub totp: Option<bool>,
    /// Whether they may log in no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// `POST /api/v1/api-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiToken {
    /// What it is for, in words.
    pub name: String,
    /// For whom it speaks: `administrator:<name>` or `member:<id>`; the caller where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it allows: `read`, `devices`, `members`, `transfers`, `certificates`, `policy`, `admin`.
    pub scopes: Vec<String>,
    /// Seconds from now until it ends; never where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
}

/// An API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApiToken {
    /// Its id in lists and logs.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// For whom it speaks.
    pub owner: String,
    /// What it allows.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// The secret, for `Authorization: Bearer`: only in the answer to its making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}
