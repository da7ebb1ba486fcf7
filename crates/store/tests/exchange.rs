//! Keys, replicas, sources and updates: each rule, what is refused, and that it is the same after a restart.

mod support;

use std::collections::BTreeSet;

use dnsbroker_ca::Principal;
use dnsbroker_federation::{DomainName, Serial};
use dnsbroker_store::act::{
    CreateKey, DeviceChanges, Due, Import, Imported, Mode, MoveDevices, RemoveMember, RemoveNetwork, RemoveReplica,
    RemoveSource, RevokeKey, RunMove, SetReplica, SetSource, SuspendMember, TakeTransfer, Update, Withdraw,
};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_store::record::{OnExpiry, Permission};
use dnsbroker_store::{HistoryError, Refusal, Store};
use dnsbroker_zone::transfer::NameForm;
use dnsbroker_zone::transfer::inbound::{Content, Received, Tally};
use dnsbroker_zone::tsig::Algorithm;
use dnsbroker_zone::update::{Change, Prerequisite, Update as Wanted};
use dnsbroker_zone::wire::Rcode;
use dnsbroker_zone::wire::message::Soa;
use support::{
    NOW, act, act_at, add_member, create, device, engine, import, list, member, netid, open, picture, settle,
};

fn name(text: &str) -> DomainName {
    text.parse().expect("a name")
}

fn with_store(test: impl FnOnce(&mut Store)) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let mut store = create(&engine);
    settle(&mut store, "alpine", "600013");
    settle(&mut store, "atlantic", "60002d");
    test(&mut store);
    let view = store.view();
    let rows = (view.tsig_keys.clone(), view.replicas.clone(), view.sources.clone(), picture(&view), view.history);
    drop(store);
    let view = open(&engine).view();
    let again = (view.tsig_keys.clone(), view.replicas.clone(), view.sources.clone(), picture(&view), view.history);
    assert!(rows == again, "a restart changes something");
}

fn holder(id: &str) -> Principal {
    Principal::Member(member(id))
}

fn key(text: &str, holder: Principal, allows: &[Permission]) -> CreateKey {
    let allows = allows.iter().copied().collect::<BTreeSet<_>>();
    CreateKey { name: name(text), algorithm: Algorithm::HmacSha256, holder, allows, sealed: vec![1, 2, 3] }
}

fn replica(id: &str, of: Option<&str>) -> SetReplica {
    SetReplica {
        standby: None,
        id: id.parse().expect("an id"),
        holder: of.map(member),
        only: None,
        names: NameForm::Nibble,
        notify: vec![],
        notify_key: None,
        clear_text: false,
    }
}

fn source(key: Option<&str>) -> SetSource {
    SetSource {
        netid: netid("600013"),
        member: member("alpine"),
        primary: "192.0.2.53:53".parse().expect("an address"),
        zone: name("devices.example"),
        key: key.map(name),
        tls: None,
        on_expiry: OnExpiry::Keep,
    }
}

fn received(serial: u32, content: Content) -> TakeTransfer {
    let soa = Soa { serial, refresh: 3_600, retry: 60, expire: 86_400, minimum: 60 };
    let received = Received { soa, content, tally: Tally::default() };
    TakeTransfer { netid: netid("600013"), zone: name("devices.example"), received, allow_shrink: false }
}

fn whole(serial: u32, devices: impl IntoIterator<Item = u64>) -> TakeTransfer {
    received(serial, Content::Whole(devices.into_iter().map(device).collect()))
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("is refused").code()
}

