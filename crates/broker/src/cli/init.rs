//! `init`: a federation in a directory.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use dnsbroker_ca::TokenKind;
use dnsbroker_federation::{DomainName, Zone};
use dnsbroker_store::act::{AddAdministrator, CreateApiToken};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_store::record::{Role, Scope, TokenOwner};
use dnsbroker_store::{Actor, Identity, OpenError, Store};
use dnsbroker_zone::zones::PublicZone;
use serde::Serialize;

use super::output::Output;
use crate::account::password;
use crate::committer::now;
use crate::config::Config;
use crate::daemon::{http_url, settings};
use crate::key::{new_token, write_secret, write_whole};
use crate::listen::has_ipv6;
use crate::pki::ceremony::{self, Plan};
use crate::pki::{new_passphrase, private_dir};

/// Ports of a broker in service.
const PORTS: Ports = Ports { dns: 53, doh: 443, api: 8443, metrics: 9153, xot: 853, pki: 80 };

#[derive(Args)]
pub(super) struct Init {
    /// Where it shall live; configuration, CA, store and control socket go there
    #[arg(long)]
    pub(super) dir: PathBuf,
    /// Name of the federation: the public zone, and the parent of the private ones
    #[arg(long)]
    pub(super) federation: DomainName,
    /// Name of the broker, within the federation [default: broker.<FEDERATION>]
    #[arg(long)]
    pub(super) broker_name: Option<DomainName>,
    /// Where data are kept: redb, or sled for trials
    #[arg(long, default_value = "redb")]
    pub(super) store: EngineKind,
    /// Labels of the private zones, as in --labels deveui,netid for those of the IoTRoam tutorial
    #[arg(long, value_name = "DEVEUIS,NETIDS", default_value = "deveuis,netids", value_parser = labels)]
    pub(super) labels: (String, String),
    /// Address to listen on; may be given several times [default: 0.0.0.0 and, where there is IPv6, ::; with --port-base 127.0.0.1]
    #[arg(long)]
    pub(super) listen: Vec<IpAddr>,
    /// Address under which members reach the broker; may be given several times
    #[arg(long)]
    pub(super) address: Vec<IpAddr>,
    /// Ports N dns, N+1 doh, N+2 api, N+3 metrics, N+4 xot, N+5 pki instead of 53, 443, 8443, 9153, 853, 80; 0 takes any
    /// free ones
    #[arg(long, value_name = "N")]
    pub(super) port_base: Option<u16>,
    /// URL below which everybody reaches lists of revoked certificates and OCSP, over plain HTTP; it stands in each certificate
    /// [default: the broker's name and the port]
    #[arg(long, value_name = "URL")]
    pub(super) pki_url: Option<String>,
    /// Give network servers an issuing CA of their own, constrained to names of NetIDs; members' own names cannot be approved then
    #[arg(long)]
    pub(super) lns_ca: bool,
}

fn labels(text: &str) -> Result<(String, String), String> {
    let (deveui, netid) = text.split_once(',').ok_or("write two labels with a comma between them")?;
    Ok((deveui.trim().to_owned(), netid.trim().to_owned()))
}

#[derive(Clone, Copy)]
struct Ports {
    dns: u16,
    doh: u16,
    api: u16,
    metrics: u16,
    xot: u16,
    pki: u16,
}

impl Ports {
    fn from_base(base: u16) -> anyhow::Result<Self> {
        let port = |offset: u16| match base {
            0 => Ok(0),
            _ => base.checked_add(offset).with_context(|| format!("--port-base {base} leaves no room for all ports")),
        };
        Ok(Self { dns: port(0)?, doh: port(1)?, api: port(2)?, metrics: port(3)?, xot: port(4)?, pki: port(5)? })
    }
}

/// What was made.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    federation: DomainName,
    pub(super) config: PathBuf,
    ca_file: PathBuf,
    root_key: PathBuf,
    control_socket: PathBuf,
    ui_url: String,
    pub(super) administrator: String,
    pub(super) password_file: PathBuf,
    pub(super) token_file: PathBuf,
}

