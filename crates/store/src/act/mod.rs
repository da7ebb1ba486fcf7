//! Acts: what people and programs do to the federation, one type each.
//!
//! An act checks every rule first and changes afterwards; a [`Transaction`] takes back what a refused act has done all
//! the same, so that a mistake here cannot leave half a change.

mod anchor;
mod certificate;
mod devices;
mod key;
mod member;
mod network;
mod publish;
mod replica;
mod restore;
mod source;
mod token;
mod update;
mod witness;

pub use anchor::SetAnchors;
pub use certificate::{Enrol, Enrolled, Issue, NumberCrl, Renew, Renewer, Revoke, RevokeAll, Which};
pub use devices::{CLAIMS_SHOWN, Import, Imported, Mode, SHRINK_PERCENT};
pub use key::{CreateKey, RevokeKey};
pub use member::{AddMember, ApproveName, OpenGrace, RemoveMember, ResumeMember, SuspendMember};
pub use network::{RemoveNetwork, SetNetwork};
pub use publish::{PublishPrivate, PublishPublic};
pub use replica::{MAX_NOTIFY, RemoveReplica, SetReplica};
pub use restore::{Published, Recall, Recalled, Replaced};
pub use source::{RemoveSource, SetSource, TakeTransfer, Withdraw};
pub use token::{CreateToken, MAX_TOKEN_DAYS, bearer};
pub use update::{Update, Updated};
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
