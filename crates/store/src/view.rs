//! What readers see: one immutable state of everything, published after each commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use dnsbroker_ca::{Facts, Fingerprint, Principal, ReplicaId, RevocationReason, Revoked, SerialNumber, TokenHash};
use dnsbroker_federation::{DomainName, MemberId, NetId};
use dnsbroker_zone::zones::Zones;
use imbl::{HashMap, OrdMap};

use crate::accounts::Accounts;
use crate::audit::Head;
use crate::journal::History;
use crate::ownership::Ownership;
use crate::record::{
    Anchors, Certificate, CrlHead, LnsAuthority, Member, Primary, Publication, Replica, Seconds, Source, Token, TsigKey,
};

/// One state of the broker. Immutable; cheap to clone.
#[derive(Clone)]
pub struct View {
    /// The zones.
    pub zones: Zones,
    /// The members.
    pub members: OrdMap<MemberId, Arc<Member>>,
    /// Enrolment tokens by hash.
    pub tokens: OrdMap<TokenHash, Arc<Token>>,
    /// Certificates by serial number.
    pub certificates: HashMap<SerialNumber, Arc<Certificate>>,
    /// The certificates of each public key.
    pub keys: HashMap<Fingerprint, Vec<SerialNumber>>,
    /// TSIG keys by name.
    pub tsig_keys: OrdMap<DomainName, Arc<TsigKey>>,
    /// Replicas by id.
    pub replicas: OrdMap<ReplicaId, Arc<Replica>>,
    /// Sources by NetID.
    pub sources: OrdMap<NetId, Arc<Source>>,
    /// Trust anchors by NetID.
    pub anchors: OrdMap<NetId, Arc<Anchors>>,
    /// Claims, moves and limits.
    pub ownership: Ownership,
    /// Administrators, API tokens and webhooks.
    pub accounts: Accounts,
    /// The last revocation list of each CA.
    pub crls: OrdMap<String, CrlHead>,
    /// The broker that takes changes; none where it has not said so yet.
    pub primary: Option<Arc<Primary>>,
    /// Where the CA publishes; none where it has not said so yet.
    pub publication: Option<Arc<Publication>>,
    /// The issuing CA for network servers alone, where there is one.
    pub lns_authority: Option<Arc<LnsAuthority>>,
    /// The end of the audit.
    pub audit: Head,
    /// The deltas that led here, as far as they are kept.
    pub history: History,
    /// Grows whenever [`admit`](Self::admit) may decide otherwise than before, time apart.
    pub generation: u64,
}

/// Why a certificate that chains to the federation's CA is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Issued by nobody we remember.
    #[error("certificate {0} is not in the register")]
    NotRegistered(SerialNumber),
    /// Revoked.
    #[error("certificate {0} is revoked")]
    Revoked(SerialNumber),
    /// Its time is over, or not yet come.
    #[error("certificate {0} is expired or not yet valid")]
    Expired(SerialNumber),
    /// It names another member than the register says.
    #[error("certificate {0} is not registered for {1}")]
    Mismatch(SerialNumber, String),
    /// The member has left.
    #[error("member {0} is not in this federation")]
    NoMember(MemberId),
    /// The member is suspended.
    #[error("member {0} is suspended")]
    Suspended(MemberId),
    /// The replica was taken out.
    #[error("replica {0} is not in this federation")]
    NoReplica(ReplicaId),
    /// A replica, where only members are served.
    #[error("replicas are not served here")]
    Replica,
}

impl Denial {
    /// The stable label in metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotRegistered(_) => "not-registered",
            Self::Revoked(_) => "revoked",
            Self::Expired(_) => "expired",
            Self::Mismatch(..) => "mismatch",
            Self::NoMember(_) => "no-member",
            Self::Suspended(_) => "suspended",
            Self::NoReplica(_) => "no-replica",
            Self::Replica => "replica",
        }
    }
}

impl View {
    /// Whether a certificate that was shown is the one that was issued. Its signature alone does not say so where somebody
    /// else has got the issuing key: a serial number from the register would be all they need.
    pub fn recognise(&self, shown: &Facts) -> Result<(), Denial> {
        match self.certificates.get(&shown.serial) {
            Some(certificate) if certificate.key == shown.key => Ok(()),
            _ => Err(Denial::NotRegistered(shown.serial)),
        }
    }

    /// Whether a certificate speaks for its holder now. Asked on each request, not only at the handshake.
    pub fn admit(&self, principal: &Principal, serial: &SerialNumber, now: Seconds) -> Result<(), Denial> {
        let certificate = self.certificates.get(serial).ok_or(Denial::NotRegistered(*serial))?;
        if certificate.revoked.is_some() {
            return Err(Denial::Revoked(*serial));
        }
        if !(certificate.not_before..=certificate.not_after).contains(&now) {
            return Err(Denial::Expired(*serial));
        }
        if certificate.principal().as_ref() != Some(principal) {
            return Err(Denial::Mismatch(*serial, principal.to_string()));
        }
        self.admit_principal(principal)
    }

