//! A standby's store follows a primary's commit by commit: the same content, the same audit, also after a restart; and it
//! takes nothing that does not follow from what it has.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use dnsbroker_ca::RevocationReason;
use dnsbroker_store::act::{
    AddAdministrator, CancelMove, CreateKey, DecideClaims, MoveDevices, NumberCrl, OfferMove, Once, Promote, PublishAt,
    PublishPrivate, Reached, Release, RemoveReplica, RemoveWebhook, ResumeMember, RetireLnsAuthority, RevokeAll,
    RevokeKey, RunMove, SetLimits, SetLnsAuthority, SetPolicy, SetPrimary, SetReplica, SetWebhook, SuspendMember,
    Which, WithdrawClaims, *,
};
use dnsbroker_store::engine::{Engine, EngineKind, Table};
use dnsbroker_store::record::{LnsAuthority, Role, Sealed, StandbyAt};
use dnsbroker_store::{ClaimFilter, ReplayError, Shipment, Store, View};
use dnsbroker_zone::policy::Policy;
use dnsbroker_zone::transfer::NameForm;
use dnsbroker_zone::tsig::Algorithm;
use dnsbroker_zone::zones::Timing;
use support::{NOW, act, act_at, create, device, engine, import, list, member, netid, open, picture, settle};

