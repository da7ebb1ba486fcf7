//! The configuration: one TOML file. Unknown keys are refused by name, paths are relative to the file.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dnsbroker_federation::DomainName;
use serde::Deserialize;

use crate::sync::config::SyncConfig;

/// Everything an operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Federations, in the order in which they are believed.
    #[serde(default)]
    pub federation: Vec<FederationConfig>,
    /// Plain DNS for this machine.
    #[serde(default)]
    pub resolver: ResolverConfig,
    /// What is remembered.
    #[serde(default)]
    pub cache: CacheConfig,
    /// DevEUIs without a suffix.
    #[serde(default)]
    pub lookup: LookupConfig,
    /// HomeNSReq for network servers.
    #[serde(default)]
    pub ts002: Ts002Config,
    /// Configuration of the network server.
    #[serde(default)]
    pub lns: LnsConfig,
    /// Metrics and health; absent is off.
    #[serde(default)]
    pub metrics: Option<Listener>,
    /// Socket of `status`, `lookup` and `sync`; see `control` for where it is otherwise.
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// Logging.
    #[serde(default)]
    pub log: LogConfig,
    /// The directory the file is in.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// A federation one is a member of.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederationConfig {
    /// The directory that `enroll` made.
    pub dir: PathBuf,
    /// Brokers, where those that the federation's directory names are not wanted or not known.
    #[serde(default)]
    pub broker: Vec<BrokerConfig>,
    /// Seconds between looks at what the federation tells its members: brokers, networks, anchors.
    #[serde(default = "refresh")]
    pub refresh: u64,
    /// Whether certificates are renewed.
    #[serde(default = "yes")]
    pub renew: bool,
    /// A command that is run after a new certificate is in place: program and arguments, no shell.
    #[serde(default)]
    pub hook: Vec<String>,
    /// A group that may read the key: that of the network server.
    #[serde(default)]
    pub key_group: Option<String>,
    /// Where the devices of one's NetIDs come from.
    #[serde(default)]
    pub sync: Vec<SyncConfig>,
}

fn refresh() -> u64 {
    300
}

fn yes() -> bool {
    true
}

/// A broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// Where it answers DNS over HTTPS.
    pub doh_url: String,
    /// Where its API is; one broker of a federation needs one.
    #[serde(default)]
    pub api_url: Option<String>,
    /// Its addresses, so that nobody need ask DNS for them.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// The local resolver.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResolverConfig {
    /// Socket addresses, UDP and TCP; none is off.
    pub listen: Vec<SocketAddr>,
    /// Who is asked for all that is of no federation; none is REFUSED.
    pub upstreams: Vec<SocketAddr>,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self { listen: vec![SocketAddr::from(([127, 0, 0, 1], 5353))], upstreams: vec![] }
    }
}

/// What is remembered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Answers at most.
    pub names: usize,
    /// Seconds at most, whatever the answer says.
    pub max_ttl: u32,
    /// Seconds at most for what is not there.
    pub max_negative_ttl: u32,
    /// Seconds for which an answer is still given after its end when no broker answers (RFC 8767); 0 is never.
    pub stale: u32,
    /// Whether answers in use are asked for anew before they end.
    pub prefetch: bool,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { names: 200_000, max_ttl: 86_400, max_negative_ttl: 3_600, stale: 0, prefetch: true }
    }
}

/// How several federations are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// All at once.
    Parallel,
    /// The next one when the one before does not know the device.
    Ordered,
}

/// DevEUIs without a suffix.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LookupConfig {
    /// How several federations are asked.
    pub order: Order,
    /// Milliseconds for a look-up in all.
    pub deadline_ms: u64,
    /// Milliseconds that a federation which stands first is waited for when a later one has claimed the device.
    pub patience_ms: u64,
}

impl Default for LookupConfig {
    fn default() -> Self {
        Self { order: Order::Parallel, deadline_ms: 2_000, patience_ms: 300 }
    }
}

impl LookupConfig {
    /// Time for a look-up in all.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// Time for a federation that stands before one that has answered.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }
}

/// HomeNSReq for network servers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ts002Config {
    /// Socket addresses; none is off.
    pub listen: Vec<SocketAddr>,
    /// A certificate chain (PEM): the endpoint is HTTPS then.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// CAs of the certificates that network servers must show (PEM); none need show one where it is absent.
    pub client_ca: Option<PathBuf>,
    /// CAs that network servers verify the endpoint's certificate by (PEM): for their configuration.
    pub ca: Option<PathBuf>,
    /// Where network servers find the endpoint, if its certificate is of a name; the address it listens on otherwise.
    pub url: Option<String>,
    /// Join Servers that get what is no HomeNSReq; the first one whose prefix fits.
    pub join_server: Vec<JoinServerConfig>,
}

