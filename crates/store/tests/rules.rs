//! Each rule of members, NetIDs and lists, with what is refused and that nothing is left of it.

mod support;

use dnsbroker_store::act::{Mode, RemoveMember, RemoveNetwork, ResumeMember, SuspendMember};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_store::{Actor, Refusal, Store};
use support::{act, add_member, create, device, engine, import, list, member, netid, network, picture, settle};

fn with_store(test: impl Fn(&mut Store)) {
    for kind in [EngineKind::Redb, EngineKind::Sled] {
        let dir = tempfile::tempdir().expect("temporary directory");
        test(&mut create(&engine(kind, dir.path())));
    }
}

/// Runs an act that must be refused, and sees that nothing has changed.
fn refused<A: dnsbroker_store::Act>(store: &mut Store, refusable: A) -> Refusal
where
    A::Done: std::fmt::Debug,
{
    let before = picture(&store.view());
    let refusal = act(store, refusable).expect_err("is refused");
    assert_eq!(picture(&store.view()), before, "{refusal} left something");
    refusal
}

#[test]
fn a_netid_has_one_holder_and_the_experimental_ones_say_why() {
    with_store(|store| {
        settle(store, "alpine", "000000");
        settle(store, "atlantic", "000001");
        for text in ["000000", "000001"] {
            let (holder, other) = if text == "000000" { ("alpine", "atlantic") } else { ("atlantic", "alpine") };
            let refusal = refused(store, network(other, text));
            assert_eq!(refusal.code(), "netid-held");
            assert!(refusal.to_string().contains("shared by the world"), "{refusal}");
            assert!(!refusal.to_string().contains(holder), "{refusal} names the holder");
            act(store, network(holder, text)).expect("its holder may change it");
        }
    });
}

#[test]
fn nothing_is_removed_from_under_what_stands_on_it() {
    with_store(|store| {
        settle(store, "alpine", "600013");
        import(store, list("alpine", "600013", Mode::Add, [7]));
        assert_eq!(refused(store, RemoveMember { id: member("alpine") }).code(), "member-in-use");
        assert_eq!(refused(store, RemoveNetwork { netid: netid("600013") }).code(), "netid-in-use");
        import(store, list("alpine", "600013", Mode::Remove, [7]));
        act(store, RemoveNetwork { netid: netid("600013") }).expect("nothing stands on it");
        act(store, RemoveMember { id: member("alpine") }).expect("nothing stands on it");
        assert_eq!(refused(store, RemoveMember { id: member("alpine") }).code(), "member-unknown");
    });
}

#[test]
fn a_suspended_member_changes_nothing_and_keeps_what_it_has() {
    with_store(|store| {
        settle(store, "alpine", "600013");
        import(store, list("alpine", "600013", Mode::Add, [7]));
        act(store, SuspendMember { id: member("alpine"), reason: "has not paid".to_owned() }).expect("suspended");
        let refusal = refused(store, list("alpine", "600013", Mode::Add, [8]));
        assert!(refusal.to_string().contains("has not paid"), "{refusal}");
        assert_eq!(store.view().zones.devices().len(), 1);
        act(store, ResumeMember { id: member("alpine") }).expect("resumed");
        import(store, list("alpine", "600013", Mode::Add, [8]));
    });
}

#[test]
fn a_device_of_another_member_is_a_claim_and_stays_where_it_is() {
    with_store(|store| {
        settle(store, "alpine", "600013");
        settle(store, "atlantic", "60002d");
        import(store, list("alpine", "600013", Mode::Add, [7, 8]));
        for mode in [Mode::Add, Mode::Full] {
            let report = import(store, list("atlantic", "60002d", mode, [8, 9, 9]));
            assert_eq!((report.claimed, report.claims, report.repeated), (1, vec![device(8)], 1));
        }
        let report = import(store, list("atlantic", "60002d", Mode::Remove, [8, 10]));
        assert_eq!((report.removed, report.absent), (0, 2), "another's device is as if it were not there");
        assert_eq!(store.view().zones.devices().get(device(8)), Some(netid("600013")));
    });
}

