//! Random acts of several members and an administrator, against a model as simple as can be: who holds what, who claims
//! what, and who sees it.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use dnsbroker_federation::DevEui;
use dnsbroker_store::act::{
    AcceptMove, ChangePolicy, DecideClaims, DeviceChanges, Mode, MoveDevices, OfferMove, PolicyChange, Release,
    WithdrawClaims,
};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_store::{ClaimFilter, Refusal, Store, audit, history};
use dnsbroker_zone::policy::{Agreement, Ban, Banned, Sharing, Stance};
use proptest::prelude::*;
use support::{NOW, act, create, device, engine, import, list, member, netid, network, open};

const MEMBERS: [&str; 3] = ["alpine", "atlantic", "baltic"];
/// NetIDs, and who holds each.
const NETIDS: [(usize, &str); 4] = [(0, "600013"), (0, "600014"), (1, "60002d"), (2, "600031")];

type Values = BTreeSet<u64>;

#[derive(Debug, Clone)]
enum Step {
    List { at: usize, mode: Mode, devices: Values },
    Changes { at: usize, add: Values, remove: Values },
    Release { holder: Option<usize>, devices: Values, to: Option<usize> },
    Decide { claimant: usize, device: u64, grant: bool },
    Withdraw { claimant: usize, devices: Values },
    Move { to: usize, devices: Values },
    Offer { holder: usize, devices: Values, to: usize },
    Policy(Rule),
    Reopen,
}

#[derive(Debug, Clone)]
enum Rule {
    Default(bool),
    Agree(usize, usize, bool),
    Deny(usize, usize, bool),
    Share(usize, Option<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let mode = prop_oneof![Just(Mode::Add), Just(Mode::Full), Just(Mode::Remove)];
    // Few devices, so that members want the same.
    let values = || proptest::collection::btree_set(1..24_u64, 0..8);
    let (at, who) = (|| 0..NETIDS.len(), || 0..MEMBERS.len());
    let pair = || (0..MEMBERS.len(), 1..MEMBERS.len()).prop_map(|(one, step)| (one, (one + step) % MEMBERS.len()));
    let rule = prop_oneof![
        any::<bool>().prop_map(Rule::Default),
        (pair(), any::<bool>()).prop_map(|((one, other), on)| Rule::Agree(one, other, on)),
        (pair(), any::<bool>()).prop_map(|((asker, holder), on)| Rule::Deny(asker, holder, on)),
        (at(), proptest::option::of(0..3_u8)).prop_map(|(at, sharing)| Rule::Share(at, sharing)),
    ];
    prop_oneof![
        6 => (at(), mode, values()).prop_map(|(at, mode, devices)| Step::List { at, mode, devices }),
        2 => (at(), values(), values()).prop_map(|(at, add, remove)| Step::Changes { at, add, remove }),
        3 => (proptest::option::of(who()), values(), proptest::option::of(who()))
            .prop_map(|(holder, devices, to)| Step::Release { holder, devices, to }),
        2 => (who(), 1..24_u64, any::<bool>())
            .prop_map(|(claimant, device, grant)| Step::Decide { claimant, device, grant }),
        1 => (who(), values()).prop_map(|(claimant, devices)| Step::Withdraw { claimant, devices }),
        2 => (at(), values()).prop_map(|(to, devices)| Step::Move { to, devices }),
        2 => (who(), values(), at()).prop_map(|(holder, devices, to)| Step::Offer { holder, devices, to }),
        2 => rule.prop_map(Step::Policy),
        1 => Just(Step::Reopen),
    ]
}

/// What a claim is: where it is wanted, and whether it was decided against.
type Wanted = (usize, bool);

#[derive(Default)]
struct Model {
    devices: BTreeMap<u64, usize>,
    claims: BTreeMap<(usize, u64), Wanted>,
    closed: bool,
    agreements: BTreeSet<(usize, usize)>,
    denied: BTreeSet<(usize, usize)>,
    shared: BTreeMap<usize, u8>,
}

impl Model {
    fn holder(&self, device: u64) -> Option<usize> {
        self.devices.get(&device).map(|at| NETIDS[*at].0)
    }

