//! Acts: what people and programs do to the federation, one type each.
//!
//! An act checks every rule first and changes afterwards; a [`Transaction`] takes back what a refused act has done all
//! the same, so that a mistake here cannot leave half a change.

mod administrator;
mod anchor;
mod api_token;
mod authority;
mod certificate;
mod changes;
mod claim;
mod devices;
mod key;
mod limits;
mod member;
mod moves;
mod network;
mod once;
mod policy;
mod primary;
mod publish;
mod replica;
mod restore;
mod source;
mod token;
mod update;
mod webhook;
mod witness;

pub use administrator::{AddAdministrator, ChangeAdministrator, MAX_ADMINISTRATORS, RemoveAdministrator, UseTotp};
pub use anchor::SetAnchors;
pub use api_token::{CreateApiToken, MAX_API_TOKEN_DAYS, MAX_API_TOKENS, RevokeApiToken};
pub use authority::{PublishAt, RetireLnsAuthority, SetLnsAuthority};
pub use certificate::{Enrol, Enrolled, Issue, NumberCrl, Renew, Renewer, Revoke, RevokeAll, Which};
pub use changes::DeviceChanges;
pub(crate) use claim::ClaimsOpened;
pub use claim::{DecideClaims, MAX_SETTLED, Release, Settled, WithdrawClaims};
pub use devices::{CLAIMS_SHOWN, Import, Imported, Mode, SHRINK_PERCENT};
pub use key::{CreateKey, RevokeKey};
pub use limits::{MAX_RANGES, SetLimits};
pub use member::{AddMember, ApproveName, OpenGrace, RemoveMember, RenameMember, ResumeMember, SuspendMember};
pub use moves::{
    AcceptMove, CancelMove, Due, MAX_MOVE_DAYS, MAX_MOVE_DEVICES, MAX_MOVES, MAX_OFFERS, MoveDevices, Moved, OfferMove,
    RunMove,
};
pub use network::{RemoveNetwork, SetNetwork};
pub use once::{Answer, Answered, Answering, KEPT, MAX_BODY, MAX_KEY, MAX_REQUESTS, Once};
pub use policy::{ChangePolicy, MAX_RULES, PolicyChange, SetPolicy};
pub use primary::{Promote, Reached, SetPrimary};
pub use publish::{PublishPrivate, PublishPublic, PublishedZones};
pub use replica::{MAX_NOTIFY, RemoveReplica, SetReplica};
pub use restore::{Published, Recall, Recalled, Replaced};
pub use source::{RemoveSource, SetSource, TakeTransfer, Withdraw};
pub use token::{CreateToken, MAX_TOKEN_DAYS, bearer};
pub use update::{Update, Updated};
pub use webhook::{DisableWebhook, MAX_WEBHOOKS, NoteDelivered, RemoveWebhook, SetWebhook};
pub use witness::Witness;

use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// One thing somebody does.
pub trait Act: Send + 'static {
    /// What the actor gets to know.
    type Done: Send + 'static;

    /// Checks, then changes. Without a note nothing has changed.
    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal>;
}

/// The longest text people may give as a name or a reason, in octets.
pub const MAX_TEXT: usize = 255;

fn check_text(field: &'static str, text: &str) -> Result<(), Refusal> {
    let problem = match text {
        "" => "is empty",
        _ if text.len() > MAX_TEXT => "is longer than 255 octets",
        _ if text.chars().any(char::is_control) => "has control characters",
        _ => return Ok(()),
    };
    Err(Refusal::Text { field, problem })
}
