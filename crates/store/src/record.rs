//! The rows of people and certificates, as they are stored and shown.

mod account;
mod ownership;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dnsbroker_ca::{Fingerprint, Principal, ReplicaId, RevocationReason, SerialNumber, TokenHash};
use dnsbroker_federation::{DevEui, DomainName, MemberId, NetId, Serial};
use dnsbroker_zone::transfer::NameForm;
use dnsbroker_zone::tsig::Algorithm;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use account::Request;
pub use account::{Administrator, ApiToken, Disabled, Role, Scope, Sealed, TokenOwner, Webhook};
pub use ownership::{Beyond, Claim, Limits, Move, OpenClaim, Rejection};

/// Seconds since 1970-01-01 UTC.
pub type Seconds = i64;

/// An operator of the federation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name for people.
    pub name: String,
    /// When it was added.
    pub since: Seconds,
    /// Since when, and why, it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// Until when a certificate that has expired may still be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Seconds>,
    /// Names outside the federation that its servers' certificates may have.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<DomainName>,
}

/// A member that is not answered for the time being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Since when.
    pub since: Seconds,
    /// Why.
    pub reason: String,
}

/// A one-time enrolment token. The secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the secret.
    pub hash: TokenHash,
    /// Who may enrol with it.
    pub member: MemberId,
    /// The profile of the certificate it gives.
    pub profile: String,
    /// When it was made.
    pub created: Seconds,
    /// When it ends.
    pub expires: Seconds,
    /// The only key it may be used with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pin: Option<Fingerprint>,
    /// What it was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<TokenUse>,
}

impl Token {
    /// The name people use for it in lists and logs: the first digits of its hash.
    pub fn id(&self) -> String {
        token_id(&self.hash)
    }
}

/// The first 12 hexadecimal digits of a token's hash.
pub fn token_id(hash: &TokenHash) -> String {
    hash.as_bytes()[..6].iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The one use of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// When.
    pub at: Seconds,
    /// SHA-256 of the request: the same request again gets the same certificate.
    pub request: String,
    /// The certificate it gave.
    pub certificate: SerialNumber,
}

/// A certificate that this CA has issued, without its octets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its serial number.
    pub serial: SerialNumber,
    /// The member it names; none for the broker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// The replica it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaId>,
    /// The member's gateway it names: it speaks for nobody at the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<MemberId>,
    /// The names of a server: it speaks for nobody at the broker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The profile it was made by.
    pub profile: String,
    /// The issuing CA, by its id.
    #[serde(default)]
    pub ca: String,
    /// The certificate that it renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<SerialNumber>,
    /// The first of the certificates that were renewed one after the other; this one where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<SerialNumber>,
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub key: Fingerprint,
    /// First second of its life.
    pub not_before: Seconds,
    /// Last second of its life.
    pub not_after: Seconds,
    /// When it was issued.
    pub issued: Seconds,
    /// When and why it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

impl Certificate {
    /// Whom it speaks for; nobody for servers and gateways.
    pub fn principal(&self) -> Option<Principal> {
        if self.gateway.is_some() || !self.names.is_empty() {
            return None;
        }
        let member = self.member.clone().map(Principal::Member);
        member.or_else(|| self.replica.clone().map(Principal::Replica))
    }

    /// Whether it belongs to a member or replica, speaking for it or not.
    pub fn belongs_to(&self, holder: &Principal) -> bool {
        match holder {
            Principal::Member(member) => self.member.as_ref() == Some(member),
            Principal::Replica(replica) => self.replica.as_ref() == Some(replica),
        }
    }

    /// The first certificate of its lineage.
    pub fn lineage(&self) -> SerialNumber {
        self.lineage.unwrap_or(self.serial)
    }

    /// When it is to be renewed.
    pub fn renew_at(&self) -> Seconds {
        dnsbroker_ca::identity::renew_at(self.not_before, self.not_after)
    }
}

/// The last list of revoked certificates of one CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrlHead {
    /// The CA's id.
    pub ca: String,
    /// Its number, which never goes back (RFC 5280, section 5.2.3).
    pub number: u64,
    /// When it was made.
    pub this_update: Seconds,
    /// When the next will be there at the latest.
    pub next_update: Seconds,
}

/// Where certificates say that the CA publishes its lists and answers OCSP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The URL below which that is now; empty where it is nowhere.
    pub url: String,
    /// Those of before that certificates still name.
    #[serde(default)]
    pub before: Vec<FormerUrl>,
}

/// A URL that certificates name and new ones do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerUrl {
    /// The URL; empty for certificates that name none.
    pub url: String,
    /// When the last of them ends.
    pub until: Seconds,
}

/// The issuing CA for network servers alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LnsAuthority {
    /// Its id.
    pub ca: String,
    /// The domain to whose names it is constrained.
    pub permitted: DomainName,
}

/// What the servers of a NetID are trusted by, where that is not the federation's CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchors {
    /// The NetID.
    pub netid: NetId,
    /// Certificates, PEM: CAs, or the servers' own.
    pub pem: String,
    /// When they were published.
    pub since: Seconds,
}

