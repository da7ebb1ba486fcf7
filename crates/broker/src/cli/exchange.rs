//! `key`, `replica` and `source`: zone transfers and updates.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use dnsbroker_api::client::{Client, ClientError};
use dnsbroker_api::exchange::{Fetched, Key, NewKey, Replica, SetReplica, SetSource, Source};
use dnsbroker_api::listed::{ListKeys, ListReplicas, ListSources, SortKeys, SortReplicas, SortSources};
use dnsbroker_api::standby::StandbyAt;
use dnsbroker_federation::{DomainName, MemberId, NetId};
use zeroize::Zeroizing;

use super::output::table;
use super::sorted::Sorted;
use super::zone::Names;
use super::{Context, all};

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Make a TSIG key (RFC 8945); its secret is shown once and kept encrypted
    Create(CreateKey),
    /// List keys; never their secrets
    List(Sorted<SortKeys>),
    /// Make a key worthless, at once
    Revoke {
        /// Its name
        name: DomainName,
    },
}

#[derive(Args)]
pub(super) struct CreateKey {
    /// Its name: a domain name, under which both sides know it
    name: DomainName,
    #[command(flatten)]
    holder: Holder,
    /// What it allows: to fetch the zones, to update the member's own devices, to fetch from the member's primary
    #[arg(long, value_enum, required = true, value_delimiter = ',')]
    allow: Vec<Allow>,
    /// hmac-sha256, hmac-sha384 or hmac-sha512
    #[arg(long, default_value = "hmac-sha256")]
    algorithm: String,
    /// A file with the base64 secret that the other side has already; without it a new one is made
    #[arg(long)]
    secret_file: Option<PathBuf>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Holder {
    /// The member whose it is
    #[arg(long)]
    member: Option<MemberId>,
    /// The replica whose it is
    #[arg(long)]
    replica: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Allow {
    /// SOA, AXFR and IXFR of the private zones, as the replica may
    Transfer,
    /// RFC 2136 of the member's own devices
    Update,
    /// The broker's own requests to the member's primary
    Source,
}

impl KeyCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Create(CreateKey { name, holder, allow, algorithm, secret_file }) => {
                let allows = allow.iter().map(|allow| allow.text().to_owned()).collect();
                let secret = secret_file.as_deref().map(read_secret).transpose()?;
                let Holder { member, replica } = holder;
                let key = NewKey { name, member, replica, allows, algorithm, secret };
                let key: Key = client.key_create(&key).await?;
                output.print(&key, key_text);
            }
            Self::List(sorted) => {
                let query = sorted.of(ListKeys::default());
                let keys = all(async |query| client.key_list(query).await, query).await?;
                output.print(&keys, |keys| key_table(&keys.items));
            }
            Self::Revoke { name } => {
                client.key_revoke(&name).await?;
                output.print(&serde_json::json!({ "revoked": name }), |_| format!("TSIG key {name} is revoked\n"));
            }
        }
        Ok(())
    }
}

impl Allow {
    fn text(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Update => "update",
            Self::Source => "source",
        }
    }
}

fn read_secret(file: &Path) -> anyhow::Result<String> {
    let octets = crate::key::read_secret(file)?;
    let text = std::str::from_utf8(&octets).with_context(|| format!("{} is no text", file.display()))?;
    Ok(text.trim().to_owned())
}

/// In the form that BIND, NSD and dig read; Knot's differs little.
fn key_text(key: &Key) -> String {
    let (name, algorithm) = (key.name.dotless(), &key.algorithm);
    let secret = Zeroizing::new(key.secret.clone().unwrap_or_default());
    format!(
        "key \"{name}\" {{\n    algorithm {algorithm};\n    secret \"{}\";\n}};\n\
         # The secret is not shown again. For dig and nsupdate: -y {algorithm}:{name}:SECRET\n",
        *secret
    )
}

fn key_table(keys: &[Key]) -> String {
    let row = |key: &Key| {
        let created = key.created.to_string();
        vec![key.name.to_string(), key.holder.clone(), key.allows.join(","), key.algorithm.clone(), created]
    };
    table(&["KEY", "HOLDER", "ALLOWS", "ALGORITHM", "CREATED"], &keys.iter().map(row).collect::<Vec<_>>())
}

#[derive(Subcommand)]
pub(super) enum ReplicaCommand {
    /// Allow a server a copy of the private zones, or change what it may
    Add(AddReplica),
    /// List replicas
    List(Sorted<SortReplicas>),
    /// Show one replica
    Show {
        /// Its id
        id: MemberId,
    },
    /// Take a replica's rights away, with its certificates and keys
    Remove {
        /// Its id
        id: MemberId,
    },
}