impl Init {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let unreachable = self.address.is_empty() && self.listen.iter().all(IpAddr::is_unspecified);
        let hint = unreachable && self.port_base.is_none();
        let nowhere = self.port_base == Some(0) && self.pki_url.is_none();
        let made = self.make()?;
        output.print(&made, |made| {
            format!(
                "federation {} is in {}\n\n\
                 1. Move the root key to a place that is not online: {}\n\
                 2. Look at the configuration: {}\n\
                 3. Serve it: dnsbroker serve --config {}\n\
                 4. Open {} in a browser, log in as {} with the password in {}, change it, and delete the file\n",
                made.federation,
                made.config.parent().unwrap_or(Path::new(".")).display(),
                made.root_key.display(),
                made.config.display(),
                made.config.display(),
                made.ui_url,
                made.administrator,
                made.password_file.display(),
            )
        });
        if nowhere {
            output.note(
                "warning: with --port-base 0 nobody knows yet where the CA will publish, so the issuing CA's certificate does not \
                 say where the root's list is, and others will name the port that the daemon gets: give --pki-url, or set \
                 pki.url before the first certificate is issued and then `dnsbroker ca rotate --renew`",
            );
        }
        if hint {
            output.note("note: no --address was given, so the broker's name has no address yet: set `addresses` in the configuration");
        }
        Ok(())
    }

    /// Makes it, without a word.
    pub(super) fn make(self) -> anyhow::Result<Made> {
        let dir = std::path::absolute(&self.dir).with_context(|| format!("{} is no path", self.dir.display()))?;
        let file = dir.join("dnsbroker.toml");
        if file.exists() {
            bail!("{} is there already: it is left as it is; choose another --dir", file.display());
        }
        let text = self.configuration()?;
        let config = Config::parse(&text, dir.clone())?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        let passphrase = new_passphrase()?;
        private_dir(&dir.join("secrets"))?;
        write_secret(&dir.join("secrets/ca-passphrase"), passphrase.as_bytes())?;
        let root_key = dir.join("root-key");
        let secret = passphrase.trim_end().as_bytes();
        let base = config.pki.as_ref().and_then(|pki| pki.url.as_deref());
        let names = config.namespace()?;
        let lns = self.lns_ca.then(|| names.apex(Zone::NetId));
        let plan = Plan { federation: &self.federation, lns, passphrase: secret, base };
        ceremony::create(&dir.join("ca"), &root_key, &plan, now()).context("cannot make the CA")?;
        let data = dir.join("data");
        private_dir(&data)?;
        let engine = self.store.open(&data)?;
        let left = data.display();
        let identity = Identity { federation: config.federation.clone(), labels: config.zones.labels.clone() };
        let store = Store::create(engine, identity, settings(&config, PublicZone::default())?);
        if let Err(OpenError::Exists) = &store {
            bail!(
                "there is a store in {left} already, and no configuration that goes with it: if an earlier `init` was cut off, \
                 remove it and say `init` again"
            );
        }
        first_administrator(store.context("cannot make the store")?, &dir.join("secrets"))?;
        // Last, so that a directory with a configuration is a whole one.
        write_whole(&file, text.as_bytes(), 0o640)?;
        Ok(Made {
            federation: self.federation,
            config: file,
            ca_file: dir.join("ca/root.pem"),
            root_key,
            control_socket: dir.join("control.sock"),
            ui_url: ui_url(&config)?,
            administrator: ADMINISTRATOR.to_owned(),
            password_file: dir.join("secrets").join(PASSWORD_FILE),
            token_file: dir.join("secrets").join(TOKEN_FILE),
        })
    }

    fn configuration(&self) -> anyhow::Result<String> {
        let (ports, default) = match self.port_base {
            Some(base) => (Ports::from_base(base)?, vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
            None if has_ipv6() => (PORTS, vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
            None => (PORTS, vec![Ipv4Addr::UNSPECIFIED.into()]),
        };
        let addresses = if self.listen.is_empty() { default } else { self.listen.clone() };
        let listen = |port| {
            let sockets: Vec<String> =
                addresses.iter().map(|ip| format!("{:?}", SocketAddr::new(*ip, port).to_string())).collect();
            format!("listen = [{}]", sockets.join(", "))
        };
        let mut text = String::new();
        writeln!(text, "# dnsbroker: the broker of one federation. Paths are relative to this file.")?;
        writeln!(text, "# `dnsbroker config check --config FILE` says what a change would do.\n")?;
        writeln!(text, "federation = \"{}\"", self.federation.dotless())?;
        match &self.broker_name {
            Some(name) => writeln!(text, "broker_name = \"{}\"", name.dotless())?,
            None => writeln!(text, "# broker_name = \"broker.{}\"", self.federation.dotless())?,
        }
        let published: Vec<String> = self.address.iter().map(|address| format!("\"{address}\"")).collect();
        writeln!(text, "# Addresses under which members reach the broker; published in the public zone.")?;
        writeln!(text, "addresses = [{}]\n", published.join(", "))?;
        let (deveui, netid) = &self.labels;
        writeln!(text, "[zones]\nlabels = {{ deveui = \"{deveui}\", netid = \"{netid}\" }}")?;
        writeln!(text, "# timing = {{ ttl = 60, negative_ttl = 60 }}  # seconds\n")?;
        writeln!(text, "[store]\nengine = \"{}\"\ndir = \"data\"\n", self.store)?;
        writeln!(text, "# The broker's own names, for everybody, on UDP and TCP.\n[dns]\n{}\n", listen(ports.dns))?;
        writeln!(text, "# Devices, for members, over HTTPS with their certificates.\n[doh]\n{}", listen(ports.doh))?;
        writeln!(text, "# A certificate of your own instead of one of the federation's CA:")?;
        writeln!(text, "# certificate = \"fullchain.pem\"\n# key = \"privkey.pem\"\n")?;
        writeln!(text, "# Zone transfers and updates, for members and replicas, over TLS (RFC 9103).")?;
        writeln!(text, "[xot]\n{}\n", listen(ports.xot))?;
        writeln!(text, "# Enrolment and REST, over HTTPS.\n[api]\n{}\n", listen(ports.api))?;
        writeln!(
            text,
            "# Revocation lists, OCSP and CA certificates, for everybody, over plain HTTP (RFC 5280 wants no TLS there)."
        )?;
        writeln!(text, "[pki]\n{}", listen(ports.pki))?;
        let broker = match &self.broker_name {
            Some(name) => name.clone(),
            None => self.federation.child("broker").context("the federation's name is too long for its broker's")?,
        };
        match (&self.pki_url, ports.pki) {
            (Some(url), _) => writeln!(text, "url = {url:?}  # it stands in each certificate\n")?,
            (None, 0) => writeln!(text, "# url = \"http://{}\"  # it stands in each certificate\n", broker.dotless())?,
            (None, port) => writeln!(text, "url = \"{}\"  # it stands in each certificate\n", http_url(&broker, port))?,
        }
        let metrics = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ports.metrics);
        writeln!(text, "# /metrics, /health and /ready, over plain HTTP: keep it on loopback.")?;
        writeln!(text, "[metrics]\nlisten = [\"{metrics}\"]\n")?;
        writeln!(
            text,
            "[ca]\ndir = \"ca\"\n# Without this line: the variable DNSBROKER_CA_PASSPHRASE, or the systemd"
        )?;
        writeln!(text, "# credential ca-passphrase.\npassphrase_file = \"secrets/ca-passphrase\"\n")?;
        writeln!(text, "[log]\nlevel = \"info\"\nformat = \"text\"")?;
        Ok(text)
    }
}

