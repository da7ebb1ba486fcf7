//! The stanzas that a network server needs to roam with all members of our federations: ChirpStack v4's TOML.
//!
//! ChirpStack takes a NetID's server from `[[roaming.servers]]`, and refuses a PRStartReq of a NetID that is not there, after
//! the device has spent its DevNonce: so every member has a stanza, on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dnsbroker_federation::{NetId, Zone};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::config::{Config, LnsConfig, Ts002Config};
use crate::files;
use crate::hook;
use crate::identity::facts;
use crate::server_certificate;
use crate::slot::SERVER;
use crate::upstream::federation::Federation;

/// The port of a network server of which the directory does not say one, as in ChirpStack's own examples.
const PORT: u16 = 8444;

/// Where we answer HomeNSReq.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The TS002 endpoint's URL.
    pub join_server: Option<String>,
    endpoint: Ts002Config,
    /// What the configuration says of the network server.
    pub config: LnsConfig,
    /// The directory that the configuration is in.
    pub dir: PathBuf,
}

impl Ends {
    /// Of a configuration.
    pub fn of(config: &Config) -> Self {
        let endpoint = config.ts002.clone();
        let mut ends = Self { join_server: None, endpoint, config: config.lns.clone(), dir: config.dir.clone() };
        ends.bound(&config.ts002.listen);
        ends
    }

    /// Takes the addresses that the endpoint listens on.
    pub fn bound(&mut self, addresses: &[SocketAddr]) {
        let scheme = if self.endpoint.certificate.is_some() { "https" } else { "http" };
        let url = |address: &SocketAddr| self.endpoint.url.clone().unwrap_or_else(|| format!("{scheme}://{address}"));
        self.join_server = addresses.first().map(url);
    }
}

/// ChirpStack v4's stanzas.
pub fn chirpstack(ends: &Ends, federations: &[Arc<Federation>]) -> String {
    let mut text = "# Written by dnsbroker-agent; what is changed here by hand is lost.\n".to_owned();
    text.push_str(
        "# ChirpStack reads each *.toml of its configuration directory; [roaming] may stand in one of them only.\n\n",
    );
    write_roaming(&mut text, ends, federations);
    if let Some(url) = &ends.join_server {
        text.push_str(
            "# Whose is a device that joins? Catches all JoinEUIs, so no other Join Server may stand behind it.\n",
        );
        text.push_str("[[join_server.servers]]\n  join_eui_prefix=\"0000000000000000/0\"\n");
        let _ = writeln!(text, "  server={}\n  async_interface=false", quoted(url));
        if let Some(ca) = &ends.endpoint.ca {
            let _ = writeln!(text, "  ca_cert={}", quoted_path(&ends.dir.join(ca)));
        }
        if let (Some(_), Some(first)) = (&ends.endpoint.client_ca, federations.first()) {
            let _ = writeln!(text, "  tls_cert={}", quoted_path(&first.home.file("client.pem")));
            let _ = writeln!(text, "  tls_key={}", quoted_path(&first.home.file("client.key")));
        }
        text.push('\n');
    }
    if let (Some(bind), Some(first)) = (ends.config.bind, federations.first()) {
        let server = Server::of(ends, first);
        let others = federations.iter().skip(1).map(|federation| {
            format!(
                "[backend_interfaces] shows the certificate of {} and lets its members in: those of {} do not reach it",
                first.name(),
                federation.name()
            )
        });
        for warning in server.warnings(first).into_iter().chain(others) {
            let _ = writeln!(text, "{WARNING}{warning}");
        }
        if server.there() {
            write_backend(&mut text, bind, first, &server);
        } else {
            // Without a certificate ChirpStack would not start, or answer everybody in the clear.
            text.push_str("# [backend_interfaces] comes with the certificate.\n");
        }
    }
    text
}

/// How lines of the text begin that are for people, too.
const WARNING: &str = "# warning: ";

fn write_backend(text: &mut String, bind: SocketAddr, first: &Federation, server: &Server) {
    text.push_str("# Where other members' network servers reach this one; they show certificates of the federation.\n");
    let _ = writeln!(text, "[backend_interfaces]\n  bind={}", quoted(&bind.to_string()));
    let _ = writeln!(text, "  ca_cert={}", quoted_path(&trust(first, None)));
    let _ = writeln!(text, "  tls_cert={}", quoted_path(&server.certificate));
    let _ = writeln!(text, "  tls_key={}", quoted_path(&server.key));
}

/// The network server's certificate, and whose it is.
struct Server {
    certificate: PathBuf,
    key: PathBuf,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Got from the federation.
    Federation,
    /// One's own.
    Own,
    /// Nobody's.
    None,
}

impl Server {
    fn of(ends: &Ends, first: &Federation) -> Self {
        if let (Some(certificate), Some(key)) = (&ends.config.server_certificate, &ends.config.server_key) {
            return Self { certificate: ends.dir.join(certificate), key: ends.dir.join(key), source: Source::Own };
        }
        let source = if ends.config.gets_certificate() { Source::Federation } else { Source::None };
        let dir = first.home.path();
        Self { certificate: SERVER.certificate_in(dir), key: SERVER.key_in(dir), source }
    }

    fn there(&self) -> bool {
        match self.source {
            Source::Own => true,
            Source::Federation => self.certificate.exists() && self.key.exists(),
            Source::None => false,
        }
    }