    fn put(&mut self, device: u64, at: usize) {
        self.devices.insert(device, at);
        self.claims.remove(&(NETIDS[at].0, device));
    }

    fn add(&mut self, at: usize, device: u64) {
        let who = NETIDS[at].0;
        if self.holder(device).is_none_or(|holder| holder == who) {
            return self.put(device, at);
        }
        self.claims.entry((who, device)).and_modify(|claim| claim.0 = at).or_insert((at, false));
    }

    fn remove(&mut self, at: usize, device: u64) {
        if self.devices.get(&device) == Some(&at) {
            self.devices.remove(&device);
        } else if self.claims.get(&(NETIDS[at].0, device)).is_some_and(|claim| claim.0 == at) {
            self.claims.remove(&(NETIDS[at].0, device));
        }
    }

    fn full(&mut self, at: usize, devices: &Values) {
        self.devices.retain(|device, held| *held != at || devices.contains(device));
        let who = NETIDS[at].0;
        self.claims
            .retain(|(claimant, device), (wanted, _)| *claimant != who || *wanted != at || devices.contains(device));
        devices.iter().for_each(|device| self.add(at, *device));
    }

    /// Whether a release is done.
    fn release(&mut self, holder: Option<usize>, devices: &Values, to: Option<usize>) -> bool {
        let may = |device: &u64| {
            self.holder(*device).is_some_and(|found| holder.is_none_or(|holder| holder == found))
                && to.is_none_or(|to| self.claims.contains_key(&(to, *device)))
        };
        if !devices.iter().all(may) {
            return false;
        }
        for device in devices {
            match to.map(|to| self.claims[&(to, *device)].0) {
                Some(at) => self.put(*device, at),
                None => drop(self.devices.remove(device)),
            }
        }
        true
    }

