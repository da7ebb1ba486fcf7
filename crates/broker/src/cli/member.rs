//! `member` and `netid`: who is in the federation, and where their network servers are.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use dnsbroker_api::client::Client;
use dnsbroker_api::listed::{ListCertificates, ListMembers, ListNetids, SortMembers, SortNetids};
use dnsbroker_api::message::{
    Certificate, ChangeMember, Grace, Member, Network, NewMember, Reason, SetAnchors, SetNetwork,
};
use dnsbroker_api::operator::NetIdAnchors;
use dnsbroker_api::ownership::Limits;
use dnsbroker_federation::{DomainName, MemberId, NetId};

use super::certificate::duration;
use super::output::table;
use super::sorted::Sorted;
use super::{Context, all};

#[derive(Subcommand)]
pub(super) enum MemberCommand {
    /// Add a member
    Add {
        /// Its id: lower-case letters, digits and hyphens, as it will stand in certificates
        id: MemberId,
        /// Its name for people
        #[arg(long)]
        name: Option<String>,
    },
    /// List all members
    List(Sorted<SortMembers>),
    /// Show one member
    Show {
        /// Its id
        id: MemberId,
    },
    /// Refuse a member everything, at once, until it is resumed; its data stay
    Suspend {
        /// Its id
        id: MemberId,
        /// Why: for the audit and for the member's error messages
        #[arg(long, default_value = "suspended by an administrator")]
        reason: String,
    },
    /// End a suspension
    Resume {
        /// Its id
        id: MemberId,
    },
    /// Let a member renew a certificate that has expired, for some time
    Grace {
        /// Its id
        id: MemberId,
        /// How long: a number with s, m, h or d, 30d at most; 0s ends it
        #[arg(long = "for", value_name = "TIME", default_value = "7d", value_parser = duration)]
        time: i64,
    },
    /// Approve a name outside the federation for the certificates of a member's servers
    Approve {
        /// Its id
        id: MemberId,
        /// The host name
        name: DomainName,
        /// Take the approval back; certificates that have the name stay until they end or are revoked, and are named
        #[arg(long)]
        withdraw: bool,
    },
    /// Give a member another name for people
    Rename {
        /// Its id
        id: MemberId,
        /// The name
        name: String,
    },
    /// Show or set what devices a member may register
    Limits {
        /// Its id
        id: MemberId,
        /// A block of DevEUIs: the first digits, a slash and how many bits count, as in 0004a30b/32; may be given several
        /// times. All others are refused from then on
        #[arg(long)]
        range: Vec<String>,
        /// How many devices it may have
        #[arg(long)]
        quota: Option<u64>,
        /// Any devices, any number
        #[arg(long, conflicts_with_all = ["range", "quota"])]
        none: bool,
    },
    /// Remove a member that holds no NetIDs any more; its certificates are refused from now on
    Remove {
        /// Its id
        id: MemberId,
    },
}

impl MemberCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add { id, name } => {
                let member: Member = client.member_add(&NewMember { id, name }).await?;
                output.print(&member, |member| format!("member {} added\n", member.id));
            }
            Self::List(sorted) => {
                let query = sorted.of(ListMembers::default());
                let members = all(async |query| client.member_list(query).await, query).await?;
                output.print(&members, |members| member_table(&members.items));
            }
            Self::Show { id } => {
                let member: Member = client.member_show(&id).await?;
                output.print(&member, |member| member_table(std::slice::from_ref(member)));
            }
            Self::Suspend { id, reason } => {
                let member: Member = client.member_suspend(&id, &Reason { reason }).await?;
                output.print(&member, |member| format!("member {} is suspended\n", member.id));
            }
            Self::Resume { id } => {
                let member: Member = client.member_resume(&id).await?;
                output.print(&member, |member| format!("member {} is active again\n", member.id));
            }
            Self::Grace { id, time } => {
                let grace = Grace { seconds: time };
                let member: Member = client.member_grace(&id, &grace).await?;
                output.print(&member, |member| match member.grace {
                    Some(until) => format!("member {id} may renew an expired certificate until {until}\n"),
                    None => format!("member {id} renews before the end, as everybody\n"),
                });
            }
            Self::Approve { id, name, withdraw } => {
                let member: Member = match withdraw {
                    true => client.member_withdraw(&id, &name).await?,
                    false => client.member_approve(&id, &name).await?,
                };
                let good = if withdraw { good_for(client, &id, &name).await? } else { vec![] };
                output.print(&member, |member| {
                    let names: Vec<String> = member.names.iter().map(ToString::to_string).collect();
                    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    format!("names of member {id}: {names}\n")
                });
                for Certificate { serial, not_after, .. } in good {
                    output.note(&format!(
                        "certificate {serial} has the name and stays good until {not_after}: `dnsbroker cert revoke {serial} \
                         --reason privilege-withdrawn` revokes it"
                    ));
                }
            }
            Self::Rename { id, name } => {
                let member: Member = client.member_change(&id, &ChangeMember { name }).await?;
                output.print(&member, |member| format!("member {id} is called {}\n", member.name));
            }
            Self::Limits { id, range, quota, none } => {
                let limits = match none || !range.is_empty() || quota.is_some() {
                    true => client.limits_set(&id, &Limits { ranges: range, quota }).await?,
                    false => client.limits_show(&id).await?,
                };
                output.print(&limits, |Limits { ranges, quota }| {
                    let ranges = if ranges.is_empty() { "any".to_owned() } else { ranges.join(" ") };
                    let quota = quota.map_or_else(|| "any number".to_owned(), |quota| quota.to_string());
                    format!("ranges  {ranges}\nquota   {quota}\n")
                });
            }
            Self::Remove { id } => {
                client.member_remove(&id).await?;
                output.print(&serde_json::json!({ "removed": id }), |_| format!("member {id} removed\n"));
            }
        }
        Ok(())
    }
}