    /// Why other members' network servers would not talk to it.
    fn warnings(&self, first: &Federation) -> Vec<String> {
        let shown = self.certificate.display();
        match self.source {
            Source::None => {
                return vec![
                    "nobody can call this network server: it has no certificate; give lns.certificate = true, or \
                     lns.server_certificate and lns.server_key"
                        .to_owned(),
                ];
            }
            Source::Federation if !self.there() => {
                let why = server_certificate::names(first).err().map_or_else(String::new, |why| format!(" ({why})"));
                return vec![format!(
                    "nobody can call this network server yet: {shown} is not there{why}; `dnsbroker-agent run` gets it"
                )];
            }
            _ => {}
        }
        let facts = match facts(&self.certificate) {
            Ok(facts) => facts,
            Err(error) => return vec![dnsbroker_api::problem::chain(&error)],
        };
        let mut warnings = Vec::new();
        if !facts.server {
            let purpose = "is a client's alone (extended key usage)";
            warnings.push(format!("{shown} {purpose}: members refuse it (\"unsuitable certificate purpose\")"));
        }
        if now() > facts.life.1 {
            warnings.push(format!("{shown} has expired: members refuse it"));
        }
        let names = server_certificate::names(first).unwrap_or_default();
        let lacks: Vec<String> =
            names.iter().map(server_certificate::plain).filter(|name| !covers(&facts.names, name)).collect();
        if self.source == Source::Own && !lacks.is_empty() {
            warnings.push(format!("{shown} lacks the names that members call: {}", lacks.join(", ")));
        }
        warnings
    }
}

/// Whether a certificate is good for a name (RFC 9525, section 6.3: a wildcard is one label).
fn covers(names: &BTreeSet<String>, name: &str) -> bool {
    let wild = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
    names.contains(name) || wild.is_some_and(|wild| names.contains(&wild))
}

fn write_roaming(text: &mut String, ends: &Ends, federations: &[Arc<Federation>]) {
    text.push_str("[roaming]\n");
    if let Some(first) = federations.first() {
        let suffix = first.namespace().apex(Zone::NetId).to_string();
        let _ =
            writeln!(text, "  resolve_net_id_domain_suffix={}", quoted(&format!(".{}", suffix.trim_end_matches('.'))));
    }
    let mut written: BTreeMap<NetId, String> = BTreeMap::new();
    for federation in federations {
        let Some(directory) = federation.home.directory().ok().flatten() else {
            let _ = writeln!(text, "\n  # {}: its directory has not been fetched yet", federation.name());
            continue;
        };
        let own = federation.identity().map(|identity| identity.member.clone());
        for network in directory.networks.iter().filter(|network| Some(&network.member) != own.as_ref()) {
            if let Some(other) = written.get(&network.netid) {
                let _ =
                    writeln!(text, "\n  # {} of {}: see {other}, which stands first", network.netid, federation.name());
                continue;
            }
            written.insert(network.netid, federation.name());
            let host = network.target.as_ref().unwrap_or(&network.name).to_string();
            let port = network.port.or(ends.config.default_port).unwrap_or(PORT);
            let server = format!("https://{}:{port}", host.trim_end_matches('.'));
            let (netid, member, name) = (network.netid, &network.member, federation.name());
            let _ = writeln!(text, "\n  # {member} of {name}\n  [[roaming.servers]]\n    net_id=\"{netid}\"");
            text.push_str("    async_timeout=\"0s\"\n    passive_roaming_lifetime=\"0s\"\n");
            text.push_str("    passive_roaming_validate_mic=false\n");
            let _ = writeln!(text, "    server={}\n    use_target_role_suffix=false", quoted(&server));
            let _ = writeln!(text, "    ca_cert={}", quoted_path(&trust(federation, Some(netid))));
            let _ = writeln!(text, "    tls_cert={}", quoted_path(&federation.home.file("client.pem")));
            let _ = writeln!(text, "    tls_key={}", quoted_path(&federation.home.file("client.key")));
        }
    }
    text.push('\n');
}

/// What a NetID's server is trusted by: its own anchors where there are some, else the federation's CAs.
fn trust(federation: &Federation, netid: Option<NetId>) -> PathBuf {
    let anchors = federation.home.file("anchors");
    let own = netid.map(|netid| anchors.join(format!("{netid}.pem"))).filter(|path| path.exists());
    let all = anchors.join("federation.pem");
    own.unwrap_or_else(|| if all.exists() { all } else { federation.home.file("ca.pem") })
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// What is wrong with the network server's part, in words.
pub fn warnings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix(WARNING))
}

/// Writes the stanzas, if they differ from what is there; tells whether.
pub fn write(path: &Path, text: &str) -> Result<bool, files::FileError> {
    if std::fs::read(path).ok().as_deref() == Some(text.as_bytes()) {
        return Ok(false);
    }
    files::write_whole(path, text.as_bytes(), 0o644)?;
    Ok(true)
}

/// Writes a file anew whenever members have changed, until told to stop.
pub async fn follow(
    ends: Ends,
    file: PathBuf,
    federations: Vec<Arc<Federation>>,
    mut changed: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    loop {
        match write(&file, &chirpstack(&ends, &federations)) {
            Ok(true) => {
                tracing::info!(file = %file.display(), "the network server's configuration was written");
                let names: Vec<String> = federations.iter().map(|federation| federation.name()).collect();
                hook::run(&ends.config.hook, "lns-config", &names.join(" "), &ends.dir).await;
            }
            Ok(false) => {}
            Err(error) => {
                let error = dnsbroker_api::problem::chain(&error);
                tracing::error!(error, "the network server's configuration cannot be written");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            told = changed.changed() => if told.is_err() { return },
        }
    }
}
