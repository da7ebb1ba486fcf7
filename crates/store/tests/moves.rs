//! Moves from one operator to another, at once, offered or planned; the history they leave; and look-ups meanwhile.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use dnsbroker_federation::DevEui;
use dnsbroker_store::act::{
    AcceptMove, CancelMove, Due, MAX_OFFERS, Mode, MoveDevices, OfferMove, RemoveMember, RemoveNetwork, RunMove,
    SuspendMember,
};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_store::history::{self, BULK};
use dnsbroker_store::{Actor, Refusal, Store};
use dnsbroker_zone::answer::{Asker, Outcome, answer};
use dnsbroker_zone::zones::MOVING_TTL;
use support::{NOW, act, act_at, create, device, engine, import, list, member, netid, open, settle};

/// Alpine holds 1 to 10.
fn with_store(test: impl FnOnce(&mut Store)) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let mut store = create(&engine);
    settle(&mut store, "alpine", "600013");
    settle(&mut store, "atlantic", "60002d");
    import(&mut store, list("alpine", "600013", Mode::Full, 1..=10));
    test(&mut store);
    let moves = store.view().ownership.moves.clone();
    let ttls = |store: &Store| (1..=10).map(|n| store.view().zones.device_ttl(device(n))).collect::<Vec<_>>();
    let before = ttls(&store);
    drop(store);
    let again = open(&engine);
    assert_eq!((again.view().ownership.moves.clone(), ttls(&again)), (moves, before), "a restart changes moves");
}

fn devices(values: impl IntoIterator<Item = u64>) -> Vec<DevEui> {
    values.into_iter().map(device).collect()
}

fn order(values: impl IntoIterator<Item = u64>, to: &str, at: Option<i64>) -> MoveDevices {
    MoveDevices { devices: devices(values), to: netid(to), at, before: None, reason: "sold".to_owned() }
}

fn offer(values: impl IntoIterator<Item = u64>, at: Option<i64>) -> OfferMove {
    OfferMove {
        holder: member("alpine"),
        devices: devices(values),
        to: member("atlantic"),
        at,
        before: None,
        reason: "the owner changes operator".to_owned(),
    }
}

fn accept(id: u64) -> AcceptMove {
    AcceptMove { id, receiver: member("atlantic"), netid: netid("60002d") }
}

fn cancel(id: u64, by: Option<&str>) -> CancelMove {
    CancelMove { id, member: by.map(member), reason: None }
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("is refused").code()
}

fn held(store: &Store, id: &str) -> u64 {
    store.view().devices_of(&member(id))
}

#[test]
fn an_administrator_moves_devices_at_once_and_in_one_serial() {
    with_store(|store| {
        let serial = store.view().zones.serial();
        let done = act(store, order([1, 2, 2, 99], "60002d", None)).expect("moved");
        assert_eq!((done.moved, done.stayed, done.serial, done.waits), (2, 1, serial.next(), None));
        assert_eq!((held(store, "alpine"), held(store, "atlantic")), (8, 2));
        assert_eq!(code(act(store, order([1, 99], "60002d", None))), "move-empty");
        assert_eq!(code(act(store, order([1, 2], "60002d", Some(NOW + 1_000)))), "move-empty");
        let may_come = act(store, order([1, 99], "60002d", Some(NOW + 1_000))).expect("planned");
        act(store, cancel(may_come.waits.expect("waits"), None)).expect("stopped");
        assert_eq!(code(act(store, order([3], "600099", None))), "netid-unknown");
        act(store, SuspendMember { id: member("atlantic"), reason: "x".to_owned() }).expect("suspended");
        assert_eq!(code(act(store, order([3], "60002d", None))), "member-suspended");
    });
}

#[test]
fn an_offer_needs_both_sides() {
    with_store(|store| {
        assert_eq!(code(act(store, offer([1, 99], None))), "device-foreign");
        let to_itself = OfferMove { to: member("alpine"), ..offer([1], None) };
        assert_eq!(code(act(store, to_itself)), "move-state");
        let id = act(store, offer([1, 2, 3], None)).expect("offered").waits.expect("waits");
        assert_eq!(held(store, "atlantic"), 0, "nothing moves unasked");
        let by_giver = AcceptMove { id, receiver: member("alpine"), netid: netid("600013") };
        assert_eq!(code(act(store, by_giver)), "move-unknown");
        let wrong_place = AcceptMove { netid: netid("600013"), ..accept(id) };
        assert_eq!(code(act(store, wrong_place)), "netid-foreign");
        import(store, list("alpine", "600013", Mode::Remove, [3]));
        let serial = store.view().zones.serial();
        let done = act(store, accept(id)).expect("accepted");
        assert_eq!((done.moved, done.stayed, done.serial), (2, 1, serial.next()));
        assert_eq!(code(act(store, accept(id))), "move-unknown", "it is done");
        let id = act(store, offer([4], None)).expect("offered").waits.expect("waits");
        act(store, cancel(id, Some("atlantic"))).expect("declined");
        assert!(store.view().ownership.moves.is_empty());
    });
}

