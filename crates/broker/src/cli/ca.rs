//! `ca`: the certification authority, and the ceremonies with its root key.
//!
//! `request`, `install` and `rotate` talk to the daemon; `sign` and `sign-crl` work on files alone, where the root's key is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use dnsbroker_api::message::{Ca, Crl, InstallCa, IssuingRequest, Page, RequestIssuing, RootCrl, Status};
use dnsbroker_ca::{RevocationReason, chain};
use dnsbroker_federation::DomainName;

use super::Context;
use super::certificate::certificate_table;
use super::output::{Output, table};
use crate::committer::now;
use crate::key::write_whole;
use crate::pki::ceremony::{ISSUING_DAYS, Issuing, ROOT_CRL_DAYS, RootKey, root_certificate};
use crate::pki::read_certificate;

const NO_PKI_URL: &str = "warning: without --pki-url the certificate does not say where the root's list of revoked issuing CAs \
                          is, and nobody who goes by the certificate learns that it was revoked: sign again with the \
                          --pki-url that `ca request` prints, unless the broker publishes no lists";

#[derive(Subcommand)]
pub(super) enum CaCommand {
    /// Print root, issuing CA and the root's pin
    Show,
    /// The last list of revoked certificates of each issuing CA
    Crl,
    /// Make a request for a new issuing CA, to be signed where the root's key is
    Request {
        /// For the key in use, whose certificate is to last longer
        #[arg(long)]
        renew: bool,
        /// Which issuing CA
        #[arg(long = "for", default_value = "all")]
        office: Office,
        /// File for the request (PKCS #10, PEM)
        #[arg(long)]
        out: PathBuf,
    },
    /// Sign a request with the root's key; no daemon is needed
    Sign(Sign),
    /// Sign a list of revoked issuing CAs with the root's key; no daemon is needed
    SignCrl(SignCrl),
    /// Take the issuing CA's certificate, or the root's list, that was signed
    Install {
        /// The certificate (PEM), or with --crl the list (DER)
        file: PathBuf,
        /// The file is the root's list of revoked issuing CAs
        #[arg(long)]
        crl: bool,
        /// With --crl: only say which certificates end with the CAs that it names
        #[arg(long, requires = "crl")]
        dry_run: bool,
    },
    /// Request, sign and install a new issuing CA at once, where the root's key can be reached from here
    Rotate {
        #[command(flatten)]
        root: Root,
        /// Keep the key in use, and give it a certificate that lasts longer
        #[arg(long)]
        renew: bool,
        /// Which issuing CA; the one for network servers alone is made where there is none
        #[arg(long = "for", default_value = "all")]
        office: Office,
        /// Days that it lasts; it ends with the root at the latest
        #[arg(long, default_value_t = ISSUING_DAYS)]
        days: i64,
    },
    /// Take the issuing CA for network servers alone out of use: the issuing CA signs their certificates again
    Retire,
}

/// What an issuing CA signs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Office {
    /// Everything, but for what another one is there for
    All,
    /// Certificates of network servers alone; it is constrained to names of NetIDs
    Lns,
}

#[derive(Args)]
pub(super) struct Root {
    /// Directory with root.key, root.passphrase and root.pem, as `init` made it
    #[arg(long, value_name = "DIR")]
    root_key: PathBuf,
}

