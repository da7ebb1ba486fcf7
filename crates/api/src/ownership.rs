//! Messages about who may have, see and hand over devices: claims, moves, limits, history, roaming policy.

use std::collections::BTreeMap;

use dnsbroker_federation::{DevEui, MemberId, NetId, Serial};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// A member wants a device that another holds. The claimant is not told whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// The device.
    pub deveui: DevEui,
    /// Who wants it.
    pub claimant: MemberId,
    /// Under which NetID the claimant wants it.
    pub netid: NetId,
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<MemberId>,
    /// Under which NetID it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<NetId>,
    /// Since when it is claimed.
    pub since: Timestamp,
    /// When a list last named it, to the day.
    pub seen: Timestamp,
    /// Why an administrator decided against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
}

/// `POST /api/v1/claims/decide`: an administrator decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecideClaims {
    /// Who claims.
    pub claimant: MemberId,
    /// Which devices.
    pub devices: Vec<DevEui>,
    /// Whether the claimant gets them.
    pub grant: bool,
    /// Why.
    pub reason: String,
}

/// `POST /api/v1/claims/withdraw`: a claimant gives its claims up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawClaims {
    /// Who claimed; a member speaks for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimant: Option<MemberId>,
    /// Which devices.
    pub devices: Vec<DevEui>,
}

/// `POST /api/v1/devices/release`: a holder lets devices go, to one who claims them or to nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseDevices {
    /// Which.
    pub devices: Vec<DevEui>,
    /// The claimant who gets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<MemberId>,
    /// Why; an administrator has to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of devices that changed hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settled {
    /// Devices that went to another member.
    pub moved: u64,
    /// Devices that are nobody's now.
    pub removed: u64,
    /// Claims that ended.
    pub closed: u64,
    /// Serial of the private zones afterwards.
    pub serial: Serial,
}

/// `POST /api/v1/moves`: devices go from one operator to another. An administrator orders it, a holder offers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMove {
    /// The devices.
    pub devices: Vec<DevEui>,
    /// Where they go, where an administrator orders it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netid: Option<NetId>,
    /// Who is to get them, where a holder offers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<MemberId>,
    /// When; at once, or as soon as the receiver accepts, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Seconds before, from when on answers about the devices are kept in caches for a few seconds only; twice the TTL
    /// where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// Why.
    pub reason: String,
}

/// What became of a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// Its number, if it waits for somebody or for its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<u64>,
    /// Devices that went.
    pub moved: u64,
    /// Devices that stayed: not registered, not the giver's any more, there already, or filled by a name server.
    pub stayed: u64,
    /// The first of those that stayed because the receiver's own name server fills the NetID that they are on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<DevEui>,
    /// Serial of the private zones afterwards.
    pub serial: Serial,
}

/// A move that waits for somebody or for its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Move {
    /// Its number.
    pub id: u64,
    /// How many devices.
    pub devices: u64,
    /// The first of them.
    pub devices_shown: Vec<DevEui>,
    /// Who offers them; absent where an administrator ordered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MemberId>,
    /// Who holds them now, as far as the first 1000 tell; administrators alone are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<MemberId>,
    /// Who gets them.
    pub to: MemberId,
    /// Under which NetID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netid: Option<NetId>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// When it was offered or ordered.
    pub created: Timestamp,
    /// `offered`, `planned`, `prepared`.
    pub state: String,
}

/// `POST /api/v1/moves/{id}/accept`: the receiver says where the devices go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptMove {
    /// One of its NetIDs.
    pub netid: NetId,
}

/// `POST /api/v1/moves/{id}/cancel`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CancelMove {
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One thing that happened to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceEvent {
    /// The number of its audit row.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Who, by which identity.
    pub actor: String,
    /// What was done.
    pub act: String,
    /// Serial of the private zones afterwards.
    pub serial: Serial,
    /// Where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NetId>,
    /// Where it is since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NetId>,
    /// It was one of so many devices of a list that were not kept one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub among: Option<u64>,
}

/// `PUT /api/v1/members/{id}/limits`: what devices a member may register; with neither, any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Blocks of DevEUIs: the first digits, a slash and how many bits count, as in `0004a30b/32`.
    pub ranges: Vec<String>,
    /// How many devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
}

/// Who may resolve whose devices. The first rule that fits decides: bans, the NetID's own rule, agreements, the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// `open`: every member may resolve every device; `closed`: only who has an agreement.
    pub default: Stance,
    /// Whether the answer for something hidden says so (extended error 18); else it looks unregistered.
    #[serde(default)]
    pub tell: bool,
    /// Pairs of members that resolve each other's devices.
    #[serde(default)]
    pub agreements: Vec<[MemberId; 2]>,
    /// Who may not resolve what, whatever else is said.
    #[serde(default)]
    pub deny: Vec<Ban>,
    /// NetIDs with a rule of their own.
    #[serde(default)]
    pub netids: BTreeMap<NetId, Sharing>,
}

/// What holds where no other rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stance {
    /// Every member may resolve every device.
    Open,
    /// Only who has an agreement.
    Closed,
}

/// Who may resolve the devices of one NetID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Every member that is not denied.
    Open,
    /// Members that have an agreement with its holder.
    Agreements,
    /// Its holder alone.
    Closed,
}

/// A member that may not resolve something: all of a holder, or one NetID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// Who may not.
    pub asker: MemberId,
    /// All devices of this member...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<MemberId>,
    /// ...or those of this NetID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netid: Option<NetId>,
}

/// `POST /api/v1/policy/changes`: one rule changes, and the others stay as whoever made them last has left them. Exactly one
/// of these is given. A member may share its NetIDs and deny others its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyChange {
    /// What holds where no other rule fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Stance>,
    /// Whether answers say that policy hides something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tell: Option<bool>,
    /// Two members resolve each other's devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agree: Option<[MemberId; 2]>,
    /// They no longer do, as far as that rested on their agreement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<[MemberId; 2]>,
    /// A member may not resolve something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<Ban>,
    /// That ban is lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permit: Option<Ban>,
    /// Who may resolve the devices of a NetID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// The NetID has no rule of its own any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unshare: Option<NetId>,
}

/// A rule of one NetID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The NetID.
    pub netid: NetId,
    /// Who may resolve its devices.
    pub sharing: Sharing,
}
