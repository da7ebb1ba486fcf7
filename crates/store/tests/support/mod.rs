//! What the tests of the store share: a store in a directory of its own, a CA in memory, and short ways to act.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use std::sync::Arc;

use dnsbroker_ca::{
    CaName, CaRequest, Issuer, Principal, Profile, Profiles, PublicKey, Root, SerialNumber, SignError, Signer, Subject,
    TokenKind, TokenSecret, VerifiedCsr, create_issuing, create_root,
};
use dnsbroker_federation::{DevEui, DomainName, MemberId, NetId, ZoneLabels};
use dnsbroker_store::act::{AddMember, Import, Imported, Issue, Mode, SetNetwork};
use dnsbroker_store::engine::{Engine, EngineError, EngineKind};
use dnsbroker_store::{Act, Actor, Identity, Refusal, Settings, Store, View};
use dnsbroker_zone::delta::Network;
use dnsbroker_zone::zones::{PublicZone, Timing};
use rcgen::{KeyPair, PublicKeyData, SigningKey};

/// 2026-11-24 00:00:00 UTC.
pub const NOW: i64 = 1_795_478_400;
pub const DAY: i64 = 86_400;

pub fn federation() -> DomainName {
    "fed.example".parse().expect("a name")
}

pub fn identity() -> Identity {
    Identity { federation: federation(), labels: ZoneLabels::default() }
}

pub fn settings() -> Settings {
    let broker = "broker.fed.example".parse().expect("a name");
    Settings { broker, timing: Timing::default(), public: PublicZone::default() }
}

pub fn member(id: &str) -> MemberId {
    id.parse().expect("a member id")
}

pub fn netid(text: &str) -> NetId {
    text.parse().expect("a NetID")
}

pub fn device(value: u64) -> DevEui {
    DevEui::from_u64(value).expect("a DevEUI")
}

pub fn engine(kind: EngineKind, dir: &Path) -> Arc<dyn Engine> {
    kind.open(dir).expect("an engine")
}

pub fn create(engine: &Arc<dyn Engine>) -> Store {
    Store::create(Arc::clone(engine), identity(), settings()).expect("a new store")
}

pub fn open(engine: &Arc<dyn Engine>) -> Store {
    Store::open(Arc::clone(engine), identity(), settings()).expect("the store opens")
}

/// Runs one act as a group of its own.
pub fn act<A: Act>(store: &mut Store, act: A) -> Result<A::Done, Refusal> {
    act_at(store, NOW, act)
}

pub fn act_at<A: Act>(store: &mut Store, now: i64, act: A) -> Result<A::Done, Refusal> {
    let mut transaction = store.begin(now).expect("begins");
    let done = transaction.run(&Actor::Local(0), act);
    let finished = transaction.finish();
    store.commit(finished).map_err(Refusal::Engine)?;
    done
}

pub fn add_member(store: &mut Store, id: &str) {
    act(store, AddMember { id: member(id), name: id.to_owned() }).expect("a member");
}

pub fn network(id: &str, text: &str) -> SetNetwork {
    let addresses = vec!["192.0.2.1".parse().expect("an address")];
    SetNetwork {
        network: Network { netid: netid(text), member: member(id), addresses, port: None, target: None, tlsa: vec![] },
    }
}

/// A member with a NetID.
pub fn settle(store: &mut Store, id: &str, text: &str) {
    add_member(store, id);
    act(store, network(id, text)).expect("a NetID");
}

pub fn list(id: &str, text: &str, mode: Mode, devices: impl IntoIterator<Item = u64>) -> Import {
    Import {
        member: member(id),
        netid: netid(text),
        mode,
        devices: devices.into_iter().map(device).collect(),
        rejected: 0,
        allow_shrink: false,
        dry_run: false,
    }
}

pub fn import(store: &mut Store, import: Import) -> Imported {
    act(store, import).expect("a list")
}

/// Everything of a view that must be the same after a restart.
pub fn picture(view: &View) -> String {
    let devices: Vec<_> = view.zones.devices().iter().collect();
    let networks: Vec<_> = view.zones.networks().collect();
    let mut certificates: Vec<_> = view.certificates.values().collect();
    certificates.sort_by_key(|certificate| certificate.serial);
    format!(
        "{:?}\n{devices:?}\n{networks:?}\n{:?}\n{:?}\n{certificates:?}\n{:?}",
        view.zones.serial(),
        view.members.values().collect::<Vec<_>>(),
        view.tokens.values().collect::<Vec<_>>(),
        view.audit
    )
}

/// A key in memory.
pub struct MemorySigner {
    pair: KeyPair,
    public_key: PublicKey,
}

impl MemorySigner {
    pub fn new() -> Self {
        let pair = KeyPair::generate().expect("a key");
        let public_key = PublicKey::from_spki_der(&pair.subject_public_key_info()).expect("a key we take");
        Self { pair, public_key }
    }
}

impl Signer for MemorySigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.pair.sign(message).map_err(|error| SignError::Refused { reason: error.to_string() })
    }
}

/// An issuing CA that lives for a year from `NOW`.
pub fn issuer() -> Arc<Issuer> {
    let request = |role: &str, serial: u8| CaRequest {
        name: CaName::of(&federation(), role).expect("a name"),
        serial: SerialNumber::from_entropy([serial; 16]),
        not_before: NOW - 3_600,
        not_after: NOW + 365 * DAY,
        pointers: None,
        permitted: None,
    };
    let (root_key, key) = (MemorySigner::new(), MemorySigner::new());
    let root = create_root(&request("root", 1), &root_key).expect("a root");
    let root = Root::new(root, Box::new(root_key)).expect("a root");
    let issuing = create_issuing(&root, &request("issuing", 2), key.public_key()).expect("an issuing CA");
    Arc::new(Issuer::new(issuing, Box::new(key), federation()).expect("an issuing CA"))
}

pub fn profile(name: &str) -> Profile {
    Profiles::builtin().expect("profiles").get(name).expect("a built-in profile").clone()
}

/// A request with a new key.
pub fn csr() -> Vec<u8> {
    let key = KeyPair::generate().expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
    request.pem().expect("PEM").into_bytes()
}

pub fn verified(csr: &[u8]) -> VerifiedCsr {
    VerifiedCsr::new(csr, &profile(Profile::OPERATOR).key_policy()).expect("a good request")
}

pub fn secret(seed: u8) -> TokenSecret {
    TokenSecret::from_entropy(TokenKind::Enrolment, &[seed; 32])
}

pub fn serial(seed: u8) -> SerialNumber {
    SerialNumber::from_entropy([seed; 16])
}

pub fn issue(id: &str, issuer: &Arc<Issuer>, key: &PublicKey, seed: u8) -> Issue {
    Issue {
        server_of: None,
        subject: Subject::Principal(Principal::Member(member(id))),
        key: key.clone(),
        issuer: Arc::clone(issuer),
        profile: profile(Profile::OPERATOR),
        serial: serial(seed),
    }
}

/// Whether an error is of the engine, so that nothing is known about the write.
pub fn is_full(error: &EngineError) -> bool {
    matches!(error, EngineError::Storage { full: true, .. })
}