#[derive(Args)]
pub(super) struct AddReplica {
    /// Its id: lower-case letters, digits and hyphens, as it will stand in its certificate
    id: MemberId,
    /// The member whose own certificate and keys may fetch as this replica
    #[arg(long)]
    holder: Option<MemberId>,
    #[command(flatten)]
    extent: Extent,
    /// How devices are named in what it gets
    #[arg(long, value_enum, default_value_t = Names::Nibble)]
    names: Names,
    /// Where it is told of changes (NOTIFY); may be given several times
    #[arg(long, value_parser = address)]
    notify: Vec<SocketAddr>,
    /// The TSIG key with which it is told
    #[arg(long)]
    notify_key: Option<DomainName>,
    /// Let it fetch over plain TCP with a TSIG key: that signs the zones and does not hide them
    #[arg(long)]
    allow_clear_text: bool,
    /// It is a standby broker of this name, which follows this one and may take its place
    #[arg(long, value_name = "NAME", requires = "all")]
    standby: Option<DomainName>,
    /// Address under which members reach the standby; may be given several times
    #[arg(long, value_name = "ADDRESS", requires = "standby")]
    standby_address: Vec<std::net::IpAddr>,
    /// The standby's port of DNS over HTTPS
    #[arg(long, value_name = "PORT", requires = "standby", default_value_t = 443)]
    standby_port: u16,
    /// The standby's port of the API, where members call once it has taken the primary's place
    #[arg(long, value_name = "PORT", requires = "standby", default_value_t = 8443)]
    standby_api_port: u16,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Extent {
    /// Everybody's devices and NetIDs
    #[arg(long)]
    all: bool,
    /// One member's devices and NetIDs
    #[arg(long, value_name = "MEMBER")]
    only: Option<MemberId>,
}

/// An address with a port, or without one that of DNS.
fn address(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| SocketAddr::new(ip, 53)));
    with_port.map_err(|_| "write an address, or address and port as in 192.0.2.1:5353 or [2001:db8::1]:5353".to_owned())
}

impl ReplicaCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add(AddReplica {
                id,
                holder,
                extent,
                names,
                notify,
                notify_key,
                allow_clear_text,
                standby,
                standby_address,
                standby_port,
                standby_api_port,
            }) => {
                let names = names.text().to_owned();
                let standby = standby.map(|name| StandbyAt {
                    name,
                    addresses: standby_address,
                    port: standby_port,
                    api_port: Some(standby_api_port),
                });
                let only = extent.only;
                let body =
                    SetReplica { holder, only, names, notify, notify_key, clear_text: allow_clear_text, standby };
                let replica: Replica = client.replica_set(&id, &body).await?;
                output.print(&replica, |replica| {
                    let id = &replica.id;
                    format!(
                        "replica {id} is set; it needs a certificate (cert issue --replica {id}) or a TSIG key \
                         (key create NAME --replica {id} --allow transfer)\n"
                    )
                });
            }
            Self::List(sorted) => {
                let query = sorted.of(ListReplicas::default());
                let replicas = all(async |query| client.replica_list(query).await, query).await?;
                output.print(&replicas, |replicas| replica_table(&replicas.items));
            }
            Self::Show { id } => {
                let replica: Replica = client.replica_show(&id).await?;
                output.print(&replica, replica_text);
            }
            Self::Remove { id } => {
                client.replica_remove(&id).await?;
                output.print(&serde_json::json!({ "removed": id }), |_| format!("replica {id} removed\n"));
            }
        }
        Ok(())
    }
}

fn replica_text(replica: &Replica) -> String {
    let mut text = replica_table(std::slice::from_ref(replica));
    for Fetched { zone, serial, kind, at } in &replica.fetched {
        text.push_str(&format!("{zone}: serial {serial}, {}, {at}\n", kind.to_uppercase()));
    }
    match &replica.settings.standby {
        Some(_) => {
            text.push_str("it is a standby and follows the audit, not by zone transfers: see `standby status`\n")
        }
        None if replica.fetched.is_empty() => text.push_str("it has fetched nothing since the broker started\n"),
        None => {}
    }
    text
}

fn replica_table(replicas: &[Replica]) -> String {
    let row = |replica: &Replica| {
        let settings = &replica.settings;
        // Of two zones the one that is behind.
        let last = replica.fetched.iter().min_by_key(|fetched| fetched.at);
        let notify: Vec<String> = settings.notify.iter().map(ToString::to_string).collect();
        vec![
            replica.id.clone(),
            settings.holder.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            settings.only.as_ref().map_or_else(|| "all".to_owned(), ToString::to_string),
            settings.names.clone(),
            if settings.clear_text { "TLS, TCP with TSIG" } else { "TLS" }.to_owned(),
            if notify.is_empty() { "-".to_owned() } else { notify.join(",") },
            last.map_or_else(|| "-".to_owned(), |last| last.serial.to_string()),
            last.map_or_else(|| "not since the start".to_owned(), |last| last.at.to_string()),
        ]
    };
    let heads = ["REPLICA", "HOLDER", "DEVICES OF", "NAMES", "OVER", "NOTIFY", "SERIAL", "FETCHED"];
    table(&heads, &replicas.iter().map(row).collect::<Vec<_>>())
}

