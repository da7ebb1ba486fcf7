//! `enroll`: from a token to a certificate.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use dnsbroker_api::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::Output;
use crate::enroll::{EnrollError, Enrolling, enroll};
use crate::identity::{Home, renew_at};

/// Octets of a token at most.
const MAX_TOKEN: u64 = 4096;

#[derive(Args)]
pub(super) struct Enroll {
    /// Where the broker's API is, as the administrator gave it
    #[arg(long)]
    url: String,
    /// The one-time token; - reads it from stdin, so that it is in no list of processes
    #[arg(long, env = "DNSBROKER_TOKEN", hide_env_values = true)]
    token: String,
    /// SHA-256 of the federation's root certificate, as the administrator gave it: sha256:...
    #[arg(long)]
    ca_pin: String,
    /// Directory for key, certificate and what the federation tells
    #[arg(long)]
    dir: PathBuf,
    /// Address of the broker, where its name is not in DNS
    #[arg(long)]
    address: Vec<IpAddr>,
}

#[derive(Serialize)]
struct Done {
    federation: String,
    member: String,
    serial: String,
    not_after: Timestamp,
    renew_at: Timestamp,
    dir: PathBuf,
    /// Brokers that were told.
    doh_urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

impl Enroll {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<bool> {
        let token = if self.token == "-" { read_token()? } else { Zeroizing::new(self.token) };
        if token.trim().is_empty() {
            bail!("the token is empty");
        }
        let home = Home::new(std::path::absolute(&self.dir)?);
        let enrolling =
            Enrolling { url: &self.url, addresses: self.address, token: token.trim(), pin: &self.ca_pin, home: &home };
        let enrolled = enroll(enrolling).await.map_err(|error| match error {
            // What the broker refused is told as it said it.
            EnrollError::Client(error) => anyhow::Error::from(*error),
            error => error.into(),
        })?;
        let (doh_urls, warning) = match enrolled.directory {
            Ok(directory) => (directory.brokers.into_iter().map(|broker| broker.doh_url).collect(), None),
            Err(reason) => (vec![], Some(format!("the list of brokers is not to be had yet: {reason}"))),
        };
        let identity = enrolled.identity;
        let done = Done {
            federation: identity.federation.to_string().trim_end_matches('.').to_owned(),
            member: identity.member.to_string(),
            serial: identity.serial,
            not_after: Timestamp(identity.life.1),
            renew_at: Timestamp(renew_at(identity.life)),
            dir: home.path().to_owned(),
            doh_urls,
            warning,
        };
        if let Some(warning) = &done.warning {
            output.note(&format!("warning: {warning}"));
        }
        output.print(&done, text);
        Ok(true)
    }
}

fn text(done: &Done) -> String {
    let Done { federation, member, not_after, renew_at, dir, doh_urls, .. } = done;
    let mut text = format!(
        "enrolled    {member} of {federation}\ncertificate until {not_after}; renewed by itself from {renew_at}\nfiles       {}\n",
        dir.display()
    );
    text.push_str(&format!("\nIn agent.toml:\n\n[[federation]]\ndir = \"{}\"\n", dir.display()));
    if doh_urls.is_empty() {
        text.push_str("\n[[federation.broker]]\ndoh_url = \"https://BROKER:PORT/dns-query\"\n");
    }
    text
}

fn read_token() -> anyhow::Result<Zeroizing<String>> {
    let mut token = Zeroizing::new(String::new());
    std::io::stdin().take(MAX_TOKEN).read_to_string(&mut token).context("the token cannot be read from stdin")?;
    Ok(token)
}
