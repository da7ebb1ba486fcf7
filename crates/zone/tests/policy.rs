//! Policy: the compiled matrix says what the document says, and what is hidden cannot be told from what is not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use dnsbroker_federation::{DevEui, MemberId, Namespace, NetId, Serial, ZoneLabels};
use dnsbroker_zone::answer::{Answered, Asker, Outcome, answer};
use dnsbroker_zone::delta::{Delta, DeviceChange, Network, NetworkChange, Tlsa};
use dnsbroker_zone::policy::{Agreement, Ban, Banned, Policy, Ruling, Sharing, Stance};
use dnsbroker_zone::table::Devices;
use dnsbroker_zone::wire::Rcode;
use dnsbroker_zone::zones::{MOVING_TTL, Zones};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType as Type};
use proptest::prelude::*;

/// NetIDs enough for several words of bits, held in turn by six members; the seventh holds none.
const NETWORKS: u32 = 150;
const HOLDERS: usize = 6;

fn member(index: usize) -> MemberId {
    format!("member-{index}").parse().expect("valid")
}

fn netid(index: u32) -> NetId {
    NetId::from_u32(0x60_0000 + index).expect("valid")
}

fn device(index: u32) -> DevEui {
    DevEui::from_u64(0x0004_a30b_0000_0000 + u64::from(index)).expect("valid")
}

fn network(index: u32) -> Network {
    Network {
        netid: netid(index),
        member: member(index as usize % HOLDERS),
        addresses: vec![[192, 0, 2, index as u8].into()],
        port: Some(8_444),
        target: None,
        tlsa: vec![Tlsa::of_key(true, [index as u8; 32])],
    }
}

/// One device a NetID, under the NetID's number.
fn zones(policy: Policy) -> Zones {
    let (federation, broker) = ("fed.example".parse().expect("a name"), "broker.fed.example".parse().expect("a name"));
    let names = Namespace::new(federation, broker, &ZoneLabels::default()).expect("names");
    let empty = Zones::new(Arc::new(names), Serial::new(1), Devices::default(), (0..NETWORKS).map(network));
    let devices = (0..NETWORKS)
        .map(|index| DeviceChange { device: device(index), before: None, after: Some(netid(index)) })
        .collect();
    let delta = Delta { before: Serial::new(1), after: Serial::new(2), devices, networks: vec![] };
    empty.with_policy(Arc::new(policy)).apply(&delta).expect("follows")
}

fn ask(zones: &Zones, asker: &MemberId, name: &str, qtype: Type) -> (Vec<u8>, Answered) {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(name).expect("a name"), qtype));
    query.set_edns(Edns::new());
    let mut out = Vec::new();
    let query = query.to_vec().expect("encodes");
    let answered = answer(zones, Asker::Member(asker), &query, &mut out).expect("a response");
    Message::from_vec(&out).expect("hickory reads it");
    (out, answered)
}