/// Where the UI will be.
fn ui_url(config: &Config) -> anyhow::Result<String> {
    let broker = match &config.broker_name {
        Some(name) => name.clone(),
        None => config.federation.child("broker").context("the federation's name is too long for its broker's")?,
    };
    let port = config.api.as_ref().and_then(|api| api.listen.first()).map_or(0, SocketAddr::port);
    let host = broker.dotless();
    Ok(match port {
        0 => format!("https://{host}{} (with the port that `dnsbroker status` tells)", crate::ui::PATH),
        443 => format!("https://{host}{}", crate::ui::PATH),
        port => format!("https://{host}:{port}{}", crate::ui::PATH),
    })
}

/// The first administrator's name.
pub(super) const ADMINISTRATOR: &str = "admin";
/// The file with its password, in the directory of secrets.
const PASSWORD_FILE: &str = "admin-password";
/// The file with an API token for programs on this machine.
const TOKEN_FILE: &str = "admin-token";

/// Makes the first administrator, with a password that nobody else has, and an API token for programs.
fn first_administrator(mut store: Store, secrets: &Path) -> anyhow::Result<()> {
    let password = password::random()?;
    let hash = password::hash_now(password.as_bytes()).context("the password cannot be hashed")?;
    write_secret(&secrets.join(PASSWORD_FILE), format!("{}\n", *password).as_bytes())?;
    let token = new_token(TokenKind::Api)?;
    write_secret(&secrets.join(TOKEN_FILE), format!("{}\n", *token.reveal()).as_bytes())?;
    let actor = Actor::Local(rustix::process::getuid().as_raw());
    let name = ADMINISTRATOR.to_owned();
    let mut transaction = store.begin(now())?;
    let add = AddAdministrator { name: name.clone(), role: Role::Admin, password: hash, totp: None };
    transaction.run(&actor, add).context("cannot make the first administrator")?;
    let create = CreateApiToken {
        hash: token.hash(),
        name: format!("made by init, in {TOKEN_FILE}"),
        owner: TokenOwner::Administrator(name),
        scopes: [Scope::Admin].into(),
        expires: None,
    };
    transaction.run(&actor, create).context("cannot make the first API token")?;
    let finished = transaction.finish();
    store.commit(finished)?;
    Ok(())
}
