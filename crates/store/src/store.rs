//! Opening a store, committing to it, and the checkpoints that keep both quick.

use std::ops::ControlFlow;
use std::sync::Arc;

use dnsbroker_federation::{DomainName, Namespace, NamespaceError, Serial};
use dnsbroker_zone::delta::{DeltaError, Network};
use dnsbroker_zone::table::{Base, Chunk, ChunkError, Devices, OverlapError};
use dnsbroker_zone::zones::{PublicZone, Timing, Zones};
use imbl::ordmap::DiffItem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::accounts::Accounts;
use crate::audit::{Head, Row};
use crate::engine::{Batch, Engine, EngineError, Table};
use crate::history;
use crate::identity::Identity;
use crate::journal::{Draft, Journal};
use crate::ownership::Ownership;
use crate::record::{
    Anchors, CertificateRow, CrlHead, LnsAuthority, Member, Primary, Publication, Replica, Seconds, Source, Token,
    TsigKey,
};
use crate::replication::{Content, Shipment};
use crate::transaction::Transaction;
use crate::view::View;

/// Deltas after which a restart would be slowed down by replaying them.
const CHECKPOINT_ENTRIES: u64 = 20_000;

const ZONES_KEY: &[u8] = b"zones";
const AUDIT_KEY: &[u8] = b"audit";
pub(crate) const CRLS_KEY: &[u8] = b"crls";
pub(crate) const PUBLIC_KEY: &[u8] = b"public";
pub(crate) const PUBLIC_RECORDS_KEY: &[u8] = b"public_records";
pub(crate) const PRIVATE_KEY: &[u8] = b"private";
pub(crate) const POLICY_KEY: &[u8] = b"policy";
pub(crate) const PRIMARY_KEY: &[u8] = b"primary";
pub(crate) const PUBLICATION_KEY: &[u8] = b"publication";
pub(crate) const LNS_AUTHORITY_KEY: &[u8] = b"lns_authority";

/// The heads of zones and journal, written with each change of them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
struct ZonesRow {
    serial: Serial,
    journal: u64,
    /// The journal's number up to which the blocks have everything.
    checkpoint: u64,
    /// Octets of the devices' history.
    #[serde(default)]
    history: u64,
}

/// What comes from the configuration and not from the store.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the broker, and with the identity all names.
    pub broker: DomainName,
    /// TTLs and SOA times.
    pub timing: Timing,
    /// The public zone.
    pub public: PublicZone,
}