#[test]
fn a_planned_move_prepares_caches_and_happens_at_its_time() {
    with_store(|store| {
        let at = NOW + 3_600;
        let id = act(store, offer([1, 2], Some(at))).expect("offered").waits.expect("waits");
        assert_eq!(store.view().next_move(), None, "it waits for an answer");
        act(store, accept(id)).expect("accepted");
        assert_eq!(code(act(store, accept(id))), "move-state");
        assert_eq!(store.view().next_move(), Some(at - 120), "twice the TTL before");
        assert_eq!(act_at(store, at - 121, RunMove).expect("runs"), Due::Nothing);
        let serial = store.view().zones.serial();
        assert_eq!(act_at(store, at - 120, RunMove).expect("runs"), Due::Prepared(id));
        assert_eq!(store.view().zones.serial(), serial, "secondaries need not be told");
        let ttl = |store: &Store, value| store.view().zones.device_ttl(device(value));
        assert_eq!((ttl(store, 1), ttl(store, 3)), (MOVING_TTL, 60));
        assert_eq!(act_at(store, at - 1, RunMove).expect("runs"), Due::Nothing);
        import(store, list("alpine", "600013", Mode::Remove, [2]));
        let Due::Done(done, moved) = act_at(store, at, RunMove).expect("runs") else { panic!("is due") };
        assert_eq!((done, moved.moved, moved.stayed), (id, 1, 1), "what the giver no longer has stays away");
        assert_eq!((ttl(store, 1), held(store, "atlantic")), (60, 1));
        assert_eq!(act_at(store, at, RunMove).expect("runs"), Due::Nothing);
    });
}

#[test]
fn what_is_planned_can_be_stopped_by_whom_it_concerns() {
    with_store(|store| {
        let at = Some(NOW + 1_000);
        settle(store, "baltic", "600031");
        let ordered = act(store, order([5], "60002d", at)).expect("planned").waits.expect("waits");
        assert_eq!(code(act(store, cancel(ordered, Some("atlantic")))), "move-state", "an administrator ordered it");
        let agreed = act(store, offer([6], at)).expect("offered").waits.expect("waits");
        act(store, accept(agreed)).expect("accepted");
        assert_ne!(ordered, agreed);
        assert_eq!(code(act(store, cancel(agreed, Some("baltic")))), "move-unknown");
        act(store, cancel(agreed, Some("alpine"))).expect("stopped");
        act(store, cancel(ordered, None)).expect("stopped");
        let far = act(store, order([5], "60002d", Some(NOW + 500 * 86_400)));
        assert_eq!(code(far), "move-state");
        assert_eq!(code(act(store, order([], "60002d", at))), "too-many");
        let offers: Vec<u64> =
            (0..MAX_OFFERS).map(|_| act(store, offer([7], at)).expect("offered").waits.expect("waits")).collect();
        assert_eq!(code(act(store, offer([7], at))), "too-many");
        for id in offers {
            act(store, cancel(id, Some("alpine"))).expect("taken back");
        }
        // A move that cannot be done says why, and is no longer tried.
        let id = act(store, order([5], "600031", at)).expect("planned").waits.expect("waits");
        act(store, SuspendMember { id: member("baltic"), reason: "has not paid".to_owned() }).expect("suspended");
        assert_eq!(act_at(store, NOW + 900, RunMove).expect("runs"), Due::Prepared(id));
        let Due::Failed(failed, why) = act_at(store, NOW + 1_000, RunMove).expect("runs") else { panic!("is due") };
        assert!(failed == id && why.contains("has not paid"), "{why}");
        assert_eq!(act_at(store, NOW + 1_000, RunMove).expect("runs"), Due::Nothing);
        assert_eq!(held(store, "alpine"), 10);
    });
}

#[test]
fn moves_of_a_member_that_leaves_are_off() {
    with_store(|store| {
        settle(store, "baltic", "600031");
        act(store, order([5], "600031", Some(NOW + 1_000))).expect("planned");
        act(store, RemoveNetwork { netid: netid("600031") }).expect("is empty");
        act(store, RemoveMember { id: member("baltic") }).expect("holds nothing");
        assert!(store.view().ownership.moves.is_empty());
    });
}

