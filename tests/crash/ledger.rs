//! Who was told what: each change that was asked for, whether it was acknowledged and when, and whether what a broker
//! has after a crash can have come of that.
//!
//! A writer has one change under way at a time and owns what it changes. So a broker that lost nothing and did nothing
//! by halves has, for each writer, all acknowledged changes, and of the one under way either all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{bail, ensure};
use dnsbroker_api::client::Client;
use dnsbroker_api::listed::{ListAudit, ListCertificates, ListDevices, ListMembers, ListNetids, ListTokens, Paged};
use dnsbroker_api::message::{AuditCheck, Certificate, ZoneCheck};
use dnsbroker_federation::{DevEui, MemberId, NetId};

/// How a request ended.
#[derive(Debug)]
pub enum Outcome<D> {
    /// Acknowledged, when the log was this long.
    Done(D, u64),
    /// Refused: nothing was changed.
    Refused,
    /// The daemon died first.
    Unknown,
}

/// A request: the change, where the log was when it was sent, and how it ended.
#[derive(Debug)]
pub struct Step<C, D> {
    /// What was asked for.
    pub change: C,
    /// Length of the log before it was sent.
    pub sent: u64,
    /// How it ended.
    pub outcome: Outcome<D>,
}

/// What one writer owns.
pub trait Part: Clone + PartialEq {
    /// What it does.
    type Change;
    /// What it learns when that is done.
    type Done;
    /// Does it; tells whether anything changed.
    fn apply(&mut self, change: &Self::Change, done: &Self::Done) -> bool;
    /// What it must have learned if `found` is what came of this.
    fn learned(&self, change: &Self::Change, found: &Self) -> Option<Self::Done>;
    /// Where two differ, in words.
    fn difference(&self, found: &Self) -> String;
}

/// All that one writer asked for.
pub struct Ledger<P: Part> {
    /// Before the first step.
    pub start: P,
    /// One after another.
    pub steps: Vec<Step<P::Change, P::Done>>,
}

/// At the end of everything.
pub const END: u64 = u64::MAX;

impl<P: Part> Ledger<P> {
    /// Whether a broker that died when the log had this length may have `found`; how many changes led to it.
    pub fn check(&self, died: u64, found: &P) -> anyhow::Result<u64> {
        let (mut part, mut changes) = (self.start.clone(), 0);
        for Step { change, sent, outcome } in &self.steps {
            match outcome {
                Outcome::Done(done, acknowledged) if *acknowledged <= died => {
                    changes += u64::from(part.apply(change, done));
                }
                Outcome::Refused => {}
                Outcome::Done(..) | Outcome::Unknown if *sent < died => {
                    // It was under way: all or nothing. Later ones were not sent yet.
                    if part != *found
                        && let Some(done) = part.learned(change, found)
                    {
                        let mut with = part.clone();
                        let changed = with.apply(change, &done);
                        if with == *found {
                            return Ok(changes + u64::from(changed));
                        }
                    }
                    break;
                }
                Outcome::Done(..) | Outcome::Unknown => break,
            }
        }
        ensure!(part == *found, "{}", part.difference(found));
        Ok(changes)
    }

    /// Changes that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step.outcome, Outcome::Done(..))).count()
    }

    /// Changes that were refused.
    pub fn refused(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step.outcome, Outcome::Refused)).count()
    }
}

/// Devices of one NetID.
pub type Devices = BTreeSet<DevEui>;

/// A list of devices.
#[derive(Debug)]
pub enum DeviceChange {
    /// These too.
    Add(Vec<DevEui>),
    /// These no longer.
    Remove(Vec<DevEui>),
    /// These and no others.
    Full(Vec<DevEui>),
}

impl Part for Devices {
    type Change = DeviceChange;
    type Done = ();

    fn apply(&mut self, change: &DeviceChange, (): &()) -> bool {
        let before = self.clone();
        match change {
            DeviceChange::Add(devices) => self.extend(devices),
            DeviceChange::Remove(devices) => self.retain(|device| !devices.contains(device)),
            DeviceChange::Full(devices) => *self = devices.iter().copied().collect(),
        }
        before != *self
    }

    fn learned(&self, _: &DeviceChange, _: &Self) -> Option<()> {
        Some(())
    }

    fn difference(&self, found: &Self) -> String {
        let (lost, more) = (self.difference(found).count(), found.difference(self).count());
        format!("of {} devices {lost} are lost, and {more} are there that should not", self.len())
    }
}

/// Members, addresses, tokens and certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Members.
    pub members: BTreeSet<MemberId>,
    /// NetIDs and their addresses.
    pub networks: BTreeMap<NetId, Vec<IpAddr>>,
    /// Tokens, and the certificates they were used for.
    pub tokens: BTreeMap<String, Option<String>>,
    /// Certificates, and whether they are revoked.
    pub certificates: BTreeMap<String, bool>,
}

/// What an administrator and operators do.
#[derive(Debug, Clone)]
pub enum RosterChange {
    /// `member add`.
    Member(MemberId),
    /// `netid set`.
    Network(NetId, Vec<IpAddr>),
    /// `token create`; learns the token's id.
    Token,
    /// Enrolment with a token; learns the certificate's serial number.
    Enrol(String),
    /// `cert revoke`.
    Revoke(String),
}

impl Part for Roster {
    type Change = RosterChange;
    type Done = String;

    fn apply(&mut self, change: &RosterChange, done: &String) -> bool {
        let before = self.clone();
        match change {
            RosterChange::Member(member) => drop(self.members.insert(member.clone())),
            RosterChange::Network(netid, addresses) => drop(self.networks.insert(*netid, addresses.clone())),
            RosterChange::Token => drop(self.tokens.insert(done.clone(), None)),
            RosterChange::Enrol(token) => {
                self.tokens.insert(token.clone(), Some(done.clone()));
                self.certificates.insert(done.clone(), false);
            }
            RosterChange::Revoke(serial) => drop(self.certificates.insert(serial.clone(), true)),
        }
        before != *self
    }

