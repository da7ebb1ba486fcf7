//! API tokens: programs speak for an administrator or a member, within scopes. The secret is shown once and is nowhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use dnsbroker_ca::TokenHash;
use serde_json::{Value, json};

use super::{Act, check_text};
use crate::engine::Table;
use crate::record::{ApiToken, Role, Scope, Seconds, TokenOwner};
use crate::refusal::{AccountRefusal, Refusal};
use crate::transaction::{Note, Transaction};

/// The longest life of an API token that has an end, in days.
pub const MAX_API_TOKEN_DAYS: i64 = 3_660;
/// API tokens of one owner at most, those that ended included.
pub const MAX_API_TOKENS: usize = 1_000;

/// Makes an API token known.
pub struct CreateApiToken {
    /// SHA-256 of the secret.
    pub hash: TokenHash,
    /// What it is for, in words.
    pub name: String,
    /// For whom it speaks.
    pub owner: TokenOwner,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// When it ends.
    pub expires: Option<Seconds>,
}

impl Act for CreateApiToken {
    type Done = Arc<ApiToken>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let Self { hash, name, owner, scopes, expires } = self;
        check_text("the token's name", &name)?;
        let reads_only = scopes.iter().all(|scope| *scope == Scope::Read);
        match &owner {
            TokenOwner::Member(id) => drop(transaction.active_member(id)?),
            TokenOwner::Administrator(name) => {
                let owner = transaction.administrator(name)?;
                if owner.disabled.is_some() {
                    return Err(AccountRefusal::Disabled(name.clone()).into());
                }
                if owner.role == Role::Auditor && !reads_only {
                    return Err(AccountRefusal::Scopes("is an auditor's, who reads and changes nothing").into());
                }
            }
        }
        let member_may = [Scope::Read, Scope::Devices, Scope::Transfers, Scope::Certificates, Scope::Policy];
        match () {
            () if scopes.is_empty() => {
                return Err(AccountRefusal::Scopes("allows nothing: give it at least one scope").into());
            }
            () if matches!(owner, TokenOwner::Member(_)) && !scopes.iter().all(|scope| member_may.contains(scope)) => {
                let problem = "is a member's: it cannot have the scopes members and admin";
                return Err(AccountRefusal::Scopes(problem).into());
            }
            () => {}
        }
        let last = transaction.now() + MAX_API_TOKEN_DAYS * 86_400;
        if expires.is_some_and(|expires| expires <= transaction.now() || expires > last) {
            return Err(AccountRefusal::ApiTokenLife { days: MAX_API_TOKEN_DAYS }.into());
        }
        let known = &transaction.view.accounts.api_tokens;
        if known.contains_key(&hash) {
            return Err(AccountRefusal::ApiTokenExists.into());
        }
        if known.values().filter(|token| token.owner == owner).count() >= MAX_API_TOKENS {
            return Err(AccountRefusal::Full { what: "API tokens of this owner", limit: MAX_API_TOKENS }.into());
        }
        let token = ApiToken { hash, name, owner, scopes, created: transaction.now(), expires, revoked: None };
        let detail = json!({ "owner": token.owner, "scopes": token.scopes, "expires": token.expires });
        let note = Note::new("api-token.create", token.id(), detail);
        Ok((transaction.write_api_token(token)?, Some(note)))
    }
}

/// Makes an API token worthless at once.
pub struct RevokeApiToken {
    /// Its id: the first digits of its hash.
    pub id: String,
    /// The owner that revokes one of its own. None is an administrator, who revokes any.
    pub owner: Option<TokenOwner>,
}

impl Act for RevokeApiToken {
    type Done = Arc<ApiToken>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let mut tokens = transaction.view.accounts.api_tokens.values();
        let own = |token: &ApiToken| self.owner.as_ref().is_none_or(|owner| token.owner == *owner);
        let token = tokens.find(|token| token.id() == self.id && own(token)).cloned();
        let token = token.ok_or_else(|| AccountRefusal::NoApiToken(self.id.clone()))?;
        if token.revoked.is_some() {
            return Ok((token, None));
        }
        let revoked = ApiToken { revoked: Some(transaction.now()), ..ApiToken::clone(&token) };
        let note = Note::new("api-token.revoke", &self.id, Value::Null);
        Ok((transaction.write_api_token(revoked)?, Some(note)))
    }
}

impl Transaction<'_> {
    fn write_api_token(&mut self, token: ApiToken) -> Result<Arc<ApiToken>, Refusal> {
        self.put(Table::ApiTokens, *token.hash.as_bytes(), &token)?;
        let token = Arc::new(token);
        self.view.accounts.api_tokens.insert(token.hash, Arc::clone(&token));
        Ok(token)
    }

    /// The tokens of an owner that is gone are worth nothing to a later one of the same name. Tells how many there were.
    pub(super) fn forget_api_tokens_of(&mut self, owner: &TokenOwner) -> usize {
        let tokens = self.view.accounts.api_tokens.values().filter(|token| token.owner == *owner);
        let hashes: Vec<TokenHash> = tokens.map(|token| token.hash).collect();
        for hash in &hashes {
            self.view.accounts.api_tokens.remove(hash);
            self.batch.delete(Table::ApiTokens, *hash.as_bytes());
        }
        hashes.len()
    }
}
