//! What goes over the API: requests and answers of `/api/v1`, all JSON.

use std::net::{IpAddr, SocketAddr};

use dnsbroker_federation::{DevEui, DomainName, MemberId, NetId, Serial};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::statistics::SourceTrouble;
use crate::timestamp::Timestamp;

/// A list of anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give this as `after` to get what follows; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// The federation's name.
    pub federation: DomainName,
    /// The broker's own name.
    pub broker: DomainName,
    /// When the daemon started.
    pub started: Timestamp,
    /// Whether zones are served and changes are taken.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The engine of the store.
    pub store: String,
    /// Serial of the private zones.
    pub serial: Serial,
    /// Devices registered.
    pub devices: u64,
    /// NetIDs.
    pub netids: u64,
    /// Members.
    pub members: u64,
    /// Bound addresses.
    pub listeners: Listeners,
    /// Certificates of the broker itself and of its CA, and when they end.
    pub certificates: Vec<Expiry>,
    /// Members, servers, gateways and replicas whose certificate ends soon, or has ended, and was not renewed.
    #[serde(default)]
    pub overdue: Vec<Expiry>,
    /// What an administrator has to see to, in words.
    #[serde(default)]
    pub notices: Vec<String>,
    /// Sources that are not current.
    #[serde(default)]
    pub sources: Vec<SourceTrouble>,
    /// Claims that nobody has decided.
    #[serde(default)]
    pub claims: u64,
    /// The end of the audit.
    pub audit: AuditHead,
}

/// The end of the audit's chain: published, it tells later whether anything before it was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditHead {
    /// Number of the last row.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

/// Where the daemon listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listeners {
    /// Plain DNS, UDP and TCP.
    #[serde(default)]
    pub dns: Vec<SocketAddr>,
    /// DNS over HTTPS.
    #[serde(default)]
    pub doh: Vec<SocketAddr>,
    /// Zone transfers over TLS.
    #[serde(default)]
    pub xot: Vec<SocketAddr>,
    /// REST.
    #[serde(default)]
    pub api: Vec<SocketAddr>,
    /// Metrics and health.
    #[serde(default)]
    pub metrics: Vec<SocketAddr>,
    /// Revocation lists, OCSP and CA certificates.
    #[serde(default)]
    pub pki: Vec<SocketAddr>,
    /// Where operators fetch DoH answers.
    #[serde(default)]
    pub doh_url: String,
    /// Where operators enrol.
    #[serde(default)]
    pub api_url: String,
    /// Below which revocation lists, OCSP and CA certificates are.
    #[serde(default)]
    pub pki_url: String,
}

/// A certificate that must be renewed in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expiry {
    /// Which.
    pub name: String,
    /// Its last second.
    pub not_after: Timestamp,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name for people.
    pub name: String,
    /// When it was added.
    pub since: Timestamp,
    /// Why it is suspended, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<String>,
    /// Until when it may renew a certificate that has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Timestamp>,
    /// Names outside the federation that its servers' certificates may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<DomainName>,
    /// When its certificate ends; none where it has none that is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified_until: Option<Timestamp>,
    /// NetIDs it holds.
    pub netids: Vec<NetId>,
    /// Devices it has.
    pub devices: u64,
}

/// `POST /api/v1/members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// Its id.
    pub id: MemberId,
    /// Its name for people; the id where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `PATCH /api/v1/members/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeMember {
    /// Its name for people.
    pub name: String,
}

/// `POST /api/v1/members/{id}/suspend` and other acts that want a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// Why.
    pub reason: String,
}

/// A NetID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// The NetID.
    pub netid: NetId,
    /// Who holds it.
    pub member: MemberId,
    /// Addresses of its LNS.
    pub addresses: Vec<IpAddr>,
    /// TCP port of its LNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name in its LNS's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<DomainName>,
    /// Devices that resolve to it.
    pub devices: u64,
    /// Its name in the private zone.
    pub name: String,
}

/// `PUT /api/v1/netids/{netid}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetNetwork {
    /// Who holds it.
    pub member: MemberId,
    /// Addresses of its LNS.
    pub addresses: Vec<IpAddr>,
    /// TCP port of its LNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name in its LNS's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<DomainName>,
}