    /// Whether whoever has shown a certificate of ours may renew it: as [`admit`](Self::admit), but for servers and
    /// gateways too, and for some time after its end where an administrator has opened that.
    pub fn admit_holder(&self, serial: &SerialNumber, now: Seconds) -> Result<&Arc<Certificate>, Denial> {
        let certificate = self.certificates.get(serial).ok_or(Denial::NotRegistered(*serial))?;
        if certificate.revoked.is_some() {
            return Err(Denial::Revoked(*serial));
        }
        let holder = match (&certificate.member, &certificate.replica) {
            (Some(member), _) => Principal::Member(member.clone()),
            (None, Some(replica)) => Principal::Replica(replica.clone()),
            // The broker's own is renewed by the broker.
            (None, None) => return Err(Denial::Mismatch(*serial, "anybody but the broker".to_owned())),
        };
        let grace = certificate.member.as_ref().and_then(|member| self.members.get(member)?.grace);
        let end = certificate.not_after.max(grace.unwrap_or(Seconds::MIN));
        if !(certificate.not_before..=end).contains(&now) {
            return Err(Denial::Expired(*serial));
        }
        self.admit_principal(&holder)?;
        Ok(certificate)
    }

    /// Whether a member or replica is let in now, however it proved who it is.
    pub fn admit_principal(&self, principal: &Principal) -> Result<(), Denial> {
        match principal {
            Principal::Member(id) => match self.members.get(id) {
                None => Err(Denial::NoMember(id.clone())),
                Some(member) if member.suspended.is_some() => Err(Denial::Suspended(id.clone())),
                Some(_) => Ok(()),
            },
            Principal::Replica(id) => match self.replicas.get(id) {
                None => Err(Denial::NoReplica(id.clone())),
                Some(replica) => match &replica.holder {
                    Some(holder) => self.admit_principal(&Principal::Member(holder.clone())),
                    None => Ok(()),
                },
            },
        }
    }

    /// The copy of the zones that a principal may fetch, if it may fetch any.
    pub fn replica_of(&self, principal: &Principal) -> Option<&Arc<Replica>> {
        match principal {
            Principal::Replica(id) => self.replicas.get(id),
            Principal::Member(id) => self.replicas.values().find(|replica| replica.holder.as_ref() == Some(id)),
        }
    }

    /// Why and since when a certificate of ours is not good, apart from its time: revoked, or its member suspended.
    pub fn revoked(&self, certificate: &Certificate) -> Option<Revoked> {
        let serial = certificate.serial;
        if let Some(revoked) = &certificate.revoked {
            return Some(Revoked { serial, at: revoked.at, reason: revoked.reason });
        }
        let member = self.members.get(certificate.member.as_ref()?)?;
        let suspended = member.suspended.as_ref()?;
        // A certificate is not on hold before it was there.
        let at = suspended.since.max(certificate.issued);
        Some(Revoked { serial, at, reason: RevocationReason::CertificateHold })
    }

    /// What is on the revocation list of a CA. Certificates stay on it for some time after their end, so that each has
    /// been on a list that was made after it (RFC 5280, section 3.3).
    pub fn revoked_of(&self, ca: &str, now: Seconds) -> Vec<Revoked> {
        let listed = self.certificates.values().filter(|certificate| {
            certificate.ca == ca && certificate.not_after >= now.saturating_sub(LISTED_AFTER_END)
        });
        let mut revoked: Vec<Revoked> = listed.filter_map(|certificate| self.revoked(certificate)).collect();
        revoked.sort_by_key(|entry| (entry.at, entry.serial));
        revoked
    }

    /// The certificate among several of one holder that ends last and is good now.
    pub fn current_certificate(&self, holder: &Principal, now: Seconds) -> Option<&Arc<Certificate>> {
        let good = |certificate: &&Arc<Certificate>| {
            certificate.revoked.is_none()
                && certificate.not_after >= now
                && certificate.principal().as_ref() == Some(holder)
        };
        self.certificates.values().filter(good).max_by_key(|certificate| certificate.not_after)
    }

    /// The same for each member that has one, in one pass.
    pub fn current_certificates(&self, now: Seconds) -> BTreeMap<MemberId, &Arc<Certificate>> {
        let mut current: BTreeMap<MemberId, &Arc<Certificate>> = BTreeMap::new();
        for certificate in self.certificates.values() {
            if certificate.revoked.is_some() || certificate.not_after < now {
                continue;
            }
            let Some(Principal::Member(member)) = certificate.principal() else { continue };
            let last = current.entry(member).or_insert(certificate);
            if last.not_after < certificate.not_after {
                *last = certificate;
            }
        }
        current
    }

    /// Remembers a certificate, new or changed.
    pub(crate) fn insert_certificate(&mut self, certificate: Certificate) {
        let serials = self.keys.entry(certificate.key).or_default();
        if !serials.contains(&certificate.serial) {
            serials.push(certificate.serial);
        }
        self.certificates.insert(certificate.serial, Arc::new(certificate));
    }
}

/// Seconds that a revoked certificate stays listed after its end: 30 days.
const LISTED_AFTER_END: Seconds = 30 * 86_400;
