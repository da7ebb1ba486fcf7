//! Administrators, API tokens, webhooks, requests that happen once, and edits on the strength of what was seen.

mod support;

use std::collections::BTreeSet;

use dnsbroker_ca::TokenHash;
use dnsbroker_store::act::{
    AddAdministrator, AddMember, Answered, ChangeAdministrator, CreateApiToken, DisableWebhook, KEPT, Mode, Once,
    RemoveAdministrator, RemoveMember, RemoveWebhook, ResumeMember, RevokeApiToken, SetWebhook, SuspendMember, UseTotp,
};
use dnsbroker_store::engine::EngineKind;
use dnsbroker_store::record::{Role, Scope, Sealed, TokenOwner};
use dnsbroker_store::{Actor, Edit, Object, Precondition, Refusal, Store, TokenDenial};
use support::{
    DAY, NOW, act, act_at, add_member, create, engine, import, list, member, netid, network, open, secret, settle,
};

fn with_store(test: impl FnOnce(&mut Store)) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let mut store = create(&engine);
    settle(&mut store, "alpine", "600013");
    test(&mut store);
    let accounts = |store: &Store| {
        let view = store.view();
        (view.accounts.administrators.clone(), view.accounts.api_tokens.clone(), view.accounts.webhooks.clone())
    };
    let before = accounts(&store);
    drop(store);
    assert!(accounts(&open(&engine)) == before, "a restart changes accounts");
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.expect_err("is refused").code()
}

fn person(name: &str, role: Role) -> AddAdministrator {
    let password = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".to_owned();
    AddAdministrator { name: name.to_owned(), role, password, totp: Some(Sealed(vec![1, 2, 3])) }
}

fn change(name: &str) -> ChangeAdministrator {
    ChangeAdministrator { name: name.to_owned(), ..ChangeAdministrator::default() }
}

fn hash(seed: u8) -> TokenHash {
    secret(seed).hash()
}

fn token(seed: u8, owner: TokenOwner, scopes: &[Scope]) -> CreateApiToken {
    let scopes = scopes.iter().copied().collect();
    CreateApiToken { hash: hash(seed), name: "sync".to_owned(), owner, scopes, expires: Some(NOW + DAY) }
}

#[test]
fn somebody_can_always_log_in_and_each_code_is_good_once() {
    with_store(|store| {
        for bad in ["", "Ada", "a b", &"a".repeat(65)] {
            assert_eq!(code(act(store, person(bad, Role::Admin))), "administrator-name");
        }
        act(store, person("ada", Role::Admin)).expect("added");
        assert_eq!(code(act(store, person("ada", Role::Auditor))), "administrator-exists");
        act(store, person("bob", Role::Auditor)).expect("added");
        let text = format!("{:?}", store.view().accounts);
        assert!(!text.contains("argon2id"), "logs have no hashes: {text}");
        let remove = |name: &str| RemoveAdministrator { name: name.to_owned() };
        assert_eq!(code(act(store, remove("ada"))), "administrator-last", "bob changes nothing");
        let demoted = ChangeAdministrator { role: Some(Role::Auditor), ..change("ada") };
        assert_eq!(code(act(store, demoted)), "administrator-last");
        let disabled = || ChangeAdministrator { disabled: Some(true), ..change("ada") };
        assert_eq!(code(act(store, disabled())), "administrator-last");
        act(store, ChangeAdministrator { role: Some(Role::Admin), ..change("bob") }).expect("promoted");
        let use_code = |name: &str, step| UseTotp { name: name.to_owned(), step };
        act(store, use_code("ada", 100)).expect("good once");
        assert_eq!(code(act(store, use_code("ada", 100))), "totp-replayed");
        assert_eq!(code(act(store, use_code("ada", 99))), "totp-replayed");
        act(store, use_code("ada", 101)).expect("the next");
        act(store, use_code("bob", 100)).expect("another's");
        act(store, disabled()).expect("bob is there");
        assert_eq!(code(act(store, use_code("ada", 102))), "administrator-disabled");
        assert_eq!(code(act(store, remove("bob"))), "administrator-last");
        act(store, remove("ada")).expect("removed");
        assert_eq!(code(act(store, use_code("ada", 103))), "administrator-unknown");
    });
}