/// All rows, but for what a store keeps to itself.
fn rows(engine: &dyn Engine) -> BTreeMap<(&'static str, Vec<u8>), Vec<u8>> {
    let own = [Table::Blocks, Table::Journal];
    let mut rows = BTreeMap::new();
    for table in Table::ALL.into_iter().filter(|table| !own.contains(table)) {
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.insert((table.name(), key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        };
        engine.scan(table, &[], &mut visit).expect("scans");
    }
    rows.retain(|(table, key), _| *table != "meta" || key != b"zones");
    rows
}

/// All that readers see.
fn seen(view: &View) -> String {
    let filter = ClaimFilter::default();
    let claims: Vec<_> = view.claims(&filter, None).collect();
    let counts: Vec<_> = view.members.keys().map(|id| view.claim_counts(id)).collect();
    let accounts = &view.accounts;
    format!(
        "{}\n{claims:?}\n{counts:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        picture(view),
        view.ownership.moves,
        view.ownership.limits,
        accounts.administrators,
        accounts.api_tokens,
        accounts.webhooks,
        view.tsig_keys.values().map(|key| (&key.name, &key.allows)).collect::<Vec<_>>(),
        view.replicas,
        view.sources,
        view.anchors,
        view.crls,
        (&view.primary, &view.lns_authority, &view.publication),
        view.zones.policy(),
    )
}

struct Pair {
    primary: Store,
    standby: Store,
    random: fastrand::Rng,
    shipments: Vec<Shipment>,
}

impl Pair {
    fn compare(&mut self) {
        let Some(shipment) = self.primary.take_shipment() else { return };
        let read = Shipment::read(shipment.octets.clone()).expect("reads");
        assert_eq!(read, shipment);
        let generation = (self.primary.view().generation, self.standby.view().generation);
        self.standby.replay(&read).expect("is taken");
        assert_eq!(seen(&self.standby.view()), seen(&self.primary.view()));
        let _ = generation;
        self.shipments.push(shipment);
    }

    fn act<A: Act>(&mut self, wanted: A) {
        let (ours, theirs) = (self.primary.view().generation, self.standby.view().generation);
        // Refused ones are part of it: a claim is recorded all the same.
        let _ = act_at(&mut self.primary, NOW + self.shipments.len() as i64, wanted);
        self.compare();
        assert_eq!(
            self.primary.view().generation > ours,
            self.standby.view().generation > theirs,
            "who is admitted is decided anew on both or on neither"
        );
    }

    fn step(&mut self) {
        let ids = ["alpine", "atlantic", "baltic"];
        let nets = ["600013", "60002d", "600031"];
        let which = self.random.usize(..3);
        let other = (which + 1) % 3;
        let id = member(ids[which]);
        let some = |random: &mut fastrand::Rng| -> BTreeSet<u64> {
            let count = random.usize(1..30);
            (0..count).map(|_| random.u64(1..80) * 1_001).collect()
        };
        let devices = some(&mut self.random);
        let euis: Vec<_> = devices.iter().map(|value| device(*value)).collect();
        let (grant, quota) = (self.random.bool(), Some(self.random.u64(1..90)));
        match self.random.u8(..27) {
            0..=5 => {
                let mode = [Mode::Add, Mode::Full, Mode::Remove][self.random.usize(..3)];
                let mut wanted = list(ids[which], nets[which], mode, devices);
                wanted.allow_shrink = true;
                self.act(wanted);
            }
            6 => self.act(SuspendMember { id, reason: "a test".to_owned() }),
            7 => self.act(ResumeMember { id }),
            8 => self.act(MoveDevices {
                devices: euis,
                to: netid(nets[other]),
                at: None,
                before: None,
                reason: "so".to_owned(),
            }),
            9 => {
                let at = Some(NOW + self.random.i64(0..400));
                self.act(MoveDevices {
                    devices: euis,
                    to: netid(nets[other]),
                    at,
                    before: Some(60),
                    reason: "so".to_owned(),
                });
            }
            10 => self.act(RunMove),
            11 => self.act(DecideClaims { claimant: id, devices: euis, grant, reason: "so".to_owned() }),
            12 => self.act(WithdrawClaims { claimant: id, devices: euis }),
            13 => self.act(Release { devices: euis, holder: None, to: None, reason: Some("so".to_owned()) }),
            14 => {
                let offered = self.primary.view().zones.devices().iter().map(|(device, _)| device).take(3).collect();
                let (holder, to) = (id, member(ids[other]));
                self.act(OfferMove { holder, devices: offered, to, at: None, before: None, reason: "so".to_owned() });
            }
            15 => {
                let open = self.primary.view().ownership.moves.keys().next().copied();
                self.act(CancelMove { id: open.unwrap_or(1), member: None, reason: None });
            }
            16 => self.act(SetLimits { member: id, ranges: vec![], quota }),
            17 => {
                let url = format!("https://hooks.example/{}", self.random.u8(..3));
                let events = ["claim.".to_owned()].into();
                self.act(SetWebhook { id: None, url, events, secret: Some(Sealed(vec![1])), member: Some(id) });
            }
            18 => {
                let hook = self.primary.view().accounts.webhooks.keys().next().copied();
                self.act(RemoveWebhook { id: hook.unwrap_or(1), member: None });
            }
            19 => {
                let name: dnsbroker_federation::DomainName =
                    format!("k{}.example", self.random.u8(..3)).parse().expect("a name");
                let holder = dnsbroker_ca::Principal::Member(id);
                if self.random.bool() {
                    let allows = [dnsbroker_store::record::Permission::Update].into();
                    self.act(CreateKey { name, algorithm: Algorithm::HmacSha256, holder, allows, sealed: vec![7] });
                } else {
                    self.act(RevokeKey { name });
                }
            }
            20 => self.act(NumberCrl { ca: "ca".to_owned(), life: 60 }),
            21 => {
                let wanted = list(ids[which], nets[which], Mode::Add, devices);
                let key = format!("key-{}", self.random.u8(..5));
                let answer = Box::new(|_: &Imported| (200, "{}".to_owned()));
                self.act(Once { identity: "x".to_owned(), key, request: vec![which as u8], act: wanted, answer });
            }
            22 => {
                let timing = Timing { ttl: self.random.u32(1..4), ..Timing::default() };
                self.act(PublishPrivate { timing, broker: "broker.fed.example".parse().expect("a name") });
            }
            23 => self.act(PublishAt(format!("http://{}.example", ["a", "b", "c"][which]))),
            24 => {
                let permitted = "netids.fed.example".parse().expect("a name");
                let authority = LnsAuthority { ca: format!("ca-{which}"), permitted };
                self.act(SetLnsAuthority { authority, detail: serde_json::Value::Null });
            }
            25 => self.act(RetireLnsAuthority),
            _ => {
                let id: dnsbroker_ca::ReplicaId = format!("r{}", self.random.u8(..2)).parse().expect("an id");
                if self.random.bool() {
                    let standby = Some(StandbyAt {
                        name: "b2.fed.example".parse().expect("a name"),
                        addresses: vec![],
                        port: 7,
                        api_port: None,
                    });
                    self.act(SetReplica {
                        id,
                        holder: None,
                        only: None,
                        names: NameForm::Nibble,
                        notify: vec![],
                        notify_key: None,
                        clear_text: false,
                        standby,
                    });
                } else {
                    self.act(RemoveReplica { id });
                }
            }
        }
    }
}

fn pair(seed: u64, primary: &std::sync::Arc<dyn Engine>, standby: &std::sync::Arc<dyn Engine>) -> Pair {
    let mut pair = Pair {
        primary: create(primary),
        standby: create(standby),
        random: fastrand::Rng::with_seed(seed),
        shipments: vec![],
    };
    pair.primary.ship(true);
    for (id, netid) in [("alpine", "600013"), ("atlantic", "60002d"), ("baltic", "600031")] {
        pair.act(AddMember { id: member(id), name: id.to_owned() });
        pair.act(support::network(id, netid));
    }
    pair
}

#[test]
fn a_standby_has_what_the_primary_has_after_each_commit_and_after_a_restart() {
    for seed in 0..6 {
        let dirs = [tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made")];
        let [first, second] = dirs.each_ref().map(|dir| engine(EngineKind::Redb, dir.path()));
        let mut pair = pair(seed, &first, &second);
        let reached = Reached {
            name: "broker.fed.example".parse().expect("a name"),
            doh_url: String::new(),
            api_url: String::new(),
            addresses: vec![],
        };
        pair.act(SetPrimary(reached.clone()));
        pair.act(SetPolicy { policy: Policy::default() });
        pair.act(AddAdministrator {
            name: "ada".to_owned(),
            role: Role::Admin,
            password: "$argon2id$x".to_owned(),
            totp: None,
        });
        for step in 0..150 {
            pair.step();
            if step % 50 == 49 {
                pair.primary.checkpoint(NOW).expect("folds");
                pair.compare();
                assert_eq!(rows(&*first), rows(&*second), "seed {seed}, step {step}");
                let before = seen(&pair.standby.view());
                pair.standby = open(&second);
                assert_eq!(seen(&pair.standby.view()), before, "what was built row by row is what is read");
            }
        }
        let last = pair.standby.view();
        pair.standby.ship(false);
        act(&mut pair.standby, Promote(reached)).expect("takes over");
        let view = pair.standby.view();
        assert_eq!(view.primary.as_ref().map(|primary| primary.epoch), Some(1));
        assert!(last.zones.serial().steps_to(view.zones.serial()).is_some_and(|steps| steps > 1_000_000));
    }
}

#[test]
fn a_change_too_large_for_the_journal_arrives_too() {
    let dirs = [tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made")];
    let [first, second] = dirs.each_ref().map(|dir| engine(EngineKind::Redb, dir.path()));
    let mut pair = pair(1, &first, &second);
    let devices = (1..700_000_u64).map(|value| value * 3);
    import(&mut pair.primary, list("alpine", "600013", Mode::Add, devices));
    let shipment = pair.primary.take_shipment().expect("is shipped");
    assert!(shipment.octets.len() > 8 * 1024 * 1024, "it was not too large");
    pair.standby.replay(&shipment).expect("is taken");
    assert_eq!(pair.standby.view().zones.devices().count(netid("600013")), 699_999);
    assert_eq!(open(&second).view().zones.devices().count(netid("600013")), 699_999);
    assert_eq!(pair.standby.view().zones.serial(), pair.primary.view().zones.serial());
}

#[test]
fn what_does_not_follow_is_refused_and_leaves_no_trace() {
    let dirs = [tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made")];
    let [first, second] = dirs.each_ref().map(|dir| engine(EngineKind::Redb, dir.path()));
    let mut pair = pair(2, &first, &second);
    import(&mut pair.primary, list("alpine", "600013", Mode::Add, 1..5));
    let missed = pair.primary.take_shipment().expect("is shipped");
    act(&mut pair.primary, RevokeAll { which: Which::Member(member("alpine")), reason: RevocationReason::Superseded })
        .ok();
    import(&mut pair.primary, list("alpine", "600013", Mode::Add, 7..9));
    let next = pair.primary.take_shipment().expect("is shipped");
    let before = (seen(&pair.standby.view()), rows(&*second));
    assert!(matches!(pair.standby.replay(&next), Err(ReplayError::Gap { .. })), "one is missing");
    assert!(matches!(pair.standby.replay(&pair.shipments[0]), Err(ReplayError::Gap { .. })), "it was taken already");
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..2_000 {
        let mut octets = missed.octets.clone();
        match random.bool() {
            true => octets.truncate(random.usize(..octets.len())),
            // Within the audit row, which stands near the end: its hash does not fit any more.
            false => {
                let place = octets.len() - 1 - random.usize(..200);
                octets[place] ^= 1 << random.u8(..8);
            }
        }
        if let Ok(shipment) = Shipment::read(octets)
            && shipment.octets != missed.octets
        {
            assert!(pair.standby.replay(&shipment).is_err(), "a damaged shipment is taken");
        }
    }
    assert_eq!((seen(&pair.standby.view()), rows(&*second)), before);
    pair.standby.replay(&missed).expect("the right one is taken");
    pair.standby.replay(&next).expect("and the next");
    settle(&mut pair.primary, "other", "600044");
}
