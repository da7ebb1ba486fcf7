//! `policy`: who may resolve whose devices.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use dnsbroker_api::ownership::{Ban, Policy, PolicyChange, Share, Sharing, Stance};
use dnsbroker_federation::{MemberId, NetId};

use super::Context;

#[derive(Subcommand)]
pub(super) enum PolicyCommand {
    /// Print the policy
    Show,
    /// Put another policy (JSON, as `show --json` prints it) in the place of the one there is
    Set {
        /// The file
        file: PathBuf,
    },
    /// Change one rule, and leave the others
    #[command(subcommand)]
    Change(Rule),
}

#[derive(Subcommand)]
pub(super) enum Rule {
    /// What holds where no other rule fits
    Default {
        /// open: every member may resolve every device; closed: only who has an agreement
        stance: StanceArg,
    },
    /// Whether answers say that policy hides something; else it looks unregistered
    Tell {
        /// yes or no
        tell: YesNo,
    },
    /// Two members resolve each other's devices
    Agree {
        /// One
        one: MemberId,
        /// The other
        other: MemberId,
    },
    /// They no longer do, as far as that rested on their agreement
    Part {
        /// One
        one: MemberId,
        /// The other
        other: MemberId,
    },
    /// A member may not resolve the devices of another, or of a NetID
    Deny(BanArgs),
    /// That is lifted
    Permit(BanArgs),
    /// Who may resolve the devices of a NetID
    Share {
        /// The NetID
        netid: NetId,
        /// open: who is not denied; agreements: who has one with its holder; closed: its holder alone
        sharing: SharingArg,
    },
    /// The NetID has no rule of its own any more
    Unshare {
        /// The NetID
        netid: NetId,
    },
}

#[derive(Args)]
pub(super) struct BanArgs {
    /// Who may not
    asker: MemberId,
    #[command(flatten)]
    of: Banned,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Banned {
    /// All devices of this member
    #[arg(long)]
    holder: Option<MemberId>,
    /// The devices of this NetID
    #[arg(long)]
    netid: Option<NetId>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum StanceArg {
    Open,
    Closed,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum SharingArg {
    Open,
    Agreements,
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum YesNo {
    Yes,
    No,
}

impl From<BanArgs> for Ban {
    fn from(BanArgs { asker, of: Banned { holder, netid } }: BanArgs) -> Self {
        Self { asker, holder, netid }
    }
}

impl From<Rule> for PolicyChange {
    fn from(rule: Rule) -> Self {
        let none = Self::default();
        match rule {
            Rule::Default { stance: StanceArg::Open } => Self { default: Some(Stance::Open), ..none },
            Rule::Default { stance: StanceArg::Closed } => Self { default: Some(Stance::Closed), ..none },
            Rule::Tell { tell } => Self { tell: Some(tell == YesNo::Yes), ..none },
            Rule::Agree { one, other } => Self { agree: Some([one, other]), ..none },
            Rule::Part { one, other } => Self { part: Some([one, other]), ..none },
            Rule::Deny(ban) => Self { deny: Some(ban.into()), ..none },
            Rule::Permit(ban) => Self { permit: Some(ban.into()), ..none },
            Rule::Share { netid, sharing } => {
                let sharing = match sharing {
                    SharingArg::Open => Sharing::Open,
                    SharingArg::Agreements => Sharing::Agreements,
                    SharingArg::Closed => Sharing::Closed,
                };
                Self { share: Some(Share { netid, sharing }), ..none }
            }
            Rule::Unshare { netid } => Self { unshare: Some(netid), ..none },
        }
    }
}

impl PolicyCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        let policy = match self {
            Self::Show => client.policy_show().await?,
            Self::Set { file } => {
                let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let policy: Policy = serde_json::from_str(&text)
                    .with_context(|| format!("{} is not a policy: see `policy show --json`", file.display()))?;
                client.policy_set(&policy).await?
            }
            Self::Change(rule) => client.policy_change(&rule.into()).await?,
        };
        output.print(&policy, text);
        Ok(())
    }
}

fn text(policy: &Policy) -> String {
    let default = match policy.default {
        Stance::Open => "every member may resolve every device",
        Stance::Closed => "members resolve devices of those they have an agreement with",
    };
    let mut text = format!("default     {default}\n");
    let tell = if policy.tell { "is told (extended error 18)" } else { "looks unregistered" };
    text.push_str(&format!("hidden      {tell}\n"));
    for [one, other] in &policy.agreements {
        text.push_str(&format!("agreement   {one} and {other}\n"));
    }
    for Ban { asker, holder, netid } in &policy.deny {
        let what = holder.as_ref().map(|holder| format!("member {holder}"));
        let what = what.or_else(|| netid.map(|netid| format!("NetID {netid}"))).unwrap_or_default();
        text.push_str(&format!("denied      {asker}: devices of {what}\n"));
    }
    for (netid, sharing) in &policy.netids {
        let who = match sharing {
            Sharing::Open => "every member that is not denied",
            Sharing::Agreements => "members with an agreement with its holder",
            Sharing::Closed => "its holder alone",
        };
        text.push_str(&format!("NetID       {netid}: {who}\n"));
    }
    text
}
