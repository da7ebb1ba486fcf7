//! Why an act was refused: what, which object, and what to do. Each has a stable code for programs.

mod account;
mod ownership;

use std::net::SocketAddr;

use dnsbroker_ca::authority::IssueError;
use dnsbroker_ca::{AnchorError, ReplicaId, SerialNumber};
use dnsbroker_federation::{DevEui, DomainName, MemberId, NetId};
use dnsbroker_zone::wire::Rcode;

pub use account::AccountRefusal;
pub use ownership::OwnershipRefusal;

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
    /// A full list of which many rows do not read.
    #[error(
        "{rejected} of {rows} rows hold no DevEUI, more than {percent} %, and the list would remove {removed} devices of \
         NetID {netid}, which those rows may mean; correct the rows, or if that is meant, repeat it with --allow-shrink"
    )]
    Unread {
        /// The NetID.
        netid: NetId,
        /// How many devices would go.
        removed: u64,
        /// Rows that do not read.
        rejected: u64,
        /// Rows in all.
        rows: u64,
        /// The share that may be so unasked.
        percent: u64,
    },
    /// A full list that looks like a mistake.
    #[error(
        "the list would drop {removed} of {held} devices of NetID {netid}, {}; \
         if that is meant, repeat it with --allow-shrink",
        drop_in_words(*removed, *held, *percent)
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
    /// Nothing to revoke.
    #[error("no certificate {0} is good that could be revoked")]
    NothingToRevoke(String),
    /// The one that is to be renewed is revoked.
    #[error("certificate {0} is revoked and cannot be renewed: ask the federation's administrator for a token")]
    RenewRevoked(SerialNumber),
    /// Before two thirds of its life.
    #[error("certificate {serial} is not due for renewal yet: that comes after two thirds of its life")]
    RenewEarly {
        /// Which.
        serial: SerialNumber,
        /// When it is.
        at: Seconds,
    },
    /// After its end, and nobody allowed that.
    #[error(
        "certificate {0} has expired: ask the federation's administrator for a token, or to open a grace period \
         (`dnsbroker member grace`)"
    )]
    RenewLate(SerialNumber),
    /// Many keys for one certificate.
    #[error("certificate {serial} was renewed {count} times already: renew the latest of them")]
    RenewOften {
        /// Which.
        serial: SerialNumber,
        /// How often.
        count: usize,
    },
    /// A grace period that is none.
    #[error("a grace period ends after now, and within {days} days")]
    Grace {
        /// The most.
        days: i64,
    },
    /// A name within the federation needs no approval and gets none.
    #[error("{0} is a name of this federation: names of the member's NetIDs may be used unasked, others not at all")]
    FederationName(DomainName),
    /// One name, one member.
    #[error("{name} is approved for member {member} already")]
    NameHeld {
        /// The name.
        name: DomainName,
        /// Who has it.
        member: MemberId,
    },
    /// A name that the CA for network servers could not certify.
    #[error(
        "{name} cannot be approved: certificates of network servers come from an issuing CA that is constrained to \
         {permitted}; `dnsbroker ca retire` takes that CA out of use"
    )]
    NamesConstrained {
        /// The name.
        name: DomainName,
        /// The domain of the names that are certified.
        permitted: DomainName,
    },
    /// Names that a constrained CA could not certify.
    #[error(
        "{name} is approved for member {member}{}, and an issuing CA that is constrained to {permitted} cannot certify it: \
         `dnsbroker member approve {member} {name} --withdraw` first, or do without such a CA",
        if *more > 0 { format!(", and {more} more names are") } else { String::new() }
    )]
    NamesApproved {
        /// The first member.
        member: MemberId,
        /// Its name.
        name: DomainName,
        /// How many more there are.
        more: usize,
        /// The domain of the names that would be certified.
        permitted: DomainName,
    },
    /// There is no CA for network servers alone.
    #[error("there is no issuing CA for network servers alone that could be retired")]
    NoLnsAuthority,
    /// A server's name that is not the member's.
    #[error(
        "{name} is neither the name of a NetID of member {member} nor approved for it: \
         `dnsbroker member approve {member} {name}` approves it"
    )]
    ForeignName {
        /// The name.
        name: DomainName,
        /// Who asked.
        member: MemberId,
    },
    /// The profile is for somebody else.
    #[error("profile {profile} is not for a {holder}")]
    ProfileHolder {
        /// The profile.
        profile: String,
        /// Who it was asked for.
        holder: &'static str,
    },
    /// No certificates, or damaged ones.
    #[error("the anchors cannot be published")]
    Anchors(#[source] AnchorError),
    /// An anchor without a port has no TLSA record.
    #[error("NetID {0} has no port, so that its anchors have no name: `dnsbroker netid set {0} ... --port P` first")]
    NoPort(NetId),
    /// The CA would not sign.
    #[error("the certificate cannot be issued")]
    Issue(#[source] IssueError),
    /// No such TSIG key.
    #[error("there is no TSIG key {0}; `dnsbroker key list` shows those there are")]
    NoKey(DomainName),
    /// Made twice.
    #[error("TSIG key {0} exists already: revoke it first, or choose another name")]
    KeyExists(DomainName),
    /// A key that does not go with what it is wanted for.
    #[error("the TSIG key {0}")]
    KeyUse(&'static str),
    /// No such replica.
    #[error("there is no replica {0}; `dnsbroker replica list` shows those there are")]
    NoReplica(ReplicaId),
    /// A member fetches as one replica.
    #[error("member {member} fetches as replica {replica} already: change that one")]
    ReplicaHolder {
        /// The member.
        member: MemberId,
        /// Its replica.
        replica: ReplicaId,
    },
    /// No such source.
    #[error("NetID {0} has no source; `dnsbroker source list` shows those there are")]
    NoSource(NetId),
    /// A primary that proves nothing can be anybody.
    #[error("the source of NetID {0} needs a TSIG key or TLS: by its address alone a primary is not known")]
    SourceProof(NetId),
    /// Somebody else's work.
    #[error("the devices of NetID {netid} come from zone {zone} on {primary}: change them there, or remove the source")]
    Filled {
        /// The NetID.
        netid: NetId,
        /// The zone.
        zone: DomainName,
        /// The primary.
        primary: SocketAddr,
    },
    /// A prerequisite of an update does not hold.
    #[error("a prerequisite of the update does not hold: {}", .0.mnemonic())]
    Prerequisite(Rcode),
    /// Another member holds the device.
    #[error("device {0} is held by another member of this federation")]
    Claimed(DevEui),
    /// Of devices: who may have, see and move them.
    #[error(transparent)]
    Ownership(#[from] OwnershipRefusal),
    /// Of people and programs that use the API.
    #[error(transparent)]
    Account(#[from] AccountRefusal),
    /// Somebody else was quicker.
    #[error("{0} has changed since you looked at it: look again, then decide")]
    Changed(String),
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
            Self::Unread { .. } => "list-unread",
            Self::TokenUnknown => "token-unknown",
            Self::TokenUsed => "token-used",
            Self::TokenExpired { .. } => "token-expired",
            Self::TokenKey => "token-key",
            Self::TokenLife { .. } => "token-life",
            Self::Key(_) => "key-refused",
            Self::NoCertificate(_) => "certificate-unknown",
            Self::AlreadyRevoked(_) | Self::RenewRevoked(_) => "certificate-revoked",
            Self::NothingToRevoke(_) => "certificate-unknown",
            Self::RenewEarly { .. } => "renewal-early",
            Self::RenewLate(_) => "certificate-expired",
            Self::RenewOften { .. } => "renewal-repeated",
            Self::Grace { .. } => "grace-invalid",
            Self::FederationName(_) | Self::NameHeld { .. } | Self::ForeignName { .. } => "name-refused",
            Self::NamesConstrained { .. } | Self::NamesApproved { .. } => "names-constrained",
            Self::NoLnsAuthority => "ca-unknown",
            Self::ProfileHolder { .. } => "profile-refused",
            Self::NoPort(_) => "netid-port",
            Self::Anchors(_) => "anchors-invalid",
            Self::Issue(_) => "issue-refused",
            Self::NoKey(_) => "key-unknown",
            Self::KeyExists(_) => "key-exists",
            Self::KeyUse(_) => "key-use",
            Self::NoReplica(_) => "replica-unknown",
            Self::ReplicaHolder { .. } => "replica-holder",
            Self::NoSource(_) => "source-unknown",
            Self::SourceProof(_) => "source-proof",
            Self::Filled { .. } => "netid-filled",
            Self::Prerequisite(_) => "prerequisite",
            Self::Claimed(_) => "device-claimed",
            Self::Ownership(refusal) => refusal.code(),
            Self::Account(refusal) => refusal.code(),
            Self::Changed(_) => "changed",
            Self::Text { .. } => "text-invalid",
            Self::Engine(_) | Self::Row(_) => "store-failed",
        }
    }
}

/// How much a list that looks like a mistake would drop.
fn drop_in_words(removed: u64, held: u64, percent: u64) -> String {
    if removed == held { "which is all of them".to_owned() } else { format!("more than {percent} %") }
}