/// Certificates of a member's servers that are good and have a name.
async fn good_for(client: &Client, id: &MemberId, name: &DomainName) -> anyhow::Result<Vec<Certificate>> {
    let query = ListCertificates { member: Some(id.clone()), state: Some("valid".to_owned()), ..Default::default() };
    let certificates = all(async |query| client.certificate_list(query).await, query).await?;
    let (name, mut found) = (name.dotless(), certificates.items);
    found.retain(|known| known.names.contains(&name));
    Ok(found)
}

fn member_table(members: &[Member]) -> String {
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|member| {
            let netids: Vec<String> = member.netids.iter().map(ToString::to_string).collect();
            let state = member.suspended.as_ref().map_or("active".to_owned(), |why| format!("suspended: {why}"));
            vec![member.id.to_string(), netids.join(","), member.devices.to_string(), state, member.name.clone()]
        })
        .collect();
    table(&["MEMBER", "NETIDS", "DEVICES", "STATE", "NAME"], &rows)
}

#[derive(Subcommand)]
pub(super) enum NetidCommand {
    /// Give a NetID to a member, or change where its network server is
    Set(SetNetid),
    /// List all NetIDs
    List(Sorted<SortNetids>),
    /// Show one NetID
    Show {
        /// Six hexadecimal digits
        netid: NetId,
    },
    /// Publish what its servers are trusted by, where that is not the federation's CA: in the bundle, and as TLSA records
    Anchors {
        /// Six hexadecimal digits
        netid: NetId,
        /// Certificates of CAs, or the servers' own (PEM)
        #[arg(required_unless_present = "clear", conflicts_with = "clear")]
        file: Option<PathBuf>,
        /// Take them back
        #[arg(long)]
        clear: bool,
    },
    /// Take a NetID without devices out of the zone
    Remove {
        /// Six hexadecimal digits
        netid: NetId,
    },
}

#[derive(Args)]
pub(super) struct SetNetid {
    /// Six hexadecimal digits
    netid: NetId,
    /// Who holds it
    #[arg(long)]
    member: MemberId,
    /// Address of its network server; may be given several times
    #[arg(long = "address", required = true)]
    addresses: Vec<IpAddr>,
    /// TCP port of its network server, published as SRV and NAPTR (TS002)
    #[arg(long)]
    port: Option<u16>,
    /// The name in its network server's certificate, published as the target of SRV
    #[arg(long)]
    target: Option<DomainName>,
}

impl NetidCommand {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        match self {
            Self::Set(SetNetid { netid, member, addresses, port, target }) => {
                let body = SetNetwork { member, addresses, port, target };
                let network: Network = client.netid_set(&netid, &body).await?;
                output.print(&network, |network| format!("NetID {} is held by {}\n", network.netid, network.member));
            }
            Self::List(sorted) => {
                let query = sorted.of(ListNetids::default());
                let networks = all(async |query| client.netid_list(query).await, query).await?;
                output.print(&networks, |networks| network_table(&networks.items));
            }
            Self::Show { netid } => {
                let network: Network = client.netid_show(&netid).await?;
                output.print(&network, |network| network_table(std::slice::from_ref(network)));
            }
            Self::Anchors { netid, file, .. } => {
                let pem = match &file {
                    Some(file) => {
                        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
                    }
                    None => String::new(),
                };
                let anchors: Option<NetIdAnchors> = client.netid_anchors(&netid, &SetAnchors { pem }).await?;
                output.print(&anchors, |anchors| match anchors {
                    Some(anchors) => format!("published for {netid}:\n{}\n", anchors.tlsa.join("\n")),
                    None => format!("{netid} is trusted by the federation's CA\n"),
                });
            }
            Self::Remove { netid } => {
                client.netid_remove(&netid).await?;
                output.print(&serde_json::json!({ "removed": netid }), |_| format!("NetID {netid} removed\n"));
            }
        }
        Ok(())
    }
}

fn network_table(networks: &[Network]) -> String {
    let rows: Vec<Vec<String>> = networks
        .iter()
        .map(|network| {
            let addresses: Vec<String> = network.addresses.iter().map(ToString::to_string).collect();
            vec![
                network.netid.to_string(),
                network.member.to_string(),
                network.devices.to_string(),
                addresses.join(","),
                network.port.map_or_else(|| "-".to_owned(), |port| port.to_string()),
                network.name.clone(),
            ]
        })
        .collect();
    table(&["NETID", "MEMBER", "DEVICES", "ADDRESSES", "PORT", "NAME"], &rows)
}
