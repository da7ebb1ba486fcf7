//! Commits on their way to a standby: what the acts have written, and in which order it belongs.
//!
//! A shipment has the rows that a commit's acts have written, and what leads from one state of the zones to the next. It
//! has not what is the store's own business: blocks, checkpoints, bounds of journal and history. So a standby folds when it
//! suits it, and its store differs from the primary's in form but not in content.
//!
//! Shipments are taken in order and without a gap: each begins with the head of the audit that the one before has led to, and
//! the hashes of its audit rows are worked out again. What does not fit is refused, and the standby takes a copy instead.
//!
//! ```text
//! u32 length of head | head (JSON) | u32 count of deltas | (u32 length, delta)* | u32 count of rows | row*
//! SHA-256 of all before
//! row = u8 table | u32 length, key | u8 1: u32 length, value; 0: deleted              (all big-endian)
//! ```

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use dnsbroker_ca::{ReplicaId, TokenHash};
use dnsbroker_federation::{DevEui, MemberId, NetId, Serial};
use dnsbroker_zone::delta::Delta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::audit::{Head, Row, hash};
use crate::engine::{Batch, EngineError, Table};
use crate::journal::{Draft, Leap, Step};
use crate::record::{CertificateRow, Request};
use crate::store::{CRLS_KEY, Finished, LNS_AUTHORITY_KEY, OpenError, POLICY_KEY, PRIMARY_KEY, PUBLICATION_KEY, Store};
use crate::view::View;

/// Octets of the sum at the end.
const SUM: usize = 32;

/// A commit, ready to be shipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipment {
    /// The head of the audit that it builds on.
    pub before: Head,
    /// The head that it leads to; the same where no act was among it.
    pub after: Head,
    /// All of it, encoded.
    pub octets: Vec<u8>,
}

/// Why a shipment is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It does not read.
    #[error("the shipment is damaged")]
    Damaged,
    /// A row in it does not read: of a later program, perhaps.
    #[error("a row of the shipment does not read: is the primary of a newer version?")]
    Row(#[from] serde_json::Error),
    /// It builds on another state.
    #[error("the shipment builds on act {theirs}, and act {ours} is the last one here")]
    Gap {
        /// What it builds on.
        theirs: u64,
        /// What is here.
        ours: u64,
    },
    /// It leads elsewhere than it says.
    #[error("the shipment does not lead where it says: {0}")]
    Elsewhere(&'static str),
    /// The store cannot be written.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What is not a row.
#[derive(Serialize, Deserialize)]
struct Envelope {
    before: Head,
    after: Head,
    serial: Serial,
    /// Whether readers must decide anew who is admitted.
    admissions: bool,
    /// Octets added to the devices' history.
    history: u64,
    /// The journal's last number before.
    journal: u64,
    steps: Vec<ShippedStep>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ShippedStep {
    /// The journal's next row has the delta.
    Kept,
    /// The next of the deltas that were too large for the journal.
    Large,
    /// The zones go on from this serial.
    To(Serial),
}

/// What a commit is made of before the store adds its own.
pub(crate) struct Content<'a> {
    pub before: &'a View,
    pub after: &'a View,
    pub journal: u64,
    pub draft: &'a Draft,
    pub history: u64,
    pub batch: &'a Batch,
}

impl Content<'_> {
    /// Puts it into a shipment.
    pub fn ship(&self) -> Shipment {
        let (mut steps, mut deltas) = (Vec::new(), Vec::new());
        for step in self.draft.steps() {
            steps.push(match step {
                Step::Kept(..) => ShippedStep::Kept,
                Step::Broken(Leap::To(serial)) => ShippedStep::To(*serial),
                Step::Broken(Leap::Delta(delta)) => {
                    deltas.push(delta);
                    ShippedStep::Large
                }
            });
        }
        let envelope = Envelope {
            before: self.before.audit.clone(),
            after: self.after.audit.clone(),
            serial: self.after.zones.serial(),
            admissions: self.before.generation != self.after.generation,
            history: self.history,
            journal: self.journal,
            steps,
        };
        let mut out = Vec::new();
        // Numbers, hashes and words: they always have a JSON form.
        part(&mut out, &serde_json::to_vec(&envelope).unwrap_or_default());
        out.extend((deltas.len() as u32).to_be_bytes());
        deltas.into_iter().for_each(|delta| part(&mut out, delta));
        out.extend((self.batch.len() as u32).to_be_bytes());
        for (table, key, value) in self.batch.writes() {
            out.push(Table::ALL.iter().position(|known| *known == table).unwrap_or(usize::from(u8::MAX)) as u8);
            part(&mut out, key);
            out.push(u8::from(value.is_some()));
            value.into_iter().for_each(|value| part(&mut out, value));
        }
        let sum = digest(&SHA256, &out);
        out.extend(sum.as_ref());
        Shipment { before: envelope.before, after: envelope.after, octets: out }
    }
}

fn part(out: &mut Vec<u8>, octets: &[u8]) {
    out.extend((octets.len() as u32).to_be_bytes());
    out.extend(octets);
}

/// Reads the parts of a shipment.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn octet(&mut self) -> Result<u8, ReplayError> {
        let (octet, rest) = self.0.split_first().ok_or(ReplayError::Damaged)?;
        self.0 = rest;
        Ok(*octet)
    }

    fn number(&mut self) -> Result<u32, ReplayError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(ReplayError::Damaged)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    fn part(&mut self) -> Result<&'a [u8], ReplayError> {
        let length = self.number()? as usize;
        let (part, rest) = self.0.split_at_checked(length).ok_or(ReplayError::Damaged)?;
        self.0 = rest;
        Ok(part)
    }
}