#[test]
fn a_key_is_of_somebody_allows_something_and_ends_with_its_holder() {
    with_store(|store| {
        act(store, key("k1.example", holder("alpine"), &[Permission::Update])).expect("a key");
        assert_eq!(code(act(store, key("k1.example", holder("atlantic"), &[Permission::Update]))), "key-exists");
        assert_eq!(code(act(store, key("k2.example", holder("alpine"), &[]))), "key-use");
        assert_eq!(code(act(store, key("k2.example", holder("nobody"), &[Permission::Update]))), "member-unknown");
        act(store, replica("mirror", None)).expect("a replica");
        let mirror = Principal::Replica("mirror".parse().expect("an id"));
        assert_eq!(code(act(store, key("k3.example", mirror.clone(), &[Permission::Update]))), "key-use");
        act(store, key("k3.example", mirror, &[Permission::Transfer])).expect("a key");
        let generation = store.view().generation;
        act(store, RevokeKey { name: name("k1.example") }).expect("revoked");
        assert!(store.view().generation > generation, "transfers under way look again");
        assert_eq!(code(act(store, RevokeKey { name: name("k1.example") })), "key-unknown");
        act(store, RemoveReplica { id: "mirror".parse().expect("an id") }).expect("removed");
        assert!(store.view().tsig_keys.is_empty(), "its keys are gone with it");
    });
}

#[test]
fn a_member_fetches_as_one_replica_and_stays_while_it_has_one() {
    with_store(|store| {
        act(store, replica("one", Some("alpine"))).expect("a replica");
        assert_eq!(code(act(store, replica("two", Some("alpine")))), "replica-holder");
        assert_eq!(code(act(store, replica("two", Some("nobody")))), "member-unknown");
        let view = store.view();
        assert_eq!(view.replica_of(&holder("alpine")).map(|found| found.id.to_string()).as_deref(), Some("one"));
        assert!(view.replica_of(&holder("atlantic")).is_none());
        let one = Principal::Replica("one".parse().expect("an id"));
        assert!(view.admit_principal(&one).is_ok());
        act(store, SuspendMember { id: member("alpine"), reason: "x".to_owned() }).expect("suspended");
        assert!(store.view().admit_principal(&one).is_err(), "its holder is suspended");
        act(store, RemoveNetwork { netid: netid("600013") }).expect("removed");
        assert_eq!(code(act(store, RemoveMember { id: member("alpine") })), "member-in-use");
        let stray = SetReplica { notify_key: Some(name("k.example")), ..replica("three", None) };
        assert_eq!(code(act(store, stray)), "key-use");
    });
}

#[test]
fn a_replica_that_gets_other_names_or_devices_fetches_the_whole_zone() {
    with_store(|store| {
        act(store, replica("one", None)).expect("a replica");
        let mut last = store.view().zones.serial();
        let mut changed = |store: &mut Store, set: SetReplica| {
            act(store, set).expect("set");
            let (before, serial) = (last, store.view().zones.serial());
            last = serial;
            (serial != before).then(|| store.view().history.steps(before, serial))
        };
        assert_eq!(changed(store, SetReplica { clear_text: true, ..replica("one", None) }), None);
        let flat = || SetReplica { names: NameForm::Flat, ..replica("one", None) };
        assert_eq!(changed(store, flat()), Some(None), "a new serial to which no difference leads");
        assert_eq!(changed(store, flat()), None);
        assert_eq!(changed(store, SetReplica { only: Some(member("alpine")), ..flat() }), Some(None));
    });
}

