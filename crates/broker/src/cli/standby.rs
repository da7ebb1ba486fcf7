//! `standby`: make a second broker that follows the first, look at it, put it in the first one's place.

use std::fs::File;
use std::io::BufReader;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use dnsbroker_api::standby::Standing;
use dnsbroker_federation::DomainName;
use dnsbroker_store::{Identity, Store, audit, backup};
use serde::Serialize;

use super::Context;
use super::backup::{aside, place_files};
use super::certificate::duration;
use super::output::Output;
use crate::committer::now;
use crate::config::Config;
use crate::key::{read_secret, write_secret, write_whole};
use crate::pki::private_dir;
use crate::standby::follow::settings_of;
use crate::standby::link::Link;
use crate::standby::take_over::forget_fence;

#[derive(Subcommand)]
pub(super) enum StandbyCommand {
    /// Make a standby on this machine from a backup of the primary; needs the certificate of a replica that is registered as
    /// a standby (`replica add ID --all --standby NAME`, `cert issue --replica ID`)
    Init(Box<Init>),
    /// What this broker is, and how far it or its standbys are
    Status,
    /// Put this standby in the primary's place. Do that when the primary is gone for good, or is stopped
    Promote,
}

#[derive(Args)]
pub(super) struct Init {
    /// What `backup` wrote at the primary
    #[arg(long)]
    from: PathBuf,
    /// Where the standby shall live
    #[arg(long)]
    dir: PathBuf,
    /// The standby's name, with which it is registered at the primary
    #[arg(long)]
    name: DomainName,
    /// URL of the primary's API, as in https://broker.fed.example:8443
    #[arg(long)]
    primary: String,
    /// Where to connect, if not where the URL's name leads
    #[arg(long)]
    connect: Option<SocketAddr>,
    /// Directory with client.pem and client.key, as `cert issue --replica` wrote them
    #[arg(long)]
    credential: PathBuf,
    /// File with the passphrase of the issuing key, secrets/ca-passphrase in the primary's directory, which is in no backup;
    /// without it the file has to be put in place by hand
    #[arg(long)]
    passphrase_file: Option<PathBuf>,
    /// Address under which members reach the standby; may be given several times. Where the primary listens on an address of
    /// its own, the standby listens on this one
    #[arg(long)]
    address: Vec<IpAddr>,
    /// Ports as of `init --port-base`; without it those of the primary
    #[arg(long, value_name = "N")]
    port_base: Option<u16>,
    /// Look-ups are not answered when the primary was not heard for so long: a number with s, m, h or d
    #[arg(long, default_value = "60s", value_parser = duration)]
    max_age: i64,
    /// There is a broker in DIR, which was the primary: its store is kept aside, and it becomes a standby
    #[arg(long)]
    rejoin: bool,
}

/// Sections of the configuration that listen, in the order of `init --port-base`.
const SECTIONS: [&str; 6] = ["dns", "doh", "api", "metrics", "xot", "pki"];

/// What was made.
#[derive(Serialize)]
struct Made {
    config: PathBuf,
    act: u64,
    devices: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<PathBuf>,
    notes: Vec<String>,
}

impl StandbyCommand {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Init(init) => init.run(context.output).await,
            Self::Status => {
                let standing = context.client.standby().await?;
                context.output.print(&standing, text);
                Ok(())
            }
            Self::Promote => {
                let standing = context.client.standby_promote().await?;
                context.output.print(&standing, text);
                Ok(())
            }
        }
    }
}

impl Init {
    async fn run(self, output: Output) -> anyhow::Result<()> {
        let dir = std::path::absolute(&self.dir)?;
        let there = dir.join("dnsbroker.toml").exists();
        if there && !self.rejoin {
            bail!(
                "there is a broker in {} already: choose another --dir, or --rejoin to make it a standby",
                dir.display()
            );
        }
        let open = || File::open(&self.from).with_context(|| format!("cannot read {}", self.from.display()));
        // All of it first: nothing is touched because of a file that is cut.
        let files = backup::read(&mut BufReader::new(open()?), None)
            .with_context(|| format!("cannot use {}", self.from.display()))?;
        private_dir(&dir)?;
        let mut notes = place_files(&dir, &files)?;
        let file = dir.join("dnsbroker.toml");
        notes.extend(self.configure(&file)?);
        let config = Config::read(&file)?;
        self.secrets(&config, &mut notes)?;
        let link = Link {
            url: self.primary.clone(),
            connect: self.connect,
            root: config.path(&config.ca.dir).join("root.pem"),
            credential: dir.join("standby"),
        };
        link.certify(&config.path(&config.ca.dir)).await.context("the primary does not certify this standby")?;
        let replaced = keep_aside(&config)?;
        let data = config.path(&config.store.dir);
        private_dir(&data)?;
        let engine = config.engine()?.open(&data)?;
        backup::read(&mut BufReader::new(open()?), Some(&*engine))?;
        let identity = Identity { federation: config.federation.clone(), labels: config.zones.labels.clone() };
        let settings = settings_of(&config, &*engine)?;
        let store = Store::open(Arc::clone(&engine), identity, settings).context("the backup's store does not open")?;
        let view = store.view();
        if let Some(broken) = audit::verify(&*engine, &view.audit)?.broken {
            bail!("the audit of the backup was tampered with or damaged: {broken}");
        }
        forget_fence(&dir)?;
        let made = Made { config: file, act: view.audit.number, devices: view.zones.devices().len(), replaced, notes };
        output.print(&made, |made| {
            let mut text = format!(
                "the standby has {} devices and follows from act {}\nserve it: dnsbroker serve --config {}\n",
                made.devices,
                made.act,
                made.config.display()
            );
            if let Some(replaced) = &made.replaced {
                text.push_str(&format!("the store of before is in {}\n", replaced.display()));
            }
            made.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
            text
        });
        Ok(())
    }

