//! What is done outside the store, told in the audit: files of the CA, backups.

use serde_json::Value;

use super::Act;
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// Says that something is being done. It changes nothing here.
pub struct Witness {
    /// What: `ca.install`, `backup`...
    pub act: &'static str,
    /// To what.
    pub object: String,
    /// Particulars; never a secret.
    pub detail: Value,
}

impl Act for Witness {
    type Done = ();

    fn apply(self, _: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        Ok(((), Some(Note::new(self.act, self.object, self.detail))))
    }
}