#[derive(Args)]
pub(super) struct Sign {
    /// The request (PKCS #10)
    request: PathBuf,
    #[command(flatten)]
    root: Root,
    /// The federation's name
    #[arg(long)]
    federation: DomainName,
    /// Below which the root's list is published, as `pki.url` in the configuration; `ca request` prints it. Without it the
    /// certificate has no CRL distribution point
    #[arg(long)]
    pki_url: Option<String>,
    /// Which issuing CA
    #[arg(long = "for", default_value = "all")]
    office: Office,
    /// With --for lns: the domain to whose names it is constrained [default: netids.<FEDERATION>]
    #[arg(long, value_name = "DOMAIN")]
    permit: Option<DomainName>,
    /// Days that it lasts; it ends with the root at the latest
    #[arg(long, default_value_t = ISSUING_DAYS)]
    days: i64,
    /// File for the certificate (PEM)
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
pub(super) struct SignCrl {
    #[command(flatten)]
    root: Root,
    /// The last list (ca/root.crl of the daemon): what it names stays revoked
    #[arg(long)]
    last: PathBuf,
    /// Certificate of an issuing CA to revoke (PEM); may be given several times
    #[arg(long, value_name = "FILE")]
    revoke: Vec<PathBuf>,
    /// Why
    #[arg(long, default_value = "superseded")]
    reason: RevocationReason,
    /// Days until the next list is there at the latest
    #[arg(long, default_value_t = ROOT_CRL_DAYS)]
    days: i64,
    /// File for the list (DER)
    #[arg(long)]
    out: PathBuf,
}

impl CaCommand {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Context { client, output } = context;
        match self {
            Self::Show => {
                let ca: Ca = client.ca_show().await?;
                output.print(&ca, |ca| format!("pin {}\n{}{}{}{}", ca.pin, ca.root, ca.issuing, ca.lns, ca.previous));
            }
            Self::Crl => {
                let lists: Page<Crl> = client.crl_list().await?;
                output.print(&lists, |lists| list_table(&lists.items));
            }
            Self::Request { renew, office, out } => {
                let status: Status = client.status().await?;
                let lns = office == Office::Lns;
                let request: IssuingRequest = client.ca_request(&RequestIssuing { renew, lns }).await?;
                write_whole(&out, request.csr.as_bytes(), 0o644)?;
                // Where the root's key is, nobody knows the broker's configuration.
                let base = match status.listeners.pki_url.as_str() {
                    "" => String::new(),
                    url => format!(" --pki-url {url}"),
                };
                output.print(&request, |request| {
                    let (constraint, name) = match &request.permitted {
                        Some(permitted) => (format!(" --for lns --permit {permitted}"), "lns.pem"),
                        None => (String::new(), "issuing.pem"),
                    };
                    format!(
                        "{0} is to be signed where the root's key is:\n  dnsbroker ca sign {0} --root-key DIR --federation \
                         {1}{base}{constraint} --out {name}\n",
                        out.display(),
                        status.federation.dotless(),
                    )
                });
            }
            Self::Sign(sign) => sign.run(*output)?,
            Self::SignCrl(sign) => sign.run(*output)?,
            Self::Install { file, crl: true, dry_run } => {
                let list = tokio::fs::File::open(&file).await;
                let list = list.with_context(|| format!("cannot read {}", file.display()))?;
                let path = format!("/api/v1/ca/root-crl?dry_run={dry_run}");
                let brought: RootCrl = client.upload_by(http::Method::PUT, &path, "application/pkix-crl", list).await?;
                output.print(&brought, |brought| root_list_text(brought, dry_run));
            }
            Self::Install { file, crl: false, .. } => {
                let pem = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let ca: Ca = client.ca_install(&InstallCa { pem }).await?;
                output
                    .print(&ca, |_| "the issuing CA is in use; certificates of the one before stay good\n".to_owned());
            }
            Self::Retire => {
                let ca: Ca = client.ca_retire().await?;
                output.print(&ca, |_| {
                    "the issuing CA signs certificates of network servers again; those there are stay good\n".to_owned()
                });
            }
            Self::Rotate { root, renew, office, days } => {
                let status: Status = client.status().await?;
                let lns = office == Office::Lns;
                let request: IssuingRequest = client.ca_request(&RequestIssuing { renew, lns }).await?;
                let base = Some(status.listeners.pki_url).filter(|url| !url.is_empty());
                let issuing = Issuing { federation: &status.federation, permitted: request.permitted.as_ref(), days };
                let certificate = root.key(base.as_deref())?.sign(request.csr.as_bytes(), &issuing, now())?;
                let pem = chain::to_pem([&certificate[..]]);
                let ca: Ca = client.ca_install(&InstallCa { pem }).await?;
                output
                    .print(&ca, |_| "the issuing CA is in use; certificates of the one before stay good\n".to_owned());
            }
        }
        Ok(())
    }
}

