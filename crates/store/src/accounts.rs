//! Who uses the API, as readers see it: administrators, API tokens, webhooks.

use std::ops::ControlFlow;
use std::sync::Arc;

use dnsbroker_ca::TokenHash;
use imbl::{OrdMap, OrdSet};

use crate::engine::{Engine, Table};
use crate::record::{Administrator, ApiToken, Request, Seconds, TokenOwner, Webhook};
use crate::store::{OpenError, rows};
use crate::view::View;

/// The key of a remembered request: a digest of who asked and the idempotency key.
pub(crate) type RequestKey = [u8; 32];

/// People and programs that use the API.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// Administrators by name.
    pub administrators: OrdMap<String, Arc<Administrator>>,
    /// API tokens by hash.
    pub api_tokens: OrdMap<TokenHash, Arc<ApiToken>>,
    /// Webhooks by number.
    pub webhooks: OrdMap<u64, Arc<Webhook>>,
    /// Which requests are remembered, and since when; their answers are in the store.
    pub(crate) requests: OrdSet<(Seconds, RequestKey)>,
}

/// Why an API token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenDenial {
    /// Never made, or removed with its owner.
    #[error("the API token is not known")]
    Unknown,
    /// Revoked.
    #[error("API token {0} is revoked")]
    Revoked(String),
    /// Its time is over.
    #[error("API token {0} has expired")]
    Expired(String),
    /// Its owner may not act.
    #[error("the owner of API token {0} is disabled or suspended")]
    Owner(String),
}

impl Accounts {
    pub(crate) fn read(engine: &dyn Engine) -> Result<Self, OpenError> {
        let administrators: Vec<Administrator> = rows(engine, Table::Administrators)?;
        let api_tokens: Vec<ApiToken> = rows(engine, Table::ApiTokens)?;
        let webhooks: Vec<Webhook> = rows(engine, Table::Webhooks)?;
        Ok(Self {
            administrators: administrators.into_iter().map(|row| (row.name.clone(), Arc::new(row))).collect(),
            api_tokens: api_tokens.into_iter().map(|row| (row.hash, Arc::new(row))).collect(),
            webhooks: webhooks.into_iter().map(|row| (row.id, Arc::new(row))).collect(),
            requests: read_requests(engine)?,
        })
    }
}

fn read_requests(engine: &dyn Engine) -> Result<OrdSet<(Seconds, RequestKey)>, OpenError> {
    let mut requests = OrdSet::new();
    let mut failure = None;
    engine.scan(Table::Requests, &[], &mut |key, value| {
        let Ok(key) = key.try_into() else { return ControlFlow::Continue(()) };
        match serde_json::from_slice::<Request>(value) {
            Ok(request) => drop(requests.insert((request.at, key))),
            Err(error) => failure = Some(OpenError::row("requests")(error)),
        }
        if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failure.map_or(Ok(requests), Err)
}

impl View {
    /// The API token with this hash, if it is good now and its owner may act. Asked on each request.
    pub fn api_token(&self, hash: &TokenHash, now: Seconds) -> Result<&Arc<ApiToken>, TokenDenial> {
        let token = self.accounts.api_tokens.get(hash).ok_or(TokenDenial::Unknown)?;
        if token.revoked.is_some() {
            return Err(TokenDenial::Revoked(token.id()));
        }
        if token.expires.is_some_and(|expires| expires <= now) {
            return Err(TokenDenial::Expired(token.id()));
        }
        let acts = match &token.owner {
            TokenOwner::Administrator(name) => {
                self.accounts.administrators.get(name).is_some_and(|owner| owner.disabled.is_none())
            }
            TokenOwner::Member(id) => self.members.get(id).is_some_and(|member| member.suspended.is_none()),
        };
        if acts { Ok(token) } else { Err(TokenDenial::Owner(token.id())) }
    }
}
