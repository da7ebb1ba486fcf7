//! `quickstart`: a whole federation in a directory, served, with look-ups to paste.
//!
//! It does what an administrator would do by hand, by the same commands: `init`, `member add`, `netid set`,
//! `device import`, `cert issue`, through the control socket of a daemon that runs in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use dnsbroker_api::client::Client;
use dnsbroker_api::listed::ListMembers;
use dnsbroker_api::message::{ImportReport, NewMember, SetNetwork};
use dnsbroker_ca::Facts;
use dnsbroker_federation::{DevEui, MemberId, NetId};
use dnsbroker_store::engine::EngineKind;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use serde::Serialize;

use super::certificate::issue_with_new_key;
use super::doh_client::{Identity, resolve};
use super::init::{ADMINISTRATOR, Init};
use super::output::Output;
use crate::committer::now;
use crate::config::{Config, LogConfig};
use crate::daemon::Daemon;
use crate::key::write_whole;
use crate::logging::Logging;

/// Name of the sample federation (RFC 2606).
const FEDERATION: &str = "fed.example";
/// The device of the sample look-up: the one of the IoTRoam tutorial.
const SAMPLE: &str = "0004a30b001c0530";

/// A member of the sample federation.
struct Sample {
    id: &'static str,
    name: &'static str,
    netid: &'static str,
    /// Documentation addresses (RFC 5737, RFC 3849).
    addresses: [&'static str; 2],
    port: u16,
    list: &'static str,
}

/// The owner of the sample device first, then the member that hears it.
const SAMPLES: [Sample; 2] = [
    Sample {
        id: "atlantic-iot",
        name: "Atlantic IoT",
        netid: "60002d",
        addresses: ["192.0.2.45", "2001:db8:2d::1"],
        port: 8444,
        list: include_str!("../../../../zones/atlantic-iot.txt"),
    },
    Sample {
        id: "alpine-lora",
        name: "Alpine LoRa",
        netid: "600013",
        addresses: ["198.51.100.19", "2001:db8:13::1"],
        port: 8444,
        list: include_str!("../../../../zones/alpine-lora.csv"),
    },
];

#[derive(Args)]
pub(super) struct Quickstart {
    /// Where the federation shall live; one that is there already is served again
    #[arg(long, default_value = "quickstart")]
    dir: PathBuf,
    /// Ports N dns, N+1 doh, N+2 api, N+3 metrics, N+4 xot, N+5 pki on 127.0.0.1; 0 takes any free ones
    #[arg(long, value_name = "N", default_value_t = 8440)]
    port_base: u16,
    /// Resolve the sample device as a member, print the answer, and end
    #[arg(long)]
    once: bool,
}

/// `DIR/quickstart.json`: where everything is. What this version does not serve is null.
#[derive(Serialize)]
struct Summary {
    federation: String,
    broker_name: String,
    dns: SocketAddr,
    doh_url: String,
    xot: Option<SocketAddr>,
    api_url: String,
    ui_url: Option<String>,
    metrics_url: String,
    pki_url: Option<String>,
    control_socket: PathBuf,
    ca_file: PathBuf,
    members: Vec<SummaryMember>,
    sample_deveui: String,
    sample_name: String,
    admin_token_file: Option<PathBuf>,
    admin_password_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct SummaryMember {
    id: &'static str,
    netid: &'static str,
    client_cert: PathBuf,
    client_key: PathBuf,
}

impl Quickstart {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        let dir = std::path::absolute(&self.dir).with_context(|| format!("{} is no path", self.dir.display()))?;
        let file = dir.join("dnsbroker.toml");
        let fresh = !file.exists();
        if fresh {
            output.note(&format!("Making the federation {FEDERATION} in {}", dir.display()));
            self.init(&dir)?.make()?;
        }
        let level = if self.once { "error" } else { "warn" };
        let logging = Logging::start(&LogConfig { level: level.to_owned(), ..Config::read(&file)?.log })?;
        let daemon = Daemon::start(&file).await.with_context(|| {
            format!("cannot serve {}: if a port is taken, choose others with --port-base in a new --dir", dir.display())
        })?;
        match self.prepared(output, &dir, &daemon).await {
            Ok(()) if self.once => {
                daemon.stop().await;
                Ok(())
            }
            Ok(()) => daemon.run(&logging).await,
            Err(error) => {
                daemon.stop().await;
                Err(error)
            }
        }
    }

