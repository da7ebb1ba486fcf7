//! Roaming policy: who may resolve whose devices. See `dnsbroker_zone::policy` for the rules and their order.
//!
//! A change takes a serial that no delta leads to: what a filtered secondary may have is another selection of the zones
//! than before, so it fetches them whole.

use std::sync::Arc;

use dnsbroker_federation::{MemberId, NetId};
use dnsbroker_zone::policy::{Agreement, Ban, Banned, Policy, Sharing, Stance};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Act;
use crate::engine::Table;
use crate::refusal::{OwnershipRefusal, Refusal};
use crate::store::POLICY_KEY;
use crate::transaction::{Note, Transaction};

/// Rules of a policy at most.
pub const MAX_RULES: usize = 20_000;

/// Puts another policy in the place of the one there is.
pub struct SetPolicy {
    /// The whole of it.
    pub policy: Policy,
}

impl Act for SetPolicy {
    type Done = Policy;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Policy, Option<Note>), Refusal> {
        let Self { policy } = self;
        if policy == *transaction.view.zones.policy() {
            return Ok((policy, None));
        }
        transaction.check_policy(&policy)?;
        let detail = json!({
            "default": policy.default, "tell": policy.tell, "agreements": policy.agreements.len(),
            "deny": policy.deny.len(), "netids": policy.netids.len(),
        });
        transaction.write_policy(policy.clone())?;
        Ok((policy, Some(Note::new("policy.set", "policy", detail))))
    }
}

/// One change of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyChange {
    /// What holds where no other rule fits.
    Default(Stance),
    /// Whether answers say that policy hides something.
    Tell(bool),
    /// Two members resolve each other's devices.
    Agree(Agreement),
    /// They no longer do, as far as that rested on their agreement.
    Part(Agreement),
    /// A member may not resolve something.
    Deny(Ban),
    /// The ban is lifted.
    Permit(Ban),
    /// Who may resolve the devices of a NetID.
    Share(NetId, Sharing),
    /// The NetID has no rule of its own any more.
    Unshare(NetId),
}

/// Changes one rule, and leaves the others as whoever made them last has left them.
pub struct ChangePolicy {
    /// The change.
    pub change: PolicyChange,
    /// The member that makes it, about its own things. None is an administrator.
    pub member: Option<MemberId>,
}

impl Act for ChangePolicy {
    type Done = Policy;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Policy, Option<Note>), Refusal> {
        if let Some(member) = &self.member {
            transaction.active_member(member)?;
            transaction.check_own_rule(&self.change, member)?;
        }
        let mut policy = transaction.view.zones.policy().clone();
        let note = Note::new("policy.change", "policy", json!({ "change": self.change, "by": self.member }));
        match self.change {
            PolicyChange::Default(stance) => policy.default = stance,
            PolicyChange::Tell(tell) => policy.tell = tell,
            PolicyChange::Agree(agreement) => drop(policy.agreements.insert(agreement)),
            PolicyChange::Part(agreement) => drop(policy.agreements.remove(&agreement)),
            PolicyChange::Deny(ban) => drop(policy.deny.insert(ban)),
            PolicyChange::Permit(ban) => drop(policy.deny.remove(&ban)),
            PolicyChange::Share(netid, sharing) => drop(policy.netids.insert(netid, sharing)),
            PolicyChange::Unshare(netid) => drop(policy.netids.remove(&netid)),
        }
        if policy == *transaction.view.zones.policy() {
            return Ok((policy, None));
        }
        transaction.check_policy(&policy)?;
        transaction.write_policy(policy.clone())?;
        Ok((policy, Some(note)))
    }
}

impl Transaction<'_> {
    /// That every rule is about somebody and something that is there.
    fn check_policy(&self, policy: &Policy) -> Result<(), Refusal> {
        if policy.len() > MAX_RULES {
            let refusal = OwnershipRefusal::TooMany { what: "rules", count: policy.len(), limit: MAX_RULES };
            return Err(refusal.into());
        }
        let network = |netid| self.view.zones.network(netid).ok_or(Refusal::NoNetwork(netid));
        policy.netids.keys().try_for_each(|netid| network(*netid).map(drop))?;
        policy.agreements.iter().flat_map(Agreement::members).try_for_each(|id| self.member(id).map(drop))?;
        for Ban { asker, of } in &policy.deny {
            self.member(asker)?;
            let holder = match of {
                Banned::Holder(holder) => &self.member(holder)?.id.clone(),
                Banned::Netid(netid) => &network(*netid)?.member,
            };
            if holder == asker {
                return Err(OwnershipRefusal::from(dnsbroker_zone::policy::LonelyError(asker.clone())).into());
            }
        }
        Ok(())
    }

    /// A member shares its own NetIDs, and denies others its own devices. What others do with theirs is not its to say.
    fn check_own_rule(&self, change: &PolicyChange, member: &MemberId) -> Result<(), Refusal> {
        match change {
            PolicyChange::Share(netid, _) | PolicyChange::Unshare(netid) => self.own_network(*netid, member),
            PolicyChange::Deny(ban) | PolicyChange::Permit(ban) => match &ban.of {
                Banned::Holder(holder) if holder == member => Ok(()),
                Banned::Netid(netid) => self.own_network(*netid, member),
                Banned::Holder(_) => Err(OwnershipRefusal::ForeignRule(member.clone()).into()),
            },
            _ => Err(OwnershipRefusal::ForeignRule(member.clone()).into()),
        }
    }

    fn write_policy(&mut self, policy: Policy) -> Result<(), Refusal> {
        self.put(Table::Meta, POLICY_KEY, &policy)?;
        self.view.zones = self.view.zones.with_policy(Arc::new(policy));
        self.break_history();
        Ok(())
    }

    /// The policy without rules about what is no longer there, so that a later member or NetID of the same name does not
    /// inherit them.
    pub(super) fn prune_policy(&mut self, pruned: impl FnOnce(&Policy) -> Policy) -> Result<(), Refusal> {
        let policy = pruned(self.view.zones.policy());
        if policy == *self.view.zones.policy() { Ok(()) } else { self.write_policy(policy) }
    }
}
