//! Replicas: servers that may hold a copy of the private zones.

use std::net::SocketAddr;
use std::sync::Arc;

use dnsbroker_ca::{Principal, ReplicaId, RevocationReason};
use dnsbroker_federation::{DomainName, MemberId};
use dnsbroker_zone::transfer::NameForm;
use serde_json::json;

use super::Act;
use crate::engine::Table;
use crate::record::{Certificate, Permission, Replica, StandbyAt};
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// Addresses that a replica is told at, at most.
pub const MAX_NOTIFY: usize = 8;

/// Allows a server a copy, or changes what it may.
pub struct SetReplica {
    /// Its id.
    pub id: ReplicaId,
    /// The member whose certificate and keys may fetch as this replica too.
    pub holder: Option<MemberId>,
    /// The one member whose devices it gets.
    pub only: Option<MemberId>,
    /// How devices are named.
    pub names: NameForm,
    /// Where it is told of changes.
    pub notify: Vec<SocketAddr>,
    /// The key with which it is told.
    pub notify_key: Option<DomainName>,
    /// Whether plain TCP will do.
    pub clear_text: bool,
    /// Where it answers, if it is a standby broker.
    pub standby: Option<StandbyAt>,
}

impl Act for SetReplica {
    type Done = Arc<Replica>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        for member in self.holder.iter().chain(&self.only) {
            transaction.member(member)?;
        }
        if let Some(holder) = &self.holder
            && let Some(other) =
                transaction.view.replicas.values().find(|other| other.holder == self.holder && other.id != self.id)
        {
            return Err(Refusal::ReplicaHolder { member: holder.clone(), replica: other.id.clone() });
        }
        if self.notify.len() > MAX_NOTIFY {
            return Err(Refusal::Text { field: "the list of addresses to notify", problem: "has more than 8" });
        }
        if let Some(key) = &self.notify_key {
            let own = Principal::Replica(self.id.clone());
            let holders = self.holder.clone().map(Principal::Member).into_iter().chain([own]);
            let mut checks = holders.map(|holder| transaction.check_key_of(key, &holder, Permission::Transfer));
            if !checks.any(|check| check.is_ok()) {
                return Err(Refusal::KeyUse("is not one of this replica that allows transfers"));
            }
        }
        let since = transaction.view.replicas.get(&self.id).map_or(transaction.now(), |known| known.since);
        if self.standby.is_some() && (self.holder.is_some() || self.only.is_some()) {
            return Err(Refusal::Text { field: "a standby", problem: "is of no member: it has everything" });
        }
        let Self { id, holder, only, names, notify, notify_key, clear_text, standby } = self;
        let replica = Replica { id, holder, only, names, notify, notify_key, clear_text, standby, since };
        let known = transaction.view.replicas.get(&replica.id).cloned();
        if known.as_deref() == Some(&replica) {
            return Ok((Arc::new(replica), None));
        }
        // What it holds is another zone from now on: no difference leads there from a serial it has.
        if known.as_ref().is_some_and(|known| (&known.only, known.names) != (&replica.only, replica.names)) {
            transaction.break_history();
        }
        let detail = json!({
            "holder": replica.holder, "only": replica.only, "names": replica.names, "notify": replica.notify,
            "notify_key": replica.notify_key, "clear_text": replica.clear_text, "standby": replica.standby,
        });
        if let Some(before) = known.as_ref().and_then(|known| known.standby.as_ref())
            && replica.standby.as_ref().is_none_or(|now| now.name != before.name)
        {
            transaction.revoke_server_of(before)?;
        }
        let note = Note::new("replica.set", &replica.id, detail);
        transaction.put(Table::Replicas, replica.id.as_str(), &replica)?;
        let replica = Arc::new(replica);
        transaction.view.replicas.insert(replica.id.clone(), Arc::clone(&replica));
        transaction.admission_changes();
        Ok((replica, Some(note)))
    }
}

/// Takes a replica's rights away. What it holds it keeps, until its copy expires.
pub struct RemoveReplica {
    /// Which.
    pub id: ReplicaId,
}

impl Act for RemoveReplica {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        let known = transaction.replica(&self.id)?;
        let holder = Principal::Replica(self.id.clone());
        let mut revoked = transaction.revoke_all(&holder, RevocationReason::CessationOfOperation)?;
        if let Some(at) = &known.standby {
            revoked.extend(transaction.revoke_server_of(at)?);
        }
        transaction.forget_keys_of(&holder);
        transaction.view.replicas.remove(&self.id);
        transaction.batch.delete(Table::Replicas, self.id.as_str());
        transaction.admission_changes();
        Ok(((), Some(Note::new("replica.remove", &self.id, json!({ "revoked": revoked.len() })))))
    }
}

impl Replica {
    /// Whether it stands on a member.
    pub fn is_of(&self, member: &MemberId) -> bool {
        self.holder.as_ref() == Some(member) || self.only.as_ref() == Some(member)
    }
}

impl Transaction<'_> {
    /// A replica, or that there is none.
    pub(super) fn replica(&self, id: &ReplicaId) -> Result<Arc<Replica>, Refusal> {
        self.view.replicas.get(id).cloned().ok_or_else(|| Refusal::NoReplica(id.clone()))
    }

    /// Revokes what members would take a standby's server for a broker by. It names no replica, but the standby's name;
    /// the primary's own may have that name too, after a standby took its place.
    fn revoke_server_of(&mut self, at: &StandbyAt) -> Result<Vec<Arc<Certificate>>, Refusal> {
        let (name, primary) = (at.name.dotless(), self.view.primary.as_ref().map(|primary| primary.name.dotless()));
        self.revoke_where(RevocationReason::CessationOfOperation, |known| {
            known.member.is_none()
                && known.names.contains(&name)
                && primary.as_ref().is_none_or(|primary| !known.names.contains(primary))
        })
    }
}