impl Root {
    fn key<'a>(&'a self, base: Option<&'a str>) -> anyhow::Result<RootKey<'a>> {
        let dir: &Path = &self.root_key;
        if !dir.join("root.key").exists() {
            bail!("{} has no root.key: name the directory that `init` told you to put away", dir.display());
        }
        Ok(RootKey { dir, certificate: root_certificate(dir)?, base })
    }
}

impl Sign {
    fn run(self, output: Output) -> anyhow::Result<()> {
        let Self { request, root, federation, pki_url, office, permit, days, out } = self;
        let permitted = match (office, permit) {
            (Office::All, None) => None,
            (Office::All, Some(_)) => bail!("--permit is of an issuing CA for network servers: give --for lns with it"),
            (Office::Lns, Some(permit)) => Some(permit),
            (Office::Lns, None) => Some(federation.child("netids").context("the federation's name is too long")?),
        };
        if let Some(outside) = permitted.as_ref().filter(|permitted| !permitted.is_within(&federation)) {
            bail!("{outside} is not within {federation}: --permit is the parent of the names of the NetIDs");
        }
        let octets = std::fs::read(&request).with_context(|| format!("cannot read {}", request.display()))?;
        let issuing = Issuing { federation: &federation, permitted: permitted.as_ref(), days };
        let certificate = root.key(pki_url.as_deref())?.sign(&octets, &issuing, now())?;
        if pki_url.is_none() {
            output.note(NO_PKI_URL);
        }
        write_whole(&out, chain::to_pem([&certificate[..]]).as_bytes(), 0o644)?;
        output.print(&serde_json::json!({ "certificate": out }), |_| {
            format!("{} is to be taken by the daemon:\n  dnsbroker ca install {0}\n", out.display())
        });
        Ok(())
    }
}

impl SignCrl {
    fn run(self, output: Output) -> anyhow::Result<()> {
        let Self { root, last, revoke, reason, days, out } = self;
        let last = std::fs::read(&last).with_context(|| format!("cannot read {}", last.display()))?;
        let revoke = revoke.iter().map(|file| read_certificate(file)).collect::<Result<Vec<_>, _>>()?;
        let list = root.key(None)?.sign_list(Some(&last), &revoke, reason, days, now())?;
        write_whole(&out, &list, 0o644)?;
        output.print(&serde_json::json!({ "list": out }), |_| {
            format!("{} is to be taken by the daemon:\n  dnsbroker ca install --crl {0}\n", out.display())
        });
        Ok(())
    }
}

fn root_list_text(brought: &RootCrl, dry_run: bool) -> String {
    let RootCrl { list, ended } = brought;
    let published = match dry_run {
        true => format!("list {} of the root would be published\n", list.number),
        false => format!("list {} of the root is published\n", list.number),
    };
    let ends = match (ended.len(), dry_run) {
        (0, _) => return published,
        (count, true) => format!("{count} certificates would end with the CAs that it names; new ones first:\n"),
        (count, false) => {
            format!("{count} certificates ended with the CAs that it names; who still needs one, needs a token:\n")
        }
    };
    published + &ends + &certificate_table(ended)
}

fn list_table(lists: &[Crl]) -> String {
    let row = |list: &Crl| {
        let Crl { ca, number, this_update, next_update, revoked, url } = list;
        vec![
            ca.clone(),
            number.to_string(),
            this_update.to_string(),
            next_update.to_string(),
            revoked.to_string(),
            url.clone(),
        ]
    };
    let heads = ["CA", "NUMBER", "MADE", "NEXT", "REVOKED", "URL"];
    table(&heads, &lists.iter().map(row).collect::<Vec<_>>())
}
