//! `enroll`: from a token to a certificate.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Stdin, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use dnsbroker_api::Timestamp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Output;
use crate::enroll::{EnrollError, Enrolling, enroll};
use crate::identity::{Home, renew_at};
use crate::starter;

/// Octets of a token at most.
const MAX_TOKEN: u64 = 4096;

#[derive(Args)]
pub(super) struct Enroll {
    /// Where the broker's API is, as the administrator gave it
    #[arg(long)]
    url: String,
    /// The one-time token; - asks for it on a terminal and reads it from stdin else, so that it is in no list of processes
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
    /// Write a configuration to begin with, if the file is not there
    #[arg(long, value_name = "FILE")]
    write_config: Option<PathBuf>,
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
    /// A configuration to begin with.
    configuration: String,
    /// Where that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<PathBuf>,
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
        let (doh_urls, warning): (Vec<String>, _) = match enrolled.directory {
            Ok(directory) => (directory.brokers.into_iter().map(|broker| broker.doh_url).collect(), None),
            Err(reason) => (vec![], Some(format!("the list of brokers is not to be had yet: {reason}"))),
        };
        let identity = enrolled.identity;
        let configuration = starter::text(home.path(), doh_urls.is_empty());
        let written = self.write_config.filter(|file| write(output, file, &configuration));
        let done = Done {
            federation: identity.federation.dotless(),
            member: identity.member.to_string(),
            serial: identity.serial,
            not_after: Timestamp(identity.life.1),
            renew_at: Timestamp(renew_at(identity.life)),
            dir: home.path().to_owned(),
            doh_urls,
            configuration,
            written,
            warning,
        };
        if let Some(warning) = &done.warning {
            output.note(&format!("warning: {warning}"));
        }
        output.print(&done, text);
        Ok(true)
    }
}

/// Tells whether it was written. What fails is told: the certificate is there, and the token is spent.
fn write(output: Output, file: &Path, configuration: &str) -> bool {
    match starter::write(file, configuration) {
        Ok(true) => return true,
        Ok(false) => output.note(&format!("{} is there, and stays as it is", file.display())),
        Err(error) => output.note(&format!("warning: cannot write {}: {error}", file.display())),
    }
    false
}

fn text(done: &Done) -> String {
    let Done { federation, member, not_after, renew_at, dir, configuration, written, .. } = done;
    let mut text = format!(
        "enrolled    {member} of {federation}\ncertificate until {not_after}; renewed by itself from {renew_at}\nfiles       {}\n",
        dir.display()
    );
    match written {
        Some(file) => text.push_str(&format!("written     {}\n", file.display())),
        None => text
            .push_str(&format!("\nA configuration to begin with, /etc/dnsbroker-agent/agent.toml:\n\n{configuration}")),
    }
    text
}

fn read_token() -> anyhow::Result<Zeroizing<String>> {
    let stdin = std::io::stdin();
    let mut token = Zeroizing::new(String::new());
    let read = if stdin.is_terminal() {
        let _silence = Silence::on(&stdin).context("the terminal cannot be told not to show the token")?;
        // Where stderr is gone there is nobody to ask.
        let _ = write!(std::io::stderr(), "token: ");
        stdin.lock().take(MAX_TOKEN).read_line(&mut token)
    } else {
        stdin.take(MAX_TOKEN).read_to_string(&mut token)
    };
    read.context("the token cannot be read from stdin")?;
    Ok(token)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence<'a> {
    terminal: &'a Stdin,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn on(terminal: &'a Stdin) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
