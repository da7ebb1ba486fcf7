//! Claims and handovers: how they come, who sees them, how they end, and that a handover is one serial.

mod support;

use dnsbroker_federation::{DevEui, MemberId};
use dnsbroker_store::act::{
    DecideClaims, DeviceChanges, Import, Mode, Release, RemoveNetwork, SetLimits, Settled, SuspendMember, Update,
    WithdrawClaims,
};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_store::record::OpenClaim;
use dnsbroker_store::{ClaimFilter, MAX_CLAIMS, Refusal, Store, View};
use dnsbroker_zone::update::{Change, Update as Wanted};
use support::{DAY, NOW, act, act_at, create, device, engine, import, list, member, netid, network, open, settle};

/// Alpine holds 1 to 10.
fn with_store(test: impl FnOnce(&mut Store)) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let mut store = create(&engine);
    settle(&mut store, "alpine", "600013");
    settle(&mut store, "atlantic", "60002d");
    settle(&mut store, "baltic", "600031");
    import(&mut store, list("alpine", "600013", Mode::Full, 1..=10));
    test(&mut store);
    let before = (claims(&store.view()), store.view().claim_counts(&member("atlantic")));
    drop(store);
    let view = open(&engine).view();
    assert_eq!((claims(&view), view.claim_counts(&member("atlantic"))), before, "a restart changes claims");
}

fn claims(view: &View) -> Vec<OpenClaim> {
    view.claims(&ClaimFilter::default(), None).collect()
}

fn claimed(view: &View) -> Vec<(String, u64)> {
    claims(view).into_iter().map(|claim| (claim.claimant.to_string(), claim.deveui.as_u64())).collect()
}

fn of(id: &str, devices: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
    devices.into_iter().map(|device| (id.to_owned(), device)).collect()
}

fn devices(values: impl IntoIterator<Item = u64>) -> Vec<DevEui> {
    values.into_iter().map(device).collect()
}

fn release(holder: &str, values: impl IntoIterator<Item = u64>, to: Option<&str>) -> Release {
    Release { devices: devices(values), holder: Some(member(holder)), to: to.map(member), reason: None }
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("is refused").code()
}

fn holder(store: &Store, value: u64) -> Option<String> {
    store.view().holder(device(value)).map(ToString::to_string)
}

#[test]
fn a_claim_lasts_as_long_as_the_claimants_lists_uphold_it() {
    with_store(|store| {
        let report = import(store, list("atlantic", "60002d", Mode::Full, [2, 3, 20]));
        assert_eq!((report.added, report.claimed, report.claims_opened), (1, 2, 2));
        assert_eq!(claimed(&store.view()), of("atlantic", [2, 3]));
        let claim = &claims(&store.view())[0];
        assert_eq!((claim.holder.clone(), claim.held), (Some(member("alpine")), Some(netid("600013"))));
        assert_eq!((claim.netid, claim.since, claim.seen), (netid("60002d"), NOW, NOW));
        let shown = claim.clone().without_holder();
        assert_eq!((shown.holder, shown.held), (None, None), "the claimant is not told whose it is");

        let audit = store.view().audit.number;
        let report = import(store, list("atlantic", "60002d", Mode::Full, [2, 3, 20]));
        assert_eq!((report.claimed, report.claims_opened), (2, 0));
        assert_eq!(store.view().audit.number, audit, "the same list on the same day changes nothing");
        act_at(store, NOW + DAY, list("atlantic", "60002d", Mode::Full, [2, 3, 20])).expect("taken");
        assert_eq!(claims(&store.view())[0].seen, NOW + DAY);
        assert_eq!(claims(&store.view())[0].since, NOW, "it is as old as it is");

        import(store, list("atlantic", "60002d", Mode::Add, [4]));
        assert_eq!(claimed(&store.view()), of("atlantic", [2, 3, 4]));
        let report = import(store, list("atlantic", "60002d", Mode::Full, [3, 20]));
        assert_eq!((report.claims_closed, claimed(&store.view())), (2, of("atlantic", [3])));
        let report = import(store, list("atlantic", "60002d", Mode::Remove, [3]));
        assert_eq!((report.absent, report.claims_closed, claims(&store.view())), (1, 1, vec![]));
    });
}

