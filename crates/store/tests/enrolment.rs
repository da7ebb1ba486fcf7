//! Tokens, certificates, and who is admitted.

mod support;

use std::sync::Arc;

use dnsbroker_ca::{Issuer, Principal, Profile, PublicKey, RevocationReason, Signer};
use dnsbroker_store::act::{
    CreateToken, Enrol, OpenGrace, RemoveMember, Renew, Renewer, ResumeMember, Revoke, SuspendMember,
};
use dnsbroker_store::engine::{Engine, EngineKind};
use dnsbroker_store::{Denial, Store};
use support::{
    DAY, MemorySigner, NOW, act, act_at, add_member, create, csr, engine, issue, issuer, member, open, profile, secret,
    serial, verified,
};

fn store() -> (tempfile::TempDir, Arc<dyn Engine>, Store) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = engine(EngineKind::Redb, dir.path());
    let mut store = create(&engine);
    add_member(&mut store, "alpine");
    add_member(&mut store, "atlantic");
    (dir, engine, store)
}

fn token(store: &mut Store, seed: u8, pin: Option<&[u8]>) {
    let key_pin = pin.map(|csr| verified(csr).public_key().sha256());
    let profile = Profile::OPERATOR.to_owned();
    let create = CreateToken { hash: secret(seed).hash(), member: member("alpine"), profile, ttl: DAY, key_pin };
    act(store, create).expect("a token");
}

fn enrol(issuer: &Arc<Issuer>, token: u8, csr: &[u8], number: u8) -> Enrol {
    Enrol {
        token: secret(token).hash(),
        csr: verified(csr),
        issuer: Arc::clone(issuer),
        profile: profile(Profile::OPERATOR),
        serial: serial(number),
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, dnsbroker_store::Refusal>) -> &'static str {
    result.expect_err("is refused").code()
}

#[test]
fn a_token_works_once_and_the_same_key_gets_the_same_certificate() {
    let (_dir, engine, mut store) = store();
    let (issuer, mine, other) = (issuer(), csr(), csr());
    token(&mut store, 1, None);
    let first = act(&mut store, enrol(&issuer, 1, &mine, 10)).expect("enrolled");
    let rows = store.view().audit.number;
    let again = act(&mut store, enrol(&issuer, 1, &mine, 11)).expect("the reply was lost");
    assert_eq!(again.der, first.der);
    assert_eq!(store.view().audit.number, rows, "nothing happened the second time");
    assert_eq!(code(act(&mut store, enrol(&issuer, 1, &other, 12))), "token-used");
    drop(store);
    let mut store = open(&engine);
    assert_eq!(act(&mut store, enrol(&issuer, 1, &mine, 13)).expect("after a restart too").der, first.der);
    act(&mut store, Revoke { serial: first.certificate.serial, reason: RevocationReason::KeyCompromise, of: None })
        .expect("revoked");
    assert_eq!(
        code(act(&mut store, enrol(&issuer, 1, &mine, 14))),
        "token-used",
        "a revoked certificate is not given again"
    );
}

#[test]
fn two_bearers_in_one_group_get_one_certificate() {
    let (_dir, _engine, mut store) = store();
    let (issuer, mine, other) = (issuer(), csr(), csr());
    token(&mut store, 1, None);
    let mut transaction = store.begin(NOW).expect("begins");
    let actor = dnsbroker_store::act::bearer(&secret(1).hash());
    let first = transaction.run(&actor, enrol(&issuer, 1, &mine, 10)).expect("enrolled");
    let same = transaction.run(&actor, enrol(&issuer, 1, &mine, 11)).expect("the same again");
    assert_eq!(first.der, same.der);
    assert_eq!(code(transaction.run(&actor, enrol(&issuer, 1, &other, 12))), "token-used");
    let finished = transaction.finish();
    assert_eq!(store.commit(finished).expect("commits").certificates.len(), 1);
}

