//! The rows of claims, moves and limits.

use dnsbroker_federation::{DevEui, DevEuiPrefix, MemberId, NetId};
use serde::{Deserialize, Serialize};

use super::Seconds;

/// A member wants a device that another member holds, or held until lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Where the claimant wants it.
    pub netid: NetId,
    /// Since when.
    pub since: Seconds,
    /// When a list last named it, to the day.
    pub seen: Seconds,
    /// When and why an administrator decided against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Box<Rejection>>,
}

/// A decision against a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// When.
    pub at: Seconds,
    /// Why.
    pub reason: String,
}

/// Claims that are not kept one by one, because the claimant has too many: how many its last list had, by NetID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beyond {
    /// Of which NetID.
    pub netid: NetId,
    /// How many.
    pub count: u64,
}

/// A claim as it is shown. To the claimant without `holder` and `held`: it is not told whose the device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenClaim {
    /// The device.
    pub deveui: DevEui,
    /// Who wants it.
    pub claimant: MemberId,
    /// Where the claimant wants it.
    pub netid: NetId,
    /// Who holds it; nobody once it was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<MemberId>,
    /// Under which NetID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<NetId>,
    /// Since when it is claimed.
    pub since: Seconds,
    /// When a list last named it, to the day.
    pub seen: Seconds,
    /// The decision against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Box<Rejection>>,
}

impl OpenClaim {
    /// As the claimant sees it.
    #[must_use]
    pub fn without_holder(self) -> Self {
        Self { holder: None, held: None, ..self }
    }
}

/// Devices on their way from one member to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Its number; never used again.
    pub id: u64,
    /// The devices, sorted.
    pub devices: Vec<DevEui>,
    /// Who offers them. None where an administrator moves them, whoever holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MemberId>,
    /// Who gets them.
    pub to: MemberId,
    /// Under which NetID; the receiver says so when it accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netid: Option<NetId>,
    /// When; at once on acceptance where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Seconds>,
    /// Seconds before, from when on caches are told to keep the devices' records for a few seconds only.
    pub before: Seconds,
    /// Why.
    pub reason: String,
    /// When it was offered or ordered.
    pub created: Seconds,
    /// When the receiver accepted, or the administrator ordered it: it happens at its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Seconds>,
    /// Whether the time before has begun.
    #[serde(default)]
    pub lowered: bool,
}

impl Move {
    /// When there is something to do about it next; never, while it waits for an answer.
    pub fn next(&self) -> Option<Seconds> {
        let at = self.at.filter(|_| self.accepted.is_some())?;
        Some(if self.lowered { at } else { at.saturating_sub(self.before) })
    }
}

/// What devices a member may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Whose.
    pub member: MemberId,
    /// Blocks of DevEUIs that it may register; all where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<DevEuiPrefix>,
    /// How many devices it may have; any number where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
}

impl Limits {
    /// Whether a device is in its ranges.
    pub fn has(&self, device: DevEui) -> bool {
        self.ranges.is_empty() || self.ranges.iter().any(|range| range.contains(device))
    }
}
