//! The configuration: one TOML file. Unknown keys are refused by name, paths are relative to the file.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use dnsbroker_federation::{DomainName, ZoneLabels};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_zone::zones::Timing;
use serde::Deserialize;

use crate::limits::Limits;
use crate::webhook::WebhookConfig;

/// Everything an administrator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The federation's name, for example `fed.example`.
    pub federation: DomainName,
    /// The broker's own name; `broker.<federation>` where it is absent.
    #[serde(default)]
    pub broker_name: Option<DomainName>,
    /// Addresses under which the broker's name is published.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// CAs that may issue certificates for the federation's names (CAA, RFC 8659), for example `letsencrypt.org`;
    /// none but the federation's own where it is empty.
    #[serde(default)]
    pub caa: Vec<String>,
    /// Labels and times of the zones.
    #[serde(default)]
    pub zones: ZonesConfig,
    /// Where data are kept.
    #[serde(default)]
    pub store: StoreConfig,
    /// Plain DNS.
    #[serde(default)]
    pub dns: Option<Listener>,
    /// DNS over HTTPS.
    #[serde(default)]
    pub doh: Option<DohConfig>,
    /// Zone transfers and updates over TLS (RFC 9103).
    #[serde(default)]
    pub xot: Option<Listener>,
    /// REST for operators.
    #[serde(default)]
    pub api: Option<ApiConfig>,
    /// Metrics and health.
    #[serde(default)]
    pub metrics: Option<Listener>,
    /// Revocation lists, OCSP and CA certificates, over plain HTTP.
    #[serde(default)]
    pub pki: Option<PkiConfig>,
    /// Where events are posted to.
    #[serde(default)]
    pub webhooks: WebhookConfig,
    /// Another broker that this one follows.
    #[serde(default)]
    pub standby: Option<StandbyConfig>,
    /// The CA.
    #[serde(default)]
    pub ca: CaConfig,
    /// Bounds on what peers may take.
    #[serde(default)]
    pub limits: Limits,
    /// Logging.
    #[serde(default)]
    pub log: LogConfig,
    /// The directory the file is in.
    #[serde(skip)]
    pub dir: PathBuf,
    /// The file.
    #[serde(skip)]
    pub file: PathBuf,
}

/// Labels and times of the zones.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ZonesConfig {
    /// `deveuis` and `netids`, or the singular forms of IoTRoam.
    pub labels: ZoneLabels,
    /// TTLs and SOA times, in seconds.
    pub timing: Timing,
    /// A zone file (RFC 1035) with more names of the public zone.
    pub public_file: Option<PathBuf>,
}

/// Where data are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `redb` or `sled`.
    #[serde(default = "StoreConfig::default_engine")]
    pub engine: String,
    /// Directory of the store.
    #[serde(default = "StoreConfig::default_dir")]
    pub dir: PathBuf,
}

impl StoreConfig {
    fn default_engine() -> String {
        EngineKind::Redb.to_string()
    }

    fn default_dir() -> PathBuf {
        "data".into()
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { engine: Self::default_engine(), dir: Self::default_dir() }
    }
}

/// Addresses to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Socket addresses; port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
}

/// The DoH front.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DohConfig {
    /// Socket addresses.
    pub listen: Vec<SocketAddr>,
    /// Port that members reach, where it differs from the one listened on.
    #[serde(default)]
    pub public_port: Option<u16>,
    /// A certificate chain (PEM) brought by the administrator; the CA's own otherwise.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// REST for operators, over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Socket addresses.
    pub listen: Vec<SocketAddr>,
    /// Port that operators reach, where it differs from the one listened on.
    #[serde(default)]
    pub public_port: Option<u16>,
}

/// What the CA publishes for everybody, over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PkiConfig {
    /// Socket addresses.
    pub listen: Vec<SocketAddr>,
    /// What certificates say of where that is, `http://...`; the broker's name and the port listened on where it is
    /// absent. It stands in certificates for as long as they live.
    #[serde(default)]
    pub url: Option<String>,
}

/// A standby: `dnsbroker standby init` writes this.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandbyConfig {
    /// This broker's own name, within the federation.
    pub name: DomainName,
    /// URL of the primary's API.
    pub primary: String,
    /// Where to connect, if not where the URL's name leads.
    #[serde(default)]
    pub connect: Option<SocketAddr>,
    /// Directory of the certificate and key that are shown to the primary: `client.pem`, `client.key`.
    #[serde(default = "StandbyConfig::default_credential")]
    pub credential: PathBuf,
    /// Look-ups are not answered when the primary has not been heard for so many seconds: so long may a revocation there be
    /// without effect here.
    #[serde(default = "StandbyConfig::default_max_age")]
    pub max_age_seconds: u64,
}

impl StandbyConfig {
    fn default_credential() -> PathBuf {
        "standby".into()
    }

    fn default_max_age() -> u64 {
        60
    }
}

/// The CA's files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaConfig {
    /// Directory of certificates and the encrypted issuing key.
    pub dir: PathBuf,
    /// File with the passphrase of the issuing key. Without it: `DNSBROKER_CA_PASSPHRASE`, or the systemd credential
    /// `ca-passphrase`.
    pub passphrase_file: Option<PathBuf>,
    /// Directory of certificate profiles that replace the built-in ones.
    pub profiles: Option<PathBuf>,
    /// Hours that a list of revoked certificates holds; the next one is there after half of them.
    pub crl_hours: i64,
}