#[test]
fn a_list_is_counted_row_by_row() {
    with_store(|store| {
        settle(store, "alpine", "600013");
        act(store, network("alpine", "600014")).expect("a second NetID");
        let report = import(store, list("alpine", "600013", Mode::Add, 1..=10));
        assert_eq!((report.added, report.unchanged, report.moved), (10, 0, 0));
        let report = import(store, list("alpine", "600014", Mode::Add, 9..=12));
        assert_eq!((report.added, report.moved), (2, 2), "a member's own devices move");
        let report = import(store, list("alpine", "600013", Mode::Full, 1..=6));
        assert_eq!((report.removed, report.unchanged, report.added), (2, 6, 0));
        assert_eq!(store.view().zones.devices().count(netid("600014")), 4, "another NetID's are not touched");
        assert_eq!(refused(store, list("alpine", "600099", Mode::Add, [1])).code(), "netid-unknown");
        settle(store, "atlantic", "60002d");
        assert_eq!(refused(store, list("atlantic", "600013", Mode::Add, [1])).code(), "netid-foreign");
    });
}

#[test]
fn a_full_list_that_drops_most_is_held_back_until_it_is_meant() {
    with_store(|store| {
        settle(store, "alpine", "600013");
        import(store, list("alpine", "600013", Mode::Full, 1..=100));
        let refusal = refused(store, list("alpine", "600013", Mode::Full, 1..=49));
        assert_eq!(refusal.code(), "list-shrinks");
        import(store, list("alpine", "600013", Mode::Full, 1..=50));
        let mut meant = list("alpine", "600013", Mode::Full, [1]);
        meant.allow_shrink = true;
        assert_eq!(import(store, meant).removed, 49);
    });
}

#[test]
fn a_dry_run_and_a_list_without_change_leave_nothing() {
    with_store(|store| {
        settle(store, "alpine", "600013");
        import(store, list("alpine", "600013", Mode::Full, 1..=10));
        let before = picture(&store.view());
        let mut dry = list("alpine", "600013", Mode::Full, 5..=20);
        dry.dry_run = true;
        let report = import(store, dry);
        assert_eq!((report.added, report.removed, report.dry_run), (10, 4, true));
        assert_eq!(picture(&store.view()), before);
        assert_eq!(import(store, list("alpine", "600013", Mode::Full, 1..=10)).unchanged, 10);
        assert_eq!(picture(&store.view()), before, "no serial, no audit row");
    });
}

#[test]
fn each_change_of_the_zones_takes_one_serial() {
    with_store(|store| {
        settle(store, "alpine", "600013");
        let serial = store.view().zones.serial();
        import(store, list("alpine", "600013", Mode::Add, 1..=1000));
        assert_eq!(store.view().zones.serial(), serial.next());
        add_member(store, "atlantic");
        assert_eq!(store.view().zones.serial(), serial.next(), "a member alone changes no zone");
    });
}

#[test]
fn in_a_group_a_refused_act_leaves_no_trace_and_the_others_happen() {
    with_store(|store| {
        settle(store, "alpine", "600013");
        let audit = store.view().audit.number;
        let mut transaction = store.begin(support::NOW).expect("begins");
        let actor = Actor::Local(7);
        transaction.run(&actor, list("alpine", "600013", Mode::Add, [1])).expect("taken");
        transaction.run(&actor, list("alpine", "600099", Mode::Add, [2])).expect_err("refused");
        transaction.run(&actor, list("alpine", "600013", Mode::Add, [3])).expect("taken");
        assert_eq!(store.view().zones.devices().len(), 0, "nothing is visible before the commit");
        let mut transaction = store.begin(support::NOW).expect("begins");
        transaction.run(&actor, list("alpine", "600013", Mode::Add, [1])).expect("taken");
        transaction.run(&actor, list("alpine", "600099", Mode::Add, [2])).expect_err("refused");
        transaction.run(&actor, list("alpine", "600013", Mode::Add, [3])).expect("taken");
        let finished = transaction.finish();
        store.commit(finished).expect("commits");
        let devices: Vec<_> = store.view().zones.devices().iter().map(|(device, _)| device.as_u64()).collect();
        assert_eq!(devices, [1, 3]);
        assert_eq!(store.view().audit.number, audit + 2, "one row for each act that changed something");
    });
}