#[test]
fn a_token_speaks_for_somebody_who_may_act_within_scopes() {
    with_store(|store| {
        act(store, person("ada", Role::Admin)).expect("added");
        act(store, person("bob", Role::Auditor)).expect("added");
        let (ada, bob) = (TokenOwner::Administrator("ada".into()), TokenOwner::Administrator("bob".into()));
        let alpine = TokenOwner::Member(member("alpine"));
        assert_eq!(code(act(store, token(1, ada.clone(), &[]))), "api-token-scopes");
        assert_eq!(code(act(store, token(1, bob.clone(), &[Scope::Devices]))), "api-token-scopes");
        assert_eq!(code(act(store, token(1, alpine.clone(), &[Scope::Admin]))), "api-token-scopes");
        let ended = CreateApiToken { expires: Some(NOW), ..token(1, ada.clone(), &[Scope::Read]) };
        assert_eq!(code(act(store, ended)), "api-token-life");
        let made = act(store, token(1, ada.clone(), &[Scope::Admin])).expect("made");
        assert!(made.allows(Scope::Policy) && made.allows(Scope::Read));
        assert_eq!(code(act(store, token(1, bob.clone(), &[Scope::Read]))), "api-token-exists");
        let made = act(store, token(2, alpine.clone(), &[Scope::Devices])).expect("made");
        assert!(made.allows(Scope::Read) && !made.allows(Scope::Policy));
        act(store, token(3, bob.clone(), &[Scope::Read])).expect("made");
        let denial = |store: &Store, seed, now| store.view().api_token(&hash(seed), now).err();
        assert_eq!(denial(store, 2, NOW), None);
        assert!(matches!(denial(store, 9, NOW), Some(TokenDenial::Unknown)));
        assert!(matches!(denial(store, 2, NOW + DAY), Some(TokenDenial::Expired(_))));
        act(store, SuspendMember { id: member("alpine"), reason: "x".to_owned() }).expect("suspended");
        assert!(matches!(denial(store, 2, NOW), Some(TokenDenial::Owner(_))));
        act(store, ResumeMember { id: member("alpine") }).expect("resumed");
        let id = made.id();
        let foreign = RevokeApiToken { id: id.clone(), owner: Some(bob) };
        assert_eq!(code(act(store, foreign)), "api-token-unknown");
        act(store, RevokeApiToken { id: id.clone(), owner: Some(alpine) }).expect("revoked");
        assert!(matches!(denial(store, 2, NOW), Some(TokenDenial::Revoked(found)) if found == id));
        act(store, RemoveAdministrator { name: "bob".to_owned() }).expect("removed");
        assert!(matches!(denial(store, 3, NOW), Some(TokenDenial::Unknown)), "it is gone with its owner");
    });
}

#[test]
fn a_webhook_is_its_owners_and_goes_with_it() {
    with_store(|store| {
        let hook = |url: &str, member| SetWebhook {
            id: None,
            url: url.to_owned(),
            events: BTreeSet::from(["claim.open".to_owned()]),
            secret: Some(Sealed(vec![7])),
            member,
        };
        assert_eq!(code(act(store, hook("ftp://x", None))), "webhook-invalid");
        assert_eq!(code(act(store, hook("https://x y", None))), "webhook-invalid");
        let none = SetWebhook { secret: None, ..hook("https://ops.example/hook", None) };
        assert_eq!(code(act(store, none)), "webhook-invalid");
        add_member(store, "baltic");
        let own = act(store, hook("https://baltic.example/hook", Some(member("baltic")))).expect("set").id;
        let all = act(store, hook("https://ops.example/hook", None)).expect("set").id;
        assert_ne!(own, all);
        let foreign = SetWebhook { id: Some(all), ..hook("https://x.example/", Some(member("baltic"))) };
        assert_eq!(code(act(store, foreign)), "webhook-unknown");
        act(store, DisableWebhook { id: all, reason: "410 Gone".to_owned() }).expect("disabled");
        let moved = SetWebhook { id: Some(all), secret: None, ..hook("https://new.example/hook", None) };
        let moved = act(store, moved).expect("changed");
        assert_eq!((moved.disabled.clone(), moved.secret.0.clone()), (None, vec![7]));
        act(store, RemoveMember { id: member("baltic") }).expect("removed");
        assert_eq!(store.view().accounts.webhooks.keys().collect::<Vec<_>>(), [&all]);
        act(store, RemoveWebhook { id: all, member: None }).expect("removed");
        assert_eq!(code(act(store, RemoveWebhook { id: all, member: None })), "webhook-unknown");
    });
}

fn once(identity: &str, key: &str, request: &str, id: &str) -> Once<AddMember> {
    Once {
        identity: identity.to_owned(),
        key: key.to_owned(),
        request: request.as_bytes().to_vec(),
        act: AddMember { id: member(id), name: id.to_owned() },
        answer: Box::new(|member| (201, format!("made {}", member.id))),
    }
}