impl Shipment {
    /// Of octets that have come.
    pub fn read(octets: Vec<u8>) -> Result<Self, ReplayError> {
        let (content, sum) = octets.split_last_chunk::<SUM>().ok_or(ReplayError::Damaged)?;
        if digest(&SHA256, content).as_ref() != sum {
            return Err(ReplayError::Damaged);
        }
        let envelope: Envelope = serde_json::from_slice(Parts(content).part()?)?;
        Ok(Self { before: envelope.before, after: envelope.after, octets })
    }
}

impl Store {
    /// Takes a shipment: durable, then visible. Gives the audit rows in it too.
    pub fn replay(&mut self, shipment: &Shipment) -> Result<(Arc<View>, Vec<Row>), ReplayError> {
        self.refresh()?;
        let view = self.view();
        if shipment.before != view.audit {
            return Err(ReplayError::Gap { theirs: shipment.before.number, ours: view.audit.number });
        }
        let mut parts = Parts(&shipment.octets);
        let envelope: Envelope = serde_json::from_slice(parts.part()?)?;
        if envelope.journal != self.journal_last() {
            return Err(ReplayError::Elsewhere("its journal is another one"));
        }
        let mut deltas = Vec::new();
        for _ in 0..parts.number()? {
            deltas.push(parts.part()?);
        }
        let mut replay = Replay { view: View::clone(&view), rows: Vec::new(), journal: Vec::new() };
        let mut batch = Batch::default();
        for _ in 0..parts.number()? {
            let table = *Table::ALL.get(usize::from(parts.octet()?)).ok_or(ReplayError::Damaged)?;
            let key = parts.part()?;
            match parts.octet()? {
                0 => {
                    replay.row(table, key, None)?;
                    batch.delete(table, key);
                }
                _ => {
                    let value = parts.part()?;
                    replay.row(table, key, Some(value))?;
                    batch.put(table, key, value);
                }
            }
        }
        let draft = replay.zones(&envelope, deltas, self.new_draft())?;
        let Replay { mut view, rows, .. } = replay;
        if view.audit != envelope.after || envelope.after != shipment.after {
            return Err(ReplayError::Elsewhere("its audit rows do not follow from one another"));
        }
        if view.zones.serial() != envelope.serial {
            return Err(ReplayError::Elsewhere("its serial is another one"));
        }
        view.generation += u64::from(envelope.admissions);
        let must_fold = draft.steps().any(|step| matches!(step, Step::Broken(_)));
        let finished = Finished::replayed(view, batch, draft, must_fold, envelope.history);
        Ok((self.commit(finished)?, rows))
    }
}

