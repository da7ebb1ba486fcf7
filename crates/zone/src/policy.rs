//! Roaming policy: which member may resolve the devices of which NetID.
//!
//! A [`Policy`] is the document that administrators edit. The first rule that fits decides:
//!
//! ```text
//! the asker holds the NetID            -> seen       (nobody is hidden from itself)
//! denied: asker -> holder or NetID     -> hidden
//! the NetID is open, or closed         -> seen, or hidden
//! asker and holder have an agreement   -> seen
//! the NetID wants agreements           -> hidden
//! the federation is open, or closed    -> seen, or hidden
//! ```
//!
//! What is hidden is answered as if it were not registered, NetID names included; only if the policy opts in does the
//! answer say why (extended error 18).
//!
//! For answers the document is compiled, once per change of it or of the NetIDs, into a [`Matrix`]: a row of bits a member
//! that some rule names, one bit a NetID, and one row for all other members. A policy that hides nothing compiles to no
//! matrix at all, so that an open federation pays one comparison a query.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use dnsbroker_federation::{MemberId, NetId};
use serde::{Deserialize, Serialize};

use crate::delta::Network;

/// Who may resolve whose devices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What holds where no other rule fits.
    pub default: Stance,
    /// Pairs of members that resolve each other's devices.
    pub agreements: BTreeSet<Agreement>,
    /// Who may not resolve what, whatever else is said.
    pub deny: BTreeSet<Ban>,
    /// NetIDs with a rule of their own.
    pub netids: BTreeMap<NetId, Sharing>,
    /// Whether the answer for something hidden says that policy hides it; else it looks unregistered.
    pub tell: bool,
}

/// What holds where no other rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stance {
    /// Every member may resolve every device.
    #[default]
    Open,
    /// Only who has an agreement.
    Closed,
}

/// Who may resolve the devices of one NetID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Every member that is not denied.
    Open,
    /// Members that have an agreement with its holder.
    Agreements,
    /// Its holder alone.
    Closed,
}

/// Two members that resolve each other's devices; in order, so that a pair is there once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "[MemberId; 2]", into = "[MemberId; 2]")]
pub struct Agreement([MemberId; 2]);

/// A member has no agreement with itself: it needs none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an agreement is between two members, and {0} is one")]
pub struct LonelyError(pub MemberId);

impl Agreement {
    /// Between two members, in either order.
    pub fn new(one: MemberId, other: MemberId) -> Result<Self, LonelyError> {
        let mut pair = [one, other];
        pair.sort();
        Self::try_from(pair)
    }

    /// The members.
    pub fn members(&self) -> &[MemberId; 2] {
        &self.0
    }
}

impl TryFrom<[MemberId; 2]> for Agreement {
    type Error = LonelyError;

    fn try_from(mut pair: [MemberId; 2]) -> Result<Self, LonelyError> {
        pair.sort();
        if pair[0] == pair[1] { Err(LonelyError(pair[0].clone())) } else { Ok(Self(pair)) }
    }
}

impl From<Agreement> for [MemberId; 2] {
    fn from(agreement: Agreement) -> Self {
        agreement.0
    }
}

/// A member that may not resolve something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ban {
    /// Who may not.
    pub asker: MemberId,
    /// What.
    #[serde(flatten)]
    pub of: Banned,
}

/// What a member may not resolve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Banned {
    /// All devices of a member.
    Holder(MemberId),
    /// The devices of one NetID.
    Netid(NetId),
}

/// The rule that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// The asker holds the NetID.
    Own,
    /// A ban of all that the holder has.
    HolderDenied,
    /// A ban of the NetID.
    NetIdDenied,
    /// The NetID is open.
    NetIdOpen,
    /// The NetID is closed.
    NetIdClosed,
    /// There is an agreement.
    Agreement,
    /// The NetID wants an agreement, and there is none.
    NoAgreement,
    /// The federation is open.
    Open,
    /// The federation is closed, and there is no agreement.
    Closed,
}

impl Ruling {
    /// Whether the asker gets an answer.
    pub const fn is_seen(self) -> bool {
        matches!(self, Self::Own | Self::NetIdOpen | Self::Agreement | Self::Open)
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "a member resolves its own devices",
            Self::HolderDenied => "the asker is denied the devices of this holder",
            Self::NetIdDenied => "the asker is denied this NetID",
            Self::NetIdOpen => "this NetID is open to every member",
            Self::NetIdClosed => "this NetID is closed to all but its holder",
            Self::Agreement => "asker and holder have an agreement",
            Self::NoAgreement => "this NetID is for members with an agreement, and the asker has none",
            Self::Open => "open federation, every member may resolve every device",
            Self::Closed => "closed federation, and asker and holder have no agreement",
        })
    }
}

