//! Webhooks: where events are sent, and signed with which secret. Sending is the broker's.

use std::collections::BTreeSet;
use std::sync::Arc;

use dnsbroker_federation::MemberId;
use serde_json::{Value, json};

use super::{Act, check_text};
use crate::engine::Table;
use crate::record::{Disabled, Sealed, Webhook};
use crate::refusal::{AccountRefusal, Refusal};
use crate::transaction::{Note, Transaction};

/// Webhooks at most.
pub const MAX_WEBHOOKS: usize = 200;
/// Octets of a URL at most.
const MAX_URL: usize = 2_048;
/// Kinds of events of one webhook at most.
const MAX_EVENTS: usize = 64;

/// Adds a webhook, or changes one.
pub struct SetWebhook {
    /// Which; a new one where it is none.
    pub id: Option<u64>,
    /// Where events go.
    pub url: String,
    /// Which kinds of events.
    pub events: BTreeSet<String>,
    /// The secret, encrypted; the one it has where it is none.
    pub secret: Option<Sealed>,
    /// The member whose events alone it gets, and who alone may change it. None is an administrator's.
    pub member: Option<MemberId>,
}

impl Act for SetWebhook {
    type Done = Arc<Webhook>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let Self { id, url, events, secret, member } = self;
        if let Some(member) = &member {
            transaction.active_member(member)?;
        }
        let printable = url.bytes().all(|octet| octet.is_ascii_graphic());
        match () {
            () if !url.starts_with("https://") && !url.starts_with("http://") => {
                return Err(AccountRefusal::Webhook("needs a URL that begins with https:// or http://").into());
            }
            () if url.len() > MAX_URL || !printable => {
                return Err(AccountRefusal::Webhook("has a URL of more than 2048 octets, or with blanks in it").into());
            }
            () if events.is_empty() || events.len() > MAX_EVENTS => {
                return Err(AccountRefusal::Webhook("names no kind of events, or more than 64").into());
            }
            () => events.iter().try_for_each(|event| check_text("the kind of events", event))?,
        }
        let known = id.map(|id| transaction.webhook(id, member.as_ref())).transpose()?;
        if known.is_none() && transaction.view.accounts.webhooks.len() >= MAX_WEBHOOKS {
            return Err(AccountRefusal::Full { what: "webhooks", limit: MAX_WEBHOOKS }.into());
        }
        let secret = secret.or_else(|| known.as_ref().map(|known| known.secret.clone()));
        let secret = secret.ok_or(AccountRefusal::Webhook("needs a secret"))?;
        let id = id.unwrap_or_else(|| transaction.next_number());
        let created = known.as_ref().map_or(transaction.now(), |known| known.created);
        // Who changes one means it to work.
        let delivered = known.as_ref().and_then(|known| known.delivered.clone());
        let webhook = Webhook { id, url, events, secret, member, created, disabled: None, delivered };
        if known.is_some_and(|known| *known == webhook) {
            return Ok((Arc::new(webhook), None));
        }
        let detail = json!({ "url": webhook.url, "events": webhook.events, "member": webhook.member });
        let note = Note::new("webhook.set", id, detail);
        Ok((transaction.write_webhook(webhook)?, Some(note)))
    }
}

/// Sends nothing to a webhook from now on.
pub struct DisableWebhook {
    /// Which.
    pub id: u64,
    /// Why.
    pub reason: String,
}

impl Act for DisableWebhook {
    type Done = Arc<Webhook>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        check_text("the reason", &self.reason)?;
        let known = transaction.view.accounts.webhooks.get(&self.id).cloned();
        let known = known.ok_or(AccountRefusal::NoWebhook(self.id))?;
        if known.disabled.is_some() {
            return Ok((known, None));
        }
        let note = Note::new("webhook.disable", self.id, json!({ "reason": self.reason }));
        let disabled = Some(Disabled { since: transaction.now(), reason: self.reason });
        Ok((transaction.write_webhook(Webhook { disabled, ..Webhook::clone(&known) })?, Some(note)))
    }
}

/// Writes down up to which event webhooks have taken them. It is no change of the federation, and so no row of the audit.
pub struct NoteDelivered {
    /// The id of the last event of each.
    pub places: Vec<(u64, String)>,
}

impl Act for NoteDelivered {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        for (id, place) in self.places {
            // It may have been removed meanwhile.
            let Some(known) = transaction.view.accounts.webhooks.get(&id).cloned() else { continue };
            transaction.write_webhook(Webhook { delivered: Some(place), ..Webhook::clone(&known) })?;
        }
        Ok(((), None))
    }
}

/// Removes a webhook.
pub struct RemoveWebhook {
    /// Which.
    pub id: u64,
    /// The member that removes one of its own. None is an administrator.
    pub member: Option<MemberId>,
}

impl Act for RemoveWebhook {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        if self.member.is_some() {
            transaction.webhook(self.id, self.member.as_ref())?;
        }
        if !transaction.forget_webhook(self.id) {
            return Err(AccountRefusal::NoWebhook(self.id).into());
        }
        Ok(((), Some(Note::new("webhook.remove", self.id, Value::Null))))
    }
}

impl Transaction<'_> {
    /// A webhook of this member, or of the administrators.
    fn webhook(&self, id: u64, member: Option<&MemberId>) -> Result<Arc<Webhook>, Refusal> {
        let known = self.view.accounts.webhooks.get(&id).filter(|webhook| webhook.member.as_ref() == member);
        known.cloned().ok_or_else(|| AccountRefusal::NoWebhook(id).into())
    }

    fn write_webhook(&mut self, webhook: Webhook) -> Result<Arc<Webhook>, Refusal> {
        self.put(Table::Webhooks, webhook.id.to_be_bytes(), &webhook)?;
        let webhook = Arc::new(webhook);
        self.view.accounts.webhooks.insert(webhook.id, Arc::clone(&webhook));
        Ok(webhook)
    }

    fn forget_webhook(&mut self, id: u64) -> bool {
        self.batch.delete(Table::Webhooks, id.to_be_bytes());
        self.view.accounts.webhooks.remove(&id).is_some()
    }

    /// Webhooks of a member that leaves go with it.
    pub(super) fn forget_webhooks_of(&mut self, member: &MemberId) {
        let webhooks = self.view.accounts.webhooks.values();
        let of: Vec<u64> =
            webhooks.filter(|webhook| webhook.member.as_ref() == Some(member)).map(|webhook| webhook.id).collect();
        for id in of {
            self.forget_webhook(id);
        }
    }
}
