//! Members come, are suspended, resume and leave.

use std::collections::BTreeSet;
use std::sync::Arc;

use dnsbroker_ca::{Principal, RevocationReason};
use dnsbroker_federation::{DomainName, MemberId, Owner};
use serde_json::{Value, json};

use super::{Act, check_text};
use crate::engine::Table;
use crate::record::{Member, Seconds, Suspension, TokenOwner};
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// Adds an operator.
pub struct AddMember {
    /// Its id.
    pub id: MemberId,
    /// Its name for people.
    pub name: String,
}

impl Act for AddMember {
    type Done = Arc<Member>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        check_text("the member's name", &self.name)?;
        if transaction.view.members.contains_key(&self.id) {
            return Err(Refusal::MemberExists(self.id));
        }
        let note = Note::new("member.add", &self.id, json!({ "name": self.name }));
        let (id, name, since) = (self.id, self.name, transaction.now());
        let member = Member { id, name, since, suspended: None, grace: None, names: BTreeSet::new() };
        Ok((transaction.write_member(member)?, Some(note)))
    }
}

/// Gives an operator another name for people.
pub struct RenameMember {
    /// Which.
    pub id: MemberId,
    /// The name.
    pub name: String,
}

impl Act for RenameMember {
    type Done = Arc<Member>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        check_text("the member's name", &self.name)?;
        let member = transaction.member(&self.id)?;
        if member.name == self.name {
            return Ok((member, None));
        }
        let note = Note::new("member.rename", &self.id, json!({ "name": self.name }));
        Ok((transaction.write_member(Member { name: self.name, ..Member::clone(&member) })?, Some(note)))
    }
}

/// Suspends an operator: from now on it is not answered, and its devices stay.
pub struct SuspendMember {
    /// Which.
    pub id: MemberId,
    /// Why.
    pub reason: String,
}

impl Act for SuspendMember {
    type Done = Arc<Member>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        check_text("the reason", &self.reason)?;
        let member = transaction.member(&self.id)?;
        let note = Note::new("member.suspend", &self.id, json!({ "reason": self.reason }));
        let suspended = Some(Suspension { since: transaction.now(), reason: self.reason });
        Ok((transaction.write_member(Member { suspended, ..Member::clone(&member) })?, Some(note)))
    }
}

/// Ends a suspension.
pub struct ResumeMember {
    /// Of which.
    pub id: MemberId,
}

impl Act for ResumeMember {
    type Done = Arc<Member>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let member = transaction.member(&self.id)?;
        if member.suspended.is_none() {
            return Ok((member, None));
        }
        let note = Note::new("member.resume", &self.id, Value::Null);
        Ok((transaction.write_member(Member { suspended: None, ..Member::clone(&member) })?, Some(note)))
    }
}

/// Lets a member renew a certificate that has expired, for some time.
pub struct OpenGrace {
    /// Which.
    pub id: MemberId,
    /// Until when; none ends it.
    pub until: Option<Seconds>,
}

impl Act for OpenGrace {
    type Done = Arc<Member>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let member = transaction.active_member(&self.id)?;
        let last = transaction.now() + MAX_GRACE_DAYS * 86_400;
        if self.until.is_some_and(|until| until <= transaction.now() || until > last) {
            return Err(Refusal::Grace { days: MAX_GRACE_DAYS });
        }
        let note = Note::new("member.grace", &self.id, json!({ "until": self.until }));
        Ok((transaction.write_member(Member { grace: self.until, ..Member::clone(&member) })?, Some(note)))
    }
}

/// Approves a name outside the federation for the certificates of a member's servers, or takes that back.
pub struct ApproveName {
    /// Of which.
    pub id: MemberId,
    /// The name.
    pub name: DomainName,
    /// Whether it may be used from now on.
    pub approved: bool,
}

