//! What readers see: one immutable state of everything, published after each commit.

use std::sync::Arc;

use dnsbroker_ca::{Fingerprint, Principal, SerialNumber, TokenHash};
use dnsbroker_federation::MemberId;
use dnsbroker_zone::zones::Zones;
use imbl::{HashMap, OrdMap};

use crate::audit::Head;
use crate::journal::History;
use crate::record::{Certificate, Member, Seconds, Token};

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
            Self::Replica => "replica",
        }
    }
}

impl View {
    /// Whether a certificate speaks for its member now. Asked on each request, not only at the handshake.
    pub fn admit(&self, principal: &Principal, serial: &SerialNumber, now: Seconds) -> Result<(), Denial> {
        let Principal::Member(id) = principal else { return Err(Denial::Replica) };
        let certificate = self.certificates.get(serial).ok_or(Denial::NotRegistered(*serial))?;
        if certificate.revoked.is_some() {
            return Err(Denial::Revoked(*serial));
        }
        if !(certificate.not_before..=certificate.not_after).contains(&now) {
            return Err(Denial::Expired(*serial));
        }
        if certificate.member.as_ref() != Some(id) {
            return Err(Denial::Mismatch(*serial, id.to_string()));
        }
        match self.members.get(id) {
            None => Err(Denial::NoMember(id.clone())),
            Some(member) if member.suspended.is_some() => Err(Denial::Suspended(id.clone())),
            Some(_) => Ok(()),
        }
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
