//! Who is at the other end of a connection: one principal, rechecked on each request.

use std::sync::atomic::{AtomicU64, Ordering};

use dnsbroker_ca::identity::{FactsError, IdentityError};
use dnsbroker_ca::{Facts, Principal, principal};
use dnsbroker_federation::{DomainName, MemberId};
use dnsbroker_store::{Denial, View};

/// A certificate that names one principal of the federation.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Whom it speaks for.
    pub principal: Principal,
    /// Its serial number, life and key.
    pub facts: Facts,
}

/// Why a certificate speaks for nobody here.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It names no principal, several, or one of another federation.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It is damaged.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// It is good, and its holder is not let in.
    #[error(transparent)]
    Denied(#[from] Denial),
}

impl Identity {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8], federation: &DomainName) -> Result<Self, PeerError> {
        let principal = principal(certificate, federation)?;
        Ok(Self { principal, facts: Facts::of(certificate)? })
    }

    /// Whether it is let in now.
    pub fn admit(&self, view: &View, now: i64) -> Result<(), PeerError> {
        view.recognise(&self.facts)?;
        Ok(view.admit(&self.principal, &self.facts.serial, now)?)
    }
}

/// Who is at the other end of a live connection: a member, or where replicas come too, any principal.
pub struct Peer<W = MemberId> {
    who: W,
    identity: Identity,
    /// The generation of admissions under which it was let in; another one means to look again.
    admitted: AtomicU64,
}

impl Peer<Principal> {
    /// Lets any principal in.
    pub fn admit_any(identity: Identity, view: &View, now: i64) -> Result<Self, PeerError> {
        identity.admit(view, now)?;
        Ok(Self { who: identity.principal.clone(), identity, admitted: AtomicU64::new(view.generation) })
    }

    /// The principal.
    pub fn principal(&self) -> &Principal {
        &self.who
    }
}

impl Peer {
    /// Lets a principal in, if it is a member.
    pub fn admit(identity: Identity, view: &View, now: i64) -> Result<Self, PeerError> {
        identity.admit(view, now)?;
        let Principal::Member(member) = identity.principal.clone() else { return Err(Denial::Replica.into()) };
        Ok(Self { who: member, identity, admitted: AtomicU64::new(view.generation) })
    }

    /// The member.
    pub fn member(&self) -> &MemberId {
        &self.who
    }
}

impl<W> Peer<W> {
    /// Whether it is still let in. Costs a comparison unless something changed.
    pub fn check(&self, view: &View, now: i64) -> Result<(), Denial> {
        if self.admitted.load(Ordering::Relaxed) == view.generation && now <= self.identity.facts.not_after {
            return Ok(());
        }
        view.admit(&self.identity.principal, &self.identity.facts.serial, now)?;
        self.admitted.store(view.generation, Ordering::Relaxed);
        Ok(())
    }
}
