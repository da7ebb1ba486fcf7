//! `serve` and `config check`.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::Output;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::logging::{self, Logging};
use crate::pki::{Pki, brought, published};
use crate::zone_file;

/// Where a system's package would put it.
const CONFIG: &str = "/var/lib/dnsbroker/dnsbroker.toml";

#[derive(Args)]
pub(super) struct Serve {
    /// The configuration
    #[arg(long, env = "DNSBROKER_CONFIG", default_value = CONFIG)]
    config: PathBuf,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let logging = Logging::start(&Config::read(&self.config)?.log)?;
        Daemon::start(&self.config).await?.run(&logging).await
    }
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Say what a configuration would do, without doing it
    Check {
        /// The configuration
        #[arg(long, env = "DNSBROKER_CONFIG", default_value = CONFIG)]
        config: PathBuf,
    },
}

/// What a configuration would do.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    federation: String,
    broker: String,
    zones: Vec<String>,
    store: String,
    listeners: Vec<String>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl ConfigCommand {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let Self::Check { config } = self;
        let checked = check(&Config::read(&config)?)?;
        output.print(&checked, text);
        if checked.ok { Ok(()) } else { bail!("the daemon would not start with this configuration") }
    }
}

fn check(config: &Config) -> anyhow::Result<Checked> {
    let names = config.namespace()?;
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    if let Err(error) = logging::check(&config.log) {
        errors.push(error.to_string());
    }
    let store = config.path(&config.store.dir);
    if !store.is_dir() {
        errors.push(format!("there is no store in {}: `dnsbroker init` makes one", store.display()));
    }
    warnings.extend(config.engine()?.warning().map(str::to_owned));
    let opened = Pki::open(config, None);
    match &opened {
        Ok(pki) => warnings.extend(published::check(config, pki)),
        Err(error) => errors.push(dnsbroker_api::problem::chain(error)),
    }
    if let Some((certificate, key)) = config.doh.as_ref().and_then(|doh| doh.certificate.as_ref().zip(doh.key.as_ref()))
    {
        let roots = opened.map(|pki| pki.client_trust()).unwrap_or_default();
        match brought(&config.path(certificate), &config.path(key), roots) {
            Err(error) => errors.push(dnsbroker_api::problem::chain(&error)),
            Ok((_, not_after)) if not_after < crate::committer::now() => {
                errors.push(format!("the certificate {} has expired", certificate.display()));
            }
            Ok((material, _)) => {
                errors.extend(material.check().err().map(|error| dnsbroker_api::problem::chain(&error)));
            }
        }
    }
    if let Some(file) = &config.zones.public_file {
        let path = config.path(file);
        let read = zone_file::read(&path).map_err(|error| error.to_string());
        let records = read.and_then(|text| zone_file::public(&text, &names).map_err(|error| error.to_string()));
        errors.extend(records.err().map(|error| format!("the public zone {}: {error}", path.display())));
    }
    if config.doh.is_none() {
        warnings.push("there is no [doh] section: members cannot look up devices".to_owned());
    }
    if config.pki.is_none() {
        warnings.push(
            "there is no [pki] section: certificates do not say where they could be seen to be revoked".to_owned(),
        );
    }
    if config.root_key_online() {
        warnings.push("the root key is still in this directory: move it to a place that is not online".to_owned());
    }
    if let Some(metrics) = &config.metrics {
        let open = metrics.listen.iter().filter(|address| !address.ip().is_loopback());
        warnings
            .extend(open.map(|address| format!("metrics on {address} can be read by others: they need no password")));
    }
    Ok(Checked {
        ok: errors.is_empty(),
        federation: config.federation.to_string(),
        broker: names.broker().to_string(),
        zones: crate::api::ZONES.iter().map(|(_, zone)| names.apex(*zone).to_string()).collect(),
        store: format!("{} in {}", config.engine()?, store.display()),
        listeners: listeners(config),
        errors,
        warnings,
    })
}

fn listeners(config: &Config) -> Vec<String> {
    let sections = [
        ("dns", config.dns.as_ref().map(|section| &section.listen)),
        ("doh", config.doh.as_ref().map(|section| &section.listen)),
        ("xot", config.xot.as_ref().map(|section| &section.listen)),
        ("api", config.api.as_ref().map(|section| &section.listen)),
        ("metrics", config.metrics.as_ref().map(|section| &section.listen)),
        ("pki", config.pki.as_ref().map(|section| &section.listen)),
    ];
    let mut lines = Vec::new();
    for (name, addresses) in sections.into_iter().filter_map(|(name, addresses)| Some((name, addresses?))) {
        lines.extend(addresses.iter().map(|address| format!("{name} on {address}")));
    }
    lines.push(format!("control on {}", config.control_socket().display()));
    lines
}

fn text(checked: &Checked) -> String {
    let Checked { federation, broker, zones, store, listeners, errors, warnings, .. } = checked;
    let mut text = format!("federation {federation}, broker {broker}\nzones {}\nstore {store}\n", zones.join(", "));
    for line in listeners {
        text.push_str(&format!("{line}\n"));
    }
    for warning in warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    for error in errors {
        text.push_str(&format!("error: {error}\n"));
    }
    text
}