    fn sees(&self, asker: usize, at: usize) -> bool {
        let holder = NETIDS[at].0;
        let agreed = self.agreements.contains(&(asker.min(holder), asker.max(holder)));
        match (asker == holder, self.denied.contains(&(asker, holder)), self.shared.get(&at)) {
            (true, ..) | (_, false, Some(0)) => true,
            (_, true, _) | (_, _, Some(2)) => false,
            (_, _, Some(_)) => agreed,
            (_, _, None) => agreed || !self.closed,
        }
    }
}

fn devices(values: &Values) -> Vec<DevEui> {
    values.iter().copied().map(device).collect()
}

fn by(number: usize) -> dnsbroker_federation::MemberId {
    member(MEMBERS[number])
}

fn change(rule: &Rule) -> PolicyChange {
    let agreement = |one, other| Agreement::new(by(one), by(other)).expect("two");
    let ban = |asker, holder| Ban { asker: by(asker), of: Banned::Holder(by(holder)) };
    match *rule {
        Rule::Default(closed) => PolicyChange::Default(if closed { Stance::Closed } else { Stance::Open }),
        Rule::Agree(one, other, true) => PolicyChange::Agree(agreement(one, other)),
        Rule::Agree(one, other, false) => PolicyChange::Part(agreement(one, other)),
        Rule::Deny(asker, holder, true) => PolicyChange::Deny(ban(asker, holder)),
        Rule::Deny(asker, holder, false) => PolicyChange::Permit(ban(asker, holder)),
        Rule::Share(at, None) => PolicyChange::Unshare(netid(NETIDS[at].1)),
        Rule::Share(at, Some(sharing)) => {
            let sharing = [Sharing::Open, Sharing::Agreements, Sharing::Closed][usize::from(sharing)];
            PolicyChange::Share(netid(NETIDS[at].1), sharing)
        }
    }
}

/// Does a step in both, and tells whether they agree on whether it can be done.
fn run(store: &mut Store, model: &mut Model, step: &Step) -> bool {
    fn done<T>(result: Result<T, Refusal>) -> bool {
        result.is_ok()
    }
    match step {
        Step::List { at, mode, devices } => {
            let mut wanted = list(MEMBERS[NETIDS[*at].0], NETIDS[*at].1, *mode, devices.iter().copied());
            wanted.allow_shrink = true;
            import(store, wanted);
            match mode {
                Mode::Full => model.full(*at, devices),
                Mode::Add => devices.iter().for_each(|device| model.add(*at, *device)),
                Mode::Remove => devices.iter().for_each(|device| model.remove(*at, *device)),
            }
            true
        }
        Step::Changes { at, add, remove } => {
            let (who, netid) = (by(NETIDS[*at].0), netid(NETIDS[*at].1));
            let (adds, removes) = (devices(add), devices(remove));
            let changes =
                DeviceChanges { member: who, netid, add: adds, remove: removes, allow_shrink: true, dry_run: false };
            let twice = !add.is_disjoint(remove);
            if !twice {
                remove.iter().for_each(|device| model.remove(*at, *device));
                add.iter().for_each(|device| model.add(*at, *device));
            }
            done(act(store, changes)) != twice
        }
        Step::Release { holder, devices: values, to } => {
            let reason = Some("because".to_owned());
            let release = Release { devices: devices(values), holder: holder.map(by), to: to.map(by), reason };
            done(act(store, release)) == model.release(*holder, values, *to)
        }
        Step::Decide { claimant, device: value, grant } => {
            let values = vec![device(*value)];
            let decide =
                DecideClaims { claimant: by(*claimant), devices: values, grant: *grant, reason: "x".to_owned() };
            let done = done(act(store, decide));
            let Some(claim) = model.claims.get_mut(&(*claimant, *value)) else { return !done };
            claim.1 |= !grant;
            let at = claim.0;
            if *grant {
                model.put(*value, at);
            }
            done
        }
        Step::Withdraw { claimant, devices: values } => {
            model.claims.retain(|(who, device), _| who != claimant || !values.contains(device));
            done(act(store, WithdrawClaims { claimant: by(*claimant), devices: devices(values) }))
        }
        Step::Move { to, devices: values } => {
            let to_netid = netid(NETIDS[*to].1);
            let order =
                MoveDevices { devices: devices(values), to: to_netid, at: None, before: None, reason: "x".to_owned() };
            let go = values.iter().filter(|device| model.devices.get(device).is_some_and(|at| at != to));
            let go: Values = go.copied().collect();
            go.iter().for_each(|device| model.put(*device, *to));
            done(act(store, order)) != go.is_empty()
        }
        Step::Offer { holder, devices: values, to } => {
            let receiver = NETIDS[*to].0;
            let offer = OfferMove {
                holder: by(*holder),
                devices: devices(values),
                to: by(receiver),
                at: None,
                before: None,
                reason: "x".to_owned(),
            };
            let good = !values.is_empty()
                && receiver != *holder
                && values.iter().all(|device| model.holder(*device) == Some(*holder));
            let Ok(offered) = act(store, offer) else { return !good };
            let id = offered.waits.expect("it waits for the receiver");
            values.iter().for_each(|device| model.put(*device, *to));
            good && done(act(store, AcceptMove { id, receiver: by(receiver), netid: netid(NETIDS[*to].1) }))
        }
        Step::Policy(rule) => {
            match *rule {
                Rule::Default(closed) => model.closed = closed,
                Rule::Agree(one, other, true) => drop(model.agreements.insert((one.min(other), one.max(other)))),
                Rule::Agree(one, other, false) => drop(model.agreements.remove(&(one.min(other), one.max(other)))),
                Rule::Deny(asker, holder, true) => drop(model.denied.insert((asker, holder))),
                Rule::Deny(asker, holder, false) => drop(model.denied.remove(&(asker, holder))),
                Rule::Share(at, Some(sharing)) => drop(model.shared.insert(at, sharing)),
                Rule::Share(at, None) => drop(model.shared.remove(&at)),
            }
            done(act(store, ChangePolicy { change: change(rule), member: None }))
        }
        Step::Reopen => true,
    }
}

fn assert_same(store: &Store, model: &Model) {
    let view = store.view();
    let held: BTreeMap<u64, _> = view.zones.devices().iter().map(|(device, netid)| (device.as_u64(), netid)).collect();
    let expected: BTreeMap<u64, _> = model.devices.iter().map(|(device, at)| (*device, netid(NETIDS[*at].1))).collect();
    assert_eq!(held, expected);
    let filter = ClaimFilter::default();
    let found = view.claims(&filter, None).map(|claim| {
        assert_eq!(claim.holder.as_ref(), view.holder(claim.deveui));
        assert_ne!(claim.holder.as_ref(), Some(&claim.claimant), "nobody claims what it has");
        ((claim.claimant, claim.deveui.as_u64()), (claim.netid, claim.rejected.is_some()))
    });
    let claims = model.claims.iter();
    let expected =
        claims.map(|((who, device), (at, rejected))| ((by(*who), *device), (netid(NETIDS[*at].1), *rejected)));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected.collect());
    for asker in 0..MEMBERS.len() {
        for (at, (_, text)) in NETIDS.iter().enumerate() {
            let (place, _) = view.zones.placed(netid(text)).expect("is there");
            assert_eq!(view.zones.sight(&by(asker)).sees(place), model.sees(asker, at), "{asker} {text}");
        }
    }
}

