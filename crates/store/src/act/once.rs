//! Requests that must not happen twice: who repeats one with the same idempotency key gets the answer of the first.
//!
//! The answer is written in the same batch as what the act did, so there is no moment at which one is there without the
//! other. Refused acts are not remembered: nothing happened, and the same request may be good later. An answer is kept
//! for a day, whose length is said by [`KEPT`], and at most [`MAX_REQUESTS`] are.

use aws_lc_rs::digest::{SHA256, digest};

use super::Act;
use crate::accounts::RequestKey;
use crate::audit::hash;
use crate::engine::Table;
use crate::record::{Request, Seconds};
use crate::refusal::{AccountRefusal, Refusal};
use crate::transaction::{Note, Transaction};

/// Seconds that an answer is kept.
pub const KEPT: Seconds = 86_400;
/// Answers that are kept; of more, the oldest are forgotten.
pub const MAX_REQUESTS: usize = 100_000;
/// Octets of an answer's body that are kept; of a longer one, only the status.
pub const MAX_BODY: usize = 64 * 1024;
/// Octets of a key at most.
pub const MAX_KEY: usize = 255;
/// Answers that one act forgets at most, so that none waits for it.
const SWEPT: usize = 64;

/// What an act answers: status and body.
pub type Answer = (u16, String);
/// Makes the answer of what an act did.
pub type Answering<Done> = Box<dyn FnOnce(&Done) -> Answer + Send>;

/// An act that is done once, however often it is asked for.
pub struct Once<A: Act> {
    /// Who asks; the same key of somebody else is another.
    pub identity: String,
    /// The key.
    pub key: String,
    /// The request, in any stable form: method, path and body. Only its digest is kept.
    pub request: Vec<u8>,
    /// The act.
    pub act: A,
    /// Makes the answer of what the act did.
    pub answer: Answering<A::Done>,
}

/// The answer to a request, first or repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The body; none where it is the repeat of one that was too long to be kept.
    pub body: Option<String>,
    /// Whether the act was done before, and not now.
    pub repeated: bool,
}

impl<A: Act> Act for Once<A> {
    type Done = Answered;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Answered, Option<Note>), Refusal> {
        let Self { identity, key, request, act, answer } = self;
        if !(1..=MAX_KEY).contains(&key.len()) || !key.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(AccountRefusal::KeyForm { limit: MAX_KEY }.into());
        }
        let (row_key, request) = (row_key(&identity, &key), hash(&request));
        let now = transaction.now();
        transaction.sweep_requests(now);
        if let Some(row) = transaction.stored(Table::Requests, &row_key)? {
            let known: Request = serde_json::from_slice(&row)?;
            if now - known.at < KEPT {
                let Request { request: first, status, body, .. } = known;
                let answered = Answered { status, body, repeated: true };
                return if first == request { Ok((answered, None)) } else { Err(AccountRefusal::KeyReused.into()) };
            }
            transaction.view.accounts.requests.remove(&(known.at, row_key));
        }
        let (done, note) = act.apply(transaction)?;
        let (status, body) = answer(&done);
        let kept = (body.len() <= MAX_BODY).then(|| body.clone());
        transaction.put(Table::Requests, row_key, &Request { request, at: now, status, body: kept })?;
        transaction.view.accounts.requests.insert((now, row_key));
        Ok((Answered { status, body: Some(body), repeated: false }, note))
    }
}

fn row_key(identity: &str, key: &str) -> RequestKey {
    // An identity has no zero octet, so no two pairs read alike.
    let digest = digest(&SHA256, &[identity.as_bytes(), &[0], key.as_bytes()].concat());
    digest.as_ref().try_into().unwrap_or_default()
}

impl Transaction<'_> {
    /// Forgets answers whose time is over, and the oldest of too many.
    fn sweep_requests(&mut self, now: Seconds) {
        for _ in 0..SWEPT {
            let requests = &mut self.view.accounts.requests;
            let Some(oldest) = requests.get_min().copied() else { return };
            if now - oldest.0 < KEPT && requests.len() < MAX_REQUESTS {
                return;
            }
            requests.remove(&oldest);
            self.batch.delete(Table::Requests, oldest.1);
        }
    }
}