#[test]
fn a_devices_history_says_where_it_was_and_who_moved_it() {
    with_store(|store| {
        act(store, order([1], "60002d", None)).expect("moved");
        import(store, list("atlantic", "60002d", Mode::Remove, [1]));
        import(store, list("alpine", "600013", Mode::Add, [1]));
        let view = store.view();
        let of = |value| {
            let now = view.zones.devices().get(device(value));
            history::of_device(&*store.engine(), device(value), now).expect("reads")
        };
        let (a, b) = (Some(netid("600013")), Some(netid("60002d")));
        let events = of(1);
        let steps: Vec<_> = events.iter().map(|event| (event.act.as_str(), event.from, event.to)).collect();
        let list = "devices.import";
        assert_eq!(steps, [(list, None, a), ("devices.move", a, b), (list, b, None), (list, None, a)]);
        assert!(events.iter().all(|event| event.actor == "local:0" && event.at == NOW && event.among.is_none()));
        assert!(events.is_sorted_by_key(|event| event.number));
        assert_eq!(events.last().map(|event| event.serial), Some(view.zones.serial()));
        assert_eq!(of(99), []);
    });
}

#[test]
fn a_long_list_is_one_entry_for_all_its_devices() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let mut store = create(&engine);
    settle(&mut store, "alpine", "600013");
    settle(&mut store, "atlantic", "60002d");
    let count = BULK as u64 + 1;
    import(&mut store, list("alpine", "600013", Mode::Full, (1..=count).map(|n| 2 * n)));
    act(&mut store, order([4, 6], "60002d", None)).expect("moved");
    let (mut rows, mut octets) = (0, 0);
    let mut count_rows = |_: &[u8], row: &[u8]| {
        (rows, octets) = (rows + 1, octets + row.len());
        std::ops::ControlFlow::Continue(())
    };
    engine.scan(dnsbroker_store::engine::Table::History, &[], &mut count_rows).expect("scans");
    assert!(rows == 2 && octets < 200, "{rows} rows of {octets} octets");
    let of = |value| {
        let now = store.view().zones.devices().get(device(value));
        let events = history::of_device(&*engine, device(value), now).expect("reads");
        events.into_iter().map(|event| (event.to, event.among)).collect::<Vec<_>>()
    };
    let came = (Some(netid("600013")), Some(count));
    assert_eq!(of(4), [came, (Some(netid("60002d")), None)]);
    assert_eq!(of(8), [came]);
    assert_eq!(of(9), [], "a device between those of the list");
}

#[test]
fn ten_thousand_moves_and_every_look_up_finds_the_old_or_the_new_place() {
    const DEVICES: u64 = 50;
    const MOVES: u64 = 10_000;
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = create(&engine(EngineKind::Redb, dir.path()));
    settle(&mut store, "alpine", "600013");
    settle(&mut store, "atlantic", "60002d");
    import(&mut store, list("alpine", "600013", Mode::Full, 1..=DEVICES));
    let (published, over, asked) = (ArcSwap::new(store.view()), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (published, over, asked) = (&published, &over, &asked);
            scope.spawn(move || {
                let asker = member("alpine");
                let mut out = Vec::new();
                let mut value = reader;
                let mut serial = published.load().zones.serial();
                while !over.load(Ordering::Relaxed) {
                    value = value % DEVICES + 1;
                    let view = published.load();
                    assert!(view.zones.serial() >= serial, "serials do not go back");
                    serial = view.zones.serial();
                    let query = query(&view.zones.names().nibble_name(device(value)));
                    let answered = answer(&view.zones, Asker::Member(&asker), &query, &mut out).expect("a response");
                    assert_eq!(answered.outcome, Outcome::Found, "device {value} at serial {serial}");
                    let label = |netid: &[u8]| out.windows(7).any(|octets| octets == netid);
                    assert!(label(b"\x06600013") ^ label(b"\x0660002d"), "one place, and one that it was in");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut serial = store.view().zones.serial();
        for group in 0..MOVES / 50 {
            let mut transaction = store.begin(NOW).expect("begins");
            for step in 0..50 {
                let to = if (group + step / DEVICES).is_multiple_of(2) { "60002d" } else { "600013" };
                transaction.run(&Actor::Local(0), order([step % DEVICES + 1], to, None)).expect("moved");
                assert_eq!(transaction.view().zones.serial(), serial.next(), "each move is one serial");
                serial = serial.next();
            }
            let finished = transaction.finish();
            published.store(store.commit(finished).expect("commits"));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 1_000, "{asked:?} look-ups are no storm");
}

/// A query for the A records of a name.
fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
