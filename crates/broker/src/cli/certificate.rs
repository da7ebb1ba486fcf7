//! `token` and `cert`: how operators, and their servers, get their certificates.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use dnsbroker_api::client::{Client, ClientError};
use dnsbroker_api::listed::{ListCertificates, ListTokens, SortCertificates, SortTokens};
use dnsbroker_api::message::{
    Certificate, IssueCertificate, Issued, NewToken, Page, Reason, RenewCertificate, RevokeCertificates, Token,
};
use dnsbroker_federation::{DomainName, MemberId};
use p12_keystore::{KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use zeroize::Zeroizing;

use super::output::table;
use super::sorted::Sorted;
use super::{Context, all};
use crate::key::{read_secret, write_secret, write_whole};

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
    List(Sorted<SortTokens>),
}

pub(super) fn duration(text: &str) -> Result<i64, String> {
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
                let token: Token = client.token_create(&NewToken { member, ttl, key_pin }).await?;
                output.print(&token, token_text);
            }
            Self::List(sorted) => {
                let query = sorted.of(ListTokens::default());
                let tokens = all(async |query| client.token_list(query).await, query).await?;
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
    /// Issue a certificate: for a member or replica, or for a member's server (--name) or gateway (--gateway)
    Issue(IssueArgs),
    /// Issue a certificate in the place of another; from two thirds of its life on its holder can do that without you
    Renew {
        /// Serial number of the one that ends, hexadecimal
        serial: String,
        #[command(flatten)]
        made: Made,
    },
    /// List certificates
    List {
        /// Only of this member
        #[arg(long)]
        member: Option<MemberId>,
        #[command(flatten)]
        sorted: Sorted<SortCertificates>,
    },
    /// Show one certificate
    Show {
        /// Its serial number, hexadecimal
        serial: String,
    },
    /// Revoke one certificate, or all of a key, lineage, member or replica: refused within a second, live connections too
    Revoke(RevokeArgs),
}

