//! Stores that are foreign, damaged, full or failing: a clear error, and nothing half.

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use dnsbroker_store::act::Mode;
use dnsbroker_store::engine::{Batch, Checked, Engine, EngineError, EngineKind, Table, Visit};
use dnsbroker_store::{Identity, OpenError, Refusal, Store, audit, history};
use proptest::prelude::*;
use support::{act, add_member, create, engine, identity, import, list, open, picture, settings, settle};

fn put(engine: &Arc<dyn Engine>, table: Table, key: &[u8], value: Option<&[u8]>) {
    let mut batch = Batch::default();
    match value {
        Some(value) => batch.put(table, key, value),
        None => batch.delete(table, key),
    }
    engine.commit(batch).expect("commits");
}

fn rows(engine: &Arc<dyn Engine>, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    engine.scan(table, &[], &mut visit).expect("scans");
    rows
}

fn open_error(engine: &Arc<dyn Engine>, identity: Identity) -> OpenError {
    Store::open(Arc::clone(engine), identity, settings()).err().expect("does not open")
}

#[test]
fn stores_of_other_formats_and_federations_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let empty = open_error(&engine, identity());
    assert!(empty.to_string().contains("dnsbroker init"), "{empty}");
    drop(create(&engine));
    let twice = Store::create(Arc::clone(&engine), identity(), settings()).err().expect("is refused");
    assert!(matches!(twice, OpenError::Exists));
    let other = Identity { federation: "other.example".parse().expect("a name"), ..identity() };
    let foreign = open_error(&engine, other).to_string();
    assert!(foreign.contains("fed.example") && foreign.contains("other.example"), "{foreign}");
    for (format, words) in [("3", "use a newer dnsbroker"), ("0", "cannot migrate"), ("soup", "use a newer dnsbroker")]
    {
        put(&engine, Table::Meta, b"format", Some(format.as_bytes()));
        let error = open_error(&engine, identity()).to_string();
        assert!(error.contains(words), "{format}: {error}");
    }
}

#[test]
fn a_store_of_the_first_format_is_opened_with_all_it_has_and_is_ours_then() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let before = filled(&engine);
    // What the first format had: no table of later ones, and heads without what was added since.
    for table in [Table::Lists, Table::History] {
        for (key, _) in rows(&engine, table) {
            put(&engine, table, &key, None);
        }
    }
    let (_, heads) = rows(&engine, Table::Meta).into_iter().find(|(key, _)| key == b"zones").expect("heads");
    let mut heads: serde_json::Value = serde_json::from_slice(&heads).expect("JSON");
    assert!(heads.as_object_mut().expect("an object").remove("history").is_some());
    put(&engine, Table::Meta, b"zones", Some(heads.to_string().as_bytes()));
    put(&engine, Table::Meta, b"format", Some(b"1"));
    let mut store = open(&engine);
    assert_eq!(picture(&store.view()), before);
    import(&mut store, list("alpine", "600013", Mode::Add, [9_999]));
    drop(store);
    let format = rows(&engine, Table::Meta).into_iter().find(|(key, _)| key == b"format").expect("a format");
    assert_eq!(format.1, b"2", "the earlier program, which knows no policy, opens it no more");
    assert!(open(&engine).view().zones.devices().get(support::device(9_999)).is_some());
}

/// A filled store, closed.
fn filled(engine: &Arc<dyn Engine>) -> String {
    let mut store = create(engine);
    settle(&mut store, "alpine", "600013");
    import(&mut store, list("alpine", "600013", Mode::Add, (1..500).map(|n| n * 7)));
    store.checkpoint(support::NOW).expect("a checkpoint");
    import(&mut store, list("alpine", "600013", Mode::Add, 5_000..5_100));
    import(&mut store, list("alpine", "600013", Mode::Remove, 5_050..5_080));
    picture(&store.view())
}

#[test]
fn a_journal_that_does_not_lead_to_the_serial_is_told() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    filled(&engine);
    let journal = rows(&engine, Table::Journal);
    let (last, value) = journal.last().expect("a journal");
    put(&engine, Table::Journal, last, None);
    assert!(matches!(open_error(&engine, identity()), OpenError::Journal { .. }));
    put(&engine, Table::Journal, last, Some(&value[..value.len() / 2]));
    assert!(matches!(open_error(&engine, identity()), OpenError::Delta(_)));
    put(&engine, Table::Journal, last, Some(value));
    open(&engine);
}