#[derive(Subcommand)]
pub(super) enum SourceCommand {
    /// Fill a NetID from a zone on the member's own primary, or change where that is
    Add(AddSource),
    /// List sources
    List(Sorted<SortSources>),
    /// Show one source: state, serials, counts, the last error
    Show {
        /// The NetID it fills
        netid: NetId,
    },
    /// Ask the primary now
    Refresh {
        /// The NetID it fills
        netid: NetId,
    },
    /// Say yes to a transfer that is held back because it would drop most devices
    Accept {
        /// The NetID it fills
        netid: NetId,
    },
    /// Let go of the primary; the devices stay as they are
    Remove {
        /// The NetID it fills
        netid: NetId,
    },
}

#[derive(Args)]
pub(super) struct AddSource {
    /// The NetID that its devices resolve to
    netid: NetId,
    /// Who holds that
    #[arg(long)]
    member: MemberId,
    /// Where the primary answers: an address, or address and port
    #[arg(long, value_parser = address)]
    primary: SocketAddr,
    /// The zone whose names are the devices
    #[arg(long)]
    zone: DomainName,
    /// The TSIG key of both sides (key create --allow source)
    #[arg(long)]
    key: Option<DomainName>,
    /// The name in the primary's certificate: fetch over TLS (RFC 9103), with the broker's certificate
    #[arg(long)]
    tls_name: Option<DomainName>,
    /// A file with the CAs of the primary's certificate; without it the federation's CA
    #[arg(long, requires = "tls_name")]
    tls_ca: Option<PathBuf>,
    /// sha256: and 64 hexadecimal digits of the primary's public key, instead of name and CA
    #[arg(long, conflicts_with_all = ["tls_name", "tls_ca"])]
    tls_pin: Option<String>,
    /// What becomes of the devices when the primary is silent for as long as its SOA says
    #[arg(long, value_enum, default_value_t = OnExpiry::Keep)]
    on_expiry: OnExpiry,
}

#[derive(Clone, Copy, ValueEnum)]
enum OnExpiry {
    /// They are served on
    Keep,
    /// They are taken out
    Withdraw,
}

impl SourceCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add(AddSource { netid, member, primary, zone, key, tls_name, tls_ca, tls_pin, on_expiry }) => {
                let read = |file: PathBuf| {
                    std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
                };
                let tls_ca = tls_ca.map(read).transpose()?;
                let on_expiry = match on_expiry {
                    OnExpiry::Keep => "keep",
                    OnExpiry::Withdraw => "withdraw",
                };
                let on_expiry = on_expiry.to_owned();
                let body = SetSource { member, primary, zone, key, tls_name, tls_ca, tls_pin, on_expiry };
                let source: Source = client.source_set(&netid, &body).await?;
                let notify = if output.is_json() { String::new() } else { notify_text(client, &source).await? };
                output.print(&source, |source| {
                    let netid = source.netid;
                    format!(
                        "NetID {netid} is filled from {}: see `source show {netid}`\n{notify}",
                        source.settings.zone
                    )
                });
            }
            Self::List(sorted) => {
                let query = sorted.of(ListSources::default());
                let sources = all(async |query| client.source_list(query).await, query).await?;
                output.print(&sources, |sources| source_table(&sources.items));
            }
            Self::Show { netid } => {
                let source: Source = client.source_show(&netid).await?;
                let notify = if output.is_json() { String::new() } else { notify_text(client, &source).await? };
                output.print(&source, |source| source_text(source) + &notify);
            }
            Self::Refresh { netid } => {
                let source: Source = client.source_refresh(&netid).await?;
                output.print(&source, |source| format!("{} is asked\n", source.settings.primary));
            }
            Self::Accept { netid } => {
                let source: Source = client.source_accept(&netid).await?;
                output.print(&source, |_| format!("the transfer of NetID {netid} is fetched again and taken\n"));
            }
            Self::Remove { netid } => {
                client.source_remove(&netid).await?;
                output.print(&serde_json::json!({ "removed": netid }), |_| {
                    format!("NetID {netid} has no source any more; its devices stay\n")
                });
            }
        }
        Ok(())
    }
}