#[test]
fn a_source_proves_itself_and_alone_fills_its_netid() {
    with_store(|store| {
        assert_eq!(code(act(store, source(None))), "source-proof");
        assert_eq!(code(act(store, source(Some("k.example")))), "key-unknown");
        act(store, key("k.example", holder("atlantic"), &[Permission::Source])).expect("a key");
        assert_eq!(code(act(store, source(Some("k.example")))), "key-use", "another member's key");
        act(store, key("own.example", holder("alpine"), &[Permission::Source])).expect("a key");
        let foreign = SetSource { netid: netid("60002d"), ..source(Some("own.example")) };
        assert_eq!(code(act(store, foreign)), "netid-foreign");
        act(store, source(Some("own.example"))).expect("a source");
        assert_eq!(code(act(store, list("alpine", "600013", Mode::Add, [7]))), "netid-filled");
        let wanted = Wanted { prerequisites: vec![], changes: vec![Change::Set(device(7), netid("600013"))] };
        assert_eq!(code(act(store, Update { member: member("alpine"), wanted })), "netid-filled");
        assert_eq!(code(act(store, RemoveNetwork { netid: netid("600013") })), "netid-filled");

        import(store, list("atlantic", "60002d", Mode::Add, [3]));
        let Imported { added, claimed, .. } = act(store, whole(5, 1..101)).expect("taken");
        assert_eq!((added, claimed), (99, 1), "the device of another member stays");
        let progress = store.view().sources[&netid("600013")].progress.clone().expect("progress");
        assert_eq!((progress.serial, progress.claimed), (Serial::new(5), 1));
        assert_eq!(code(act(store, whole(6, 1..40))), "list-shrinks");
        let serial = store.view().zones.serial();
        act(store, TakeTransfer { allow_shrink: true, ..whole(6, 1..40) }).expect("an administrator said yes");
        assert_eq!(store.view().zones.serial(), serial.next(), "one transfer, one serial");
        let difference = Content::Difference { came: vec![device(200)], gone: vec![device(10), device(999)] };
        let report = act(store, received(7, difference)).expect("taken");
        assert_eq!((report.added, report.removed, report.absent), (1, 1, 1));
        let several = |store: &Store| {
            store.view().sources[&netid("600013")].progress.as_ref().is_some_and(|progress| progress.several)
        };
        assert!(!several(store));
        let second = Content::Difference { came: vec![device(200)], gone: vec![] };
        assert_eq!(act(store, received(8, second)).expect("taken").unchanged, 1);
        assert!(several(store), "a second record of a device: differences can no longer be applied");
        act(store, TakeTransfer { allow_shrink: true, ..whole(9, 1..40) }).expect("taken");
        assert!(!several(store), "a whole zone tells anew");
        let stale = TakeTransfer { zone: name("other.example"), ..whole(10, 1..40) };
        assert_eq!(code(act(store, stale)), "source-unknown", "it was asked for under another setting");

        let held = store.view().zones.devices().count(netid("600013"));
        let report = act(store, Withdraw { netid: netid("600013") }).expect("expired");
        assert_eq!(report.removed, held);
        assert!(store.view().sources[&netid("600013")].progress.is_none(), "the next transfer is a whole one");
        act(store, RemoveSource { netid: netid("600013") }).expect("removed");
        import(store, list("alpine", "600013", Mode::Add, [7]));
    });
}

/// A second NetID of alpine's, and a source that has filled the first with devices 1 to 9.
fn with_filled(test: impl FnOnce(&mut Store)) {
    with_store(|store| {
        act(store, support::network("alpine", "600014")).expect("a NetID");
        act(store, key("own.example", holder("alpine"), &[Permission::Source])).expect("a key");
        act(store, source(Some("own.example"))).expect("a source");
        act(store, whole(1, 1..10)).expect("taken");
        test(store);
    });
}

fn held_at(store: &Store, value: u64) -> Option<String> {
    store.view().zones.devices().get(device(value)).map(|netid| netid.to_string())
}

#[test]
fn no_list_takes_a_device_out_of_what_a_source_fills() {
    with_filled(|store| {
        for mode in [Mode::Add, Mode::Full] {
            let report = import(store, list("alpine", "600014", mode, [1, 2, 20]));
            assert_eq!((report.filled, report.moved), (2, 0), "{mode:?}");
            assert_eq!(report.filled_shown, [device(1), device(2)], "{mode:?} names them");
        }
        let changes = |add: &[u64]| DeviceChanges {
            member: member("alpine"),
            netid: netid("600014"),
            add: add.iter().copied().map(device).collect(),
            remove: vec![device(3)],
            allow_shrink: true,
            dry_run: false,
        };
        let report = act(store, changes(&[4, 21])).expect("done");
        assert_eq!((report.filled, report.added, report.absent, report.moved), (1, 1, 1, 0));
        for value in 1..10 {
            assert_eq!(held_at(store, value).as_deref(), Some("600013"), "device {value}");
        }
        // What no source fills moves as ever.
        act(store, support::network("alpine", "600015")).expect("a NetID");
        assert_eq!(import(store, list("alpine", "600015", Mode::Add, [20])).moved, 1);
    });
}

