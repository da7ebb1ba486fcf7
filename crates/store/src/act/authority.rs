//! Where the CA publishes; and the issuing CA for network servers alone, where there is one. That is constrained to names of
//! NetIDs, and so it and names that members own exclude each other: what is decided here is decided by the one writer, in
//! either order.

use dnsbroker_federation::{DomainName, MemberId};
use serde_json::{Value, json};

use super::Act;
use crate::engine::Table;
use crate::record::{FormerUrl, LnsAuthority, Publication};
use crate::refusal::Refusal;
use crate::store::{LNS_AUTHORITY_KEY, PUBLICATION_KEY};
use crate::transaction::{Note, Transaction};

/// Says below which URL the CA publishes from now on; empty for nowhere. Certificates that are there go on naming the one of
/// before, and until when they do is kept.
pub struct PublishAt(pub String);

impl Act for PublishAt {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        let (url, now) = (self.0, transaction.now());
        let known = transaction.view.publication.clone();
        let mut before = known.as_ref().map(|known| known.before.clone()).unwrap_or_default();
        if let Some(known) = known.as_ref().filter(|known| known.url != url) {
            let good = transaction.view.certificates.values().filter(|good| good.revoked.is_none());
            before
                .extend(good.map(|good| good.not_after).max().map(|until| FormerUrl { url: known.url.clone(), until }));
        }
        before.retain(|former| former.until >= now && former.url != url);
        // The one that is given up last stands last; it is named by the most.
        before.drain(..before.len().saturating_sub(MAX_FORMER_URLS));
        let publication = Publication { url, before };
        if known.as_deref() == Some(&publication) {
            return Ok(((), None));
        }
        let moved = known.is_none_or(|known| known.url != publication.url);
        let note = Note::new("ca.publish", &publication.url, json!({ "before": publication.before }));
        transaction.put(Table::Meta, PUBLICATION_KEY, &publication)?;
        transaction.view.publication = Some(publication.into());
        Ok(((), Some(note).filter(|_| moved)))
    }
}

/// URLs of before that are remembered.
const MAX_FORMER_URLS: usize = 16;

/// From now on, certificates of network servers come from a CA that is constrained to `permitted`.
pub struct SetLnsAuthority {
    /// The CA.
    pub authority: LnsAuthority,
    /// Particulars of its certificate.
    pub detail: Value,
}

impl Act for SetLnsAuthority {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        let Self { authority, detail } = self;
        let approved: Vec<_> =
            transaction.view.members.values().flat_map(|m| m.names.iter().map(|name| (&m.id, name))).collect();
        if let [(member, name), rest @ ..] = &approved[..] {
            let (member, name) = (MemberId::clone(member), DomainName::clone(name));
            return Err(Refusal::NamesApproved { member, name, more: rest.len(), permitted: authority.permitted });
        }
        let note = Note::new("ca.install", format!("LNS issuing CA {}", authority.ca), detail);
        transaction.put(Table::Meta, LNS_AUTHORITY_KEY, &authority)?;
        transaction.view.lns_authority = Some(authority.into());
        Ok(((), Some(note)))
    }
}

/// From now on, certificates of network servers come from the CA that signs everything else.
pub struct RetireLnsAuthority;

impl Act for RetireLnsAuthority {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        let authority = transaction.view.lns_authority.take().ok_or(Refusal::NoLnsAuthority)?;
        transaction.batch.delete(Table::Meta, LNS_AUTHORITY_KEY);
        let detail = json!({ "permitted": authority.permitted });
        Ok(((), Some(Note::new("ca.retire", format!("LNS issuing CA {}", authority.ca), detail))))
    }
}
