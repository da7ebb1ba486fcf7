//! Members come, are suspended, resume and leave.

use std::sync::Arc;

use dnsbroker_ca::{Principal, RevocationReason};
use dnsbroker_federation::MemberId;
use serde_json::{Value, json};

use super::{Act, check_text};
use crate::engine::Table;
use crate::record::{Member, Suspension};
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
        let member = Member { id: self.id, name: self.name, since: transaction.now(), suspended: None };
        Ok((transaction.write_member(member)?, Some(note)))
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
        transaction.view.members.remove(&self.id);
        transaction.batch.delete(Table::Members, self.id.as_str());
        transaction.admission_changes();
        Ok(((), Some(Note::new("member.remove", &self.id, json!({ "revoked": revoked })))))
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

    fn write_member(&mut self, member: Member) -> Result<Arc<Member>, Refusal> {
        self.put(Table::Members, member.id.as_str(), &member)?;
        let member = Arc::new(member);
        self.view.members.insert(member.id.clone(), Arc::clone(&member));
        self.admission_changes();
        Ok(member)
    }
}
