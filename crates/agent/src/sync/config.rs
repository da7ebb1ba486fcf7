//! How devices get from a member's own systems to the federation: one entry a NetID.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dnsbroker_federation::{DomainName, NetId};
use serde::Deserialize;

/// Where devices come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// ChirpStack v4's own database: PostgreSQL or SQLite.
    #[serde(rename = "chirpstack-v4")]
    ChirpstackV4,
    /// ChirpStack v3's network server database: PostgreSQL.
    #[serde(rename = "chirpstack-v3")]
    ChirpstackV3,
    /// ChirpStack v4's REST API.
    ChirpstackRest,
    /// The Things Stack's HTTP API.
    ThingsStack,
    /// A file in any of the formats that are read.
    File,
    /// All files of a directory.
    Directory,
    /// A zone whose names are DevEUIs, by AXFR.
    Zone,
    /// What a command prints.
    Command,
}

impl Kind {
    /// As it is written.
    pub fn label(self) -> &'static str {
        match self {
            Self::ChirpstackV4 => "chirpstack-v4",
            Self::ChirpstackV3 => "chirpstack-v3",
            Self::ChirpstackRest => "chirpstack-rest",
            Self::ThingsStack => "things-stack",
            Self::File => "file",
            Self::Directory => "directory",
            Self::Zone => "zone",
            Self::Command => "command",
        }
    }
}

/// One entry. Which keys it may have depends on the source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncConfig {
    /// The NetID whose devices these are.
    pub netid: NetId,
    /// Where they come from.
    pub source: Kind,
    /// Seconds between looks.
    #[serde(default = "interval")]
    pub interval: u64,
    /// Seconds after which the whole list is sent again, so that no difference stays unseen.
    #[serde(default = "full_interval")]
    pub full_interval: u64,
    /// Whether changes are waited for too: NOTIFY of PostgreSQL, the time of files.
    #[serde(default = "yes")]
    pub watch: bool,
    /// PostgreSQL: `postgres://user@host/database` or `host=/var/run/postgresql dbname=chirpstack`.
    #[serde(default)]
    pub postgres: Option<String>,
    /// PostgreSQL: a file with the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// SQLite: the database's file.
    #[serde(default)]
    pub sqlite: Option<PathBuf>,
    /// The base URL of an API.
    #[serde(default)]
    pub url: Option<String>,
    /// A file with the API's key or token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// CAs that the API's or database's certificate chains to; those of the system where it is absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Tenants whose devices are meant; all where it is empty.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// Applications whose devices are meant; all where it is empty.
    #[serde(default)]
    pub applications: Vec<String>,
    /// Only devices whose profile allows roaming.
    #[serde(default = "yes")]
    pub roaming_only: bool,
    /// Only devices that are not disabled. ChirpStack's REST API has to be asked for each device, so there it is off
    /// unless it is set.
    #[serde(default)]
    pub enabled_only: Option<bool>,
    /// Only devices that join (OTAA).
    #[serde(default = "yes")]
    pub otaa_only: bool,
    /// A file or directory.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// `plain`, `csv`, `json`, `ndjson`; told from the content where it is absent.
    #[serde(default)]
    pub format: Option<String>,
    /// A program and its arguments; no shell.
    #[serde(default)]
    pub command: Vec<String>,
    /// The zone that names the devices.
    #[serde(default)]
    pub zone: Option<DomainName>,
    /// Who has it.
    #[serde(default)]
    pub primary: Option<SocketAddr>,
    /// The name of a TSIG key.
    #[serde(default)]
    pub tsig_name: Option<DomainName>,
    /// Its algorithm.
    #[serde(default)]
    pub tsig_algorithm: Option<String>,
    /// A file with its secret, base64.
    #[serde(default)]
    pub tsig_secret_file: Option<PathBuf>,
}

fn interval() -> u64 {
    60
}

fn full_interval() -> u64 {
    86_400
}

fn yes() -> bool {
    true
}

impl SyncConfig {
    /// Seconds between looks.
    pub fn every(&self) -> Duration {
        Duration::from_secs(self.interval)
    }

    /// Whether everything that the source needs is there, and nothing that it does not know.
    pub fn check(&self) -> Result<(), String> {
        let label = self.source.label();
        let given = [
            ("postgres", self.postgres.is_some()),
            ("password_file", self.password_file.is_some()),
            ("sqlite", self.sqlite.is_some()),
            ("url", self.url.is_some()),
            ("token_file", self.token_file.is_some()),
            ("ca", self.ca.is_some()),
            ("tenants", !self.tenants.is_empty()),
            ("applications", !self.applications.is_empty()),
            ("path", self.path.is_some()),
            ("format", self.format.is_some()),
            ("command", !self.command.is_empty()),
            ("zone", self.zone.is_some()),
            ("primary", self.primary.is_some()),
            ("tsig_name", self.tsig_name.is_some()),
            ("tsig_algorithm", self.tsig_algorithm.is_some()),
            ("tsig_secret_file", self.tsig_secret_file.is_some()),
        ];
        let (needed, known): (&[&str], &[&str]) = match self.source {
            Kind::ChirpstackV4 => (&[], &["postgres", "password_file", "sqlite", "ca", "tenants", "applications"]),
            Kind::ChirpstackV3 => (&["postgres"], &["password_file", "ca"]),
            Kind::ChirpstackRest => (&["url", "token_file"], &["ca", "tenants", "applications"]),
            Kind::ThingsStack => (&["url", "token_file"], &["ca", "applications"]),
            Kind::File | Kind::Directory => (&["path"], &["format"]),
            Kind::Zone => (&["zone", "primary"], &["tsig_name", "tsig_algorithm", "tsig_secret_file"]),
            Kind::Command => (&["command"], &["format"]),
        };
        for (name, given) in given {
            if needed.contains(&name) && !given {
                return Err(format!("sync of {}: source {label} needs {name}", self.netid));
            }
            if given && !needed.contains(&name) && !known.contains(&name) {
                return Err(format!("sync of {}: source {label} does not know {name}", self.netid));
            }
        }
        if self.source == Kind::ChirpstackV4 && self.postgres.is_some() == self.sqlite.is_some() {
            return Err(format!("sync of {}: source {label} needs either postgres or sqlite", self.netid));
        }
        if self.tsig_name.is_some() != self.tsig_secret_file.is_some() {
            return Err(format!("sync of {}: tsig_name and tsig_secret_file go together", self.netid));
        }
        if self.interval == 0 || self.full_interval < self.interval {
            return Err(format!("sync of {}: interval is at least 1, and full_interval not shorter", self.netid));
        }
        self.format.as_ref().map_or(Ok(()), |format| {
            let read: Result<dnsbroker_api::listing::Format, _> = format.parse();
            read.map(drop).map_err(|error| format!("sync of {}: format {format:?} {error}", self.netid))
        })
    }
}