#[test]
fn dry_runs_and_other_netids_leave_claims_alone() {
    with_store(|store| {
        act(store, network("atlantic", "60002e")).expect("a second NetID");
        import(store, list("atlantic", "60002d", Mode::Add, [2]));
        let dry_run = list("atlantic", "60002d", Mode::Full, [3]);
        act(store, Import { dry_run: true, ..dry_run }).expect("looked at");
        import(store, list("atlantic", "60002e", Mode::Full, [5]));
        assert_eq!(claimed(&store.view()), of("atlantic", [2, 5]));
        act(store, RemoveNetwork { netid: netid("60002d") }).expect("has no devices");
        assert_eq!(claimed(&store.view()), of("atlantic", [5]), "nobody claims for a NetID that is gone");
    });
}

#[test]
fn an_update_that_is_refused_for_another_holder_is_a_claim() {
    with_store(|store| {
        let update = |changes| Update { member: member("atlantic"), wanted: Wanted { prerequisites: vec![], changes } };
        let set = |value| Change::Set(device(value), netid("60002d"));
        assert_eq!(code(act(store, update(vec![set(20), set(5)]))), "device-claimed");
        assert_eq!(claimed(&store.view()), of("atlantic", [5]));
        assert_eq!(holder(store, 20), None, "nothing else of it is done");
        let audit = store.view().audit.number;
        assert_eq!(code(act(store, update(vec![set(5)]))), "device-claimed");
        assert_eq!(store.view().audit.number, audit, "saying it again says nothing new");
    });
}

#[test]
fn a_holder_hands_over_in_one_serial_to_where_the_claimant_wants_it() {
    with_store(|store| {
        import(store, list("atlantic", "60002d", Mode::Add, [2, 3]));
        import(store, list("baltic", "600031", Mode::Add, [3]));
        let serial = store.view().zones.serial();
        assert_eq!(code(act(store, release("alpine", [2, 4], Some("atlantic")))), "claim-unknown");
        assert_eq!(code(act(store, release("baltic", [2], Some("atlantic")))), "device-foreign");
        assert_eq!(code(act(store, release("baltic", [99], None))), "device-foreign", "as if it were another's");
        let done = act(store, release("alpine", [3, 2], Some("atlantic"))).expect("handed over");
        assert_eq!(done, Settled { moved: 2, removed: 0, closed: 2, serial: serial.next() });
        assert_eq!((holder(store, 2), holder(store, 3)), (Some("atlantic".into()), Some("atlantic".into())));
        assert_eq!(claimed(&store.view()), of("baltic", [3]), "who did not get it still claims it");
        assert_eq!(claims(&store.view())[0].holder, Some(member("atlantic")), "from whoever has it now");
    });
}

#[test]
fn what_is_only_let_go_is_nobodys_until_a_list_names_it() {
    with_store(|store| {
        import(store, list("atlantic", "60002d", Mode::Add, [2]));
        import(store, list("baltic", "600031", Mode::Add, [2]));
        let done = act(store, release("alpine", [2], None)).expect("let go");
        assert_eq!((done.removed, done.moved), (1, 0));
        assert_eq!(holder(store, 2), None, "nobody wins by having waited");
        assert_eq!(claims(&store.view())[0].holder, None);
        import(store, list("baltic", "600031", Mode::Add, [2]));
        assert_eq!(holder(store, 2), Some("baltic".into()));
        assert_eq!(claimed(&store.view()), of("atlantic", [2]));
        // A full list that no longer names it lets go as well.
        import(store, Import { allow_shrink: true, ..list("baltic", "600031", Mode::Full, []) });
        import(store, list("atlantic", "60002d", Mode::Add, [2]));
        assert_eq!((holder(store, 2), claims(&store.view())), (Some("atlantic".into()), vec![]));
    });
}