/// The durable state of one broker. One owner changes it; readers hold [`View`]s.
pub struct Store {
    engine: Arc<dyn Engine>,
    identity: Identity,
    settings: Settings,
    view: Arc<View>,
    journal: Journal,
    heads: ZonesRow,
    stored_base: Arc<Base>,
    /// A commit failed, so memory may differ from disk: read again before the next.
    stale: bool,
    /// Whether commits are put into shipments, and the last one.
    ship: bool,
    shipped: Option<Shipment>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is nothing.
    #[error("the store is empty: `dnsbroker init` makes one")]
    Missing,
    /// There is something where a new store should be.
    #[error("there is a store here already; it is left as it is")]
    Exists,
    /// Written by a later program.
    #[error("the store has format {found}, and this program knows formats up to {known}: use a newer dnsbroker")]
    Newer {
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Written by an earlier program that is no longer known.
    #[error("the store has format {found}, which this program (format {known}) cannot migrate")]
    Older {
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Another federation's.
    #[error("the store belongs to {} (zones {}, {}), and the configuration says {} (zones {}, {})",
        .0.0.federation, .0.0.labels.deveui, .0.0.labels.netid, .0.1.federation, .0.1.labels.deveui, .0.1.labels.netid)]
    Foreign(Box<(Identity, Identity)>),
    /// Names that make no federation.
    #[error(transparent)]
    Names(#[from] NamespaceError),
    /// A row does not read.
    #[error("the store's row {row} does not read")]
    Row {
        /// Which.
        row: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A block does not read.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// Blocks do not fit together.
    #[error(transparent)]
    Overlap(#[from] OverlapError),
    /// A journal entry does not read.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// The journal does not lead from the blocks to the serial.
    #[error("the store's journal leads to serial {found}, and its head says {expected}")]
    Journal {
        /// Where it leads.
        found: Serial,
        /// Where it should.
        expected: Serial,
    },
}

impl OpenError {
    pub(crate) fn row(row: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let row = row.into();
        move |source| Self::Row { row, source }
    }
}

impl Store {
    /// Makes a new store.
    pub fn create(engine: Arc<dyn Engine>, identity: Identity, settings: Settings) -> Result<Self, OpenError> {
        let mut batch = Batch::default();
        identity.create(&*engine, &mut batch)?;
        let heads = ZonesRow { serial: Serial::FIRST, journal: 0, checkpoint: 0, history: 0 };
        batch.put(Table::Meta, ZONES_KEY, serde_json::to_vec(&heads).map_err(OpenError::row("zones"))?);
        engine.commit(batch)?;
        Self::open(engine, identity, settings)
    }

    /// Opens a store.
    pub fn open(engine: Arc<dyn Engine>, identity: Identity, settings: Settings) -> Result<Self, OpenError> {
        identity.check(&*engine)?;
        let loaded = Loaded::read(&*engine, &identity, &settings)?;
        let Loaded { view, journal, heads, base } = loaded;
        Ok(Self {
            engine,
            identity,
            settings,
            view: Arc::new(view),
            journal,
            heads,
            stored_base: base,
            stale: false,
            ship: false,
            shipped: None,
        })
    }

    /// Goes on where another store was: readers who ask whether somebody is admitted ask again.
    pub fn succeed(&mut self, last: &View) {
        let mut view = View::clone(&self.view);
        view.generation = last.generation + 1;
        self.view = Arc::new(view);
    }

    /// The current state.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// The engine, for reads of rows that are not held in memory.
    pub fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.engine)
    }

    /// Octets and entries of the journal.
    pub fn journal_size(&self) -> (usize, usize) {
        (self.journal.octets(), self.journal.len())
    }

    /// Takes other settings. Names that are burnt into the data cannot change; the broker's own name can.
    pub fn configure(&mut self, settings: Settings) -> Result<(), OpenError> {
        let names = names(&self.identity, &settings)?;
        let mut view = View::clone(&self.view);
        view.zones = view.zones.with_names(Arc::new(names)).with_settings(
            settings.timing,
            self.identity.federation.clone(),
            settings.public.clone(),
        );
        self.settings = settings;
        self.view = Arc::new(view);
        Ok(())
    }

    /// Starts a group of acts. After a failed commit this reads the store again, so that what is built on is what is
    /// on disk.
    pub fn begin(&mut self, now: Seconds) -> Result<Transaction<'_>, OpenError> {
        self.refresh()?;
        let draft = self.new_draft();
        Ok(Transaction::new(&*self.engine, View::clone(&self.view), draft, now))
    }

    /// Puts the commits from now on into shipments, or no longer.
    pub fn ship(&mut self, ship: bool) {
        self.ship = ship;
    }

    /// The shipment of the last commit, if there was one to be made.
    pub fn take_shipment(&mut self) -> Option<Shipment> {
        self.shipped.take()
    }

    pub(crate) fn new_draft(&self) -> Draft {
        Draft::new(&self.journal, self.ship)
    }

    pub(crate) fn journal_last(&self) -> u64 {
        self.journal.last
    }

    /// Reads the store again where memory may differ from it.
    pub(crate) fn refresh(&mut self) -> Result<(), OpenError> {
        if self.stale {
            let Loaded { mut view, journal, heads, base } =
                Loaded::read(&*self.engine, &self.identity, &self.settings)?;
            view.generation = self.view.generation + 1;
            (self.view, self.journal, self.heads, self.stored_base) = (Arc::new(view), journal, heads, base);
            self.stale = false;
        }
        Ok(())
    }

