//! `admin` and `api-token`: people and programs that use the API over the network.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use dnsbroker_api::account::{Administrator, ApiToken, ChangeAdministrator, NewAdministrator, NewApiToken};
use dnsbroker_api::listed::{ListAdministrators, ListApiTokens, SortAdministrators, SortApiTokens};
use dnsbroker_federation::MemberId;

use super::certificate::duration;
use super::output::table;
use super::sorted::Sorted;
use super::{Context, all};
use crate::key::read_secret;

#[derive(Subcommand)]
pub(super) enum AdminCommand {
    /// Add an administrator or auditor; a password that is made for them is shown once
    Add {
        /// The name to log in with: lower-case letters, digits and any of . _ @ -
        name: String,
        /// What they may
        #[arg(long, value_enum, default_value_t = RoleArg::Admin)]
        role: RoleArg,
        /// A file with the password; without it one is made
        #[arg(long)]
        password_file: Option<PathBuf>,
        /// Make a second factor at once, and show it; without it they set one up themselves, in the web UI
        #[arg(long)]
        totp: bool,
    },
    /// List administrators and auditors
    List(Sorted<SortAdministrators>),
    /// Change what is given
    Change(Change),
    /// Remove one, with their API tokens
    Remove {
        /// Whom
        name: String,
    },
}

#[derive(Args)]
pub(super) struct Change {
    /// Whom
    name: String,
    /// What they may
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// A file with another password; their sessions end
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// Take the second factor away, for who has lost it
    #[arg(long)]
    no_totp: bool,
    /// They may log in no longer
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// They may log in again
    #[arg(long)]
    enable: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum RoleArg {
    /// Everything
    Admin,
    /// Read everything, change nothing
    Auditor,
}

impl RoleArg {
    fn text(self) -> String {
        match self {
            Self::Admin => "admin",
            Self::Auditor => "auditor",
        }
        .to_owned()
    }
}

fn password(file: Option<PathBuf>) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let octets = read_secret(&file)?;
    let text = std::str::from_utf8(octets.trim_ascii_end());
    Ok(Some(text.with_context(|| format!("{} is not UTF-8", file.display()))?.to_owned()))
}

impl AdminCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add { name, role, password_file, totp } => {
                let new = NewAdministrator { name, role: role.text(), password: password(password_file)?, totp };
                let added: Administrator = client.administrator_add(&new).await?;
                output.print(&added, added_text);
            }
            Self::List(sorted) => {
                let query = sorted.of(ListAdministrators::default());
                let known = all(async |query| client.administrator_list(query).await, query).await?;
                output.print(&known, |known| administrator_table(&known.items));
            }
            Self::Change(Change { name, role, password_file, no_totp, disable, enable }) => {
                let change = ChangeAdministrator {
                    role: role.map(RoleArg::text),
                    password: password(password_file)?,
                    totp: no_totp.then_some(false),
                    disabled: (disable || enable).then_some(disable),
                };
                let changed: Administrator = client.administrator_change(&name, &change).await?;
                output.print(&changed, |changed| administrator_table(std::slice::from_ref(changed)));
            }
            Self::Remove { name } => {
                client.administrator_remove(&name).await?;
                output.print(&serde_json::json!({ "removed": name }), |_| format!("administrator {name} removed\n"));
            }
        }
        Ok(())
    }
}

fn added_text(added: &Administrator) -> String {
    let mut text = format!("{} {} added\n", added.role, added.name);
    if let Some(password) = &added.password {
        text.push_str(&format!("password    {password}\n"));
    }
    if let Some(secret) = &added.secret {
        text.push_str(&format!("second factor {}\n{}\n", secret.secret, secret.uri));
    }
    if added.password.is_some() || added.secret.is_some() {
        text.push_str("These are not shown again: give them on a channel you trust.\n");
    }
    text
}

fn administrator_table(known: &[Administrator]) -> String {
    let row = |known: &Administrator| {
        let state = known.disabled.as_ref().map_or_else(|| "active".to_owned(), |since| format!("disabled {since}"));
        let totp = if known.totp { "yes" } else { "no" };
        vec![known.name.clone(), known.role.clone(), totp.to_owned(), state]
    };
    table(&["NAME", "ROLE", "SECOND FACTOR", "STATE"], &known.iter().map(row).collect::<Vec<_>>())
}

#[derive(Subcommand)]
pub(super) enum ApiTokenCommand {
    /// Make an API token for a program; it is shown once
    Create(CreateToken),
    /// List API tokens; never their secrets
    List(Sorted<SortApiTokens>),
    /// Make one worthless, at once
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Args)]
pub(super) struct CreateToken {
    /// What it is for, in words
    #[arg(long)]
    name: String,
    #[command(flatten)]
    owner: Owner,
    /// What it allows: read, devices, members, transfers, certificates, policy, admin
    #[arg(long, required = true, value_delimiter = ',')]
    scope: Vec<String>,
    /// How long: a number with s, m, h or d; without it until it is revoked
    #[arg(long, value_parser = duration)]
    ttl: Option<i64>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Owner {
    /// The administrator for whom it speaks
    #[arg(long)]
    administrator: Option<String>,
    /// The member for which it speaks
    #[arg(long)]
    member: Option<MemberId>,
}

impl ApiTokenCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Create(CreateToken { name, owner, scope, ttl }) => {
                let administrator = owner.administrator.map(|name| format!("administrator:{name}"));
                let owner = administrator.or_else(|| owner.member.map(|id| format!("member:{id}")));
                let new = NewApiToken { name, owner, scopes: scope, ttl };
                let made: ApiToken = client.api_token_create(&new).await?;
                output.print(&made, |made| {
                    let secret = made.token.as_deref().unwrap_or_default();
                    format!("token  {secret}\nUse it as `Authorization: Bearer`; it is not shown again.\n")
                });
            }
            Self::List(sorted) => {
                let query = sorted.of(ListApiTokens::default());
                let tokens = all(async |query| client.api_token_list(query).await, query).await?;
                output.print(&tokens, |tokens| token_table(&tokens.items));
            }
            Self::Revoke { id } => {
                client.api_token_revoke(&id).await?;
                output.print(&serde_json::json!({ "revoked": id }), |_| format!("API token {id} is worthless\n"));
            }
        }
        Ok(())
    }
}

fn token_table(tokens: &[ApiToken]) -> String {
    let row = |token: &ApiToken| {
        let end = token.expires.as_ref().map_or_else(|| "never".to_owned(), ToString::to_string);
        let state = token.revoked.as_ref().map_or(end, |at| format!("revoked {at}"));
        vec![token.id.clone(), token.owner.clone(), token.scopes.join(","), state, token.name.clone()]
    };
    table(&["TOKEN", "OWNER", "SCOPES", "ENDS", "FOR"], &tokens.iter().map(row).collect::<Vec<_>>())
}