#[test]
fn no_move_takes_a_device_out_of_what_a_source_fills_for_the_same_member() {
    with_filled(|store| {
        let order = |values: &[u64], to: &str, at| MoveDevices {
            devices: values.iter().copied().map(device).collect(),
            to: netid(to),
            at,
            before: None,
            reason: "sold".to_owned(),
        };
        assert_eq!(code(act(store, order(&[1, 2], "600014", None))), "netid-filled");
        import(store, list("alpine", "600014", Mode::Add, [20]));
        act(store, support::network("alpine", "600015")).expect("a NetID");
        let moved = act(store, order(&[1, 20], "600015", None)).expect("what may move moves");
        assert_eq!((moved.moved, moved.stayed, moved.filled), (1, 1, vec![device(1)]));
        act(store, order(&[2, 20], "600014", Some(NOW + 60))).expect("planned");
        let Due::Prepared(_) = act_at(store, NOW + 59, RunMove).expect("runs") else { panic!("is near") };
        let Due::Done(_, moved) = act_at(store, NOW + 60, RunMove).expect("runs") else { panic!("is due") };
        assert_eq!((moved.moved, moved.stayed, moved.filled), (1, 1, vec![device(2)]));
        // To another member it goes: the next transfer makes a claim of it.
        act(store, order(&[3], "60002d", None)).expect("moved");
        assert_eq!(act(store, whole(2, 1..10)).expect("taken").claimed, 1);
        assert_eq!(held_at(store, 3).as_deref(), Some("60002d"));
    });
}

#[test]
fn two_sources_of_one_member_do_not_take_devices_from_each_other() {
    with_filled(|store| {
        let second = SetSource { netid: netid("600014"), ..source(Some("own.example")) };
        act(store, second).expect("a second source");
        let of_second =
            |serial, devices: std::ops::Range<u64>| TakeTransfer { netid: netid("600014"), ..whole(serial, devices) };
        let report = act(store, of_second(1, 5..15)).expect("taken");
        assert_eq!((report.added, report.filled, report.moved), (5, 5, 0));
        let progress = store.view().sources[&netid("600014")].progress.clone().expect("progress");
        assert_eq!((progress.filled, progress.filled_shown.len()), (5, 5), "counted and named in `source show`");
        let difference = received(2, Content::Difference { came: vec![device(4)], gone: vec![device(5)] });
        let report = act(store, TakeTransfer { netid: netid("600014"), ..difference }).expect("taken");
        assert_eq!((report.filled, report.removed, report.absent), (1, 0, 1));
        assert_eq!(store.view().zones.devices().count(netid("600013")), 9);
        // Once the first lets go, a whole zone of the second has them.
        act(store, TakeTransfer { allow_shrink: true, ..whole(2, 1..4) }).expect("taken");
        assert_eq!(act(store, of_second(3, 5..15)).expect("taken").added, 5);
        let progress = store.view().sources[&netid("600014")].progress.clone().expect("progress");
        assert_eq!(progress.filled, 0);
    });
}

#[test]
fn a_full_list_that_is_empty_or_does_not_read_removes_nothing_unasked() {
    with_store(|store| {
        import(store, list("alpine", "600013", Mode::Add, 1..4));
        assert_eq!(code(act(store, list("alpine", "600013", Mode::Full, []))), "list-shrinks", "however few there are");
        import(store, list("alpine", "600013", Mode::Add, 1..1_001));
        // Ten rows in a thousand may be rubbish, and eleven may be the devices that would go.
        let with = |rejected, devices| Import { rejected, ..list("alpine", "600013", Mode::Full, devices) };
        assert_eq!(import(store, with(10, 1..991)).removed, 10);
        assert_eq!(code(act(store, with(11, 1..981))), "list-unread");
        assert_eq!(import(store, with(500, 1..991)).removed, 0, "rows that do not read do no harm where nothing goes");
        let yes = Import { allow_shrink: true, ..with(11, 1..981) };
        assert_eq!(import(store, yes).removed, 10, "an administrator said yes");
        let empty = Import { allow_shrink: true, ..with(0, 1..1) };
        assert_eq!(import(store, empty).removed, 980);
    });
}