#[test]
fn a_token_is_bound_to_time_key_and_member() {
    let (_dir, _engine, mut store) = store();
    let (issuer, mine, other) = (issuer(), csr(), csr());
    token(&mut store, 1, Some(&mine));
    assert_eq!(code(act(&mut store, enrol(&issuer, 1, &other, 10))), "token-key");
    assert_eq!(code(act(&mut store, enrol(&issuer, 2, &mine, 10))), "token-unknown");
    assert_eq!(code(act_at(&mut store, NOW + DAY, enrol(&issuer, 1, &mine, 10))), "token-expired");
    act(&mut store, SuspendMember { id: member("alpine"), reason: "x".to_owned() }).expect("suspended");
    assert_eq!(code(act(&mut store, enrol(&issuer, 1, &mine, 10))), "member-suspended");
    act(&mut store, ResumeMember { id: member("alpine") }).expect("resumed");
    let enrolled = act(&mut store, enrol(&issuer, 1, &mine, 10)).expect("enrolled");
    assert_eq!(enrolled.certificate.member, Some(member("alpine")));
    assert_eq!(enrolled.certificate.key, verified(&mine).public_key().sha256());
    let long = CreateToken {
        hash: secret(9).hash(),
        member: member("alpine"),
        profile: String::new(),
        ttl: 31 * DAY,
        key_pin: None,
    };
    assert_eq!(code(act(&mut store, long)), "token-life");
}

#[test]
fn a_key_speaks_for_one_holder_and_not_after_its_revocation() {
    let (_dir, _engine, mut store) = store();
    let (issuer, signer) = (issuer(), MemorySigner::new());
    let key: &PublicKey = signer.public_key();
    let first = act(&mut store, issue("alpine", &issuer, key, 20)).expect("issued");
    act(&mut store, issue("alpine", &issuer, key, 21)).expect("renewed with the same key");
    assert_eq!(code(act(&mut store, issue("atlantic", &issuer, key, 22))), "key-refused");
    act(&mut store, Revoke { serial: first.certificate.serial, reason: RevocationReason::KeyCompromise, of: None })
        .expect("revoked");
    assert_eq!(code(act(&mut store, issue("alpine", &issuer, key, 23))), "key-refused");
    let again = Revoke { serial: first.certificate.serial, reason: RevocationReason::Superseded, of: None };
    assert_eq!(code(act(&mut store, again)), "certificate-revoked");
    assert_eq!(
        code(act(&mut store, Revoke { serial: serial(99), reason: RevocationReason::Superseded, of: None })),
        "certificate-unknown"
    );
}

#[test]
fn who_is_admitted_follows_every_change_and_the_generation_tells() {
    let (_dir, engine, mut store) = store();
    let (issuer, signer) = (issuer(), MemorySigner::new());
    let issued = act(&mut store, issue("alpine", &issuer, signer.public_key(), 20)).expect("issued");
    let certificate = issued.certificate;
    let alpine = Principal::Member(member("alpine"));
    let verdict = |store: &Store, now| store.view().admit(&alpine, &certificate.serial, now);
    let mut generation = store.view().generation;
    let mut has_grown = |store: &Store| {
        let grown = store.view().generation > generation;
        generation = store.view().generation;
        grown
    };
    assert_eq!(verdict(&store, NOW), Ok(()));
    assert_eq!(verdict(&store, certificate.not_before - 1), Err(Denial::Expired(certificate.serial)));
    assert_eq!(verdict(&store, certificate.not_after + 1), Err(Denial::Expired(certificate.serial)));
    let view = store.view();
    let atlantic = Principal::Member(member("atlantic"));
    assert!(matches!(view.admit(&atlantic, &certificate.serial, NOW), Err(Denial::Mismatch(..))));
    assert!(matches!(view.admit(&alpine, &serial(77), NOW), Err(Denial::NotRegistered(_))));
    let replica = Principal::from_uri("spiffe://fed.example/replica/r1", &support::federation()).expect("a replica");
    assert!(matches!(view.admit(&replica, &certificate.serial, NOW), Err(Denial::Mismatch(..))));
    assert!(matches!(view.admit_principal(&replica), Err(Denial::NoReplica(_))));
    act(&mut store, SuspendMember { id: member("alpine"), reason: "x".to_owned() }).expect("suspended");
    assert!(matches!(verdict(&store, NOW), Err(Denial::Suspended(_))) && has_grown(&store));
    act(&mut store, ResumeMember { id: member("alpine") }).expect("resumed");
    assert!(verdict(&store, NOW).is_ok() && has_grown(&store));
    add_member(&mut store, "baltic");
    act(&mut store, RemoveMember { id: member("alpine") }).expect("removed");
    assert!(verdict(&store, NOW) == Err(Denial::Revoked(certificate.serial)) && has_grown(&store));
    add_member(&mut store, "alpine");
    assert!(verdict(&store, NOW).is_err(), "a member that comes back does not get its old certificates back");
    drop(store);
    assert!(verdict(&open(&engine), NOW).is_err(), "nor by a restart");
}