/// `POST /api/v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Who may enrol with it.
    pub member: MemberId,
    /// Its life in seconds.
    pub ttl: i64,
    /// The only key it may be used with: `sha256:` and 64 hexadecimal digits of the SubjectPublicKeyInfo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pin: Option<String>,
}

/// A token; the secret is given once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Its name in lists and logs.
    pub id: String,
    /// Who may enrol with it.
    pub member: MemberId,
    /// When it ends.
    pub expires: Timestamp,
    /// The certificate it was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What the operator must do with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Enrolment>,
}

/// What an operator needs beside the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Enrolment {
    /// Where to enrol.
    pub url: String,
    /// SHA-256 of the root certificate, so that the answer can be trusted.
    pub ca_pin: String,
}

/// `POST /api/v1/enroll`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// The one-time token.
    pub token: String,
    /// The certificate request, PEM (RFC 2986, RFC 7468).
    pub csr: String,
}

/// `POST /api/v1/certificates`. A member asks for its own servers and gateways, an administrator for everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueCertificate {
    /// The member it is for, or whose server or gateway it is for...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// ...or the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// The member's gateway, by a name of its choice such as the EUI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<MemberId>,
    /// The host names of the member's server: of its NetIDs, or approved ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<DomainName>,
    /// The certificate request, PEM.
    pub csr: String,
}

/// `POST /api/v1/certificates/{serial}/renew`: a new certificate in the place of that one, whenever an administrator likes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewCertificate {
    /// The certificate request, PEM.
    pub csr: String,
}

/// `POST /api/v1/certificates/revoke`: several at once. Exactly one of the first four is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeCertificates {
    /// All of a public key: `sha256:` and 64 hexadecimal digits of the SubjectPublicKeyInfo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A certificate, those that it renews and those that renew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// All of a member: its own, its servers' and gateways'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// All of a replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// Why (RFC 5280, section 5.3.1).
    pub reason: String,
}

/// `PUT /api/v1/members/{id}/grace`: until when the member may renew a certificate that has expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grace {
    /// Seconds from now; 0 ends it.
    pub seconds: i64,
}

/// `PUT /api/v1/netids/{netid}/anchors`: what the servers of a NetID are trusted by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAnchors {
    /// Certificates, PEM: CAs, or the servers' own. Empty takes them back.
    pub pem: String,
}

/// The last list of revoked certificates of one CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Crl {
    /// The CA's id, as in the URL of its list.
    pub ca: String,
    /// The list's number.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// When the next is there at the latest.
    pub next_update: Timestamp,
    /// How many certificates it names.
    pub revoked: u64,
    /// Where it is published; empty where it is not.
    pub url: String,
}

/// What the root's list of revoked issuing CAs brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RootCrl {
    /// The list.
    #[serde(flatten)]
    pub list: Crl,
    /// The certificates that end with it, since a CA that it names has signed them: their holders need new ones.
    pub ended: Vec<Certificate>,
}

/// A certificate with the chain to show with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Issued {
    /// Particulars.
    #[serde(flatten)]
    pub certificate: Certificate,
    /// The certificate, PEM: what a member or replica shows the broker, which knows its issuing CAs.
    pub pem: String,
    /// Certificate and issuing CA, PEM: what servers and gateways show to those who may know the root alone.
    pub chain: String,
    /// The root, PEM: what a client trusts.
    pub ca: String,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// The member it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// The replica it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// The member's gateway it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<MemberId>,
    /// The names of a server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The profile it was made by.
    pub profile: String,
    /// The CA that issued it, by its id.
    pub issuer: String,
    /// The certificate that it renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<String>,
    /// The first of the certificates that were renewed one after the other.
    pub lineage: String,
    /// SHA-256 of its public key.
    pub key: String,
    /// First second of its life.
    pub not_before: Timestamp,
    /// Last second of its life.
    pub not_after: Timestamp,
    /// When it is to be renewed.
    pub renew_at: Timestamp,
    /// `valid`, `suspended`, `expired`, `revoked (<reason>)`.
    pub state: String,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

