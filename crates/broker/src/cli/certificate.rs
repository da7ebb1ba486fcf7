//! `token`, `cert` and `ca`: how operators get their certificates.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use dnsbroker_api::client::Client;
use dnsbroker_api::message::{Ca, Certificate, IssueCertificate, Issued, NewToken, Page, Reason, Token};
use dnsbroker_federation::MemberId;
use zeroize::Zeroizing;

use super::Context;
use super::output::table;
use crate::key::{write_secret, write_whole};

/// Octets of a CSR file at most.
const MAX_CSR: u64 = 64 * 1024;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a one-time token; it is shown once and only its hash is kept
    Create {
        /// Who may enrol with it
        #[arg(long)]
        member: MemberId,
        /// How long it may be used: a number with s, m, h or d
        #[arg(long, default_value = "24h", value_parser = duration)]
        ttl: i64,
        /// The only key it may be used with: sha256: and 64 hexadecimal digits of the SubjectPublicKeyInfo
        #[arg(long)]
        key_pin: Option<String>,
    },
    /// List tokens; never their secrets
    List,
}

fn duration(text: &str) -> Result<i64, String> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("write a number with s, m, h or d, as in 24h".to_owned()),
    };
    let number: i64 = number.parse().map_err(|_| "write a number with s, m, h or d, as in 24h".to_owned())?;
    number.checked_mul(seconds).ok_or_else(|| "that is too long".to_owned())
}

impl TokenCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Create { member, ttl, key_pin } => {
                let token: Token = client.post("/api/v1/tokens", &NewToken { member, ttl, key_pin }).await?;
                output.print(&token, token_text);
            }
            Self::List => {
                let tokens: Page<Token> = client.get("/api/v1/tokens").await?;
                output.print(&tokens, |tokens| token_table(&tokens.items));
            }
        }
        Ok(())
    }
}

fn token_text(token: &Token) -> String {
    let mut text = format!(
        "token       {}\nmember      {}\nvalid until {}\n",
        token.token.as_deref().unwrap_or_default(),
        token.member,
        token.expires
    );
    if let Some(enrolment) = &token.instructions {
        let url = if enrolment.url.is_empty() { "(no API listener is configured)" } else { &enrolment.url };
        text.push_str(&format!("enrol at    {url}/api/v1/enroll\nCA pin      {}\n", enrolment.ca_pin));
        text.push_str("Give the operator these lines on a channel you trust; the token is not shown again.\n");
    }
    text
}

fn token_table(tokens: &[Token]) -> String {
    let row = |token: &Token| {
        let used = token.certificate.clone().unwrap_or_else(|| "-".to_owned());
        vec![token.id.clone(), token.member.to_string(), token.expires.to_string(), used]
    };
    table(&["TOKEN", "MEMBER", "VALID UNTIL", "USED FOR"], &tokens.iter().map(row).collect::<Vec<_>>())
}

#[derive(Subcommand)]
pub(super) enum CertCommand {
    /// Issue a certificate for a member or a replica
    Issue(IssueArgs),
    /// List all certificates
    List,
    /// Show one certificate
    Show {
        /// Its serial number, hexadecimal
        serial: String,
    },
    /// Revoke a certificate: it is refused within a second, on live connections too
    Revoke {
        /// Its serial number, hexadecimal
        serial: String,
        /// unspecified, key-compromise, affiliation-changed, superseded, cessation-of-operation, privilege-withdrawn
        #[arg(long, default_value = "unspecified")]
        reason: String,
    },
}

#[derive(Args)]
pub(super) struct IssueArgs {
    #[command(flatten)]
    holder: Holder,
    #[command(flatten)]
    key: KeySource,
    /// Directory for client.pem, ca.pem and, with --new-key, client.key
    #[arg(long)]
    out: PathBuf,
}

/// Whom a certificate is for.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Holder {
    /// The member it is for
    #[arg(long)]
    pub(super) member: Option<MemberId>,
    /// The replica it is for
    #[arg(long)]
    pub(super) replica: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct KeySource {
    /// A certificate request (PKCS #10), PEM or DER
    #[arg(long)]
    csr: Option<PathBuf>,
    /// Make a P-256 key here
    #[arg(long)]
    new_key: bool,
}