    fn init(&self, dir: &Path) -> anyhow::Result<Init> {
        Ok(Init {
            dir: dir.to_owned(),
            federation: FEDERATION.parse()?,
            broker_name: None,
            store: EngineKind::Redb,
            labels: ("deveuis".to_owned(), "netids".to_owned()),
            listen: vec![],
            address: vec![],
            port_base: Some(self.port_base),
            pki_url: None,
            lns_ca: false,
        })
    }

    /// Fills the federation, writes where everything is, and shows it.
    async fn prepared(&self, output: Output, dir: &Path, daemon: &Daemon) -> anyhow::Result<()> {
        let client = Client::control(dir.join("control.sock"));
        let present = client.member_list(&ListMembers::default()).await?;
        for sample in &SAMPLES {
            if !present.items.iter().any(|member| member.id.as_str() == sample.id) {
                enter(&client, sample, output).await?;
            }
            certify(&client, sample, &member_dir(dir, sample)).await?;
        }
        let summary = summary(dir, daemon)?;
        let json = serde_json::to_string_pretty(&summary)?;
        write_whole(&dir.join("quickstart.json"), json.as_bytes(), 0o640)?;
        if self.once {
            return self.look_up(output, &summary, daemon).await;
        }
        output.print(&summary, |summary| tour(summary, dir));
        Ok(())
    }

    /// As the member that hears the device, over DoH with its certificate.
    async fn look_up(&self, output: Output, summary: &Summary, daemon: &Daemon) -> anyhow::Result<()> {
        let asker = &summary.members[1];
        let server = doh_address(daemon)?;
        let identity = Identity { ca: &summary.ca_file, certificate: &asker.client_cert, key: &asker.client_key };
        let answer = resolve(server, &identity, &summary.sample_name).await?;
        let records: Vec<String> = answer.answers.iter().map(ToString::to_string).collect();
        if records.len() < 2 {
            return Err(anyhow!("{} did not resolve: {}", summary.sample_name, answer.metadata.response_code));
        }
        let result = serde_json::json!({ "name": summary.sample_name, "as": asker.id, "answer": records });
        output.print(&result, |_| records.join("\n") + "\n");
        Ok(())
    }
}

fn member_dir(dir: &Path, sample: &Sample) -> PathBuf {
    dir.join("members").join(sample.id)
}

async fn enter(client: &Client, sample: &Sample, output: Output) -> anyhow::Result<()> {
    let (id, netid): (MemberId, NetId) = (sample.id.parse()?, sample.netid.parse()?);
    let new = NewMember { id: id.clone(), name: Some(sample.name.to_owned()) };
    client.member_add(&new).await?;
    let addresses = sample.addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
    let network = SetNetwork { member: id.clone(), addresses, port: Some(sample.port), target: None };
    client.netid_set(&netid, &network).await?;
    let path = format!("/api/v1/members/{id}/netids/{netid}/devices?mode=full");
    let report: ImportReport = client.upload(&path, "text/plain", sample.list.as_bytes()).await?;
    output.note(&format!("{id}: NetID {netid}, {} devices, {} rows refused", report.added, report.rejected));
    Ok(())
}

/// Gives a member a certificate unless it has one that is still good for a while.
async fn certify(client: &Client, sample: &Sample, out: &Path) -> anyhow::Result<()> {
    let certificate = out.join("client.pem");
    if let Ok(pem) = std::fs::read(&certificate) {
        let leaf = dnsbroker_ca::chain::from_pem(&pem).ok().and_then(|chain| chain.into_iter().next());
        let good = leaf.and_then(|leaf| Facts::of(&leaf).ok()).is_some_and(|facts| facts.not_after > now() + 86_400);
        if good && out.join("client.key").exists() {
            return Ok(());
        }
    }
    for file in ["client.pem", "client.key", "ca.pem"] {
        match std::fs::remove_file(out.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", out.join(file).display()));
            }
            _ => {}
        }
    }
    issue_with_new_key(client, sample.id.parse()?, out).await?;
    Ok(())
}

fn doh_address(daemon: &Daemon) -> anyhow::Result<SocketAddr> {
    daemon.app().listeners.doh.first().copied().context("this federation's configuration has no [doh] listener")
}