#[test]
fn an_administrator_decides_with_a_reason_that_the_claimant_sees() {
    with_store(|store| {
        import(store, list("atlantic", "60002d", Mode::Add, [2, 3]));
        let decide = |devices, grant, reason: &str| DecideClaims {
            claimant: member("atlantic"),
            devices,
            grant,
            reason: reason.to_owned(),
        };
        assert_eq!(code(act(store, decide(devices([2]), true, ""))), "text-invalid");
        assert_eq!(code(act(store, decide(devices([2, 9]), false, "no"))), "claim-unknown");
        act(store, decide(devices([2]), false, "the label says alpine")).expect("decided");
        import(store, list("atlantic", "60002d", Mode::Full, [2, 3]));
        let rejected = claims(&store.view())[0].rejected.clone().expect("stays decided");
        assert_eq!((rejected.reason.as_str(), rejected.at), ("the label says alpine", NOW));
        act(store, decide(devices([3]), true, "sold")).expect("decided");
        assert_eq!((holder(store, 3), holder(store, 2)), (Some("atlantic".into()), Some("alpine".into())));
        act(store, WithdrawClaims { claimant: member("atlantic"), devices: devices([2, 77]) }).expect("given up");
        assert_eq!(claims(&store.view()), vec![]);
        let reason = Some("decommissioned".to_owned());
        let by_force = Release { devices: devices([1]), holder: None, to: None, reason: None };
        assert_eq!(code(act(store, by_force)), "text-invalid", "an administrator says why");
        act(store, Release { devices: devices([1]), holder: None, to: None, reason }).expect("let go");
        assert_eq!(holder(store, 1), None);
    });
}

#[test]
fn nobody_gets_what_it_may_not_have() {
    with_store(|store| {
        import(store, list("atlantic", "60002d", Mode::Add, [2, 3, 4]));
        let ranges = vec!["0000000000000002/63".parse().expect("a prefix")];
        act(store, SetLimits { member: member("atlantic"), ranges, quota: Some(1) }).expect("limits");
        assert_eq!(code(act(store, release("alpine", [4], Some("atlantic")))), "device-range");
        assert_eq!(code(act(store, release("alpine", [2, 3], Some("atlantic")))), "quota-exceeded");
        act(store, SuspendMember { id: member("atlantic"), reason: "x".to_owned() }).expect("suspended");
        assert_eq!(code(act(store, release("alpine", [2], Some("atlantic")))), "member-suspended");
        assert_eq!(holder(store, 2), Some("alpine".into()));
    });
}

#[test]
fn lists_keep_within_ranges_and_quotas_and_say_what_they_left_out() {
    with_store(|store| {
        let ranges = vec!["0000000000000020/59".parse().expect("a prefix")];
        let limits = SetLimits { member: member("atlantic"), ranges, quota: Some(4) };
        act(store, limits).expect("limits");
        let report = import(store, list("atlantic", "60002d", Mode::Add, [1, 0x1f, 0x20, 0x3f, 0x40]));
        assert_eq!((report.added, report.outside, report.claimed), (2, 3, 0), "what it may not have it cannot claim");
        assert_eq!(report.outsiders, devices([1, 0x1f, 0x40]));
        assert_eq!(code(act(store, list("atlantic", "60002d", Mode::Add, 0x21..=0x23))), "quota-exceeded");
        import(store, list("atlantic", "60002d", Mode::Full, 0x21..=0x24));
        let changes = |add: Vec<u64>, remove: Vec<u64>| DeviceChanges {
            member: member("atlantic"),
            netid: netid("60002d"),
            add: devices(add),
            remove: devices(remove),
            allow_shrink: false,
            dry_run: false,
        };
        assert_eq!(code(act(store, changes(vec![0x30], vec![]))), "quota-exceeded");
        let report = act(store, changes(vec![0x30, 0x30], vec![0x21])).expect("one for one");
        assert_eq!((report.added, report.removed, report.repeated), (1, 1, 1));
        let update = |value| Update {
            member: member("atlantic"),
            wanted: Wanted { prerequisites: vec![], changes: vec![Change::Set(device(value), netid("60002d"))] },
        };
        assert_eq!(code(act(store, update(0x41))), "device-range");
        assert_eq!(code(act(store, update(0x31))), "quota-exceeded");
        // Narrower limits take nothing away, and let go on what is there.
        act(store, SetLimits { member: member("atlantic"), ranges: vec![], quota: Some(1) }).expect("limits");
        let report = import(store, list("atlantic", "60002d", Mode::Full, [0x22, 0x23, 0x24, 0x30]));
        assert_eq!((report.unchanged, report.outside), (4, 0));
        act(store, SetLimits { member: member("atlantic"), ranges: vec![], quota: None }).expect("lifted");
        assert!(store.view().ownership.limits.is_empty());
    });
}