/// The end of a certificate before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    pub at: Seconds,
    /// Why (RFC 5280, section 5.3.1).
    pub reason: RevocationReason,
}

/// What a TSIG key allows its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// To fetch the zones (SOA, AXFR, IXFR), as far as its replica may.
    Transfer,
    /// To update its own devices (RFC 2136).
    Update,
    /// The broker fetches from the holder's primary with it, and the primary signs its NOTIFYs.
    Source,
}

/// A TSIG key (RFC 8945), its secret encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TsigKey {
    /// Its name, under which both sides know it.
    pub name: DomainName,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Whose it is.
    pub holder: Principal,
    /// What it allows.
    pub allows: BTreeSet<Permission>,
    /// When it was made.
    pub created: Seconds,
    /// The secret under the broker's sealing key.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub sealed: Vec<u8>,
}

/// A server that may hold a copy of the private zones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its id.
    pub id: ReplicaId,
    /// The member whose certificate and keys may fetch as this replica too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<MemberId>,
    /// The one member whose devices and NetIDs it gets; all where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<MemberId>,
    /// How devices are named in what it gets.
    pub names: NameForm,
    /// Where it is told of changes.
    pub notify: Vec<SocketAddr>,
    /// The TSIG key with which it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_key: Option<DomainName>,
    /// Whether it may fetch over plain TCP, where TSIG signs and nothing hides.
    pub clear_text: bool,
    /// Where it answers, if it is a standby broker: it gets everything, and takes the primary's place when it is told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<StandbyAt>,
    /// When it was added.
    pub since: Seconds,
}

/// Where a standby broker is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyAt {
    /// Its name, as in its certificate.
    pub name: DomainName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its port of DNS over HTTPS.
    pub port: u16,
    /// Its port of the API; not known of standbys that were registered before it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_port: Option<u16>,
}

/// The broker that takes changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Primary {
    /// How often a standby has taken the place of a primary. Who has a lower number is no primary any more.
    pub epoch: u64,
    /// Its name.
    pub name: DomainName,
    /// Where it answers DNS over HTTPS; empty where it does not.
    pub doh_url: String,
    /// Where its API is; empty where it has none.
    pub api_url: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Since when it is the primary.
    pub since: Seconds,
}

/// A primary that the devices of one NetID come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The NetID its devices resolve to.
    pub netid: NetId,
    /// Who holds that.
    pub member: MemberId,
    /// Where the primary answers.
    pub primary: SocketAddr,
    /// The zone the devices are in.
    pub zone: DomainName,
    /// The TSIG key of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<DomainName>,
    /// How its TLS is verified; plain TCP where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SourceTls>,
    /// What becomes of its devices when it has not been heard for as long as its SOA says.
    pub on_expiry: OnExpiry,
    /// When it was added.
    pub since: Seconds,
    /// What was transferred last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// How a primary's certificate is verified (RFC 9103, section 9.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceTls {
    /// It chains to one of these CAs, PEM, and has this name.
    Ca {
        /// The name in it.
        name: DomainName,
        /// PEM; the federation's own CA where it is empty.
        ca: String,
    },
    /// Its key has this SHA-256 (RFC 7858, section 4.2).
    Pin(Fingerprint),
}

/// What becomes of devices whose source has expired (RFC 1035, section 3.3.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExpiry {
    /// They are served on: a device is where it was until somebody says otherwise.
    #[default]
    Keep,
    /// They are taken out, as a secondary does.
    Withdraw,
}

/// What the last transfer of a source came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The primary's serial.
    pub serial: Serial,
    /// Seconds between looks at the primary's serial.
    pub refresh: u32,
    /// Seconds until the next look after a failure.
    pub retry: u32,
    /// Seconds without success after which the source has expired.
    pub expire: u32,
    /// When it was committed.
    pub at: Seconds,
    /// Whether it was a difference.
    pub incremental: bool,
    /// Whether the zone has several records for a device: differences cannot be applied then.
    pub several: bool,
    /// Records of the transfer.
    pub records: u64,
    /// Names with an address or CNAME that are no device.
    pub strangers: u64,
    /// The first of them.
    pub strangers_shown: Vec<String>,
    /// Devices whose address is none of the NetID's.
    pub mismatches: u64,
    /// The first of them.
    pub mismatches_shown: Vec<DevEui>,
    /// Devices that another member holds.
    pub claimed: u64,
    /// The first of them.
    pub claims_shown: Vec<DevEui>,
    /// Devices that another source of the member brings.
    #[serde(default)]
    pub filled: u64,
    /// The first of them.
    #[serde(default)]
    pub filled_shown: Vec<DevEui>,
    /// Devices outside the ranges that the member may register.
    #[serde(default)]
    pub outside: u64,
    /// The first of them.
    #[serde(default)]
    pub outside_shown: Vec<DevEui>,
}

/// The row in the store: a certificate with its octets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateRow {
    /// Its particulars.
    #[serde(flatten)]
    pub certificate: Certificate,
    /// DER, in base64.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub der: Vec<u8>,
}

fn to_base64<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(octets))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}
