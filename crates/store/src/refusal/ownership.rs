//! Refusals about who may have, see or hand over a device.

use dnsbroker_federation::{DevEui, MemberId, NetId};
use dnsbroker_zone::policy::LonelyError;

/// A rule of ownership, roaming policy or limits that an act would have broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnershipRefusal {
    /// A rule names a member with itself.
    #[error(transparent)]
    Lonely(#[from] LonelyError),
    /// A member may make rules about its own things only.
    #[error("member {0} may change the rules of its own NetIDs and of who is denied its own devices, and no others")]
    ForeignRule(MemberId),
    /// A list that is longer than it may be.
    #[error("{count} {what} are more than the {limit} there may be")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Nobody has it.
    #[error("device {0} is not registered")]
    NoDevice(DevEui),
    /// Somebody else has it, or nobody: the one who asks is not told which.
    #[error("device {device} is not held by member {member}")]
    NotHeld {
        /// The device.
        device: DevEui,
        /// Who asked.
        member: MemberId,
    },
    /// In both lists of one change.
    #[error("device {0} is both to be added and to be removed: name it once")]
    Both(DevEui),
    /// Nothing to settle.
    #[error("member {claimant} has no open claim to device {device}")]
    NoClaim {
        /// The device.
        device: DevEui,
        /// Who would have claimed it.
        claimant: MemberId,
    },
    /// No such move, or not one of this member.
    #[error("there is no move {0}; it may have been done or cancelled: the audit has it")]
    NoMove(u64),
    /// A move that is not at the step it would have to be.
    #[error("move {id} {problem}")]
    MoveState {
        /// Which.
        id: u64,
        /// What is in the way.
        problem: &'static str,
    },
    /// A move to where the devices are.
    #[error("none of the devices can go to NetID {0}: they are not registered, or there already")]
    NothingMoves(NetId),
    /// A device that the member's ranges do not have.
    #[error("device {device} is outside the ranges of DevEUIs that member {member} may register")]
    OutOfRange {
        /// The device.
        device: DevEui,
        /// Whose ranges.
        member: MemberId,
    },
    /// More than the member may have.
    #[error("member {member} may have {quota} devices and would have {wanted}: ask the administrator for more")]
    Quota {
        /// Whose.
        member: MemberId,
        /// How many there may be.
        quota: u64,
        /// How many there would be.
        wanted: u64,
    },
}

impl OwnershipRefusal {
    /// The stable code in problem documents and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Lonely(_) => "policy-invalid",
            Self::ForeignRule(_) => "policy-foreign",
            Self::TooMany { .. } => "too-many",
            Self::NoDevice(_) => "device-unknown",
            Self::NotHeld { .. } => "device-foreign",
            Self::Both(_) => "device-twice",
            Self::NoClaim { .. } => "claim-unknown",
            Self::NoMove(_) => "move-unknown",
            Self::MoveState { .. } => "move-state",
            Self::NothingMoves(_) => "move-empty",
            Self::OutOfRange { .. } => "device-range",
            Self::Quota { .. } => "quota-exceeded",
        }
    }
}
