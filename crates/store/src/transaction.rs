//! A group commit in the making: acts change a private copy of the state and collect writes; nothing is visible yet.

use std::collections::BTreeSet;
use std::fmt;

use dnsbroker_ca::SerialNumber;
use dnsbroker_federation::{DevEui, DomainName, MemberId, NetId, Serial};
use dnsbroker_zone::delta::{Delta, DeviceChange, NetworkChange};
use serde::Serialize;
use serde_json::Value;

use crate::act::{Act, ClaimsOpened};
use crate::audit::{Head, Row, hash};
use crate::concern::concerned;
use crate::engine::{Batch, Engine, Table};
use crate::history;
use crate::journal::{Draft, Leap};
use crate::record::{Seconds, TokenOwner};
use crate::refusal::Refusal;
use crate::view::View;

/// Who does something, by which identity. It comes from the connection, never from a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// An administrator on the control socket, by user id.
    Local(u32),
    /// A member, by certificate.
    Member(MemberId),
    /// An administrator with a password, by name.
    Administrator(String),
    /// An API token, by its id and whom it speaks for.
    ApiToken(String, TokenOwner),
    /// Whoever has a certificate that speaks for no member, for that certificate.
    Certificate(SerialNumber),
    /// A TSIG key, by name.
    Key(DomainName),
    /// A member's primary, by the NetID it fills.
    Source(NetId),
    /// The bearer of an enrolment token, by the token's id.
    Token(String),
    /// The broker itself.
    Broker,
    /// Somebody who proved nothing: no act is open to it.
    Nobody,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(user) => write!(f, "local:{user}"),
            Self::Member(member) => write!(f, "member:{member}"),
            Self::Administrator(name) => write!(f, "administrator:{name}"),
            Self::ApiToken(id, owner) => write!(f, "api-token:{id} of {owner}"),
            Self::Certificate(serial) => write!(f, "certificate:{serial}"),
            Self::Key(name) => write!(f, "key:{name}"),
            Self::Source(netid) => write!(f, "source:{netid}"),
            Self::Token(id) => write!(f, "token:{id}"),
            Self::Broker => f.write_str("broker"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

/// What an act leaves in the audit.
#[derive(Debug, Clone)]
pub struct Note {
    /// `member.add`, `devices.import`...
    pub act: &'static str,
    /// To what it was done.
    pub object: String,
    /// Particulars; never a secret.
    pub detail: Value,
}

impl Note {
    /// A note of an act on an object.
    pub fn new(act: &'static str, object: impl fmt::Display, detail: Value) -> Self {
        Self { act, object: object.to_string(), detail }
    }
}

/// A group of acts that become durable together.
pub struct Transaction<'e> {
    engine: &'e dyn Engine,
    /// The state after the acts so far.
    pub(crate) view: View,
    pub(crate) batch: Batch,
    pub(crate) draft: Draft,
    /// A delta was too large for the journal, so the blocks must be written with it.
    pub(crate) must_fold: bool,
    /// What the act under way has changed of devices, for the history.
    changed: Vec<u8>,
    /// The NetIDs between which the act under way has moved devices.
    touched: BTreeSet<NetId>,
    /// The audit rows of the acts so far: what listeners are told once all is durable.
    pub(crate) rows: Vec<Row>,
    /// Claims that the act under way has opened beside what it is for.
    pub(crate) claims_opened: Option<ClaimsOpened>,
    /// Octets that the acts so far have added to the history.
    pub(crate) history_octets: u64,
    /// A device that another member holds, for which the act under way is about to be refused: that the member wants it
    /// under this NetID is recorded all the same.
    pub(crate) disputed: Option<(MemberId, NetId, DevEui)>,
    now: Seconds,
}

impl<'e> Transaction<'e> {
    pub(crate) fn new(engine: &'e dyn Engine, view: View, draft: Draft, now: Seconds) -> Self {
        Self {
            engine,
            view,
            batch: Batch::default(),
            draft,
            must_fold: false,
            changed: Vec::new(),
            touched: BTreeSet::new(),
            rows: Vec::new(),
            claims_opened: None,
            history_octets: 0,
            disputed: None,
            now,
        }
    }