/// The CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ca {
    /// The root, PEM.
    pub root: String,
    /// The issuing CA, PEM.
    pub issuing: String,
    /// The issuing CA for network servers alone, PEM; empty where the issuing CA signs their certificates too.
    #[serde(default)]
    pub lns: String,
    /// Issuing CAs that were in use before and whose certificates are still good, PEM.
    #[serde(default)]
    pub previous: String,
    /// SHA-256 of the root certificate: `sha256:` and 64 hexadecimal digits.
    pub pin: String,
}

/// `POST /api/v1/ca/request`: a request for the certificate of an issuing CA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestIssuing {
    /// For the key in use, whose certificate is to last longer; else for a new key, which then takes its place.
    pub renew: bool,
    /// For the issuing CA that signs certificates of network servers alone.
    pub lns: bool,
}

/// The answer: to be signed where the root's key is, by `dnsbroker ca sign`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IssuingRequest {
    /// The request, PEM.
    pub csr: String,
    /// The domain to whose names the certificate is to be constrained, if it is for network servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permitted: Option<DomainName>,
}

/// `PUT /api/v1/ca/issuing`: the certificate that the root has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallCa {
    /// The certificate, PEM.
    pub pem: String,
}

/// What a list of devices did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImportReport {
    /// Registered for the first time.
    pub added: u64,
    /// Moved from another NetID of the same member.
    pub moved: u64,
    /// No longer registered.
    pub removed: u64,
    /// As before.
    pub unchanged: u64,
    /// To be removed, but not there.
    pub absent: u64,
    /// Repeats within the list.
    pub repeated: u64,
    /// Held by another member, and left as they are.
    pub claimed: u64,
    /// The first of those.
    pub claims: Vec<DevEui>,
    /// Outside the ranges of DevEUIs that the member may register, and left out.
    #[serde(default)]
    pub outside: u64,
    /// The first of those.
    #[serde(default)]
    pub outsiders: Vec<DevEui>,
    /// On another NetID of the member, which its own name server fills, and left there.
    #[serde(default)]
    pub filled: u64,
    /// The first of those.
    #[serde(default)]
    pub filled_shown: Vec<DevEui>,
    /// Rows of the list that hold no DevEUI.
    pub rejected: u64,
    /// The first of those: line, text and reason.
    pub rejects: Vec<Reject>,
    /// Serial of the private zones afterwards.
    pub serial: Serial,
    /// Nothing was changed: this is what would be.
    pub dry_run: bool,
}

/// A row that holds no DevEUI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reject {
    /// Line, from 1.
    pub line: u64,
    /// What was there, at most 80 characters.
    pub text: String,
    /// Why it is none.
    pub reason: String,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// The DevEUI.
    pub deveui: DevEui,
    /// The NetID it resolves to.
    pub netid: NetId,
    /// Who holds that.
    pub member: MemberId,
}

/// A look-up, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lookup {
    /// The DevEUI.
    pub deveui: DevEui,
    /// Its nibble name.
    pub name: String,
    /// As whom it was resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// Each step, and the rule that decided it.
    pub steps: Vec<String>,
    /// Response code of the answer.
    pub rcode: String,
    /// Records of the answer, as RFC 1035 text.
    pub answer: Vec<String>,
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ZoneInfo {
    /// `public`, `deveuis`, `netids`: what it is called in commands.
    pub id: String,
    /// Its name.
    pub name: DomainName,
    /// Whether its names leave only through authenticated transports.
    pub private: bool,
    /// Its serial.
    pub serial: Serial,
    /// Names with records.
    pub names: u64,
}

/// What a check of the served zones found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ZoneCheck {
    /// Whether there is no error.
    pub ok: bool,
    /// What is wrong.
    pub errors: Vec<String>,
    /// What looks odd.
    pub warnings: Vec<String>,
}

/// One audit row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRow {
    /// Counted from 1.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What.
    pub act: String,
    /// To what.
    pub object: String,
    /// Particulars.
    #[serde(default)]
    pub detail: serde_json::Value,
    /// Serial of the private zones afterwards.
    pub serial: Serial,
    /// The members whose business it is, beside the administrators'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concerns: Vec<MemberId>,
}

/// What a check of the audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditCheck {
    /// Whether the chain is whole.
    pub ok: bool,
    /// Rows read.
    pub rows: u64,
    /// Hash of the last row.
    pub head: String,
    /// Where it is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}
