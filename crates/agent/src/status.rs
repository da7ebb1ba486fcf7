//! What the agent does, for people (`status`) and programs (`--json`).

use std::net::SocketAddr;

use dnsbroker_api::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::now;
use crate::daemon::Agent;
use crate::identity::renew_at;
use crate::server_certificate;
use crate::sync;
use crate::upstream::federation::Federation;

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// When it started.
    pub started: Timestamp,
    /// Whether each federation can be asked.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Bound addresses.
    pub listeners: Listeners,
    /// Federations, in the order in which they are believed.
    pub federations: Vec<FederationStatus>,
    /// Device synchronisation.
    pub syncs: Vec<sync::task::Status>,
    /// Answers in the cache, and the octets they take.
    pub cache: (usize, usize),
}

/// Where the agent listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// The resolver.
    pub resolver: Vec<SocketAddr>,
    /// The TS002 endpoint.
    pub ts002: Vec<SocketAddr>,
    /// Metrics and health.
    pub metrics: Vec<SocketAddr>,
}

/// A federation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FederationStatus {
    /// Its name.
    pub name: String,
    /// Who we are in it.
    pub member: String,
    /// Our certificate.
    pub certificate: CertificateStatus,
    /// That of our network server, where it is got here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<ServerStatus>,
    /// Its brokers.
    pub brokers: Vec<BrokerStatus>,
}

/// The certificate of our network server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Particulars.
    #[serde(flatten)]
    pub certificate: CertificateStatus,
    /// Its names.
    pub names: Vec<String>,
    /// Why there is none, or no new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Its last second.
    pub not_after: Timestamp,
    /// When it is to be renewed.
    pub renew_at: Timestamp,
    /// `valid`, `due`, `expired`, `missing`.
    pub state: String,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Where it answers.
    pub url: String,
    /// Whether a connection is open.
    pub connected: bool,
    /// Milliseconds of an exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<f64>,
    /// Why it gave no answer the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Status {
    /// Of an agent.
    pub fn of(agent: &Agent) -> Self {
        let trouble = agent.trouble();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: Timestamp(agent.started),
            ready: trouble.is_none(),
            trouble,
            listeners: agent.listeners.clone(),
            federations: agent
                .federations()
                .iter()
                .enumerate()
                .map(|(index, federation)| {
                    FederationStatus::of(federation, agent.servers.get(index).map(|state| &**state))
                })
                .collect(),
            syncs: agent.syncs.iter().map(|sync| sync.status()).collect(),
            cache: agent.lookups.resolver().cache_size(),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let join = |addresses: &[SocketAddr]| {
            let text: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            if text.is_empty() { "off".to_owned() } else { text.join(", ") }
        };
        let state =
            self.trouble.as_ref().map_or_else(|| "ready".to_owned(), |trouble| format!("IN TROUBLE: {trouble}"));
        let mut text = format!(
            "dnsbroker-agent {}: {state}\nstarted     {}\nresolver    {}\nTS002       {}\nmetrics     {}\ncache       {} answers, {} KiB\n",
            self.version,
            self.started,
            join(&self.listeners.resolver),
            join(&self.listeners.ts002),
            join(&self.listeners.metrics),
            self.cache.0,
            self.cache.1 / 1024,
        );
        for FederationStatus { name, member, certificate, server_certificate, brokers } in &self.federations {
            let CertificateStatus { serial, not_after, renew_at, state } = certificate;
            text.push_str(&format!(
                "\n{name} as {member}\n  certificate {serial}: {state} until {not_after}, renewed from {renew_at}\n"
            ));
            if let Some(server) = server_certificate {
                text.push_str(&server.text());
            }
            if brokers.is_empty() {
                text.push_str("  no broker is known: give [[federation.broker]]\n");
            }
            for BrokerStatus { url, connected, milliseconds, trouble } in brokers {
                let state = match (trouble, connected, milliseconds) {
                    (Some(trouble), ..) => format!("NO ANSWER: {trouble}"),
                    (None, true, Some(ms)) => format!("connected, {ms:.2} ms"),
                    (None, false, Some(ms)) => format!("idle, {ms:.2} ms"),
                    (None, _, None) => "not asked yet".to_owned(),
                };
                text.push_str(&format!("  broker {url}: {state}\n"));
            }
        }
        for sync in &self.syncs {
            let sync::task::Status { federation, netid, source, state, devices, rejected, claimed, error, .. } = sync;
            text.push_str(&format!("\nsync {netid} of {federation} from {source}: {state}, {devices} devices"));
            text.push_str(&format!(", {rejected} rows rejected, {claimed} held by others\n"));
            if let Some(error) = error {
                text.push_str(&format!("  {error}\n"));
            }
            for reject in &sync.rejects {
                text.push_str(&format!("  rejected: row {}: {:?} {}\n", reject.line, reject.text, reject.reason));
            }
            for claim in &sync.claims {
                text.push_str(&format!("  held by another member: {claim}\n"));
            }
        }
        text
    }
}

impl FederationStatus {
    fn of(federation: &Federation, server: Option<&server_certificate::State>) -> Self {
        let identity = federation.identity();
        let certificate = CertificateStatus::of(identity.as_ref().map(|identity| (&*identity.serial, identity.life)));
        let server_certificate = server.map(|state| {
            let facts = server_certificate::in_place(federation);
            ServerStatus {
                certificate: CertificateStatus::of(facts.as_ref().map(|facts| (&*facts.serial, facts.life))),
                names: facts.map_or_else(Vec::new, |facts| facts.names.into_iter().collect()),
                trouble: state.trouble(),
            }
        });
        let brokers = federation.brokers();
        let broker = |broker: &std::sync::Arc<crate::upstream::doh::Broker>| BrokerStatus {
            url: broker.place.uri.to_string(),
            connected: broker.is_connected(),
            milliseconds: broker.rtt().map(|rtt| rtt.as_secs_f64() * 1_000.0),
            trouble: broker.trouble().map(|failure| failure.to_string()),
        };
        Self {
            name: federation.name(),
            member: identity.map_or_else(String::new, |identity| identity.member.to_string()),
            certificate,
            server_certificate,
            brokers: brokers.iter().map(broker).collect(),
        }
    }
}

impl CertificateStatus {
    fn of(certificate: Option<(&str, (i64, i64))>) -> Self {
        let Some((serial, life)) = certificate else {
            let (serial, state) = ("-".to_owned(), "missing".to_owned());
            return Self { serial, not_after: Timestamp(0), renew_at: Timestamp(0), state };
        };
        let due = renew_at(life);
        let state = match now() {
            now if now > life.1 => "expired",
            now if now >= due => "due",
            _ => "valid",
        };
        Self {
            serial: serial.to_owned(),
            not_after: Timestamp(life.1),
            renew_at: Timestamp(due),
            state: state.to_owned(),
        }
    }
}

impl ServerStatus {
    fn text(&self) -> String {
        let Self { certificate: CertificateStatus { serial, not_after, renew_at, state }, names, trouble } = self;
        let mut text = if state == "missing" {
            "  network server's certificate: NOT THERE\n".to_owned()
        } else {
            let names = names.join(", ");
            format!("  network server's {serial}: {state} until {not_after}, renewed from {renew_at}, of {names}\n")
        };
        if let Some(trouble) = trouble {
            text.push_str(&format!("  network server's certificate: {trouble}\n"));
        }
        text
    }
}