/// A Join Server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinServerConfig {
    /// JoinEUIs that it serves, `0102030405060700/56`.
    #[serde(default = "any_prefix")]
    pub prefix: String,
    /// Where it is, http or https.
    pub url: String,
    /// CAs of its certificate (PEM); those of the system where it is absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The certificate to show (PEM).
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Value of the Authorization header, in a file.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
}

fn any_prefix() -> String {
    "0000000000000000/0".to_owned()
}

/// Configuration of the network server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LnsConfig {
    /// A file that is written anew when members change: ChirpStack's stanzas.
    pub chirpstack_file: Option<PathBuf>,
    /// A command that is run afterwards: program and arguments, no shell.
    pub hook: Vec<String>,
    /// Port of other members' network servers, where the directory names none.
    pub default_port: Option<u16>,
    /// Where one's own network server answers others: `bind` of `[backend_interfaces]`.
    pub bind: Option<SocketAddr>,
    /// Whether its certificate is got from the federation and renewed; where it is absent, if there is `bind` and no
    /// certificate of one's own.
    pub certificate: Option<bool>,
    /// Its own certificate, as other members see it (PEM).
    pub server_certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub server_key: Option<PathBuf>,
}

impl LnsConfig {
    /// Whether the network server's certificate is got from the federation.
    pub fn gets_certificate(&self) -> bool {
        self.certificate.unwrap_or(self.bind.is_some() && self.server_certificate.is_none())
    }
}

/// Addresses to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Socket addresses; port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
}

/// How to log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives by module. `DNSBROKER_LOG` overrules it.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}{hint}")]
    Read {
        /// How to get one, where there is none.
        hint: &'static str,
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or has keys or values that are not known.
    #[error("the configuration {path} is wrong: {message}")]
    Parse {
        /// Which file.
        path: String,
        /// Line and reason.
        message: String,
    },
    /// A value that cannot be meant.
    #[error("the configuration is wrong: {0}")]
    Value(String),
}