impl Default for CaConfig {
    fn default() -> Self {
        Self { dir: "ca".into(), passphrase_file: None, profiles: None, crl_hours: 24 }
    }
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
    #[error("cannot read the configuration {path}")]
    Read {
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

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: shown(), source })?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = std::path::absolute(dir).map_err(|source| ConfigError::Read { path: shown(), source })?;
        let parsed = Self::parse(&text, dir).map_err(|error| match error {
            ConfigError::Parse { message, .. } => ConfigError::Parse { path: shown(), message },
            other => other,
        })?;
        Ok(Self { file: path.to_owned(), ..parsed })
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

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: &str| Err(ConfigError::Value(text.to_owned()));
        self.engine()?;
        self.namespace()?;
        if self.doh.as_ref().is_some_and(|doh| doh.certificate.is_some() != doh.key.is_some()) {
            return wrong("doh.certificate and doh.key go together: give both or neither");
        }
        let timing = &self.zones.timing;
        if timing.ttl > MAX_TTL || timing.negative_ttl > MAX_TTL {
            return wrong(
                "zones.timing: a TTL is at most 86400 seconds, or a moved device would not be found for days",
            );
        }
        if !(1..=24 * 31).contains(&self.ca.crl_hours) {
            return wrong("ca.crl_hours is from 1 to 744");
        }
        let url = self.pki.as_ref().and_then(|pki| pki.url.as_deref());
        if url.is_some_and(|url| {
            !url.starts_with("http://") || url.len() > 128 || !url.bytes().all(|b| b.is_ascii_graphic())
        }) {
            return wrong("pki.url begins with http:// and has 128 characters at most: it stands in every certificate");
        }
        if let Some(standby) = &self.standby {
            if !(3..=86_400).contains(&standby.max_age_seconds) {
                return wrong("standby.max_age_seconds is from 3 to 86400: a heartbeat comes each second");
            }
            if !standby.name.is_within(&self.federation) {
                return wrong("standby.name is not within the federation");
            }
            if !standby.primary.starts_with("https://") {
                return wrong("standby.primary begins with https://");
            }
        }
        if let Some(problem) = self.limits.problem() {
            return wrong(&format!("limits: {problem}"));
        }
        let listeners = [&self.dns, &self.xot, &self.metrics].into_iter().flatten().map(|listener| &listener.listen);
        let tls = [
            self.doh.as_ref().map(|doh| &doh.listen),
            self.api.as_ref().map(|api| &api.listen),
            self.pki.as_ref().map(|pki| &pki.listen),
        ];
        if listeners.chain(tls.into_iter().flatten()).any(Vec::is_empty) {
            return wrong("a listener has no address: give one, as in listen = [\"[::]:443\"], or drop its section");
        }
        Ok(())
    }

    /// The chosen engine.
    pub fn engine(&self) -> Result<EngineKind, ConfigError> {
        self.store.engine.parse().map_err(|error| ConfigError::Value(format!("store.engine: {error}")))
    }

    /// The broker's own name.
    pub fn broker(&self) -> Result<DomainName, ConfigError> {
        match &self.broker_name {
            Some(name) => Ok(name.clone()),
            None => self.federation.child("broker").map_err(|error| ConfigError::Value(format!("federation {error}"))),
        }
    }

    /// All names.
    pub fn namespace(&self) -> Result<dnsbroker_federation::Namespace, ConfigError> {
        dnsbroker_federation::Namespace::new(self.federation.clone(), self.broker()?, &self.zones.labels)
            .map_err(|error| ConfigError::Value(dnsbroker_api::problem::chain(&error)))
    }

    /// A path of the configuration, from its directory.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }

    /// Whether the root key still lies where `init` put it.
    pub fn root_key_online(&self) -> bool {
        self.dir.join("root-key/root.key").exists()
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }
}

/// A day, in seconds.
const MAX_TTL: u32 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, PathBuf::from("/somewhere"))
    }

    fn reason(text: &str) -> String {
        parse(text).expect_err("is refused").to_string()
    }

    #[test]
    fn a_short_file_is_enough() {
        let config = parse("federation = \"fed.example\"\n[doh]\nlisten = [\"[::1]:8443\"]\n").expect("reads");
        assert_eq!(config.broker().expect("valid").to_string(), "broker.fed.example.");
        assert_eq!(config.engine().expect("valid"), EngineKind::Redb);
        assert_eq!(config.path(Path::new("data")), Path::new("/somewhere/data"));
        assert_eq!(config.zones.timing.ttl, 60);
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        assert!(reason("federation = \"f.ex\"\nlistne = 1\n").contains("listne"));
        assert!(
            reason("federation = \"f.ex\"\n[doh]\nlisten = [\"[::1]:1\"]\ncertificat = \"x\"\n").contains("certificat")
        );
        assert!(reason("federation = \"f.ex\"\n[zones.timing]\nttll = 1\n").contains("ttll"));
        assert!(reason("federation = \"f.ex\"\n[limits]\nconections = 1\n").contains("conections"));
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused_with_the_reason() {
        assert!(reason("federation = \"f.ex\"\n[store]\nengine = \"postgres://db\"\n").contains("PostgreSQL"));
        assert!(reason("federation = \"f.ex\"\nbroker_name = \"b.other\"\n").contains("not within"));
        assert!(reason("federation = \"f.ex\"\n[dns]\nlisten = []\n").contains("no address"));
        assert!(reason("federation = \"f.ex\"\n[zones.timing]\nttl = 100000\n").contains("86400"));
        assert!(reason("federation = \"f.ex\"\n[doh]\nlisten=[\"[::1]:1\"]\nkey=\"k\"\n").contains("go together"));
        assert!(reason("federation = \"f ex\"\n").contains("' '"));
    }
}
