//! Policy as acts: who may make which rule, that a change breaks the history, and that nothing inherits a rule.

mod support;

use dnsbroker_federation::MemberId;
use dnsbroker_store::act::{ChangePolicy, Mode, PolicyChange, RemoveMember, RemoveNetwork, SetPolicy};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_store::{Edit, HistoryError, Object, Precondition, Refusal, Store};
use dnsbroker_zone::policy::{Agreement, Ban, Banned, Policy, Ruling, Sharing, Stance};
use support::{act, create, engine, import, list, member, netid, open, settle};

fn with_store(test: impl FnOnce(&mut Store)) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let mut store = create(&engine);
    settle(&mut store, "alpine", "600013");
    settle(&mut store, "atlantic", "60002d");
    import(&mut store, list("alpine", "600013", Mode::Full, 1..=10));
    test(&mut store);
    let view = store.view();
    drop(store);
    let again = open(&engine).view();
    assert_eq!(again.zones.policy(), view.zones.policy(), "a restart changes the policy");
    for asker in ["alpine", "atlantic", "nobody"].map(member) {
        for (place, network) in view.zones.networks().enumerate() {
            assert_eq!(again.zones.sight(&asker).sees(place), view.zones.sight(&asker).sees(place), "{network:?}");
        }
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("is refused").code()
}

fn by(member: Option<MemberId>, change: PolicyChange) -> ChangePolicy {
    ChangePolicy { change, member }
}

fn ban(asker: &str, holder: &str) -> Ban {
    Ban { asker: member(asker), of: Banned::Holder(member(holder)) }
}

#[test]
fn a_change_takes_a_serial_that_no_difference_leads_to() {
    with_store(|store| {
        let since = store.view().zones.serial();
        let closed = Policy { default: Stance::Closed, ..Policy::default() };
        act(store, SetPolicy { policy: closed.clone() }).expect("set");
        let view = store.view();
        assert_eq!(view.zones.serial(), since.next());
        let read = view.history.read(&*store.engine(), since, view.zones.serial(), 1_000, |_| {});
        assert!(matches!(read, Err(HistoryError::NotKept)), "a filtered secondary fetches the whole zone");
        assert_eq!(view.zones.ruling(&member("atlantic"), netid("600013")), Some(Ruling::Closed));
        let audit = view.audit.number;
        act(store, SetPolicy { policy: closed }).expect("the same");
        assert_eq!((store.view().audit.number, store.view().zones.serial()), (audit, since.next()));
        let agreement = Agreement::new(member("atlantic"), member("alpine")).expect("two");
        act(store, by(None, PolicyChange::Agree(agreement.clone()))).expect("agreed");
        assert_eq!(store.view().zones.ruling(&member("atlantic"), netid("600013")), Some(Ruling::Agreement));
        act(store, by(None, PolicyChange::Part(agreement))).expect("parted");
        assert_eq!(store.view().zones.policy().len(), 0);
    });
}

#[test]
fn a_member_makes_rules_about_its_own_things_only() {
    with_store(|store| {
        let alpine = || Some(member("alpine"));
        act(store, by(alpine(), PolicyChange::Share(netid("600013"), Sharing::Closed))).expect("its own");
        assert_eq!(
            code(act(store, by(alpine(), PolicyChange::Share(netid("60002d"), Sharing::Closed)))),
            "netid-foreign"
        );
        act(store, by(alpine(), PolicyChange::Deny(ban("atlantic", "alpine")))).expect("its own");
        assert_eq!(code(act(store, by(alpine(), PolicyChange::Deny(ban("alpine", "atlantic"))))), "policy-foreign");
        let lift = by(Some(member("atlantic")), PolicyChange::Permit(ban("atlantic", "alpine")));
        assert_eq!(code(act(store, lift)), "policy-foreign", "the one who is denied does not lift it");
        let agreement = Agreement::new(member("atlantic"), member("alpine")).expect("two");
        assert_eq!(code(act(store, by(alpine(), PolicyChange::Agree(agreement)))), "policy-foreign");
        assert_eq!(code(act(store, by(alpine(), PolicyChange::Default(Stance::Closed)))), "policy-foreign");
        assert_eq!(store.view().zones.policy().len(), 2);
    });
}

#[test]
fn rules_are_about_what_is_there_and_go_with_it() {
    with_store(|store| {
        assert_eq!(code(act(store, by(None, PolicyChange::Deny(ban("atlantic", "nobody"))))), "member-unknown");
        assert_eq!(code(act(store, by(None, PolicyChange::Deny(ban("alpine", "alpine"))))), "policy-invalid");
        let own = Ban { asker: member("alpine"), of: Banned::Netid(netid("600013")) };
        assert_eq!(code(act(store, by(None, PolicyChange::Deny(own)))), "policy-invalid");
        let nowhere = PolicyChange::Share(netid("600099"), Sharing::Open);
        assert_eq!(code(act(store, by(None, nowhere))), "netid-unknown");
        settle(store, "baltic", "600031");
        act(store, by(None, PolicyChange::Share(netid("600031"), Sharing::Closed))).expect("set");
        act(store, by(None, PolicyChange::Deny(ban("baltic", "alpine")))).expect("set");
        act(store, RemoveNetwork { netid: netid("600031") }).expect("removed");
        act(store, RemoveMember { id: member("baltic") }).expect("removed");
        assert!(store.view().zones.policy().is_empty(), "a later baltic does not inherit");
    });
}

#[test]
fn two_administrators_do_not_undo_each_others_rules() {
    with_store(|store| {
        let seen = store.view().revision(&Object::Policy).expect("is always there");
        let edit = |policy| Edit {
            object: Object::Policy,
            precondition: Some(Precondition::Is(seen)),
            act: SetPolicy { policy },
        };
        act(store, edit(Policy { tell: true, ..Policy::default() })).expect("the first");
        assert_eq!(code(act(store, edit(Policy { default: Stance::Closed, ..Policy::default() }))), "changed");
        assert!(store.view().zones.policy().tell);
    });
}