/// A state to which rows are added.
struct Replay<'a> {
    view: View,
    rows: Vec<Row>,
    journal: Vec<&'a [u8]>,
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, ReplayError> {
    Ok(serde_json::from_slice(value)?)
}

fn text(key: &[u8]) -> Result<&str, ReplayError> {
    std::str::from_utf8(key).map_err(|_| ReplayError::Damaged)
}

fn number(key: &[u8]) -> Result<u64, ReplayError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| ReplayError::Damaged)
}

fn netid(key: &[u8]) -> Result<NetId, ReplayError> {
    let number = key.try_into().map(u32::from_be_bytes).map_err(|_| ReplayError::Damaged)?;
    NetId::from_u32(number).map_err(|_| ReplayError::Damaged)
}

fn hash_of(key: &[u8]) -> Result<TokenHash, ReplayError> {
    <[u8; 32]>::try_from(key).map(TokenHash::from).map_err(|_| ReplayError::Damaged)
}

/// Puts a row into a map of the view, or takes it out.
macro_rules! put {
    ($map:expr, $key:expr, $value:expr) => {
        match $value {
            Some(value) => drop($map.insert($key, Arc::new(read(value)?))),
            None => drop($map.remove(&$key)),
        }
    };
}

impl<'a> Replay<'a> {
    /// What a row means to readers. Each table is here, so that none can be forgotten.
    fn row(&mut self, table: Table, key: &[u8], value: Option<&'a [u8]>) -> Result<(), ReplayError> {
        let parsed = |key: &[u8]| text(key).map(str::to_owned);
        let view = &mut self.view;
        match table {
            Table::Meta => self.meta(key, value)?,
            Table::Members => put!(view.members, member(key)?, value),
            Table::Tokens => put!(view.tokens, hash_of(key)?, value),
            Table::Certificates => {
                if let Some(value) = value {
                    view.insert_certificate(read::<CertificateRow>(value)?.certificate);
                }
            }
            Table::Keys => match value {
                Some(value) => {
                    let row: crate::record::TsigKey = read(value)?;
                    view.tsig_keys.insert(row.name.clone(), Arc::new(row));
                }
                None => {
                    let known = view.tsig_keys.keys().find(|name| name.wire() == key).cloned();
                    known.into_iter().for_each(|name| drop(view.tsig_keys.remove(&name)));
                }
            },
            Table::Replicas => put!(view.replicas, replica(key)?, value),
            Table::Sources => put!(view.sources, netid(key)?, value),
            Table::Anchors => put!(view.anchors, netid(key)?, value),
            Table::Claims => self.claim(key, value)?,
            Table::Moves => {
                put!(view.ownership.moves, number(key)?, value);
                view.zones = view.zones.with_moving(view.ownership.moving());
            }
            Table::Limits => put!(view.ownership.limits, member(key)?, value),
            Table::Lists => match value {
                Some(value) => {
                    let serial = value.try_into().map(u32::from_be_bytes).map_err(|_| ReplayError::Damaged)?;
                    view.ownership.lists.insert(netid(key)?, Serial::new(serial));
                }
                None => drop(view.ownership.lists.remove(&netid(key)?)),
            },
            Table::Administrators => put!(view.accounts.administrators, parsed(key)?, value),
            Table::ApiTokens => put!(view.accounts.api_tokens, hash_of(key)?, value),
            Table::Webhooks => put!(view.accounts.webhooks, number(key)?, value),
            Table::Requests => {
                let key = key.try_into().map_err(|_| ReplayError::Damaged)?;
                let requests = &mut view.accounts.requests;
                match value {
                    Some(value) => drop(requests.insert((read::<Request>(value)?.at, key))),
                    None => {
                        let known = requests.iter().find(|(_, known)| *known == key).copied();
                        if let Some(known) = known {
                            requests.remove(&known);
                        }
                    }
                }
            }
            Table::Audit => {
                let value = value.ok_or(ReplayError::Elsewhere("it deletes a row of the audit"))?;
                let row: Row = read(value)?;
                if row.number != view.audit.number + 1 || row.previous != view.audit.hash {
                    return Err(ReplayError::Elsewhere("a row of its audit does not follow from the one before"));
                }
                view.audit = Head { number: row.number, hash: hash(value) };
                self.rows.push(row);
            }
            Table::Journal => self.journal.extend(value),
            // The zones' deltas have them; the store keeps the others to itself.
            Table::Networks | Table::Blocks | Table::History => {}
        }
        Ok(())
    }