    /// Makes a finished group durable, then visible.
    pub fn commit(&mut self, finished: Finished) -> Result<Arc<View>, EngineError> {
        let Finished { mut view, mut batch, draft, must_fold, history_octets, .. } = finished;
        // Once a group, however many acts of it changed the same list.
        for change in self.view.ownership.lists.diff(&view.ownership.lists) {
            if let DiffItem::Add(netid, serial) | DiffItem::Update { new: (netid, serial), .. } = change {
                batch.put(Table::Lists, netid.as_u32().to_be_bytes(), serial.get().to_be_bytes());
            }
        }
        let shipment = (self.ship && !batch.is_empty()).then(|| {
            let (before, journal, history) = (&*self.view, self.journal.last, history_octets);
            Content { before, after: &view, journal, draft: &draft, history, batch: &batch }.ship()
        });
        // In place: after a failed commit all of this is read again.
        self.journal.extend(draft, &mut batch);
        let mut heads = ZonesRow { serial: view.zones.serial(), journal: self.journal.last, ..self.heads };
        let mut base = None;
        if must_fold || view.zones.devices().wants_fold() || heads.journal - heads.checkpoint > CHECKPOINT_ENTRIES {
            view.zones = view.zones.folded();
            let folded = Arc::clone(view.zones.devices().base());
            let (deleted, written) = folded.diff(&self.stored_base);
            for first in deleted {
                batch.delete(Table::Blocks, first.to_be_bytes());
            }
            for chunk in written {
                batch.put(Table::Blocks, chunk.first().to_be_bytes(), chunk.as_bytes());
            }
            heads.checkpoint = heads.journal;
            base = Some(folded);
        }
        self.journal.bound(&mut batch, heads.checkpoint);
        view.history = self.journal.history();
        if history_octets > 0 {
            heads.history = history::trim(&*self.engine, &mut batch, heads.history + history_octets)?;
        }
        if batch.is_empty() {
            return Ok(self.view());
        }
        if heads != self.heads {
            put_head(&mut batch, ZONES_KEY, &heads);
        }
        if view.audit != self.view.audit {
            put_head(&mut batch, AUDIT_KEY, &view.audit);
        }
        if let Err(error) = self.engine.commit(batch) {
            self.stale = true;
            return Err(error);
        }
        self.view = Arc::new(view);
        self.shipped = shipment;
        self.heads = heads;
        if let Some(base) = base {
            self.stored_base = base;
        }
        Ok(self.view())
    }

    /// Folds everything into the blocks, as a graceful stop does so that the next start is quick.
    pub fn checkpoint(&mut self, now: Seconds) -> Result<(), OpenError> {
        let mut transaction = self.begin(now)?;
        if transaction.view().zones.devices().overlay_len() == 0 {
            return Ok(());
        }
        transaction.must_fold = true;
        let finished = transaction.finish();
        self.commit(finished)?;
        Ok(())
    }
}

fn put_head<T: Serialize>(batch: &mut Batch, key: &[u8], head: &T) {
    // A head is numbers and text: it always has a JSON form.
    batch.put(Table::Meta, key, serde_json::to_vec(head).unwrap_or_default());
}

/// A group of acts that is ready to be written.
pub struct Finished {
    view: View,
    batch: Batch,
    draft: Draft,
    must_fold: bool,
    history_octets: u64,
    rows: Vec<Row>,
}

impl Finished {
    /// Of a shipment.
    pub(crate) fn replayed(view: View, batch: Batch, draft: Draft, must_fold: bool, history_octets: u64) -> Self {
        Self { view, batch, draft, must_fold, history_octets, rows: Vec::new() }
    }

    /// The audit rows of what was done, in order: to be told once the commit is there.
    pub fn take_rows(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }
}

impl Transaction<'_> {
    /// Ends the group; [`Store::commit`] takes it from here.
    pub fn finish(self) -> Finished {
        let Self { view, batch, draft, must_fold, history_octets, rows, .. } = self;
        Finished { view, batch, draft, must_fold, history_octets, rows }
    }
}

fn names(identity: &Identity, settings: &Settings) -> Result<Namespace, NamespaceError> {
    Namespace::new(identity.federation.clone(), settings.broker.clone(), &identity.labels)
}

/// Everything that is read when a store opens.
struct Loaded {
    view: View,
    journal: Journal,
    heads: ZonesRow,
    base: Arc<Base>,
}