#[test]
fn a_repeated_request_gets_the_first_answer_and_does_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let mut store = create(&engine);
    let first = act(&mut store, once("local:0", "k1", "add", "alpine")).expect("done");
    assert_eq!(first, Answered { status: 201, body: Some("made alpine".to_owned()), repeated: false });
    let audit = store.view().audit.number;
    drop(store);
    let mut store = open(&engine);
    let again = act(&mut store, once("local:0", "k1", "add", "alpine")).expect("answered");
    assert_eq!(again, Answered { repeated: true, ..first });
    assert_eq!(store.view().audit.number, audit);
    assert_eq!(code(act(&mut store, once("local:0", "k1", "other", "alpine"))), "idempotency-key-reused");
    assert_eq!(code(act(&mut store, once("local:1", "k1", "add", "alpine"))), "member-exists", "another's key");
    assert_eq!(code(act(&mut store, once("local:0", "", "add", "alpine"))), "idempotency-key-invalid");
    // What was refused did not happen, and may happen later.
    act(&mut store, RemoveMember { id: member("alpine") }).expect("removed");
    act(&mut store, once("local:1", "k1", "add", "alpine")).expect("done");
    // A day later the key is new.
    act(&mut store, RemoveMember { id: member("alpine") }).expect("removed");
    let later = act_at(&mut store, NOW + KEPT, once("local:0", "k1", "other", "alpine")).expect("done");
    assert!(!later.repeated);
    let mut rows = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    };
    engine.scan(dnsbroker_store::engine::Table::Requests, &[], &mut count).expect("scans");
    assert_eq!(rows, 1, "what is over is forgotten");
}

#[test]
fn of_two_who_edit_what_they_saw_the_second_is_told() {
    with_store(|store| {
        let seen = |store: &Store, object: &Object| store.view().revision(object).expect("is there");
        let object = Object::Network(netid("600013"));
        let first = seen(store, &object);
        assert_eq!(first.to_string().parse(), Ok(first));
        let edit = |address: &str, precondition| {
            let mut set = network("alpine", "600013");
            set.network.addresses = vec![address.parse().expect("an address")];
            Edit { object: Object::Network(netid("600013")), precondition: Some(precondition), act: set }
        };
        act(store, edit("192.0.2.2", Precondition::Is(first))).expect("as it was seen");
        let serial = store.view().zones.serial();
        assert_eq!(code(act(store, edit("192.0.2.3", Precondition::Is(first)))), "changed");
        assert_eq!(store.view().zones.serial(), serial);
        act(store, edit("192.0.2.1", Precondition::Exists)).expect("is there");
        assert_eq!(seen(store, &object), first, "changed back it is what was seen");
        // Of two in one group each is told what it has made of it, and not what the other has.
        let mut group = store.begin(NOW).expect("begins");
        let mut run = |address| {
            let edit = Edit { precondition: None, ..edit(address, Precondition::Exists) };
            group.run(&Actor::Local(0), edit).expect("done").revision
        };
        let told = ["192.0.2.4", "192.0.2.5"].map(&mut run);
        let finished = group.finish();
        store.commit(finished).expect("durable");
        assert_ne!(told[0], told[1]);
        assert_eq!(told[1], Some(seen(store, &object)));
        let stale = edit("192.0.2.6", Precondition::Is(told[0].expect("is there")));
        assert_eq!(code(act(store, stale)), "changed");
        let absent = Edit {
            object: Object::Member(member("alpine")),
            precondition: Some(Precondition::Absent),
            act: AddMember { id: member("alpine"), name: "x".to_owned() },
        };
        assert_eq!(code(act(store, absent)), "changed");

        let devices = Object::Devices(netid("600013"));
        let before = seen(store, &devices);
        import(store, list("alpine", "600013", Mode::Add, [1]));
        let after = seen(store, &devices);
        assert_ne!(before, after);
        settle(store, "atlantic", "60002d");
        import(store, list("atlantic", "60002d", Mode::Add, [1, 2]));
        assert_eq!(seen(store, &devices), after, "another's list is another");
        let stale = Edit {
            object: devices,
            precondition: Some(Precondition::Is(before)),
            act: list("alpine", "600013", Mode::Full, [1, 2]),
        };
        assert_eq!(code(act(store, stale)), "changed");
        assert!(store.view().revision(&Object::Devices(netid("600099"))).is_none());
    });
}
