//! Administrators with a password. Hashing and encrypting are done before: here are only results of both.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Act;
use crate::engine::Table;
use crate::record::{Administrator, Role, Sealed};
use crate::refusal::{AccountRefusal, Refusal};
use crate::transaction::{Note, Transaction};

/// Administrators at most.
pub const MAX_ADMINISTRATORS: usize = 1_000;

/// Adds a person.
pub struct AddAdministrator {
    /// The name to log in with.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The password's hash in PHC form.
    pub password: String,
    /// The secret of the one-time codes, encrypted.
    pub totp: Option<Sealed>,
}

impl Act for AddAdministrator {
    type Done = Arc<Administrator>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let Self { name, role, password, totp } = self;
        let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '@' | '-');
        if !(1..=64).contains(&name.len()) || !name.chars().all(fits) {
            return Err(AccountRefusal::Name(name).into());
        }
        let known = &transaction.view.accounts.administrators;
        if known.contains_key(&name) {
            return Err(AccountRefusal::AdministratorExists(name).into());
        }
        if known.len() >= MAX_ADMINISTRATORS {
            return Err(AccountRefusal::Full { what: "administrators", limit: MAX_ADMINISTRATORS }.into());
        }
        let note = Note::new("administrator.add", &name, json!({ "role": role, "totp": totp.is_some() }));
        let created = transaction.now();
        let added = Administrator { name, role, password, totp, last_step: None, created, disabled: None };
        Ok((transaction.write_administrator(added)?, Some(note)))
    }
}

/// Changes what is given, and leaves the rest.
#[derive(Default)]
pub struct ChangeAdministrator {
    /// Whom.
    pub name: String,
    /// Another role.
    pub role: Option<Role>,
    /// Another password, as its hash.
    pub password: Option<String>,
    /// Another secret of the one-time codes, or none any more.
    pub totp: Option<Option<Sealed>>,
    /// Whether they may log in no longer, or again.
    pub disabled: Option<bool>,
}

impl Act for ChangeAdministrator {
    type Done = Arc<Administrator>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let known = transaction.administrator(&self.name)?;
        let detail = json!({
            "role": self.role, "password": self.password.is_some(), "totp": self.totp.as_ref().map(Option::is_some),
            "disabled": self.disabled,
        });
        let mut changed = Administrator::clone(&known);
        changed.role = self.role.unwrap_or(changed.role);
        changed.password = self.password.unwrap_or(changed.password);
        if let Some(totp) = self.totp {
            (changed.totp, changed.last_step) = (totp, None);
        }
        changed.disabled = match self.disabled {
            Some(true) => changed.disabled.or(Some(transaction.now())),
            Some(false) => None,
            None => changed.disabled,
        };
        if changed == *known {
            return Ok((known, None));
        }
        if changed.role != Role::Admin || changed.disabled.is_some() {
            transaction.check_not_last(&known)?;
        }
        let note = Note::new("administrator.change", &self.name, detail);
        Ok((transaction.write_administrator(changed)?, Some(note)))
    }
}

/// Uses a one-time code up: each is good once, and no older one after it (RFC 6238, section 5.2).
pub struct UseTotp {
    /// Who logs in.
    pub name: String,
    /// The time step whose code it was.
    pub step: u64,
}

impl Act for UseTotp {
    type Done = Arc<Administrator>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let known = transaction.administrator(&self.name)?;
        if known.disabled.is_some() {
            return Err(AccountRefusal::Disabled(self.name).into());
        }
        if known.last_step.is_some_and(|last| self.step <= last) {
            return Err(AccountRefusal::TotpReplayed.into());
        }
        let used = Administrator { last_step: Some(self.step), ..Administrator::clone(&known) };
        let note = Note::new("administrator.login", &self.name, Value::Null);
        Ok((transaction.write_administrator(used)?, Some(note)))
    }
}

/// Removes a person, with their API tokens.
pub struct RemoveAdministrator {
    /// Whom.
    pub name: String,
}

impl Act for RemoveAdministrator {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        let known = transaction.administrator(&self.name)?;
        transaction.check_not_last(&known)?;
        let owner = crate::record::TokenOwner::Administrator(self.name.clone());
        let tokens = transaction.forget_api_tokens_of(&owner);
        transaction.view.accounts.administrators.remove(&self.name);
        transaction.batch.delete(Table::Administrators, self.name.as_str());
        Ok(((), Some(Note::new("administrator.remove", &self.name, json!({ "tokens": tokens })))))
    }
}

impl Transaction<'_> {
    pub(super) fn administrator(&self, name: &str) -> Result<Arc<Administrator>, Refusal> {
        let known = self.view.accounts.administrators.get(name).cloned();
        known.ok_or_else(|| AccountRefusal::NoAdministrator(name.to_owned()).into())
    }

    /// That somebody else can still log in and change things.
    fn check_not_last(&self, leaving: &Administrator) -> Result<(), Refusal> {
        let may = |who: &Administrator| who.role == Role::Admin && who.disabled.is_none();
        let others = self.view.accounts.administrators.values();
        let other = others.filter(|other| other.name != leaving.name).any(|other| may(other));
        if other || !may(leaving) {
            Ok(())
        } else {
            Err(AccountRefusal::LastAdministrator(leaving.name.clone()).into())
        }
    }

    fn write_administrator(&mut self, row: Administrator) -> Result<Arc<Administrator>, Refusal> {
        self.put(Table::Administrators, row.name.as_str(), &row)?;
        let row = Arc::new(row);
        self.view.accounts.administrators.insert(row.name.clone(), Arc::clone(&row));
        Ok(row)
    }
}