/// The history of each device is a chain that ends where the device is.
fn assert_history(store: &Store) {
    let view = store.view();
    for value in 1..24 {
        let now = view.zones.devices().get(device(value));
        let events = history::of_device(&*store.engine(), device(value), now).expect("reads");
        let mut at = None;
        for event in &events {
            assert_eq!(event.from, at, "device {value}: {events:?}");
            at = event.to;
        }
        assert_eq!(at, now, "device {value}: {events:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_devices_claims_and_sight_are_as_the_model_says(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let held = engine(EngineKind::Redb, dir.path());
        let mut store = create(&held);
        MEMBERS.iter().for_each(|id| support::add_member(&mut store, id));
        for (who, text) in NETIDS {
            act(&mut store, network(MEMBERS[who], text)).expect("a NetID");
        }
        let mut model = Model::default();
        for step in &steps {
            let (serial, before) = (store.view().zones.serial(), model.devices.clone());
            let rules = store.view().zones.policy().clone();
            prop_assert!(run(&mut store, &mut model, step), "{step:?}");
            if matches!(step, Step::Reopen) {
                drop(store);
                store = open(&held);
            }
            let view = store.view();
            let changed = before != model.devices || rules != *view.zones.policy();
            prop_assert_eq!(view.zones.serial(), if changed { serial.next() } else { serial }, "{:?}", step);
            assert_same(&store, &model);
        }
        assert_history(&store);
        let verdict = audit::verify(&*store.engine(), &store.view().audit).expect("reads");
        prop_assert_eq!((verdict.broken, verdict.rows), (None, store.view().audit.number));
    }
}

#[test]
fn nothing_of_a_refused_handover_is_left() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut store = create(&engine(EngineKind::Redb, dir.path()));
    MEMBERS.iter().for_each(|id| support::add_member(&mut store, id));
    for (who, text) in NETIDS {
        act(&mut store, network(MEMBERS[who], text)).expect("a NetID");
    }
    import(&mut store, list("alpine", "600013", Mode::Full, 1..=10));
    import(&mut store, list("atlantic", "60002d", Mode::Full, 5..=10));
    let before = (support::picture(&store.view()), store.view().claim_counts(&member("atlantic")));
    let release = |values: std::ops::RangeInclusive<u64>| Release {
        devices: values.map(device).collect(),
        holder: Some(member("alpine")),
        to: Some(member("atlantic")),
        reason: Some(format!("at {NOW}")),
    };
    act(&mut store, release(4..=10)).expect_err("one of them is not claimed");
    assert_eq!((support::picture(&store.view()), store.view().claim_counts(&member("atlantic"))), before);
}
