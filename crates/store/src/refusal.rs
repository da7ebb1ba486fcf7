//! Why an act was refused: what, which object, and what to do. Each has a stable code for programs.

use dnsbroker_ca::SerialNumber;
use dnsbroker_ca::authority::IssueError;
use dnsbroker_federation::{MemberId, NetId};

use crate::engine::EngineError;
use crate::record::Seconds;

/// A rule that an act would have broken. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such member.
    #[error("there is no member {0}; `dnsbroker member list` shows those there are")]
    NoMember(MemberId),
    /// Added twice.
    #[error("member {0} exists already")]
    MemberExists(MemberId),
    /// Something still belongs to it.
    #[error("member {member} still holds {what}; remove that first")]
    MemberInUse {
        /// The member.
        member: MemberId,
        /// What it holds.
        what: String,
    },
    /// It may do nothing for the time being.
    #[error("member {member} is suspended: {reason}")]
    MemberSuspended {
        /// The member.
        member: MemberId,
        /// Why.
        reason: String,
    },
    /// No such NetID.
    #[error("there is no NetID {0} in this federation; `dnsbroker netid set {0} --member ID --address IP` adds it")]
    NoNetwork(NetId),
    /// The NetID is not this member's.
    #[error("NetID {netid} is not held by member {member}")]
    ForeignNetwork {
        /// The NetID.
        netid: NetId,
        /// Who asked.
        member: MemberId,
    },
    /// One holder a NetID, experimental ones too.
    #[error(
        "NetID {netid} is held by another member of this federation{}",
        if netid.is_experimental() { " (000000 and 000001 are shared by the world, but in one federation each has one holder)" } else { "" }
    )]
    NetworkHeld {
        /// The NetID.
        netid: NetId,
    },
    /// A NetID needs an address to resolve to.
    #[error("NetID {0} needs at least one address")]
    NoAddress(NetId),
    /// Too many.
    #[error("NetID {netid} has {count} addresses; at most {limit} are served")]
    TooManyAddresses {
        /// The NetID.
        netid: NetId,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// An address nobody can reach.
    #[error("{address} cannot be the address of an LNS: it is unspecified, multicast or broadcast")]
    BadAddress {
        /// The address.
        address: std::net::IpAddr,
    },
    /// Devices would be left without a NetID.
    #[error("NetID {netid} still has {devices} devices; remove or move them first")]
    NetworkInUse {
        /// The NetID.
        netid: NetId,
        /// How many.
        devices: u64,
    },
    /// A full list that looks like a mistake.
    #[error(
        "the list would drop {removed} of {held} devices of NetID {netid}, more than {percent} %; \
         if that is meant, repeat it with --allow-shrink"
    )]
    Shrink {
        /// The NetID.
        netid: NetId,
        /// How many would go.
        removed: u64,
        /// How many there are.
        held: u64,
        /// The share that may go unasked.
        percent: u64,
    },
    /// A token that was never made here, or long ago.
    #[error("the token is not known to this broker: ask the federation's administrator for a new one")]
    TokenUnknown,
    /// It has been used with another request.
    #[error("the token has been used already: ask the federation's administrator for a new one")]
    TokenUsed,
    /// Its time is over.
    #[error("the token expired: ask the federation's administrator for a new one")]
    TokenExpired {
        /// When.
        at: Seconds,
    },
    /// It is for another key.
    #[error("the token is bound to another key than the one of this request")]
    TokenKey,
    /// A token life that is no life.
    #[error("a token lives 1 minute to {days} days")]
    TokenLife {
        /// The most.
        days: i64,
    },
    /// The key belongs to somebody else, or was revoked.
    #[error("this public key cannot be certified: {0}; make a new key")]
    Key(&'static str),
    /// No such certificate.
    #[error("there is no certificate {0} in the register; `dnsbroker cert list` shows those there are")]
    NoCertificate(SerialNumber),
    /// Once is enough.
    #[error("certificate {0} is revoked already")]
    AlreadyRevoked(SerialNumber),
    /// The CA would not sign.
    #[error("the certificate cannot be issued")]
    Issue(#[source] IssueError),
    /// A text that is too long or has control characters.
    #[error("{field} {problem}")]
    Text {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The store could not be read.
    #[error("the store could not be read")]
    Engine(#[from] EngineError),
    /// A row does not read.
    #[error("a row of the store could not be read or written")]
    Row(#[from] serde_json::Error),
}

impl Refusal {
    /// The stable code in problem documents and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoMember(_) => "member-unknown",
            Self::MemberExists(_) => "member-exists",
            Self::MemberInUse { .. } => "member-in-use",
            Self::MemberSuspended { .. } => "member-suspended",
            Self::NoNetwork(_) => "netid-unknown",
            Self::ForeignNetwork { .. } => "netid-foreign",
            Self::NetworkHeld { .. } => "netid-held",
            Self::NoAddress(_) | Self::TooManyAddresses { .. } | Self::BadAddress { .. } => "netid-address",
            Self::NetworkInUse { .. } => "netid-in-use",
            Self::Shrink { .. } => "list-shrinks",
            Self::TokenUnknown => "token-unknown",
            Self::TokenUsed => "token-used",
            Self::TokenExpired { .. } => "token-expired",
            Self::TokenKey => "token-key",
            Self::TokenLife { .. } => "token-life",
            Self::Key(_) => "key-refused",
            Self::NoCertificate(_) => "certificate-unknown",
            Self::AlreadyRevoked(_) => "certificate-revoked",
            Self::Issue(_) => "issue-refused",
            Self::Text { .. } => "text-invalid",
            Self::Engine(_) | Self::Row(_) => "store-failed",
        }
    }
}
