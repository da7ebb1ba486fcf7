//! Messages of what operators do for themselves, with their own certificate as the proof of who they are.

use std::net::IpAddr;

use dnsbroker_federation::{DevEui, DomainName, MemberId, NetId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::Certificate;
use crate::timestamp::Timestamp;

/// `GET /api/v1/self`: who the caller is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Myself {
    /// The member.
    pub member: MemberId,
    /// Its name for people.
    pub name: String,
    /// NetIDs it holds.
    pub netids: Vec<NetId>,
    /// The certificate it has shown.
    pub certificate: Certificate,
    /// When that is to be renewed.
    pub renew_at: Timestamp,
}

/// `POST /api/v1/renew`: a new certificate for the holder of the one shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The certificate request, PEM; with the same key or another.
    pub csr: String,
}

/// `PATCH /api/v1/members/{id}/netids/{netid}/devices`: devices that come and go, in one step and under one serial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceChanges {
    /// To be registered.
    pub add: Vec<DevEui>,
    /// To be no longer registered.
    pub remove: Vec<DevEui>,
}

/// `GET /api/v1/directory`: the federation as its members see it. Devices are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Directory {
    /// The federation's name.
    pub federation: DomainName,
    /// The zone of devices.
    pub deveuis: DomainName,
    /// The zone of NetIDs.
    pub netids: DomainName,
    /// Brokers that answer, the first one first.
    pub brokers: Vec<BrokerAddress>,
    /// NetIDs and who holds them.
    pub networks: Vec<DirectoryNetwork>,
    /// Issuing CAs that sign now, each by its key identifier (RFC 5280, section 4.2.1.2), hexadecimal: a certificate of
    /// another one is better renewed before that is revoked.
    #[serde(default)]
    pub issuers: Vec<String>,
}

/// A broker of the federation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerAddress {
    /// Its name, as in its certificate.
    pub name: DomainName,
    /// Where it answers DNS over HTTPS.
    pub doh_url: String,
    /// Where its API is. A standby's answers questions, and takes changes once it is the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
    /// Its addresses, so that nobody need ask DNS for them; may be empty.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// A NetID as other members see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DirectoryNetwork {
    /// The NetID.
    pub netid: NetId,
    /// Who holds it.
    pub member: MemberId,
    /// That member's name for people.
    pub member_name: String,
    /// Its name in the private zone.
    pub name: DomainName,
    /// TCP port of its LNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name in its LNS's certificate, where that is not `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<DomainName>,
}

/// `GET /api/v1/bundle`: what the servers of the federation's members are trusted by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bundle {
    /// The federation's own CAs, PEM: for each NetID without anchors of its own.
    pub federation: String,
    /// NetIDs whose servers have other certificates.
    pub anchors: Vec<NetIdAnchors>,
}

/// Trust anchors of one NetID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetIdAnchors {
    /// The NetID.
    pub netid: NetId,
    /// Who holds it.
    pub member: MemberId,
    /// Certificates, PEM: CAs, or the servers' own.
    pub pem: String,
    /// The same as TLSA records (RFC 6698), in presentation form.
    pub tlsa: Vec<String>,
    /// When they were published.
    pub since: Timestamp,
}