    /// Runs one act. Refused, it leaves everything as it was; only if it was refused because another member holds a
    /// device, that claim is recorded.
    pub fn run<A: Act>(&mut self, actor: &Actor, act: A) -> Result<A::Done, Refusal> {
        let (view, mark) = (self.view.clone(), self.draft.mark());
        let (writes, must_fold, history_octets) = (self.batch.len(), self.must_fold, self.history_octets);
        let rows = self.rows.len();
        let result = act.apply(self).and_then(|(done, note)| {
            note.map(|note| self.audit(actor, note, &view, BTreeSet::new())).transpose()?;
            self.touched.clear();
            if let Some(opened) = self.claims_opened.take() {
                self.audit(actor, opened.note(), &view, opened.holders)?;
            }
            Ok(done)
        });
        self.touched.clear();
        self.claims_opened = None;
        if result.is_err() {
            self.view = view.clone();
            self.draft.reset(mark);
            self.must_fold = must_fold;
            self.batch.truncate(writes);
            self.rows.truncate(rows);
            self.history_octets = history_octets;
            self.changed.clear();
            if let Some(note) = self.record_dispute()? {
                self.audit(actor, note, &view, BTreeSet::new())?;
            }
        }
        result
    }

    /// The state after the acts so far.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// When the acts happen.
    pub fn now(&self) -> Seconds {
        self.now
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// A row as the store has it, the writes of this transaction included.
    pub(crate) fn stored(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        match self.batch.last_write(table, key) {
            Some(written) => Ok(written.map(<[u8]>::to_vec)),
            None => Ok(self.engine.get(table, key)?),
        }
    }

    /// Writes a row as JSON.
    pub(crate) fn put<T: Serialize>(
        &mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
        value: &T,
    ) -> Result<(), Refusal> {
        self.batch.put(table, key, serde_json::to_vec(value)?);
        Ok(())
    }

    /// Changes the private zones by one serial.
    pub(crate) fn change_zones(
        &mut self,
        devices: Vec<DeviceChange>,
        networks: Vec<NetworkChange>,
    ) -> Result<(), Refusal> {
        let before = self.view.zones.serial();
        let delta = Delta { before, after: before.next(), devices, networks };
        if delta.is_empty() {
            return Ok(());
        }
        if let Ok(zones) = self.view.zones.apply(&delta) {
            self.view.zones = zones;
        }
        self.devices_changed(&delta)?;
        for change in &delta.devices {
            for netid in [change.before, change.after].into_iter().flatten() {
                // A list is of one NetID, and a look at the set for each device would cost more than all the rest.
                if self.touched.last() != Some(&netid) {
                    self.touched.insert(netid);
                }
            }
        }
        if !delta.devices.is_empty() {
            self.changed.extend(history::encode(&delta.devices));
        }
        for change in &delta.networks {
            match (&change.after, &change.before) {
                (Some(after), _) => self.put(Table::Networks, after.netid.as_u32().to_be_bytes(), after)?,
                (None, Some(before)) => self.batch.delete(Table::Networks, before.netid.as_u32().to_be_bytes()),
                (None, None) => {}
            }
        }
        self.must_fold |= !self.draft.append(&delta, &mut self.batch)?;
        Ok(())
    }

    /// Takes a serial for what is not in a delta: times and names of the zones. Secondaries fetch them whole.
    pub(crate) fn break_history(&mut self) {
        self.break_history_at(self.view.zones.serial().next());
    }

    /// Goes on from a serial that no delta leads to.
    pub(crate) fn break_history_at(&mut self, serial: Serial) {
        self.draft.break_off(Leap::To(serial));
        self.view.zones = self.view.zones.at(serial);
        self.must_fold = true;
    }

    /// From now on readers decide anew who is admitted.
    pub(crate) fn admission_changes(&mut self) {
        self.view.generation += 1;
    }

    /// `others` are concerned beside those who can be told from the note.
    fn audit(
        &mut self,
        actor: &Actor,
        note: Note,
        before: &View,
        mut others: BTreeSet<MemberId>,
    ) -> Result<(), Refusal> {
        others.extend(concerned(actor, &note, &self.touched, before, &self.view));
        let concerns = others.into_iter().collect();
        let Head { number, hash: previous } = self.view.audit.clone();
        let row = Row {
            number: number + 1,
            at: self.now,
            actor: actor.to_string(),
            act: note.act.to_owned(),
            object: note.object,
            detail: note.detail,
            serial: self.view.zones.serial(),
            concerns,
            previous,
        };
        let octets = serde_json::to_vec(&row)?;
        if !self.changed.is_empty() {
            self.history_octets += self.changed.len() as u64;
            self.batch.put(Table::History, row.number.to_be_bytes(), std::mem::take(&mut self.changed));
        }
        self.view.audit = Head { number: row.number, hash: hash(&octets) };
        self.batch.put(Table::Audit, row.number.to_be_bytes(), octets);
        self.rows.push(row);
        Ok(())
    }
}