fn renew(issuer: &Arc<Issuer>, old: dnsbroker_ca::SerialNumber, csr: &[u8], number: u8) -> Renew {
    Renew {
        old,
        by: Renewer::Holder,
        csr: verified(csr),
        issuer: Arc::clone(issuer),
        profile: profile(Profile::OPERATOR),
        serial: serial(number),
    }
}

#[test]
fn a_certificate_is_renewed_in_its_time_or_in_grace_and_the_same_request_gets_the_same_one() {
    let (_dir, engine, mut store) = store();
    let (issuer, mine, next) = (issuer(), csr(), csr());
    token(&mut store, 1, None);
    let first = act(&mut store, enrol(&issuer, 1, &mine, 10)).expect("enrolled").certificate;
    assert_eq!(
        code(act_at(&mut store, first.renew_at() - 1, renew(&issuer, first.serial, &next, 11))),
        "renewal-early"
    );
    let second = act_at(&mut store, first.renew_at(), renew(&issuer, first.serial, &next, 11)).expect("renewed");
    let rows = store.view().audit.number;
    let again = act_at(&mut store, first.renew_at() + 60, renew(&issuer, first.serial, &next, 12)).expect("the same");
    assert_eq!((again.der, store.view().audit.number), (second.der.clone(), rows), "nothing happened the second time");
    assert_eq!((second.certificate.renews, second.certificate.lineage()), (Some(first.serial), first.serial));
    drop(store);
    let mut store = open(&engine);
    let late = first.not_after + 1;
    let third = csr();
    assert_eq!(code(act_at(&mut store, late, renew(&issuer, first.serial, &third, 13))), "certificate-expired");
    let grace = |until| OpenGrace { id: member("alpine"), until };
    act_at(&mut store, late, grace(Some(late + DAY))).expect("opened");
    act_at(&mut store, late + 1, renew(&issuer, first.serial, &third, 13)).expect("in grace");
    let fourth = csr();
    assert_eq!(code(act_at(&mut store, late + DAY, renew(&issuer, first.serial, &fourth, 14))), "certificate-expired");
    assert_eq!(code(act_at(&mut store, late, grace(Some(late)))), "grace-invalid");
    assert_eq!(code(act_at(&mut store, late, grace(Some(late + 31 * DAY)))), "grace-invalid");
}

#[test]
fn a_compromised_key_takes_its_renewals_with_it_and_other_reasons_do_not() {
    for (reason, ended) in [(RevocationReason::KeyCompromise, 3), (RevocationReason::Superseded, 1)] {
        let (_dir, _engine, mut store) = store();
        let issuer = issuer();
        token(&mut store, 1, None);
        let first = act(&mut store, enrol(&issuer, 1, &csr(), 10)).expect("enrolled").certificate;
        let due = first.renew_at();
        let second = act_at(&mut store, due, renew(&issuer, first.serial, &csr(), 11)).expect("renewed").certificate;
        act_at(&mut store, second.renew_at(), renew(&issuer, second.serial, &csr(), 12)).expect("renewed");
        let now = second.renew_at();
        act_at(&mut store, now, Revoke { serial: first.serial, reason, of: None }).expect("revoked");
        let revoked = store.view().certificates.values().filter(|known| known.revoked.is_some()).count();
        assert_eq!(revoked, ended, "{reason}");
    }
}
