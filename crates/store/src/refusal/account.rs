//! Refusals about administrators, API tokens, webhooks and repeated requests.

/// A rule of accounts that an act would have broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountRefusal {
    /// A name that is no name.
    #[error("{0:?} cannot be an administrator's name: 1 to 64 lower-case letters, digits and any of . _ @ -")]
    Name(String),
    /// No such administrator.
    #[error("there is no administrator {0}")]
    NoAdministrator(String),
    /// Added twice.
    #[error("administrator {0} exists already")]
    AdministratorExists(String),
    /// The door would be locked from inside.
    #[error("{0} is the last administrator who can log in: add another first")]
    LastAdministrator(String),
    /// The administrator may not log in.
    #[error("administrator {0} is disabled")]
    Disabled(String),
    /// A one-time code that was used already, or an older one.
    #[error("the one-time code was used already: wait for the next")]
    TotpReplayed,
    /// No such API token.
    #[error("there is no API token {0}")]
    NoApiToken(String),
    /// The token is in use, which happens when randomness is broken.
    #[error("this API token exists already: make another")]
    ApiTokenExists,
    /// A token that allows nothing, or nothing its owner may.
    #[error("the API token {0}")]
    Scopes(&'static str),
    /// It ends before it begins.
    #[error("an API token ends after now, and within {days} days")]
    ApiTokenLife {
        /// The most.
        days: i64,
    },
    /// No such webhook, or another member's.
    #[error("there is no webhook {0}")]
    NoWebhook(u64),
    /// A webhook that nothing is sent to.
    #[error("the webhook {0}")]
    Webhook(&'static str),
    /// The same key with another request.
    #[error("this idempotency key was used for another request within 24 hours: make a new key for each request")]
    KeyReused,
    /// Too long, or empty.
    #[error("an idempotency key has 1 to {limit} visible ASCII characters")]
    KeyForm {
        /// The most.
        limit: usize,
    },
    /// More than there may be.
    #[error("there are {limit} {what} already, which is as many as there may be: remove one first")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
}

impl AccountRefusal {
    /// The stable code in problem documents and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "administrator-name",
            Self::NoAdministrator(_) => "administrator-unknown",
            Self::AdministratorExists(_) => "administrator-exists",
            Self::LastAdministrator(_) => "administrator-last",
            Self::Disabled(_) => "administrator-disabled",
            Self::TotpReplayed => "totp-replayed",
            Self::NoApiToken(_) => "api-token-unknown",
            Self::ApiTokenExists => "api-token-exists",
            Self::Scopes(_) => "api-token-scopes",
            Self::ApiTokenLife { .. } => "api-token-life",
            Self::NoWebhook(_) => "webhook-unknown",
            Self::Webhook(_) => "webhook-invalid",
            Self::KeyReused => "idempotency-key-reused",
            Self::KeyForm { .. } => "idempotency-key-invalid",
            Self::Full { .. } => "too-many",
        }
    }
}