    /// The primary's configuration with what is the standby's own. Tells where it listens elsewhere than the primary.
    fn configure(&self, file: &Path) -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut config: toml::Table = text.parse().context("the configuration in the backup does not read")?;
        let mut standby = toml::Table::new();
        standby.insert("name".to_owned(), self.name.to_string().into());
        standby.insert("primary".to_owned(), self.primary.clone().into());
        if let Some(connect) = self.connect {
            standby.insert("connect".to_owned(), connect.to_string().into());
        }
        standby.insert("max_age_seconds".to_owned(), self.max_age.into());
        config.insert("standby".to_owned(), standby.into());
        let addresses: Vec<String> = self.address.iter().map(ToString::to_string).collect();
        config.insert("addresses".to_owned(), addresses.into());
        if let Some(doh) = config.get_mut("doh").and_then(toml::Value::as_table_mut) {
            // A certificate that the administrator brought is for the primary's name.
            doh.remove("certificate");
            doh.remove("key");
        }
        if let Some(base) = self.port_base {
            for (offset, section) in SECTIONS.into_iter().enumerate() {
                let port = if base == 0 { 0 } else { base + offset as u16 };
                let listen = config.get_mut(section).and_then(|section| section.get_mut("listen"));
                let Some(listen) = listen.and_then(toml::Value::as_array_mut) else { continue };
                for address in listen {
                    let at: SocketAddr =
                        address.as_str().unwrap_or_default().parse().context("an address of the backup")?;
                    *address = SocketAddr::new(at.ip(), port).to_string().into();
                }
            }
        }
        let notes = self.listen_here(&mut config, is_here)?;
        let text = format!(
            "# A standby of {}. Made from the primary's configuration; paths are relative to this file.\n{}",
            self.primary,
            toml::to_string(&config)?
        );
        write_whole(file, text.as_bytes(), 0o644)?;
        Ok(notes)
    }

    /// Where the primary listens on an address that this machine does not have, the standby listens on one of its own.
    fn listen_here(&self, config: &mut toml::Table, here: impl Fn(IpAddr) -> bool) -> anyhow::Result<Vec<String>> {
        let mut notes = Vec::new();
        for section in SECTIONS {
            let listen = config.get_mut(section).and_then(|section| section.get_mut("listen"));
            let Some(listen) = listen.and_then(toml::Value::as_array_mut) else { continue };
            for address in listen.iter_mut() {
                let at: SocketAddr =
                    address.as_str().unwrap_or_default().parse().context("an address of the backup")?;
                if here(at.ip()) {
                    continue;
                }
                let own = SocketAddr::new(self.in_place_of(at.ip(), section, &here), at.port());
                notes.push(format!("[{section}] listens on {own}: {at} is an address of the primary's machine"));
                *address = own.to_string().into();
            }
            let mut seen = Vec::new();
            listen.retain(|address| {
                let new = !seen.contains(address);
                seen.extend(new.then(|| address.clone()));
                new
            });
        }
        Ok(notes)
    }

    /// An address of this machine, of the same family.
    fn in_place_of(&self, theirs: IpAddr, section: &str, here: impl Fn(IpAddr) -> bool) -> IpAddr {
        // Who may see metrics was decided for the primary's network, and is not known for this one.
        let known = self.address.iter().filter(|_| section != "metrics");
        let own = known.copied().find(|own| own.is_ipv4() == theirs.is_ipv4() && here(*own));
        own.unwrap_or(match (theirs, section) {
            (IpAddr::V4(_), "metrics") => Ipv4Addr::LOCALHOST.into(),
            (IpAddr::V6(_), "metrics") => Ipv6Addr::LOCALHOST.into(),
            (IpAddr::V4(_), _) => Ipv4Addr::UNSPECIFIED.into(),
            (IpAddr::V6(_), _) => Ipv6Addr::UNSPECIFIED.into(),
        })
    }

    /// The passphrase, and the certificate that is shown to the primary.
    fn secrets(&self, config: &Config, notes: &mut Vec<String>) -> anyhow::Result<()> {
        if let Some(wanted) = &config.ca.passphrase_file {
            let wanted = config.path(wanted);
            match &self.passphrase_file {
                Some(file) if std::path::absolute(file)? != wanted => {
                    wanted.parent().map(private_dir).transpose()?;
                    write_secret(&wanted, &read_secret(file)?)?;
                }
                None if !wanted.exists() => {
                    notes.push(format!("put the passphrase of the issuing key into {}", wanted.display()));
                }
                _ => {}
            }
        }
        let credential = config.dir.join("standby");
        private_dir(&credential)?;
        for name in ["client.pem", "client.key"] {
            let from = self.credential.join(name);
            ensure!(
                from.exists(),
                "{} is missing: `cert issue --replica ID --new-key --out DIR` writes it",
                from.display()
            );
            if std::path::absolute(&from)? != credential.join(name) {
                write_secret(&credential.join(name), &std::fs::read(&from)?)?;
            }
        }
        Ok(())
    }
}