impl CertCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Issue(IssueArgs { holder, key, out }) => {
                let issued = match key.csr {
                    Some(file) => issue(client, holder, &read_csr(&file)?, &out, None).await?,
                    None => issue_with_new_key(client, holder, &out).await?,
                };
                output.print(&issued, |issued| {
                    let Certificate { serial, not_after, .. } = &issued.certificate;
                    format!("certificate {serial}, valid until {not_after}, is in {}\n", out.display())
                });
            }
            Self::List => {
                let certificates: Page<Certificate> = client.get("/api/v1/certificates").await?;
                output.print(&certificates, |certificates| certificate_table(&certificates.items));
            }
            Self::Show { serial } => {
                let path = format!("/api/v1/certificates/{}", super::escape(&serial));
                let certificate: Certificate = client.get(&path).await?;
                output.print(&certificate, |certificate| certificate_table(std::slice::from_ref(certificate)));
            }
            Self::Revoke { serial, reason } => {
                let path = format!("/api/v1/certificates/{}/revoke", super::escape(&serial));
                let certificate: Certificate = client.post(&path, &Reason { reason }).await?;
                output.print(&certificate, |certificate| {
                    format!("certificate {} is {}\n", certificate.serial, certificate.state)
                });
            }
        }
        Ok(())
    }
}

fn read_csr(file: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read the certificate request {}", file.display());
    let length = std::fs::metadata(file).with_context(cannot)?.len();
    if length > MAX_CSR {
        bail!("{} has {length} octets; a certificate request has {MAX_CSR} at most", file.display());
    }
    let octets = std::fs::read(file).with_context(cannot)?;
    Ok(match String::from_utf8(octets) {
        Ok(pem) => pem,
        Err(der) => pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der.into_bytes())),
    })
}

/// Has a certificate issued for a key made here, and writes both.
pub(super) async fn issue_with_new_key(client: &Client, holder: Holder, out: &Path) -> anyhow::Result<Issued> {
    let key = rcgen::KeyPair::generate().context("cannot make a key")?;
    let mut params = rcgen::CertificateParams::default();
    // The CA takes the key and nothing else from a request.
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).context("cannot make a certificate request")?;
    issue(client, holder, &csr, out, Some(Zeroizing::new(key.serialize_pem()))).await
}

async fn issue(
    client: &Client,
    Holder { member, replica }: Holder,
    csr: &str,
    out: &Path,
    key: Option<Zeroizing<String>>,
) -> anyhow::Result<Issued> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the directory {}", out.display()))?;
    for file in ["client.pem", "client.key"] {
        if out.join(file).exists() {
            bail!("{} is there already; choose another --out or move it away", out.join(file).display());
        }
    }
    // The key first: a certificate without its key would be of no use.
    if let Some(key) = key {
        write_secret(&out.join("client.key"), key.as_bytes())?;
    }
    let request = IssueCertificate { member, replica, csr: csr.to_owned() };
    let issued: Result<Issued, _> = client.post("/api/v1/certificates", &request).await;
    let issued = issued.inspect_err(|_| {
        // A key without a certificate would stand in the way of the next try.
        let _ = std::fs::remove_file(out.join("client.key"));
    })?;
    write_whole(&out.join("client.pem"), issued.chain.as_bytes(), 0o644)?;
    write_whole(&out.join("ca.pem"), issued.ca.as_bytes(), 0o644)?;
    Ok(issued)
}

fn certificate_table(certificates: &[Certificate]) -> String {
    let row = |certificate: &Certificate| {
        let replica = || certificate.replica.as_ref().map_or_else(|| "-".to_owned(), |id| format!("replica {id}"));
        let holder = certificate.member.as_ref().map_or_else(replica, ToString::to_string);
        vec![
            certificate.serial.clone(),
            holder,
            certificate.profile.clone(),
            certificate.not_after.to_string(),
            certificate.state.clone(),
        ]
    };
    table(&["SERIAL", "HOLDER", "PROFILE", "VALID UNTIL", "STATE"], &certificates.iter().map(row).collect::<Vec<_>>())
}

#[derive(Subcommand)]
pub(super) enum CaCommand {
    /// Print the root certificate and its pin
    Show,
}

impl CaCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        let Self::Show = self;
        let ca: Ca = client.get("/api/v1/ca").await?;
        output.print(&ca, |ca| format!("pin {}\n{}{}", ca.pin, ca.root, ca.issuing));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("24h"), Ok(86_400));
        assert_eq!(duration("7d"), Ok(604_800));
        assert_eq!(duration("90s"), Ok(90));
        for wrong in ["", "24", "h", "1.5h", "-1h", "9223372036854775807d"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