impl Act for ApproveName {
    type Done = Arc<Member>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let member = transaction.member(&self.id)?;
        let names = transaction.view.zones.names();
        if self.approved && names.owner(self.name.wire()) != Owner::Outside {
            return Err(Refusal::FederationName(self.name));
        }
        if let Some(authority) = transaction.view.lns_authority.as_ref().filter(|_| self.approved) {
            return Err(Refusal::NamesConstrained { name: self.name, permitted: authority.permitted.clone() });
        }
        let other =
            transaction.view.members.values().find(|other| other.id != self.id && other.names.contains(&self.name));
        if let Some(other) = other.filter(|_| self.approved) {
            return Err(Refusal::NameHeld { name: self.name, member: other.id.clone() });
        }
        let mut changed = Member::clone(&member);
        let did =
            if self.approved { changed.names.insert(self.name.clone()) } else { changed.names.remove(&self.name) };
        if !did {
            return Ok((member, None));
        }
        if changed.names.len() > MAX_NAMES {
            return Err(Refusal::Text { field: "the list of approved names", problem: "has more than 64" });
        }
        let act = if self.approved { "member.name.approve" } else { "member.name.withdraw" };
        let note = Note::new(act, &self.id, json!({ "name": self.name }));
        Ok((transaction.write_member(changed)?, Some(note)))
    }
}

/// The longest grace for expired certificates, in days.
pub const MAX_GRACE_DAYS: i64 = 30;
/// Names of one member's servers that can be approved.
pub const MAX_NAMES: usize = 64;

/// Removes an operator that holds nothing any more. Its certificates are revoked and its tokens gone, so that neither
/// comes back with a later member of the same id.
pub struct RemoveMember {
    /// Which.
    pub id: MemberId,
}

impl Act for RemoveMember {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        transaction.member(&self.id)?;
        let held = transaction.view.zones.networks().find(|network| network.member == self.id);
        if let Some(network) = held {
            return Err(Refusal::MemberInUse { member: self.id, what: format!("NetID {}", network.netid) });
        }
        let replica = transaction.view.replicas.values().find(|replica| replica.is_of(&self.id));
        if let Some(replica) = replica {
            return Err(Refusal::MemberInUse { member: self.id, what: format!("replica {}", replica.id) });
        }
        let holder = Principal::Member(self.id.clone());
        let revoked = transaction.revoke_all(&holder, RevocationReason::CessationOfOperation)?;
        transaction.forget_keys_of(&holder);
        transaction.forget_tokens_of(&self.id);
        transaction.forget_api_tokens_of(&TokenOwner::Member(self.id.clone()));
        transaction.forget_webhooks_of(&self.id);
        transaction.forget_limits(&self.id);
        transaction.forget_moves_of(&self.id);
        transaction.prune_policy(|policy| policy.without_member(&self.id))?;
        transaction.view.members.remove(&self.id);
        transaction.batch.delete(Table::Members, self.id.as_str());
        transaction.admission_changes();
        Ok(((), Some(Note::new("member.remove", &self.id, json!({ "revoked": revoked.len() })))))
    }
}

impl Transaction<'_> {
    /// A member, or that there is none.
    pub(super) fn member(&self, id: &MemberId) -> Result<Arc<Member>, Refusal> {
        self.view.members.get(id).cloned().ok_or_else(|| Refusal::NoMember(id.clone()))
    }

    /// A member that may act now.
    pub(super) fn active_member(&self, id: &MemberId) -> Result<Arc<Member>, Refusal> {
        let member = self.member(id)?;
        match &member.suspended {
            None => Ok(member),
            Some(suspension) => Err(Refusal::MemberSuspended { member: id.clone(), reason: suspension.reason.clone() }),
        }
    }

    pub(super) fn write_member(&mut self, member: Member) -> Result<Arc<Member>, Refusal> {
        self.put(Table::Members, member.id.as_str(), &member)?;
        let member = Arc::new(member);
        self.view.members.insert(member.id.clone(), Arc::clone(&member));
        self.admission_changes();
        Ok(member)
    }
}
