//! TSIG keys: whose they are and what they allow.

use std::collections::BTreeSet;
use std::sync::Arc;

use dnsbroker_ca::Principal;
use dnsbroker_federation::DomainName;
use dnsbroker_zone::tsig::Algorithm;
use serde_json::{Value, json};

use super::Act;
use crate::engine::Table;
use crate::record::{Permission, TsigKey};
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// Makes a key known. The secret comes encrypted; in clear only the caller has it, and shows it once.
pub struct CreateKey {
    /// Its name.
    pub name: DomainName,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Whose it is.
    pub holder: Principal,
    /// What it allows.
    pub allows: BTreeSet<Permission>,
    /// The secret, encrypted.
    pub sealed: Vec<u8>,
}

impl Act for CreateKey {
    type Done = Arc<TsigKey>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        match &self.holder {
            Principal::Member(member) => drop(transaction.active_member(member)?),
            Principal::Replica(replica) => drop(transaction.replica(replica)?),
        }
        let only_transfer = self.allows.iter().all(|permission| *permission == Permission::Transfer);
        match () {
            () if self.allows.is_empty() => return Err(Refusal::KeyUse("allows nothing: give it at least one use")),
            () if !only_transfer && matches!(self.holder, Principal::Replica(_)) => {
                return Err(Refusal::KeyUse("is a replica's, which has no devices: it can allow transfers only"));
            }
            () => {}
        }
        if transaction.view.tsig_keys.contains_key(&self.name) {
            return Err(Refusal::KeyExists(self.name));
        }
        let Self { name, algorithm, holder, allows, sealed } = self;
        let key = TsigKey { name, algorithm, holder, allows, created: transaction.now(), sealed };
        let detail = json!({ "holder": key.holder.to_string(), "algorithm": key.algorithm, "allows": key.allows });
        let note = Note::new("key.create", &key.name, detail);
        transaction.put(Table::Keys, key.name.wire(), &key)?;
        let key = Arc::new(key);
        transaction.view.tsig_keys.insert(key.name.clone(), Arc::clone(&key));
        Ok((key, Some(note)))
    }
}

/// Makes a key worthless at once.
pub struct RevokeKey {
    /// Which.
    pub name: DomainName,
}

impl Act for RevokeKey {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        if !transaction.view.tsig_keys.contains_key(&self.name) {
            return Err(Refusal::NoKey(self.name));
        }
        transaction.forget_key(&self.name);
        Ok(((), Some(Note::new("key.revoke", &self.name, Value::Null))))
    }
}

impl Transaction<'_> {
    pub(super) fn forget_key(&mut self, name: &DomainName) {
        self.view.tsig_keys.remove(name);
        self.batch.delete(Table::Keys, name.wire());
        self.admission_changes();
    }

    /// The keys of a holder that is gone are worth nothing to a later one of the same name.
    pub(super) fn forget_keys_of(&mut self, holder: &Principal) {
        let keys = self.view.tsig_keys.values().filter(|key| key.holder == *holder);
        let names: Vec<DomainName> = keys.map(|key| key.name.clone()).collect();
        names.iter().for_each(|name| self.forget_key(name));
    }

    /// A key of a member that allows something.
    pub(super) fn check_key_of(&self, name: &DomainName, holder: &Principal, needs: Permission) -> Result<(), Refusal> {
        let key = self.view.tsig_keys.get(name).ok_or_else(|| Refusal::NoKey(name.clone()))?;
        match () {
            () if key.holder != *holder => Err(Refusal::KeyUse("is another holder's")),
            () if !key.allows.contains(&needs) => Err(Refusal::KeyUse("does not allow this use")),
            () => Ok(()),
        }
    }
}