impl Policy {
    /// What decides for an asker and a NetID of a holder.
    pub fn decide(&self, asker: &MemberId, netid: NetId, holder: &MemberId) -> Ruling {
        let banned = |of| self.deny.contains(&Ban { asker: asker.clone(), of });
        let sharing = self.netids.get(&netid);
        match () {
            () if asker == holder => Ruling::Own,
            () if banned(Banned::Holder(holder.clone())) => Ruling::HolderDenied,
            () if banned(Banned::Netid(netid)) => Ruling::NetIdDenied,
            () if sharing == Some(&Sharing::Open) => Ruling::NetIdOpen,
            () if sharing == Some(&Sharing::Closed) => Ruling::NetIdClosed,
            () if self.agree(asker, holder) => Ruling::Agreement,
            () if sharing.is_some() => Ruling::NoAgreement,
            () if self.default == Stance::Open => Ruling::Open,
            () => Ruling::Closed,
        }
    }

    fn agree(&self, one: &MemberId, other: &MemberId) -> bool {
        Agreement::new(one.clone(), other.clone()).is_ok_and(|agreement| self.agreements.contains(&agreement))
    }

    /// Whether there may be anything that somebody does not see.
    pub fn hides(&self) -> bool {
        let closed = self.netids.values().any(|sharing| *sharing != Sharing::Open);
        self.default == Stance::Closed || !self.deny.is_empty() || closed
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.agreements.len() + self.deny.len() + self.netids.len()
    }

    /// Whether there is none but the default.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same without the rules that name a member, which leaves.
    #[must_use]
    pub fn without_member(&self, id: &MemberId) -> Self {
        let mut policy = self.clone();
        policy.agreements.retain(|agreement| !agreement.members().contains(id));
        policy.deny.retain(|ban| ban.asker != *id && ban.of != Banned::Holder(id.clone()));
        policy
    }

    /// The same without the rules that name a NetID, which goes.
    #[must_use]
    pub fn without_netid(&self, netid: NetId) -> Self {
        let mut policy = self.clone();
        policy.deny.retain(|ban| ban.of != Banned::Netid(netid));
        policy.netids.remove(&netid);
        policy
    }
}

/// A policy made ready for answers: by member, the NetIDs it sees, one bit each by their place in the sorted list.
#[derive(Debug, Clone)]
pub struct Matrix {
    rows: HashMap<MemberId, Bits>,
    /// Members that hold nothing and that no rule names.
    others: Bits,
}

/// One bit a NetID.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bits(Box<[u64]>);

impl Bits {
    fn has(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    fn set(&mut self, place: usize, seen: bool) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word = *word & !(1 << (place % 64)) | u64::from(seen) << (place % 64);
        }
    }
}

impl Matrix {
    /// Of a policy and the NetIDs there are, in the order in which their places count. None where nothing is hidden.
    pub fn compile<'n>(policy: &Policy, networks: impl ExactSizeIterator<Item = &'n Network>) -> Option<Self> {
        if !policy.hides() {
            return None;
        }
        let mut others = Bits(vec![0; networks.len().div_ceil(64)].into());
        let (mut held, mut places) = (HashMap::<&MemberId, Vec<(usize, NetId)>>::new(), HashMap::new());
        for (place, network) in networks.enumerate() {
            let seen = match policy.netids.get(&network.netid) {
                Some(sharing) => *sharing == Sharing::Open,
                None => policy.default == Stance::Open,
            };
            others.set(place, seen);
            held.entry(&network.member).or_default().push((place, network.netid));
            places.insert(network.netid, place);
        }
        let mut rows: HashMap<MemberId, Bits> = HashMap::new();
        let held_by = |member: &MemberId| held.get(member).into_iter().flatten();
        let mut change = |asker: &MemberId, place: usize, seen: bool| {
            rows.entry(asker.clone()).or_insert_with(|| others.clone()).set(place, seen);
        };
        // From the weakest rule to the strongest.
        for [one, other] in policy.agreements.iter().map(Agreement::members) {
            for (asker, holder) in [(one, other), (other, one)] {
                for (place, netid) in held_by(holder) {
                    if !matches!(policy.netids.get(netid), Some(Sharing::Open | Sharing::Closed)) {
                        change(asker, *place, true);
                    }
                }
            }
        }
        for Ban { asker, of } in &policy.deny {
            match of {
                Banned::Holder(holder) => held_by(holder).for_each(|(place, _)| change(asker, *place, false)),
                Banned::Netid(netid) => places.get(netid).into_iter().for_each(|place| change(asker, *place, false)),
            }
        }
        for (member, own) in &held {
            own.iter().for_each(|(place, _)| change(member, *place, true));
        }
        Some(Self { rows, others })
    }

    /// What a member sees.
    pub fn of(&self, member: &MemberId) -> Sight<'_> {
        Sight(Some(self.rows.get(member).unwrap_or(&self.others)))
    }
}

/// Which NetIDs an asker sees.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'m>(Option<&'m Bits>);

impl Sight<'_> {
    /// Everything.
    pub const ALL: Self = Self(None);

    /// Whether nothing is hidden from it.
    pub const fn is_all(self) -> bool {
        self.0.is_none()
    }

    /// Whether it sees the NetID at a place of the list.
    pub fn sees(self, place: usize) -> bool {
        self.0.is_none_or(|bits| bits.has(place))
    }
}
