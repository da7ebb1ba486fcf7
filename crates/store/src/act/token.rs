//! One-time enrolment tokens.

use std::sync::Arc;

use dnsbroker_ca::{Fingerprint, TokenHash};
use dnsbroker_federation::MemberId;
use serde_json::json;

use super::Act;
use crate::engine::Table;
use crate::record::{Seconds, Token, TokenUse, token_id};
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// A token lives at most this long.
pub const MAX_TOKEN_DAYS: i64 = 30;
const DAY: Seconds = 86_400;

/// Makes a token known. The secret stays with the caller, who shows it once.
pub struct CreateToken {
    /// SHA-256 of the secret.
    pub hash: TokenHash,
    /// Who may enrol with it.
    pub member: MemberId,
    /// The profile of the certificate it gives.
    pub profile: String,
    /// Its life in seconds.
    pub ttl: Seconds,
    /// The only key it may be used with.
    pub key_pin: Option<Fingerprint>,
}

impl Act for CreateToken {
    type Done = Arc<Token>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        transaction.active_member(&self.member)?;
        if !(60..=MAX_TOKEN_DAYS * DAY).contains(&self.ttl) {
            return Err(Refusal::TokenLife { days: MAX_TOKEN_DAYS });
        }
        transaction.forget_old_tokens();
        let created = transaction.now();
        let token = Token {
            hash: self.hash,
            member: self.member,
            profile: self.profile,
            created,
            expires: created + self.ttl,
            key_pin: self.key_pin,
            used: None,
        };
        let detail = json!({ "token": token.id(), "expires": token.expires, "key_pin": token.key_pin });
        let note = Note::new("token.create", &token.member, detail);
        Ok((transaction.write_token(token)?, Some(note)))
    }
}

impl Transaction<'_> {
    /// A token that may be used now, or what it was used for.
    pub(super) fn token(&self, hash: &TokenHash) -> Result<Arc<Token>, Refusal> {
        self.view.tokens.get(hash).cloned().ok_or(Refusal::TokenUnknown)
    }

    pub(super) fn use_up(&mut self, token: &Token, used: TokenUse) -> Result<(), Refusal> {
        self.write_token(Token { used: Some(used), ..token.clone() }).map(drop)
    }

    fn write_token(&mut self, token: Token) -> Result<Arc<Token>, Refusal> {
        self.put(Table::Tokens, *token.hash.as_bytes(), &token)?;
        let token = Arc::new(token);
        self.view.tokens.insert(token.hash, Arc::clone(&token));
        Ok(token)
    }

    /// Tokens are kept for a while after their end, so that "used" and "expired" can be told from "unknown".
    fn forget_old_tokens(&mut self) {
        let end = self.now() - MAX_TOKEN_DAYS * DAY;
        self.forget_tokens(|token| token.expires < end);
    }

    /// Nobody enrols with the tokens of a member that is gone.
    pub(super) fn forget_tokens_of(&mut self, member: &MemberId) {
        self.forget_tokens(|token| token.member == *member);
    }

    pub(super) fn forget_tokens(&mut self, which: impl Fn(&Token) -> bool) {
        let forgotten: Vec<TokenHash> =
            self.view.tokens.values().filter(|token| which(token)).map(|token| token.hash).collect();
        for hash in forgotten {
            self.view.tokens.remove(&hash);
            self.batch.delete(Table::Tokens, *hash.as_bytes());
        }
    }
}

/// The name of the bearer of a token, for the audit.
pub fn bearer(hash: &TokenHash) -> crate::Actor {
    crate::Actor::Token(token_id(hash))
}