/// Whether this machine has an address, or it stands for all or none of any machine.
fn is_here(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

/// Keeps a store that is there aside.
fn keep_aside(config: &Config) -> anyhow::Result<Option<PathBuf>> {
    let data = config.path(&config.store.dir);
    if !data.exists() {
        return Ok(None);
    }
    // A daemon that still runs on it would be an unpleasant surprise.
    drop(config.engine()?.open(&data).context("the store that is there cannot be kept aside")?);
    let aside = aside(&data, now());
    std::fs::rename(&data, &aside).with_context(|| format!("cannot move {} aside", data.display()))?;
    std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o700))?;
    Ok(Some(aside))
}

fn text(standing: &Standing) -> String {
    let Standing { role, name, epoch, act, primary, following, standbys, notes } = standing;
    let mut text = format!("{name} is {role}, epoch {epoch}, act {act}\n");
    if let (Some(primary), true) = (primary, role != "primary") {
        text.push_str(&format!("the primary is {primary}\n"));
    }
    if let Some(known) = following {
        let connected = if known.connected { "follows" } else { "DOES NOT FOLLOW" };
        let answers = if known.answers { "answers look-ups" } else { "DOES NOT ANSWER look-ups" };
        let age = known.age.map_or_else(|| "never".to_owned(), |age| format!("{age:.1} s ago"));
        text.push_str(&format!(
            "{connected} {} ({} acts behind, all known {age}); {answers}, for up to {} s without it\n",
            known.url, known.behind, known.max_age
        ));
    }
    for standby in standbys {
        let state = match (standby.connected, standby.act) {
            (true, Some(sent)) => {
                let has = standby.has.map_or_else(String::new, |has| format!(", and has said that it has act {has}"));
                format!("was sent all but {} acts{has}", act.saturating_sub(sent))
            }
            (true, None) => "gets a copy".to_owned(),
            (false, _) => "IS NOT CONNECTED".to_owned(),
        };
        text.push_str(&format!("standby {} ({}) {state}\n", standby.id, standby.name));
        if let Some(why) = &standby.unready {
            text.push_str(&format!("  and is NOT READY: {why}\n"));
        }
    }
    notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        init: Init,
    }

    #[test]
    fn a_standby_listens_on_addresses_of_its_own_machine() {
        let line = "x --from f --dir d --name b2.fed.example --primary https://b.fed.example --credential c \
                    --address 203.0.113.9 --address 198.51.100.9";
        let init = Line::try_parse_from(line.split_whitespace()).expect("parses").init;
        let text = "[dns]\nlisten = [\"192.0.2.53:53\", \"192.0.2.54:53\", \"[2001:db8::53]:53\"]\n\
                    [doh]\nlisten = [\"0.0.0.0:443\"]\n[api]\nlisten = [\"127.0.0.1:8443\"]\n\
                    [metrics]\nlisten = [\"192.0.2.53:9153\"]\n";
        let mut config: toml::Table = text.parse().expect("reads");
        // The first of its addresses is one that a router translates.
        let here = |address: IpAddr| ["0.0.0.0", "127.0.0.1", "198.51.100.9"].contains(&address.to_string().as_str());
        let notes = init.listen_here(&mut config, here).expect("is done");
        let of = |section: &str| config[section]["listen"].to_string();
        assert_eq!(of("dns"), r#"["198.51.100.9:53", "[::]:53"]"#);
        assert_eq!((of("doh"), of("api")), (r#"["0.0.0.0:443"]"#.to_owned(), r#"["127.0.0.1:8443"]"#.to_owned()));
        assert_eq!(of("metrics"), r#"["127.0.0.1:9153"]"#, "metrics are shown to nobody who was not meant to see them");
        assert_eq!(notes.len(), 4);
        assert_eq!(notes[0], "[dns] listens on 198.51.100.9:53: 192.0.2.53:53 is an address of the primary's machine");
        assert!(is_here("127.0.0.1".parse().expect("valid")) && !is_here("192.0.2.53".parse().expect("valid")));
    }
}