    fn learned(&self, change: &RosterChange, found: &Self) -> Option<String> {
        match change {
            RosterChange::Token => found.tokens.keys().find(|token| !self.tokens.contains_key(*token)).cloned(),
            RosterChange::Enrol(token) => found.tokens.get(token).cloned().flatten(),
            _ => Some(String::new()),
        }
    }

    fn difference(&self, found: &Self) -> String {
        let parts = [
            ("members", self.members.len(), found.members.len(), self.members != found.members),
            ("NetIDs", self.networks.len(), found.networks.len(), self.networks != found.networks),
            ("tokens", self.tokens.len(), found.tokens.len(), self.tokens != found.tokens),
            (
                "certificates",
                self.certificates.len(),
                found.certificates.len(),
                self.certificates != found.certificates,
            ),
        ];
        let differ = parts.into_iter().filter(|part| part.3);
        let words =
            differ.map(|(what, expected, found, _)| format!("of {expected} {what} there are {found} or others"));
        words.collect::<Vec<_>>().join(", ")
    }
}

/// Everything a broker has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// Devices by NetID.
    pub devices: BTreeMap<NetId, Devices>,
    /// All else.
    pub roster: Roster,
    /// Changes in the audit, less what the daemon did by itself.
    pub audited: u64,
}

impl Picture {
    /// Reads everything over REST, and has the broker check itself.
    pub async fn take(client: &Client) -> anyhow::Result<Self> {
        let mut picture = Self::default();
        let mut query = ListDevices { limit: Some(MOST), ..ListDevices::default() };
        loop {
            let page = client.device_list(&query).await?;
            for device in page.items {
                picture.devices.entry(device.netid).or_default().insert(device.deveui);
            }
            let Some(next) = page.next else { break };
            query.go_on(next);
        }
        let limit = Some(MOST);
        let members = client.member_list(&ListMembers { limit, ..ListMembers::default() }).await?;
        let networks = client.netid_list(&ListNetids { limit, ..ListNetids::default() }).await?;
        let tokens = client.token_list(&ListTokens { limit, ..ListTokens::default() }).await?;
        let certificates = client.certificate_list(&ListCertificates { limit, ..ListCertificates::default() }).await?;
        let whole = [&members.next, &networks.next, &tokens.next, &certificates.next];
        ensure!(whole.iter().all(|next| next.is_none()), "a run made more than {MOST} of something");
        for network in &networks.items {
            let listed = picture.devices.entry(network.netid).or_default().len() as u64;
            ensure!(listed == network.devices, "{} counts {} devices of {listed}", network.netid, network.devices);
        }
        ensure!(picture.devices.len() == networks.items.len(), "devices of a NetID that is not there");
        picture.roster = Roster {
            members: members.items.into_iter().map(|member| member.id).collect(),
            networks: networks.items.into_iter().map(|network| (network.netid, network.addresses)).collect(),
            tokens: tokens.items.into_iter().map(|token| (token.id, token.certificate)).collect(),
            certificates: {
                let revoked = |certificate: &Certificate| certificate.state.starts_with("revoked");
                certificates.items.into_iter().map(|row| (row.serial.clone(), revoked(&row))).collect()
            },
        };
        picture.audited = audited(client).await?;
        let zones: ZoneCheck = client.zone_check().await?;
        ensure!(zones.ok, "the zones are not sound: {:?}", zones.errors);
        Ok(picture)
    }

    /// What this and `ledgers` allow.
    pub fn check(&self, start: &Self, ledgers: &Ledgers, died: u64) -> anyhow::Result<()> {
        let mut changes = ledgers.roster.check(died, &self.roster)?;
        for (netid, ledger) in &ledgers.devices {
            let Some(found) = self.devices.get(netid) else { bail!("{netid} is lost") };
            let checked = ledger.check(died, found);
            changes += checked.map_err(|error| error.context(format!("devices of {netid}")))?;
        }
        let audited = self.audited - start.audited;
        ensure!(audited == changes, "{changes} changes have {audited} rows in the audit");
        Ok(())
    }
}

/// All writers' ledgers.
pub struct Ledgers {
    /// Of those who change devices.
    pub devices: BTreeMap<NetId, Ledger<Devices>>,
    /// Of the one who changes all else.
    pub roster: Ledger<Roster>,
}

impl Ledgers {
    /// Changes that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.roster.acknowledged() + self.devices.values().map(Ledger::acknowledged).sum::<usize>()
    }

    /// Changes that were refused.
    pub fn refused(&self) -> usize {
        self.roster.refused() + self.devices.values().map(Ledger::refused).sum::<usize>()
    }
}

async fn audited(client: &Client) -> anyhow::Result<u64> {
    let check: AuditCheck = client.audit_verify().await?;
    ensure!(check.ok, "the audit is broken: {:?}", check.broken);
    let mut own = 0;
    let mut query = ListAudit { limit: Some(MOST), ..ListAudit::default() };
    loop {
        let page = client.audit_list(&query).await?;
        own += page.items.iter().filter(|row| is_own(&row.actor)).count() as u64;
        let Some(next) = page.next else { break };
        query.go_on(next);
    }
    Ok(check.rows - own)
}

/// What the daemon does by itself: its own housekeeping, and what it fetches.
fn is_own(actor: &str) -> bool {
    actor == "broker" || actor.starts_with("source:")
}

/// Items of a page.
const MOST: usize = 10_000;