fn names_of(zones: &Zones, index: u32) -> Vec<(String, Type)> {
    let network = zones.names().network_name(netid(index));
    vec![
        (zones.names().nibble_name(device(index)), Type::A),
        (zones.names().flat_name(device(index)), Type::CNAME),
        (network.clone(), Type::A),
        (network.clone(), Type::NAPTR),
        (format!("_lwns._tcp.{network}"), Type::SRV),
        (format!("_tcp.{network}"), Type::SRV),
        (format!("_8444._tcp.{network}"), Type::TLSA),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let sharing = prop_oneof![Just(Sharing::Open), Just(Sharing::Agreements), Just(Sharing::Closed)];
    let netids = proptest::collection::btree_map((0..NETWORKS).prop_map(netid), sharing, 0..40);
    let pair = (0..=HOLDERS, 1..=HOLDERS).prop_map(|(one, step)| (one, (one + step) % (HOLDERS + 1)));
    let agreement = pair.clone().prop_map(|(a, b)| Agreement::new(member(a), member(b)).expect("two members"));
    let ban = (pair, proptest::option::of(0..NETWORKS)).prop_map(|((asker, holder), index)| Ban {
        asker: member(asker),
        of: index.map_or_else(|| Banned::Holder(member(holder)), |index| Banned::Netid(netid(index))),
    });
    let (agreements, deny) =
        (proptest::collection::btree_set(agreement, 0..6), proptest::collection::btree_set(ban, 0..6));
    (prop_oneof![Just(Stance::Open), Just(Stance::Closed)], agreements, deny, netids, any::<bool>())
        .prop_map(|(default, agreements, deny, netids, tell)| Policy { default, agreements, deny, netids, tell })
}

/// The rules one by one, written down a second time.
fn expected(policy: &Policy, asker: &MemberId, index: u32) -> bool {
    let (netid, holder) = (netid(index), member(index as usize % HOLDERS));
    if *asker == holder {
        return true;
    }
    let named = |ban: &&Ban| ban.asker == *asker;
    let bans: Vec<&Ban> = policy.deny.iter().filter(named).collect();
    if bans.iter().any(|ban| ban.of == Banned::Netid(netid) || ban.of == Banned::Holder(holder.clone())) {
        return false;
    }
    let agreed = policy.agreements.iter().any(|a| a.members().contains(asker) && a.members().contains(&holder));
    match policy.netids.get(&netid) {
        Some(Sharing::Open) => true,
        Some(Sharing::Closed) => false,
        Some(Sharing::Agreements) => agreed,
        None => agreed || policy.default == Stance::Open,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_member_sees_what_the_rules_say_and_what_is_hidden_looks_unregistered(policy in policy()) {
        let zones = zones(policy.clone());
        let text = serde_json::to_string(&policy).expect("has a JSON form");
        prop_assert_eq!(&serde_json::from_str::<Policy>(&text).expect("reads"), &policy);
        for asker in (0..=HOLDERS).map(member) {
            for index in 0..NETWORKS {
                let sees = expected(&policy, &asker, index);
                let holder = member(index as usize % HOLDERS);
                prop_assert_eq!(policy.decide(&asker, netid(index), &holder).is_seen(), sees);
                let place = zones.placed(netid(index)).expect("is there").0;
                prop_assert_eq!(zones.sight(&asker).sees(place), sees, "{} {}", asker, index);
            }
        }
        for (asker, index) in [(0, 1), (1, 0), (6, 3), (2, 149), (3, 64)] {
            let sees = expected(&policy, &member(asker), index);
            for (name, qtype) in names_of(&zones, index) {
                let (_, answered) = ask(&zones, &member(asker), &name, qtype);
                prop_assert_eq!(answered.rcode == Rcode::NOERROR, sees, "{}", name);
                prop_assert_eq!(answered.outcome == Outcome::NxDomain, !sees);
            }
        }
    }
}

#[test]
fn what_is_hidden_is_octet_for_octet_what_is_absent() {
    let closed = Policy { default: Stance::Closed, ..Policy::default() };
    let zones = zones(closed.clone());
    // The same federation without the NetID and the device.
    let delta = Delta {
        before: Serial::new(2),
        after: Serial::new(2),
        devices: vec![DeviceChange { device: device(1), before: Some(netid(1)), after: None }],
        networks: vec![NetworkChange { before: Some(network(1)), after: None }],
    };
    let without = zones.apply(&delta).expect("follows");
    for (name, qtype) in names_of(&zones, 1) {
        let hidden = ask(&zones, &member(0), &name, qtype);
        assert_eq!(hidden.1.outcome, Outcome::NxDomain, "{name}");
        assert_eq!(hidden, ask(&without, &member(0), &name, qtype), "{name}");
        assert_eq!(ask(&zones, &member(1), &name, qtype).1.rcode, Rcode::NOERROR, "its holder sees {name}");
    }
    // A policy that tells says so of what is there and hidden, and of nothing else.
    let telling = zones.with_policy(Arc::new(Policy { tell: true, ..closed }));
    let prohibited = |name: &str, asker: usize| {
        let (out, answered) = ask(&telling, &member(asker), name, Type::A);
        (answered.rcode, out.windows(6).any(|octets| octets[..2] == [0, 15] && octets[4..] == [0, 18]))
    };
    for (name, _) in names_of(&zones, 1) {
        assert_eq!(prohibited(&name, 0), (Rcode::NXDOMAIN, true), "{name}");
        assert_eq!(prohibited(&name, 1), (Rcode::NOERROR, false), "{name}");
    }
    let absent = zones.names().nibble_name(DevEui::from_u64(5).expect("valid"));
    assert_eq!(prohibited(&absent, 0), (Rcode::NXDOMAIN, false));
    assert_eq!(prohibited("6fffff.netids.fed.example.", 0), (Rcode::NXDOMAIN, false));
}

#[test]
fn the_matrix_follows_the_netids_as_they_come_and_go() {
    let policy = Policy {
        netids: [(netid(7), Sharing::Closed)].into(),
        deny: BTreeSet::from([Ban { asker: member(6), of: Banned::Holder(member(0)) }]),
        ..Policy::default()
    };
    let mut zones = zones(policy);
    for index in [0, 3, 63, 64] {
        let networks = vec![NetworkChange { before: Some(network(index)), after: None }];
        let devices = vec![DeviceChange { device: device(index), before: Some(netid(index)), after: None }];
        let delta = Delta { before: zones.serial(), after: zones.serial().next(), devices, networks };
        zones = zones.apply(&delta).expect("follows");
        for index in 0..NETWORKS {
            let Some((place, found)) = zones.placed(netid(index)) else { continue };
            let ruling = zones.ruling(&member(6), netid(index)).expect("is there");
            let expected = match index {
                7 => Ruling::NetIdClosed,
                _ if found.member == member(0) => Ruling::HolderDenied,
                _ => Ruling::Open,
            };
            assert_eq!(ruling, expected, "{index}");
            assert_eq!(zones.sight(&member(6)).sees(place), ruling.is_seen(), "{index}");
        }
    }
}

#[test]
fn a_federation_that_hides_nothing_has_no_matrix() {
    let open = Policy { netids: [(netid(7), Sharing::Open)].into(), tell: true, ..Policy::default() };
    assert!(zones(open).sight(&member(3)).is_all());
    let closed = Policy { netids: [(netid(7), Sharing::Closed)].into(), ..Policy::default() };
    assert!(!zones(closed).sight(&member(3)).is_all());
}

#[test]
fn devices_that_are_about_to_move_are_not_kept_by_caches() {
    let zones = zones(Policy::default());
    let ttl =
        |zones: &Zones, index| ask(zones, &member(0), &zones.names().nibble_name(device(index)), Type::CNAME).1.ttl;
    assert_eq!(ttl(&zones, 5), Some(60));
    let moving = zones.with_moving(vec![device(9), device(5), device(9)]);
    assert_eq!((ttl(&moving, 5), ttl(&moving, 9), ttl(&moving, 6)), (Some(MOVING_TTL), Some(MOVING_TTL), Some(60)));
    assert_eq!(ttl(&moving.with_moving(vec![]), 5), Some(60));
}

#[test]
fn members_that_leave_and_netids_that_go_leave_no_rule_behind() {
    let rule = |asker: usize, of: Banned| Ban { asker: member(asker), of };
    let policy = Policy {
        agreements: BTreeSet::from([Agreement::new(member(2), member(1)).expect("two")]),
        deny: BTreeSet::from([rule(1, Banned::Netid(netid(7))), rule(2, Banned::Holder(member(1)))]),
        netids: [(netid(7), Sharing::Closed)].into(),
        ..Policy::default()
    };
    assert_eq!(policy.without_member(&member(1)).len(), 1);
    assert_eq!(policy.without_netid(netid(7)).len(), 2);
    assert!(Agreement::new(member(1), member(1)).is_err(), "an agreement is between two");
    let unknown = serde_json::from_str::<Policy>(r#"{"defualt":"closed"}"#);
    assert!(unknown.is_err(), "a misspelt rule is refused by name");
}
