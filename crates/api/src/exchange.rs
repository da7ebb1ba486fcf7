//! Messages about zone transfers and updates: TSIG keys, replicas, sources.

use std::net::SocketAddr;

use dnsbroker_federation::{DevEui, DomainName, MemberId, NetId, Serial};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::standby::StandbyAt;
use crate::timestamp::Timestamp;

/// `POST /api/v1/keys`. Exactly one of `member` and `replica` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Its name.
    pub name: DomainName,
    /// The member whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// The replica whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// `transfer`, `update`, `source`.
    pub allows: Vec<String>,
    /// `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
    pub algorithm: String,
    /// A secret that the other side has already, base64; a new one is made where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A TSIG key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Key {
    /// Its name.
    pub name: DomainName,
    /// Its algorithm.
    pub algorithm: String,
    /// `member/<id>` or `replica/<id>`.
    pub holder: String,
    /// What it allows.
    pub allows: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// The secret, base64: only in the answer to its making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// `PUT /api/v1/replicas/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetReplica {
    /// The member whose certificate and keys may fetch as this replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<MemberId>,
    /// The one member whose devices it gets; all where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<MemberId>,
    /// `nibble`, `flat` or `both`.
    pub names: String,
    /// Where it is told of changes.
    #[serde(default)]
    pub notify: Vec<SocketAddr>,
    /// The TSIG key with which it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_key: Option<DomainName>,
    /// Whether it may fetch over plain TCP.
    #[serde(default)]
    pub clear_text: bool,
    /// Where it answers, if it is a standby broker: it gets everything, and may be promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<StandbyAt>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replica {
    /// Its id.
    pub id: String,
    /// What it may.
    #[serde(flatten)]
    pub settings: SetReplica,
    /// When it was added.
    pub since: Timestamp,
    /// What it last fetched of each zone; since the broker started, and so perhaps nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetched: Vec<Fetched>,
}

/// A transfer to a replica that came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fetched {
    /// Of `deveuis` or `netids`.
    pub zone: String,
    /// The serial that it led to.
    pub serial: Serial,
    /// `axfr`, `ixfr` or `current`: there was nothing new.
    pub kind: String,
    /// When.
    pub at: Timestamp,
}

/// `PUT /api/v1/sources/{netid}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSource {
    /// Who holds the NetID.
    pub member: MemberId,
    /// Where the primary answers.
    pub primary: SocketAddr,
    /// The zone that names the devices.
    pub zone: DomainName,
    /// The TSIG key of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<DomainName>,
    /// The name in the primary's certificate: the connection is TLS (RFC 9103).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<DomainName>,
    /// CAs that its certificate chains to, PEM; the federation's own where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<String>,
    /// SHA-256 of its key, instead of name and CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_pin: Option<String>,
    /// `keep` or `withdraw`: what becomes of the devices when the primary has not been heard for as long as its SOA says.
    #[serde(default = "keep")]
    pub on_expiry: String,
}

fn keep() -> String {
    "keep".to_owned()
}

/// A source and what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// The NetID it fills.
    pub netid: NetId,
    /// What was set. A CA is shown by its presence only in `tls`.
    #[serde(flatten)]
    pub settings: SetSource,
    /// When it was added.
    pub since: Timestamp,
    /// `new`, `transferring`, `current`, `held`, `failing`, `expired`.
    pub state: String,
    /// Devices of the NetID.
    pub devices: u64,
    /// The primary's serial when it was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Serial>,
    /// When it was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<Timestamp>,
    /// When it last answered well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<Timestamp>,
    /// When it will be asked next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why a transfer is held back, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// What the last transfer came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastTransfer>,
}

/// What the last transfer of a source came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastTransfer {
    /// The serial it led to.
    pub serial: Serial,
    /// When it was committed.
    pub at: Timestamp,
    /// `axfr` or `ixfr`.
    pub kind: String,
    /// Records in it.
    pub records: u64,
    /// Names with an address or CNAME that are no DevEUI.
    pub strangers: u64,
    /// The first of them.
    pub strangers_shown: Vec<String>,
    /// Devices whose address is none of the NetID's.
    pub mismatches: u64,
    /// The first of them.
    pub mismatches_shown: Vec<DevEui>,
    /// Devices that another member holds, left as they are.
    pub claimed: u64,
    /// The first of them.
    pub claims_shown: Vec<DevEui>,
    /// Devices outside the ranges that the member may register, left out.
    #[serde(default)]
    pub outside: u64,
    /// The first of them.
    #[serde(default)]
    pub outside_shown: Vec<DevEui>,
    /// Devices that another source of the member brings, and that stay under that NetID.
    #[serde(default)]
    pub filled: u64,
    /// The first of them.
    #[serde(default)]
    pub filled_shown: Vec<DevEui>,
}