fn source_table(sources: &[Source]) -> String {
    let row = |source: &Source| {
        vec![
            source.netid.to_string(),
            source.settings.member.to_string(),
            source.settings.zone.to_string(),
            source.settings.primary.to_string(),
            source.state.clone(),
            source.last.as_ref().map_or_else(|| "-".to_owned(), |last| last.serial.to_string()),
            source.devices.to_string(),
        ]
    };
    let heads = ["NETID", "MEMBER", "ZONE", "PRIMARY", "STATE", "SERIAL", "DEVICES"];
    table(&heads, &sources.iter().map(row).collect::<Vec<_>>())
}

/// What the primary's own configuration needs so that changes come at once: in BIND's words, the most usual.
async fn notify_text(client: &Client, source: &Source) -> Result<String, ClientError> {
    let listeners = client.status().await?.listeners;
    let Some(at) = listeners.dns.first() else { return Ok(String::new()) };
    let primary = source.settings.primary.ip();
    let address = match at.ip() {
        any if any.is_unspecified() => {
            let brokers = client.directory().await?.brokers;
            let own = brokers.into_iter().next().map(|broker| broker.addresses).unwrap_or_default();
            let reached = own.into_iter().find(|own| own.is_ipv4() == primary.is_ipv4());
            reached.map_or_else(|| "ADDRESS-OF-THE-BROKER".to_owned(), |own| own.to_string())
        }
        one => one.to_string(),
    };
    let key = source.settings.key.as_ref().map(|key| format!(" key {:?}", key.dotless()));
    Ok(format!(
        "BIND tells of changes with this in its zone:\n    also-notify {{ {address} port {}{}; }};\nfrom the address {}; \
         without it the primary is asked as often as its SOA says\n",
        at.port(),
        key.unwrap_or_default(),
        primary,
    ))
}

fn source_text(source: &Source) -> String {
    let time = |time: &Option<dnsbroker_api::Timestamp>| time.as_ref().map_or("never".to_owned(), ToString::to_string);
    let settings = &source.settings;
    let tls = match (&settings.tls_name, &settings.tls_pin) {
        (Some(name), _) => format!("TLS, certificate of {name}"),
        (None, Some(pin)) => format!("TLS, key {pin}"),
        (None, None) => "TCP".to_owned(),
    };
    let key = settings.key.as_ref().map_or_else(|| "no TSIG".to_owned(), |key| format!("TSIG key {key}"));
    let mut text = format!(
        "NetID       {} of {}\nzone        {} on {}, {tls}, {key}\nstate       {}\ndevices     {}\n\
         serial      {} here, {} there\nasked       {}\nanswered    {}\nnext        {}\n",
        source.netid,
        settings.member,
        settings.zone,
        settings.primary,
        source.state,
        source.devices,
        source.last.as_ref().map_or_else(|| "none".to_owned(), |last| last.serial.to_string()),
        source.theirs.map_or_else(|| "unknown".to_owned(), |serial| serial.to_string()),
        time(&source.looked),
        time(&source.succeeded),
        time(&source.next),
    );
    let mut line = |name: &str, what: &str| text.push_str(&format!("{name:<11} {what}\n"));
    if let Some(error) = &source.error {
        line("error", &format!("{error} ({} times)", source.failures));
    }
    if let Some(held) = &source.held {
        line("held", held);
    }
    if let Some(last) = &source.last {
        line("transfer", &format!("{} with {} records, {}", last.kind.to_uppercase(), last.records, last.at));
        let shown = |names: Vec<String>| names.into_iter().take(5).collect::<Vec<_>>().join(", ");
        let devices =
            |devices: &[dnsbroker_federation::DevEui]| shown(devices.iter().map(ToString::to_string).collect());
        if last.strangers > 0 {
            line(
                "warning",
                &format!("{} names are no DevEUI: {}", last.strangers, shown(last.strangers_shown.clone())),
            );
        }
        if last.mismatches > 0 {
            let names = devices(&last.mismatches_shown);
            line("warning", &format!("{} devices have another address than the NetID: {names}", last.mismatches));
        }
        if last.claimed > 0 {
            line(
                "warning",
                &format!("{} devices are held by another member: {}", last.claimed, devices(&last.claims_shown)),
            );
        }
        if last.outside > 0 {
            let names = devices(&last.outside_shown);
            let (count, member) = (last.outside, &settings.member);
            let what =
                format!("{count} devices are outside the ranges of {member} (`member limits`), left out: {names}");
            line("warning", &what);
        }
        if last.filled > 0 {
            let names = devices(&last.filled_shown);
            line("warning", &format!("{} devices come from another source of the member: {names}", last.filled));
        }
    }
    text
}