fn summary(dir: &Path, daemon: &Daemon) -> anyhow::Result<Summary> {
    let listeners = &daemon.app().listeners;
    let view = daemon.app().view();
    let names = view.zones.names();
    let first = |addresses: &[SocketAddr], section: &str| {
        addresses
            .first()
            .copied()
            .with_context(|| format!("this federation's configuration has no [{section}] listener"))
    };
    let device: DevEui = SAMPLE.parse()?;
    Ok(Summary {
        federation: names.apex(dnsbroker_federation::Zone::Public).dotless(),
        broker_name: names.broker().dotless(),
        dns: first(&listeners.dns, "dns")?,
        doh_url: format!("https://{}/dns-query", doh_address(daemon)?),
        xot: listeners.xot.first().copied(),
        api_url: format!("https://{}", first(&listeners.api, "api")?),
        ui_url: listeners.api.first().map(|address| format!("https://{address}{}", crate::ui::PATH)),
        metrics_url: format!("http://{}/metrics", first(&listeners.metrics, "metrics")?),
        pki_url: listeners.pki.first().map(|address| format!("http://{address}")),
        control_socket: dir.join("control.sock"),
        ca_file: dir.join("ca/root.pem"),
        members: SAMPLES
            .iter()
            .map(|sample| SummaryMember {
                id: sample.id,
                netid: sample.netid,
                client_cert: member_dir(dir, sample).join("client.pem"),
                client_key: member_dir(dir, sample).join("client.key"),
            })
            .collect(),
        sample_deveui: device.to_string(),
        sample_name: names.nibble_name(device).trim_end_matches('.').to_owned(),
        admin_token_file: Some(dir.join("secrets/admin-token")).filter(|file| file.exists()),
        admin_password_file: Some(dir.join("secrets/admin-password")).filter(|file| file.exists()),
    })
}

/// What to paste.
fn tour(summary: &Summary, dir: &Path) -> String {
    let Summary { dns, doh_url, ca_file, broker_name, sample_name, sample_deveui, .. } = summary;
    let SummaryMember { id, client_cert, client_key, .. } = &summary.members[1];
    let authority = doh_url.trim_start_matches("https://").trim_end_matches("/dns-query");
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
    let (ca, cert, key) = (ca_file.display(), client_cert.display(), client_key.display());
    let tls = format!("+https +tls-ca={ca} +tls-hostname={broker_name} +tls-certfile={cert} +tls-keyfile={key}");
    let query = dns_parameter(sample_name);
    let control = dir.join("control.sock");
    let password = match &summary.admin_password_file {
        Some(file) => format!(" with the password in {}", file.display()),
        None => String::new(),
    };
    let ui = summary.ui_url.as_ref().map_or_else(String::new, |url| {
        format!(
            "Or open {url} in a browser, and log in as {ADMINISTRATOR}{password}\n\
             (the browser does not know the federation's CA and warns: trust {ca}, or go on)\n\n"
        )
    });
    // It may not be on the path of whoever pastes this.
    let program = std::env::current_exe().map_or_else(|_| "dnsbroker".to_owned(), |path| path.display().to_string());
    format!(
        "\nThe federation {} is served. Look up the device {sample_deveui} as member {id}:\n\n\
         dig @{host} -p {port} {tls} {sample_name} A\n\n\
         kdig @{host} -p {port} {tls} {sample_name} A\n\n\
         curl --cert {cert} --key {key} --cacert {ca} -H 'accept: application/dns-message' '{doh_url}?dns={query}' | od -c\n\n\
         Without the certificate each is refused. Plain DNS has the broker's own names only:\n\n\
         dig @{} -p {} {broker_name} A\n\n\
         Ask the broker, in another terminal:\n\n\
         export DNSBROKER_CONTROL={}\n\
         {program} status\n\
         {program} device lookup {sample_deveui} --as {id}\n\n\
         {ui}\
         Everything is in {} (see quickstart.json). Ctrl-C ends it; the same command serves it again.\n",
        summary.federation,
        dns.ip(),
        dns.port(),
        control.display(),
        dir.display(),
    )
}

/// The query for a name's address as DoH's `dns` parameter (RFC 8484, section 4.1).
fn dns_parameter(name: &str) -> String {
    let mut query = Message::new(0, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    if let Ok(name) = Name::from_ascii(name) {
        query.add_query(Query::query(name, RecordType::A));
    }
    BASE64_URL_SAFE_NO_PAD.encode(query.to_vec().unwrap_or_default())
}