const HINT: &str = " (`dnsbroker-agent enroll` prints one to begin with, and writes it with --write-config FILE)";

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            hint: if source.kind() == ErrorKind::NotFound { HINT } else { "" },
            path: shown(),
            source,
        })?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = std::path::absolute(dir).map_err(|source| ConfigError::Read { hint: "", path: shown(), source })?;
        Self::parse(&text, dir).map_err(|error| match error {
            ConfigError::Parse { message, .. } => ConfigError::Parse { path: shown(), message },
            other => other,
        })
    }

    /// Checks the text of a file that stands in `dir`.
    pub fn parse(text: &str, dir: PathBuf) -> Result<Self, ConfigError> {
        let parsed = toml::from_str(text);
        let mut config: Self = parsed.map_err(|error: toml::de::Error| ConfigError::Parse {
            path: String::new(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        config.dir = dir;
        config.check()?;
        Ok(config)
    }

    /// A path of the configuration, which is relative to its file.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Value(text));
        if self.ts002.certificate.is_some() != self.ts002.key.is_some() {
            return wrong("ts002.certificate and ts002.key go together: give both or neither".to_owned());
        }
        let tls = self.ts002.certificate.is_some();
        if !tls && (self.ts002.client_ca.is_some() || self.ts002.ca.is_some()) {
            return wrong(
                "ts002.client_ca and ts002.ca are for TLS: give ts002.certificate and ts002.key too".to_owned(),
            );
        }
        let scheme = if tls { "https://" } else { "http://" };
        if let Some(url) = self.ts002.url.as_ref().filter(|url| !url.starts_with(scheme)) {
            return wrong(format!("ts002.url is {url:?}, and the endpoint answers at {scheme}..."));
        }
        if self.lns.server_certificate.is_some() != self.lns.server_key.is_some() {
            return wrong("lns.server_certificate and lns.server_key go together: give both or neither".to_owned());
        }
        if self.lns.certificate == Some(true) && self.lns.server_certificate.is_some() {
            return wrong(
                "lns.certificate gets one, and lns.server_certificate is another: give one of them".to_owned(),
            );
        }
        if !(1_000..=10_000_000).contains(&self.cache.names) {
            return wrong("cache.names is 1000 to 10000000".to_owned());
        }
        if self.cache.stale > 604_800 {
            return wrong("cache.stale is 604800 seconds (a week) at most".to_owned());
        }
        if !(50..=10_000).contains(&self.lookup.deadline_ms) {
            return wrong("lookup.deadline_ms is 50 to 10000: a network server waits 5 seconds".to_owned());
        }
        if self.lookup.patience_ms > self.lookup.deadline_ms {
            return wrong("lookup.patience_ms is not longer than lookup.deadline_ms".to_owned());
        }
        let own = self.resolver.listen.iter().find(|own| self.resolver.upstreams.contains(own));
        if let Some(own) = own {
            return wrong(format!("resolver.upstreams has {own}, which is the resolver itself"));
        }
        for server in &self.ts002.join_server {
            crate::ts002::join::Prefix::parse(&server.prefix).map_err(ConfigError::Value)?;
            if server.certificate.is_some() != server.key.is_some() {
                return wrong(format!("join server {}: certificate and key go together", server.url));
            }
        }
        for federation in &self.federation {
            if !(1..=86_400).contains(&federation.refresh) {
                return wrong("federation.refresh is 1 to 86400 seconds".to_owned());
            }
            for broker in &federation.broker {
                crate::upstream::doh::Place::parse(&broker.doh_url).map_err(ConfigError::Value)?;
            }
            for sync in &federation.sync {
                sync.check().map_err(ConfigError::Value)?;
            }
        }
        crate::logging::check(&self.log).map_err(|error| ConfigError::Value(error.to_string()))
    }
}

/// Warns of what is allowed and unwise.
pub fn advice(config: &Config) -> Vec<String> {
    let mut advice = Vec::new();
    if config.federation.is_empty() {
        advice.push("no [[federation]]: nothing can be looked up".to_owned());
    }
    let open = |what: &str, address: &SocketAddr| {
        format!("{what} listens on {address}: whoever reaches it can ask as you; loopback is meant")
    };
    let anybody = config.ts002.client_ca.is_none();
    advice.extend(config.resolver.listen.iter().filter(|at| !at.ip().is_loopback()).map(|at| open("the resolver", at)));
    let ts002 = config.ts002.listen.iter().filter(|at| anybody && !at.ip().is_loopback());
    advice.extend(ts002.map(|at| open("the TS002 endpoint, without client_ca,", at)));
    let metrics = config.metrics.iter().flat_map(|metrics| &metrics.listen);
    advice.extend(metrics.filter(|at| !at.ip().is_loopback()).map(|at| open("metrics", at)));
    advice
}

/// The zones' labels are the last thing to ask a configuration for: they come with the directory.
pub fn zone_label(zone: &DomainName, federation: &DomainName) -> Option<String> {
    let label = zone.labels().next()?;
    let label = std::str::from_utf8(label).ok()?.to_owned();
    (federation.child(&label).ok()? == *zone).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, "/etc/agent".into())
    }

    #[test]
    fn an_empty_file_is_a_resolver_on_loopback() {
        let config = parse("").expect("reads");
        assert!(config.resolver.listen.iter().all(|at| at.ip().is_loopback()));
        assert!(config.ts002.listen.is_empty());
        assert_eq!(advice(&config).len(), 1);
    }

    #[test]
    fn the_example_reads() {
        let config = parse(include_str!("../dist/agent.toml")).expect("reads");
        assert_eq!(config.federation.len(), 1);
        assert!(advice(&config).is_empty(), "{:?}", advice(&config));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (text, words) in [
            ("colour = 1", "colour"),
            ("[resolver]\nlisten = [\"127.0.0.1:53\"]\nupstreams = [\"127.0.0.1:53\"]", "the resolver itself"),
            ("[lookup]\ndeadline_ms = 5", "deadline_ms"),
            ("[lookup]\norder = \"random\"", "random"),
            ("[ts002]\nkey = \"k\"", "go together"),
            ("[lns]\ncertificate = true\nserver_certificate = \"c\"\nserver_key = \"k\"", "one of them"),
            ("[ts002]\nclient_ca = \"ca.pem\"", "for TLS"),
            ("[ts002]\nurl = \"https://lns.example:17001\"", "http://"),
            ("[[federation]]\ndir = \"f\"\nrefresh = 0", "refresh"),
            ("[[ts002.join_server]]\nurl = \"http://js\"\nprefix = \"01/8\"", "prefix"),
            ("[[federation]]\ndir = \"f\"\n[[federation.broker]]\ndoh_url = \"http://b.example/\"", "https"),
            ("[[federation]]\ndir = \"f\"\n[[federation.sync]]\nnetid = \"60002d\"\nsource = \"file\"", "path"),
            ("[[federation]]\ndir = \"f\"\n[[federation.sync]]\nnetid = \"60002d\"\nsource = \"oracle\"", "oracle"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn an_open_door_is_warned_of() {
        let config = parse("[resolver]\nlisten = [\"0.0.0.0:53\"]\n[ts002]\nlisten = [\"[::]:17001\"]").expect("reads");
        assert_eq!(advice(&config).len(), 3);
    }
}