impl Loaded {
    fn read(engine: &dyn Engine, identity: &Identity, settings: &Settings) -> Result<Self, OpenError> {
        let heads: ZonesRow = head(engine, ZONES_KEY)?.ok_or(OpenError::Missing)?;
        let audit: Head = head(engine, AUDIT_KEY)?.unwrap_or_default();
        let devices = Devices::new(read_base(engine)?);
        let base = Arc::clone(devices.base());
        let networks: Vec<Network> = rows(engine, Table::Networks)?;
        let names = Arc::new(names(identity, settings)?);
        // The blocks are at the checkpoint's serial, which the journal's first replayed delta names.
        let mut zones: Option<Zones> = None;
        let start = |serial| Zones::new(Arc::clone(&names), serial, devices.clone(), networks.clone());
        let journal = Journal::open(engine, heads.journal, heads.checkpoint, |mut delta| {
            // Networks are read whole above; only devices are replayed.
            delta.networks.clear();
            let current = zones.take().unwrap_or_else(|| start(delta.before));
            let next = current.apply(&delta);
            zones = Some(next.map_err(|_| OpenError::Journal { found: current.serial(), expected: delta.before })?);
            Ok(())
        })?;
        let zones = zones.unwrap_or_else(|| start(heads.serial));
        if zones.serial() != heads.serial {
            return Err(OpenError::Journal { found: zones.serial(), expected: heads.serial });
        }
        let ownership = Ownership::read(engine)?;
        let zones = zones
            .with_settings(settings.timing, identity.federation.clone(), settings.public.clone())
            .with_policy(Arc::new(head(engine, POLICY_KEY)?.unwrap_or_default()))
            .with_moving(ownership.moving());
        let mut view = View {
            zones,
            members: rows::<Member>(engine, Table::Members)?.into_iter().map(|m| (m.id.clone(), Arc::new(m))).collect(),
            tokens: rows::<Token>(engine, Table::Tokens)?.into_iter().map(|t| (t.hash, Arc::new(t))).collect(),
            certificates: imbl::HashMap::new(),
            keys: imbl::HashMap::new(),
            tsig_keys: rows::<TsigKey>(engine, Table::Keys)?
                .into_iter()
                .map(|k| (k.name.clone(), Arc::new(k)))
                .collect(),
            replicas: rows::<Replica>(engine, Table::Replicas)?
                .into_iter()
                .map(|replica| (replica.id.clone(), Arc::new(replica)))
                .collect(),
            sources: rows::<Source>(engine, Table::Sources)?.into_iter().map(|s| (s.netid, Arc::new(s))).collect(),
            anchors: rows::<Anchors>(engine, Table::Anchors)?.into_iter().map(|a| (a.netid, Arc::new(a))).collect(),
            crls: head::<Vec<CrlHead>>(engine, CRLS_KEY)?
                .unwrap_or_default()
                .into_iter()
                .map(|crl| (crl.ca.clone(), crl))
                .collect(),
            ownership,
            accounts: Accounts::read(engine)?,
            primary: head::<Primary>(engine, PRIMARY_KEY)?.map(Arc::new),
            publication: head::<Publication>(engine, PUBLICATION_KEY)?.map(Arc::new),
            lns_authority: head::<LnsAuthority>(engine, LNS_AUTHORITY_KEY)?.map(Arc::new),
            audit,
            history: journal.history(),
            generation: 0,
        };
        for row in rows::<CertificateRow>(engine, Table::Certificates)? {
            view.insert_certificate(row.certificate);
        }
        Ok(Self { view, journal, heads, base })
    }
}

fn head<T: DeserializeOwned>(engine: &dyn Engine, key: &[u8]) -> Result<Option<T>, OpenError> {
    let Some(row) = engine.get(Table::Meta, key)? else { return Ok(None) };
    serde_json::from_slice(&row).map(Some).map_err(OpenError::row(String::from_utf8_lossy(key)))
}

pub(crate) fn rows<T: DeserializeOwned>(engine: &dyn Engine, table: Table) -> Result<Vec<T>, OpenError> {
    let mut rows = Vec::new();
    let mut failure = None;
    engine.scan(table, &[], &mut |key, value| match serde_json::from_slice(value) {
        Ok(row) => {
            rows.push(row);
            ControlFlow::Continue(())
        }
        Err(error) => {
            let key: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
            failure = Some(OpenError::row(format!("{table:?}/{key}"))(error));
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(rows), Err)
}

fn read_base(engine: &dyn Engine) -> Result<Base, OpenError> {
    let mut chunks = Vec::new();
    let mut failure = None;
    engine.scan(Table::Blocks, &[], &mut |_, value| match Chunk::from_bytes(value.into()) {
        Ok(chunk) => {
            chunks.push(chunk);
            ControlFlow::Continue(())
        }
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(Base::from_chunks(chunks)?),
    }
}