#[test]
fn what_comes_and_goes_is_one_delta_and_nothing_is_named_twice() {
    with_store(|store| {
        let changes = |add: Vec<u64>, remove: Vec<u64>| DeviceChanges {
            member: member("alpine"),
            netid: netid("600013"),
            add: devices(add),
            remove: devices(remove),
            allow_shrink: false,
            dry_run: false,
        };
        let serial = store.view().zones.serial();
        assert_eq!(code(act(store, changes(vec![1, 11], vec![11]))), "device-twice");
        let dry = act(store, DeviceChanges { dry_run: true, ..changes(vec![11], vec![1]) }).expect("looked at");
        assert_eq!((dry.added, dry.removed, dry.serial), (1, 1, Some(serial)));
        let report = act(store, changes(vec![12, 11, 2], vec![30, 1])).expect("done");
        assert_eq!((report.added, report.unchanged, report.removed, report.absent), (2, 1, 1, 1));
        assert_eq!(store.view().zones.serial(), serial.next(), "one serial");
        import(store, list("alpine", "600013", Mode::Add, 100..200));
        assert_eq!(code(act(store, changes(vec![], (100..190).collect()))), "list-shrinks");
    });
}

#[test]
fn claims_beyond_the_bound_are_counted_and_not_kept() {
    with_store(|store| {
        let first = 1_000_u64;
        let count = MAX_CLAIMS as u64 + 5;
        import(store, list("alpine", "600013", Mode::Add, first..first + count));
        let report = import(store, list("atlantic", "60002d", Mode::Full, first..first + count));
        assert_eq!((report.claimed, report.claims_opened), (count, MAX_CLAIMS as u64));
        assert_eq!(store.view().claim_counts(&member("atlantic")), (MAX_CLAIMS, 5));
        let page: Vec<OpenClaim> = {
            let after = (member("atlantic"), device(first + 10));
            store.view().claims(&ClaimFilter::default(), Some(&after)).take(3).collect()
        };
        assert_eq!(page.iter().map(|claim| claim.deveui).collect::<Vec<_>>(), devices(first + 11..first + 14));
        let one = ClaimFilter { deveui: Some(device(first + 7)), ..ClaimFilter::default() };
        assert_eq!(store.view().claims(&one, None).count(), 1);
        let against = |id: &str| ClaimFilter { holder: Some(member(id)), ..ClaimFilter::default() };
        assert_eq!(store.view().claims(&against("alpine"), None).count(), MAX_CLAIMS);
        assert_eq!(store.view().claims(&against("baltic"), None).count(), 0);
        import(store, list("atlantic", "60002d", Mode::Full, [first]));
        assert_eq!(store.view().claim_counts(&member("atlantic")), (1, 0));
    });
}

#[test]
fn members_are_named_in_the_order_of_pages() {
    with_store(|store| {
        import(store, list("baltic", "600031", Mode::Add, [1, 2]));
        import(store, list("atlantic", "60002d", Mode::Add, [2, 9]));
        let mut paged = Vec::new();
        let mut after: Option<(MemberId, DevEui)> = None;
        loop {
            let view = store.view();
            let next = view.claims(&ClaimFilter::default(), after.as_ref()).next();
            let Some(claim) = next else { break };
            after = Some((claim.claimant.clone(), claim.deveui));
            paged.push(claim);
        }
        assert_eq!(paged, claims(&store.view()));
        assert_eq!(claimed(&store.view()), [of("atlantic", [2, 9]), of("baltic", [1, 2])].concat());
    });
}