#[test]
fn a_chain_that_was_tampered_with_is_told_where() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    filled(&engine);
    let head = open(&engine).view().audit.clone();
    let chain = rows(&engine, Table::Audit);
    let broken = |engine: &Arc<dyn Engine>| audit::verify(&**engine, &head).expect("reads").broken;
    assert_eq!(broken(&engine), None);
    for (number, (key, value)) in chain.iter().enumerate() {
        let mut changed = value.clone();
        let at = changed.windows(6).position(|word| word == b"local:").expect("an actor") + 6;
        changed[at] ^= 1;
        put(&engine, Table::Audit, key, Some(&changed));
        assert!(broken(&engine).is_some(), "row {} was changed", number + 1);
        put(&engine, Table::Audit, key, None);
        assert!(broken(&engine).is_some(), "row {} was dropped", number + 1);
        put(&engine, Table::Audit, key, Some(value));
    }
    put(&engine, Table::Audit, &chain[0].0, Some(&chain[1].1));
    put(&engine, Table::Audit, &chain[1].0, Some(&chain[0].1));
    assert!(broken(&engine).is_some(), "rows were swapped");
}

/// An engine that fails when it is told to: before the write, or after it, as a crash of the disk's answer would.
struct Failing {
    engine: Arc<dyn Engine>,
    mode: AtomicU8,
}

const WORKS: u8 = 0;
const FAILS_BEFORE: u8 = 1;
const FAILS_AFTER: u8 = 2;

impl Engine for Failing {
    fn kind(&self) -> EngineKind {
        self.engine.kind()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.engine.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.engine.scan(table, from, visit)
    }

    fn scan_back(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.engine.scan_back(table, from, visit)
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let mode = self.mode.load(Ordering::Relaxed);
        if mode != FAILS_BEFORE {
            self.engine.commit(batch)?;
        }
        match mode {
            WORKS => Ok(()),
            _ => Err(EngineError::Storage {
                engine: "test",
                action: "commit",
                reason: "no space".to_owned(),
                full: true,
            }),
        }
    }
}

#[test]
fn after_a_failed_commit_memory_is_what_the_disk_says() {
    for mode in [FAILS_BEFORE, FAILS_AFTER] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let failing = Arc::new(Failing { engine: engine(EngineKind::Redb, dir.path()), mode: AtomicU8::new(WORKS) });
        let engine: Arc<dyn Engine> = failing.clone();
        let mut store = create(&engine);
        settle(&mut store, "alpine", "600013");
        let (before, generation) = (picture(&store.view()), store.view().generation);
        failing.mode.store(mode, Ordering::Relaxed);
        let refusal = act(&mut store, list("alpine", "600013", Mode::Add, [7])).expect_err("the disk is full");
        assert!(matches!(&refusal, Refusal::Engine(error) if support::is_full(error)), "{refusal}");
        assert_eq!(picture(&store.view()), before, "what was not acknowledged is not visible");
        failing.mode.store(WORKS, Ordering::Relaxed);
        import(&mut store, list("alpine", "600013", Mode::Add, [8]));
        let devices: Vec<_> = store.view().zones.devices().iter().map(|(device, _)| device.as_u64()).collect();
        assert_eq!(devices, if mode == FAILS_BEFORE { vec![8] } else { vec![7, 8] });
        assert!(store.view().generation > generation, "readers look again at who is admitted");
        let verdict = audit::verify(&*engine, &store.view().audit).expect("reads");
        assert_eq!(verdict.broken, None);
        let now = picture(&store.view());
        drop(store);
        assert_eq!(picture(&open(&engine).view()), now);
    }
}

#[test]
fn names_and_reasons_are_text_of_a_sane_length() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = create(&engine(EngineKind::Redb, dir.path()));
    for name in ["", "a\u{7}b", &"x".repeat(256)] {
        let add = dnsbroker_store::act::AddMember { id: support::member("alpine"), name: name.to_owned() };
        assert_eq!(act(&mut store, add).expect_err("is refused").code(), "text-invalid");
    }
    add_member(&mut store, "alpine");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_row_is_told_by_name_and_never_believed(which: prop::sample::Index, at: prop::sample::Index, flip in 1_u8..) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let bare = EngineKind::Redb.open_bare(dir.path()).expect("an engine");
        let engine: Arc<dyn Engine> = Arc::new(Checked::new(Arc::clone(&bare)));
        filled(&engine);
        let all: Vec<_> = Table::ALL
            .iter()
            .flat_map(|table| rows(&bare, *table).into_iter().map(|(key, value)| (*table, key, value)))
            .collect();
        let (table, key, mut value) = all[which.index(all.len())].clone();
        let at = at.index(value.len());
        value[at] ^= flip;
        put(&bare, table, &key, Some(&value));
        let error = match Store::open(Arc::clone(&engine), identity(), settings()) {
            // The audit and the history are not read at the start.
            Ok(store) if table == Table::Audit => {
                audit::verify(&*engine, &store.view().audit).err().map(OpenError::Engine)
            }
            Ok(_) => {
                prop_assert_eq!(table, Table::History);
                history::of_device(&*engine, support::device(7), None).err().map(OpenError::Engine)
            }
            Err(error) => Some(error),
        };
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        prop_assert!(text.contains("is not as it was written"), "{}", text);
    }
}