#[derive(Args)]
pub(super) struct IssueArgs {
    #[command(flatten)]
    holder: Holder,
    /// Host name of the member's server; may be given several times. Names of its NetIDs, or approved ones
    #[arg(long = "name", requires = "member", conflicts_with_all = ["gateway", "replica"])]
    names: Vec<DomainName>,
    /// The member's gateway, by a name of its choice such as the EUI
    #[arg(long, requires = "member", conflicts_with = "replica")]
    gateway: Option<MemberId>,
    #[command(flatten)]
    made: Made,
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

/// From what a certificate is made, and where it goes.
#[derive(Args)]
pub(super) struct Made {
    #[command(flatten)]
    key: KeySource,
    /// Directory for client.pem (server.pem, gateway.pem), ca.pem and, with --new-key, the key
    #[arg(long)]
    out: PathBuf,
    /// Write key, certificate and CA as PKCS#12 too, under the password in this file
    #[arg(long, value_name = "PASSWORD-FILE", requires = "new_key")]
    pkcs12: Option<PathBuf>,
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

#[derive(Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// unspecified, key-compromise, affiliation-changed, superseded, cessation-of-operation, privilege-withdrawn
    #[arg(long, default_value = "unspecified")]
    reason: String,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct WhichArgs {
    /// Its serial number, hexadecimal
    serial: Option<String>,
    /// All of a key: sha256: and 64 hexadecimal digits of the SubjectPublicKeyInfo
    #[arg(long)]
    key: Option<String>,
    /// The certificate with this serial number, those that it renews and those that renew it
    #[arg(long, value_name = "SERIAL")]
    lineage: Option<String>,
    /// All of a member: its own, its servers' and gateways'
    #[arg(long)]
    member: Option<MemberId>,
    /// All of a replica
    #[arg(long)]
    replica: Option<String>,
}

impl CertCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Issue(IssueArgs { holder: Holder { member, replica }, names, gateway, made }) => {
                let stem = match (&gateway, names.is_empty()) {
                    (Some(_), _) => "gateway",
                    (None, false) => "server",
                    (None, true) => "client",
                };
                let order = move |csr| IssueCertificate { member, replica, gateway, names, csr };
                let issued = made.issue(stem, async |csr| client.certificate_issue(&order(csr)).await).await?;
                output.print(&issued, |issued| made.told(issued));
            }
            Self::Renew { serial, made } => {
                let old: Certificate = client.certificate_show(&serial).await?;
                let stem = match (&old.gateway, old.names.is_empty()) {
                    (Some(_), _) => "gateway",
                    (None, false) => "server",
                    (None, true) => "client",
                };
                let renew = async |csr| client.certificate_renew(&serial, &RenewCertificate { csr }).await;
                let issued = made.issue(stem, renew).await?;
                output.print(&issued, |issued| made.told(issued));
            }
            Self::List { member, sorted } => {
                let query = sorted.of(ListCertificates { member, ..ListCertificates::default() });
                let certificates = all(async |query| client.certificate_list(query).await, query).await?;
                output.print(&certificates, |certificates| certificate_table(&certificates.items));
            }
            Self::Show { serial } => {
                let certificate: Certificate = client.certificate_show(&serial).await?;
                output.print(&certificate, |certificate| certificate_table(std::slice::from_ref(certificate)));
            }
            Self::Revoke(RevokeArgs { which: WhichArgs { serial: Some(serial), .. }, reason }) => {
                let certificate: Certificate = client.certificate_revoke(&serial, &Reason { reason }).await?;
                output.print(&certificate, |certificate| {
                    format!("certificate {} is {}\n", certificate.serial, certificate.state)
                });
            }
            Self::Revoke(RevokeArgs { which: WhichArgs { key, lineage, member, replica, .. }, reason }) => {
                let order = RevokeCertificates { key, lineage, member, replica, reason };
                let revoked: Page<Certificate> = client.certificate_revoke_several(&order).await?;
                output.print(&revoked, |revoked| certificate_table(&revoked.items));
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

/// A key made here.
struct NewKey {
    csr: String,
    pem: Zeroizing<String>,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl NewKey {
    fn make() -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate().context("cannot make a key")?;
        let mut params = rcgen::CertificateParams::default();
        // The CA takes the key and nothing else from a request.
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr = params.serialize_request(&key).and_then(|csr| csr.pem());
        let csr = csr.context("cannot make a certificate request")?;
        Ok(Self { csr, pem: Zeroizing::new(key.serialize_pem()), pkcs8: Zeroizing::new(key.serialize_der()) })
    }
}

impl Made {
    /// With a new key, into a directory.
    pub(super) fn new_key(out: &Path) -> Self {
        Self { key: KeySource { csr: None, new_key: true }, out: out.to_owned(), pkcs12: None }
    }

    /// Asks for the certificate and writes what came: an order is refused or its files are all there.
    pub(super) async fn issue(
        &self,
        stem: &str,
        order: impl AsyncFnOnce(String) -> Result<Issued, ClientError>,
    ) -> anyhow::Result<Issued> {
        let out = &self.out;
        // Nothing is made before what was given is read.
        let password = match &self.pkcs12 {
            Some(file) => Some(Zeroizing::new(String::from_utf8(read_secret(file)?.trim_ascii_end().to_vec())?)),
            None => None,
        };
        let csr = self.key.csr.as_deref().map(read_csr).transpose()?;
        let made = !out.exists();
        std::fs::create_dir_all(out).with_context(|| format!("cannot make the directory {}", out.display()))?;
        let files = ["pem", "key", "p12"].map(|extension| out.join(format!("{stem}.{extension}")));
        if let Some(file) = files.iter().find(|file| file.exists()) {
            bail!("{} is there already; choose another --out or move it away", file.display());
        }
        let [certificate, key_file, p12] = files;
        let (csr, key) = match csr {
            Some(csr) => (csr, None),
            None => {
                let key = NewKey::make()?;
                (key.csr.clone(), Some(key))
            }
        };
        // The key first: a certificate without its key would be of no use.
        if let Some(key) = &key {
            write_secret(&key_file, key.pem.as_bytes())?;
        }
        let issued = order(csr).await.inspect_err(|_| {
            // A key without a certificate would stand in the way of the next try.
            let _ = std::fs::remove_file(&key_file);
            let _ = made.then(|| std::fs::remove_dir(out));
        })?;
        write_whole(&certificate, shown_pem(&issued).as_bytes(), 0o644)?;
        write_whole(&out.join("ca.pem"), issued.ca.as_bytes(), 0o644)?;
        if let (Some(password), Some(key)) = (password, key) {
            write_secret(&p12, &pkcs12(&issued, &key, &password)?)?;
        }
        Ok(issued)
    }

    fn told(&self, issued: &Issued) -> String {
        let Certificate { serial, not_after, .. } = &issued.certificate;
        format!("certificate {serial}, valid until {not_after}, is in {}\n", self.out.display())
    }
}

/// What its holder shows. The broker knows its issuing CAs, and a handshake without them is 430 octets shorter; those who meet
/// servers and gateways of members may know the root alone.
fn shown_pem(issued: &Issued) -> &str {
    let Certificate { names, gateway, .. } = &issued.certificate;
    if names.is_empty() && gateway.is_none() { &issued.pem } else { &issued.chain }
}

/// Key, certificate, issuing CA and root in one file (RFC 7292), under a password.
fn pkcs12(issued: &Issued, key: &NewKey, password: &str) -> anyhow::Result<Vec<u8>> {
    let certificates = dnsbroker_ca::chain::from_pem(format!("{}{}", issued.chain, issued.ca).as_bytes())?;
    let certificates = certificates.iter().map(|der| p12_keystore::Certificate::from_der(der));
    let certificates = certificates.collect::<Result<Vec<_>, _>>().context("cannot write PKCS#12")?;
    let private = PrivateKey::from_der(&key.pkcs8).context("cannot write PKCS#12")?;
    let chain = PrivateKeyChain::new(&b"dnsbroker"[..], private, certificates);
    let mut store = KeyStore::new();
    store.add_entry(&issued.certificate.serial, KeyStoreEntry::PrivateKeyChain(chain));
    store.writer(password).write().context("cannot write PKCS#12")
}

/// Has a member's certificate issued for a key made here, and writes both.
pub(super) async fn issue_with_new_key(client: &Client, member: MemberId, out: &Path) -> anyhow::Result<Issued> {
    let order = |csr| IssueCertificate { member: Some(member), replica: None, gateway: None, names: vec![], csr };
    Made::new_key(out).issue("client", async |csr| client.certificate_issue(&order(csr)).await).await
}

pub(super) fn certificate_table(certificates: &[Certificate]) -> String {
    let row = |certificate: &Certificate| {
        let member = certificate.member.as_ref().map(ToString::to_string);
        let replica = certificate.replica.as_ref().map(|id| format!("replica {id}"));
        let holder = member.or(replica).unwrap_or_else(|| "broker".to_owned());
        let gateway = certificate.gateway.as_ref().map(|id| format!("gateway {id}"));
        let what = gateway.unwrap_or_else(|| certificate.names.join(","));
        vec![
            certificate.serial.clone(),
            holder,
            certificate.profile.clone(),
            certificate.not_after.to_string(),
            certificate.state.clone(),
            what,
        ]
    };
    let heads = ["SERIAL", "HOLDER", "PROFILE", "VALID UNTIL", "STATE", "FOR"];
    table(&heads, &certificates.iter().map(row).collect::<Vec<_>>())
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
