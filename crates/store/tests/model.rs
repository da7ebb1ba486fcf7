//! Random histories against a model as simple as can be, and the same after every restart.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use dnsbroker_store::act::{Mode, RemoveNetwork};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_store::{Store, audit};
use proptest::prelude::*;
use support::{NOW, act, create, engine, import, list, netid, network, open, picture, settle};

/// Who holds what, in the model and in the store.
const NETIDS: [(&str, &str); 4] =
    [("alpine", "600013"), ("alpine", "600014"), ("atlantic", "60002d"), ("baltic", "600031")];

#[derive(Debug, Clone)]
enum Step {
    List { network: usize, mode: Mode, devices: BTreeSet<u64> },
    Remove { network: usize },
    Checkpoint,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let mode = prop_oneof![Just(Mode::Add), Just(Mode::Full), Just(Mode::Remove)];
    // Few devices, so that lists meet; in two blocks, so that there are several chunks.
    let device = (0_u64..2, 1_u64..120).prop_map(|(block, low)| (block << 44) + low * 1_001);
    prop_oneof![
        6 => (0..NETIDS.len(), mode, proptest::collection::btree_set(device, 0..60))
            .prop_map(|(network, mode, devices)| Step::List { network, mode, devices }),
        1 => (0..NETIDS.len()).prop_map(|network| Step::Remove { network }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    devices: BTreeMap<u64, usize>,
    networks: BTreeSet<usize>,
}

impl Model {
    /// What a list does, rule by rule.
    fn list(&mut self, network: usize, mode: Mode, devices: &BTreeSet<u64>) {
        if mode == Mode::Full {
            self.devices.retain(|device, holder| *holder != network || devices.contains(device));
        }
        for device in devices {
            match (mode, self.devices.get(device).copied()) {
                (Mode::Remove, Some(holder)) if holder == network => drop(self.devices.remove(device)),
                (Mode::Remove, _) => {}
                (_, Some(holder)) if NETIDS[holder].0 != NETIDS[network].0 => {}
                _ => drop(self.devices.insert(*device, network)),
            }
        }
    }
}

fn assert_same(store: &Store, model: &Model) {
    let view = store.view();
    let found: Vec<_> = view.zones.devices().iter().map(|(device, netid)| (device.as_u64(), netid)).collect();
    let expected: Vec<_> = model.devices.iter().map(|(device, network)| (*device, netid(NETIDS[*network].1))).collect();
    assert_eq!(found, expected);
    for (number, (_, text)) in NETIDS.iter().enumerate() {
        let held = model.devices.values().filter(|network| **network == number).count() as u64;
        assert_eq!(view.zones.devices().count(netid(text)), held);
        assert_eq!(view.zones.network(netid(text)).is_some(), model.networks.contains(&number));
    }
    for device in model.devices.keys() {
        assert!(view.zones.devices().get(support::device(*device)).is_some());
        assert_eq!(view.zones.devices().get(support::device(device + 1)), None);
    }
}

fn run(kind: EngineKind, steps: &[Step]) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut held = Some(engine(kind, dir.path()));
    let mut store = create(held.as_ref().expect("an engine"));
    let mut model = Model::default();
    for id in ["alpine", "atlantic", "baltic"] {
        support::add_member(&mut store, id);
    }
    for step in steps {
        let before = store.view().zones.serial();
        match step {
            Step::List { network: number, mode, devices } => {
                let (id, text) = NETIDS[*number];
                if model.networks.insert(*number) {
                    act(&mut store, network(id, text)).expect("a NetID");
                }
                let mut list = list(id, text, *mode, devices.iter().copied());
                list.allow_shrink = true;
                import(&mut store, list);
                model.list(*number, *mode, devices);
            }
            Step::Remove { network } => {
                let in_use = model.devices.values().any(|holder| holder == network);
                let removed = act(&mut store, RemoveNetwork { netid: netid(NETIDS[*network].1) });
                assert_eq!(removed.is_ok(), !in_use && model.networks.contains(network));
                if removed.is_ok() {
                    model.networks.remove(network);
                }
            }
            Step::Checkpoint => {
                store.checkpoint(NOW).expect("a checkpoint");
                assert_eq!(store.view().zones.serial(), before, "folding is no change");
            }
            Step::Reopen => {
                let before = picture(&store.view());
                drop(store);
                drop(held.take());
                store = open(held.insert(engine(kind, dir.path())));
                assert_eq!(picture(&store.view()), before);
            }
        }
        assert_same(&store, &model);
    }
    let verdict = audit::verify(&*store.engine(), &store.view().audit).expect("reads");
    assert_eq!((verdict.broken, verdict.rows), (None, store.view().audit.number));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_history_ends_as_the_model_says_and_survives_restarts(steps in proptest::collection::vec(step(), 1..24)) {
        run(EngineKind::Redb, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn sled_does_the_same_as_long_as_nobody_pulls_the_plug(steps in proptest::collection::vec(step(), 1..12)) {
        run(EngineKind::Sled, &steps);
    }
}

#[test]
fn lists_beyond_the_overlay_and_the_journal_are_folded_and_survive() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let held = engine(EngineKind::Redb, dir.path());
    let mut store = create(&held);
    settle(&mut store, "alpine", "600013");
    import(&mut store, list("alpine", "600013", Mode::Add, (1..40_000).map(|n| n * 3)));
    assert!(store.view().zones.devices().overlay_len() < 40_000, "a large list does not stay in the overlay");
    for start in 0..8 {
        import(&mut store, list("alpine", "600013", Mode::Add, (0..3_000).map(|n| 1_000_000 + start * 10_000 + n)));
    }
    let entries = store.journal_size().1;
    assert!(entries >= 9, "the journal keeps the history of what was folded: {entries}");
    // More than 8 MiB of changes: the journal is broken here, and the blocks have everything.
    import(&mut store, list("alpine", "600013", Mode::Add, (0..1_200_000).map(|n| (1 << 50) + n * 77)));
    assert_eq!(store.journal_size().1, 0, "a delta that is too large leaves no history before it");
    import(&mut store, list("alpine", "600013", Mode::Add, [5]));
    let before = (store.view().zones.serial(), store.view().zones.devices().len(), store.view().audit.clone());
    drop(store);
    let view = open(&held).view();
    assert_eq!((view.zones.serial(), view.zones.devices().len(), view.audit.clone()), before);
    assert!(view.zones.devices().get(support::device((1 << 50) + 77 * 1_199_999)).is_some());
}