#[test]
fn an_update_is_done_whole_on_what_holds_and_sees_its_own_devices_only() {
    with_store(|store| {
        import(store, list("alpine", "600013", Mode::Add, [1, 2]));
        import(store, list("atlantic", "60002d", Mode::Add, [3]));
        let update = |store: &mut Store, prerequisites: Vec<Prerequisite>, changes: Vec<Change>| {
            act(store, Update { member: member("alpine"), wanted: Wanted { prerequisites, changes } })
        };
        let there = |value, otherwise| Prerequisite::Registered { device: device(value), netid: None, otherwise };
        let absent = |value, otherwise| Prerequisite::Absent { device: device(value), otherwise };
        let (own, foreign) = (netid("600013"), netid("60002d"));
        let before = picture(&store.view());
        for (prerequisite, rcode) in [
            (there(9, Rcode::NXDOMAIN), Rcode::NXDOMAIN),
            (there(3, Rcode::NXRRSET), Rcode::NXRRSET),
            (absent(1, Rcode::YXDOMAIN), Rcode::YXDOMAIN),
            (Prerequisite::Constant(Err(Rcode::NXRRSET)), Rcode::NXRRSET),
        ] {
            let refusal = update(store, vec![prerequisite], vec![Change::Remove(device(1), None)]);
            assert!(matches!(refusal, Err(Refusal::Prerequisite(found)) if found == rcode), "{prerequisite:?}");
        }
        for (changes, expected) in [
            (vec![Change::Remove(device(1), None), Change::Set(device(3), own)], "device-claimed"),
            (vec![Change::Set(device(9), foreign)], "netid-foreign"),
            (vec![Change::Set(device(9), netid("600099"))], "netid-unknown"),
        ] {
            assert_eq!(code(update(store, vec![], changes)), expected);
        }
        // The claim alone is on record, and so in the audit, which is the last line.
        let zones = |picture: &str| picture.rsplit_once('\n').map(|(zones, _)| zones.to_owned());
        assert_eq!(zones(&picture(&store.view())), zones(&before), "nothing of a refused update is done");
        // Another member's device looks absent, and is left alone.
        let changes =
            vec![Change::Remove(device(3), None), Change::Set(device(9), own), Change::Remove(device(9), None)];
        let done = update(store, vec![absent(3, Rcode::YXDOMAIN)], changes).expect("done");
        assert_eq!((done.added, done.moved, done.removed), (0, 0, 0), "what is undone in one update is nothing");
        let changes = vec![Change::Remove(device(1), None), Change::Set(device(1), own), Change::Set(device(4), own)];
        let done = update(store, vec![there(1, Rcode::NXDOMAIN)], changes).expect("done");
        assert_eq!((done.added, done.removed), (1, 0));
        assert_eq!(store.view().zones.devices().get(device(3)), Some(foreign));
    });
}

#[test]
fn history_leads_from_every_kept_serial_and_from_no_other() {
    with_store(|store| {
        let mut serials = vec![store.view().zones.serial()];
        for value in 1..30 {
            import(store, list("alpine", "600013", Mode::Add, [value]));
            serials.push(store.view().zones.serial());
            if value == 15 {
                store.checkpoint(NOW).expect("a checkpoint");
            }
        }
        let (view, engine) = (store.view(), store.engine());
        let current = view.zones.serial();
        for (index, since) in serials.iter().enumerate() {
            let mut deltas = Vec::new();
            view.history.read(&*engine, *since, current, 1_000, |delta| deltas.push(delta.clone())).expect("is kept");
            assert_eq!(deltas.len(), serials.len() - 1 - index);
            assert!(deltas.first().is_none_or(|delta| delta.before == *since));
        }
        let read = |since: u32, limit| view.history.read(&*engine, Serial::new(since), current, limit, |_| {});
        assert!(matches!(read(current.get() + 1, 1_000), Err(HistoryError::NotKept)), "the future");
        assert!(matches!(read(0, 1_000), Err(HistoryError::NotKept)), "never ours");
        assert!(matches!(read(serials[0].get(), 5), Err(HistoryError::TooLong)));
        add_member(store, "baltic");
        let again = store.view().history.read(&*store.engine(), serials[0], current, 1_000, |_| {});
        assert!(again.is_ok(), "what is no change of the zones leaves their history alone");
    });
}