    fn meta(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), ReplayError> {
        let view = &mut self.view;
        match (key, value) {
            (POLICY_KEY, Some(value)) => view.zones = view.zones.with_policy(Arc::new(read(value)?)),
            (PRIMARY_KEY, Some(value)) => view.primary = Some(Arc::new(read(value)?)),
            (PUBLICATION_KEY, Some(value)) => view.publication = Some(Arc::new(read(value)?)),
            (LNS_AUTHORITY_KEY, value) => view.lns_authority = value.map(read).transpose()?.map(Arc::new),
            (CRLS_KEY, Some(value)) => {
                let heads: Vec<crate::record::CrlHead> = read(value)?;
                view.crls = heads.into_iter().map(|head| (head.ca.clone(), head)).collect();
            }
            // Names and times of the zones are taken by whoever configures the store.
            _ => {}
        }
        Ok(())
    }

    fn claim(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), ReplayError> {
        let (device, claimant) = key.split_first_chunk().ok_or(ReplayError::Damaged)?;
        let claimant = member(claimant)?;
        let claims = &mut self.view.ownership.claims;
        let of = claims.entry(claimant.clone()).or_default();
        match (DevEui::from_u64(u64::from_be_bytes(*device)), value) {
            (Ok(device), Some(value)) => drop(of.kept.insert(device, read(value)?)),
            (Ok(device), None) => drop(of.kept.remove(&device)),
            (Err(_), value) => of.beyond = value.map(read).transpose()?.unwrap_or_default(),
        }
        if of.kept.is_empty() && of.beyond.is_empty() {
            claims.remove(&claimant);
        }
        Ok(())
    }

    /// Leads the zones through what was shipped, step by step.
    fn zones(&mut self, envelope: &Envelope, large: Vec<&[u8]>, mut draft: Draft) -> Result<Draft, ReplayError> {
        let (mut kept, mut large) = (std::mem::take(&mut self.journal).into_iter(), large.into_iter());
        for step in &envelope.steps {
            let zones = &self.view.zones;
            let apply = |octets: Option<&[u8]>| {
                let delta = Delta::decode(octets.ok_or(ReplayError::Damaged)?).map_err(|_| ReplayError::Damaged)?;
                let next = zones.apply(&delta).map_err(|_| ReplayError::Elsewhere("a delta is of another serial"))?;
                Ok::<_, ReplayError>((next, octets.map_or(0, <[u8]>::len)))
            };
            self.view.zones = match step {
                ShippedStep::Kept => {
                    let (zones, octets) = apply(kept.next())?;
                    draft.keep(octets);
                    zones
                }
                ShippedStep::Large => {
                    let (zones, _) = apply(large.next())?;
                    draft.break_off(Leap::Delta(vec![]));
                    zones
                }
                ShippedStep::To(serial) => {
                    draft.break_off(Leap::To(*serial));
                    zones.at(*serial)
                }
            };
        }
        if kept.next().is_some() || large.next().is_some() {
            return Err(ReplayError::Elsewhere("it has deltas that lead nowhere"));
        }
        Ok(draft)
    }
}

fn replica(key: &[u8]) -> Result<ReplicaId, ReplayError> {
    text(key)?.parse().map_err(|_| ReplayError::Damaged)
}

fn member(key: &[u8]) -> Result<MemberId, ReplayError> {
    text(key)?.parse().map_err(|_| ReplayError::Damaged)
}
