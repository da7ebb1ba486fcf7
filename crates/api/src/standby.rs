//! Messages between a primary, its standbys, and those who look after them.

use std::net::IpAddr;

use dnsbroker_federation::DomainName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// Where a standby answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandbyAt {
    /// Its name, as in its certificate.
    pub name: DomainName,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Its port of DNS over HTTPS.
    pub port: u16,
    /// Its port of the API, where members call once it has taken the primary's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_port: Option<u16>,
}

/// Of `GET /api/v1/replication`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    /// The number of the last act that the standby has...
    pub after: u64,
    /// ...and its hash, in hexadecimal. If it is not the primary's, or no longer in its ring, a copy of everything comes first.
    pub hash: String,
    /// The epoch that the standby knows. One that is higher than the primary's own ends its being the primary.
    pub epoch: u64,
}

/// `POST /api/v1/replication/certificate`: a certificate for the standby's own server, by the name it is registered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandbyCertificate {
    /// The certificate request, PEM.
    pub csr: String,
}

/// `POST /api/v1/replication/heard`, every few seconds: the standby is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Heard {
    /// The last act that it has.
    pub act: u64,
    /// Why it could not take the primary's place as it should, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready: Option<String>,
}

/// `POST /api/v1/replication/login`: an administrator has given the right password at the standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandbyLogin {
    /// Who.
    pub name: String,
    /// The time step of the one-time code that was given, if there is a second factor: no broker takes it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
}

/// `POST /api/v1/replication/fence`: a standby has become the primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TakenOver {
    /// The epoch that has begun.
    pub epoch: u64,
    /// The new primary's name.
    pub primary: DomainName,
}

/// What a broker is, and what it knows of the others: `GET /api/v1/standby`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// `primary`, `standby` or `fenced` (it was the primary, and another has taken its place).
    pub role: String,
    /// This broker's own name.
    pub name: DomainName,
    /// How often a standby has taken the place of a primary.
    pub epoch: u64,
    /// The last act here.
    pub act: u64,
    /// The name of the primary, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<DomainName>,
    /// Of a standby: how it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<Following>,
    /// Of a primary: its standbys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standbys: Vec<Follower>,
    /// What is to be known or done, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How a standby follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Following {
    /// Where the primary's API is.
    pub url: String,
    /// Whether the connection stands.
    pub connected: bool,
    /// Whether look-ups are answered.
    pub answers: bool,
    /// The last act of the primary that was heard of.
    pub theirs: u64,
    /// Acts that are not here yet.
    pub behind: u64,
    /// Seconds since all that the primary had was here; none before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<f64>,
    /// After so many seconds look-ups are no longer answered.
    pub max_age: u64,
    /// Copies of everything that were taken since the start.
    pub copies: u64,
    /// Why the connection does not stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A standby as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Follower {
    /// The replica.
    pub id: String,
    /// Its name.
    pub name: DomainName,
    /// Whether it is connected.
    pub connected: bool,
    /// The last act it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<u64>,
    /// The last act that it has, as it said some seconds ago at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has: Option<u64>,
    /// Why it could not take this broker's place as it should, and what to do, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready: Option<String>,
    /// Since when it is registered.
    pub since: Timestamp,
}
