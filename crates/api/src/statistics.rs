//! What the broker does and has, in figures: `GET /api/v1/statistics`, and the event `statistics` each second.

use dnsbroker_federation::{MemberId, NetId, Serial};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// The whole of it. To a member its own share: what is not of one member is absent then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Statistics {
    /// The last seconds, oldest first; a second in which the broker was held up may be missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seconds: Vec<Pulse>,
    /// The last whole minutes, oldest first, with means a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub minutes: Vec<Pulse>,
    /// Time to make a DoH answer, over the last minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// DoH answers since the start, by result.
    pub answers: Answers,
    /// Open DoH connections.
    pub connections: u64,
    /// Devices.
    pub devices: u64,
    /// Members, those with most devices first.
    pub members: Vec<MemberShare>,
    /// NetIDs, those with most devices first.
    pub networks: Vec<NetworkShare>,
    /// The OUIs with most devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ouis: Vec<OuiShare>,
    /// Certificates that end within 30 days and have no successor, the first to end first.
    pub certificates: Vec<Ending>,
    /// Sources that are not current.
    pub sources: Vec<SourceTrouble>,
    /// Claims that nobody has decided.
    pub claims: ClaimsWaiting,
    /// The last zone transfers, the newest first.
    pub transfers: Vec<TransferShown>,
}

/// Answers by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Answers {
    /// Records were found.
    pub found: f64,
    /// The name is there, the type is not.
    pub nodata: f64,
    /// Nobody has registered the name.
    pub nxdomain: f64,
    /// Refused by a rule.
    pub refused: f64,
    /// Malformed.
    pub rejected: f64,
}

/// One second, or the mean second of a minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pulse {
    /// Its end.
    pub at: Timestamp,
    /// DoH answers in it.
    pub answers: Answers,
    /// Time to make them; none where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Open DoH connections.
    pub connections: u64,
    /// Durable commits.
    pub commits: f64,
    /// Acts in them.
    pub acts: f64,
    /// Devices.
    pub devices: u64,
    /// Serial of the private zones.
    pub serial: Serial,
}

/// Percentiles of times, in microseconds: so much or less, to a third.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Half of the answers.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// How many were measured.
    pub answers: u64,
}

/// What a member has and does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemberShare {
    /// The member.
    pub member: MemberId,
    /// Its devices.
    pub devices: u64,
    /// Its queries since the start.
    pub queries: u64,
    /// Its open connections.
    pub connections: u64,
}

/// What a NetID has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkShare {
    /// The NetID.
    pub netid: NetId,
    /// Who holds it.
    pub member: MemberId,
    /// Its devices.
    pub devices: u64,
}

/// What an OUI has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OuiShare {
    /// Six hexadecimal digits: the first of the DevEUI.
    pub oui: String,
    /// Its devices.
    pub devices: u64,
}

/// A certificate that ends soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ending {
    /// What it is of: a member's or replica's id, `broker`, `issuing CA`...
    pub name: String,
    /// Its serial number; none for those of the broker and its CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The member it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// Its last second.
    pub not_after: Timestamp,
}

/// A source that is not current.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceTrouble {
    /// The NetID it fills.
    pub netid: NetId,
    /// Who holds it.
    pub member: MemberId,
    /// `held`, `failing`, `expired`.
    pub state: String,
    /// Why, in words.
    pub reason: String,
}

/// Claims that nobody has decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ClaimsWaiting {
    /// All of them; to a member, its own and those against it.
    pub waiting: u64,
    /// Those that a member has made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<u64>,
    /// Those against a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<u64>,
}

/// A zone transfer that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TransferShown {
    /// When it ended.
    pub at: Timestamp,
    /// `in` from a member's primary, `out` to a replica.
    pub direction: String,
    /// The NetID that is filled, or the replica.
    pub peer: String,
    /// The member whose NetID or replica it is, if it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// The zone.
    pub zone: String,
    /// `axfr`, `ixfr` or `current`.
    pub kind: String,
    /// Records in it.
    pub records: u64,
    /// Octets in it.
    pub octets: u64,
    /// How long it took.
    pub seconds: f64,
    /// Why it broke off, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
