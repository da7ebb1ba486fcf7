//! What goes out as a transfer comes in as the zone it was made from, whatever changed meanwhile and whoever may see it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dnsbroker_federation::{DevEui, MemberId, Namespace, NetId, Serial, Zone, ZoneLabels};
use dnsbroker_zone::delta::{Delta, DeviceChange, Network, NetworkChange};
use dnsbroker_zone::policy::{Agreement, Ban, Banned, Policy, Sharing, Stance};
use dnsbroker_zone::table::Devices;
use dnsbroker_zone::transfer::NameForm;
use dnsbroker_zone::transfer::inbound::{Asked, Bounds, Content, Inbound, Received};
use dnsbroker_zone::transfer::outgoing::{Changes, Extent, Outgoing};
use dnsbroker_zone::wire::message::Message;
use dnsbroker_zone::wire::{Header, RecordType};
use dnsbroker_zone::zones::Zones;
use hickory_proto::op::Message as Oracle;
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds { records: 1_000_000, octets: 100_000_000 };
const MEMBERS: [&str; 3] = ["alpine", "atlantic", "baltic"];

fn netid(index: usize) -> NetId {
    NetId::from_u32(0x60_0010 + index as u32).expect("valid")
}

fn member(index: usize) -> MemberId {
    MEMBERS[index % MEMBERS.len()].parse().expect("valid")
}

fn network(index: usize, address: u8) -> Network {
    Network {
        netid: netid(index),
        member: member(index),
        addresses: vec![[192, 0, 2, address].into()],
        port: address.is_multiple_of(2).then_some(8_444),
        target: None,
        tlsa: vec![],
    }
}

fn empty(serial: u32) -> Zones {
    let (federation, broker) = ("fed.example".parse().expect("a name"), "broker.fed.example".parse().expect("a name"));
    let names = Namespace::new(federation, broker, &ZoneLabels::default()).expect("names");
    let networks = (0..4).map(|index| network(index, 1));
    Zones::new(Arc::new(names), Serial::new(serial), Devices::default(), networks)
}

/// One random step: devices to be put somewhere or taken out, and maybe a NetID's new address.
type Step = (BTreeMap<u16, Option<usize>>, Option<(usize, u8)>);

fn device(low: u16) -> DevEui {
    // Neighbours share most digits, others few.
    let high = if low.is_multiple_of(7) { 0xa840_4100 } else { 0x0004_a30b };
    DevEui::from_u64(high << 32 | u64::from(low)).expect("valid")
}

fn apply(zones: &Zones, (devices, change): &Step) -> (Zones, Delta) {
    let mut changes: Vec<DeviceChange> = devices
        .iter()
        .map(|(low, after)| {
            let device = device(*low);
            DeviceChange { device, before: zones.devices().get(device), after: after.map(netid) }
        })
        .filter(|change| change.before != change.after)
        .collect();
    changes.sort_by_key(|change| change.device);
    let networks = change.iter().map(|(index, address)| NetworkChange {
        before: zones.network(netid(*index)).cloned(),
        after: Some(network(*index, *address)),
    });
    let (before, networks) = (zones.serial(), networks.collect());
    let delta = Delta { before, after: before.next(), devices: changes, networks };
    (zones.apply(&delta).expect("follows"), delta)
}

fn question(zone: &[u8], rtype: RecordType) -> Vec<u8> {
    [zone, &rtype.0.to_be_bytes(), &[0, 1]].concat()
}

/// All messages of a transfer; each is read by hickory-proto too.
fn messages(mut outgoing: Outgoing, zones: &Zones, zone: Zone, rtype: RecordType) -> Vec<Vec<u8>> {
    let header = Header { id: [0, 7], opcode: 0, recursion_desired: false, checking_disabled: false };
    let question = question(zones.names().apex(zone).wire(), rtype);
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while outgoing.next(&header, &question, &mut out) {
        assert!(out.len() <= 16 * 1024, "{} octets", out.len());
        Oracle::from_vec(&out).expect("hickory reads it");
        all.push(out.clone());
    }
    let counted: u64 = all.iter().map(|m| u64::from(Message::new(m).expect("a header").count(1))).sum();
    assert_eq!(counted, outgoing.records);
    all
}

fn received(zones: &Zones, asked: Asked, all: &[Vec<u8>]) -> Received {
    let zone = zones.names().apex(Zone::DevEui);
    let mut inbound = Inbound::new(zone, asked, [0, 7], &[], BOUNDS);
    for (index, message) in all.iter().enumerate() {
        let complete = inbound.take(message).expect("is taken");
        assert_eq!(complete, index + 1 == all.len(), "message {index} of {}", all.len());
    }
    inbound.finish().expect("is complete")
}

fn seen(zones: &Zones, extent: &Extent) -> BTreeSet<DevEui> {
    let visible = |netid| {
        let holder = &zones.network(netid).expect("every device has a network").member;
        let policy = zones.policy();
        extent.member.as_ref().is_none_or(|only| holder == only)
            && extent.viewer.as_ref().is_none_or(|viewer| policy.decide(viewer, netid, holder).is_seen())
    };
    zones.devices().iter().filter(|(_, netid)| visible(*netid)).map(|(device, _)| device).collect()
}

fn step() -> impl Strategy<Value = Step> {
    let devices = proptest::collection::btree_map(0..2_000_u16, proptest::option::of(0..4_usize), 0..400);
    (devices, proptest::option::of((0..4_usize, 1..200_u8)))
}

fn policy() -> impl Strategy<Value = Policy> {
    let sharing = prop_oneof![Just(Sharing::Open), Just(Sharing::Agreements), Just(Sharing::Closed)];
    let netids = proptest::collection::btree_map((0..4_usize).prop_map(netid), sharing, 0..3);
    let pair = (0..3_usize, 1..3_usize);
    let agreement = pair.clone().prop_map(|(one, step)| Agreement::new(member(one), member(one + step)).expect("two"));
    let ban = (pair, any::<bool>()).prop_map(|((asker, step), whole)| Ban {
        asker: member(asker),
        of: if whole { Banned::Holder(member(asker + step)) } else { Banned::Netid(netid(asker + step)) },
    });
    let agreements = proptest::collection::btree_set(agreement, 0..3);
    let deny = proptest::collection::btree_set(ban, 0..3);
    (prop_oneof![Just(Stance::Open), Just(Stance::Closed)], agreements, deny, netids, any::<bool>())
        .prop_map(|(default, agreements, deny, netids, tell)| Policy { default, agreements, deny, netids, tell })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn transfers_and_differences_lead_to_the_zone_they_were_made_from(
        steps in proptest::collection::vec(step(), 1..6),
        from in 0..6_usize,
        serial in prop_oneof![Just(1_u32), Just(u32::MAX - 2), any::<u32>()],
        only in proptest::option::of(0..3_usize),
        viewer in proptest::option::of(0..3_usize),
        policy in policy(),
        flat: bool,
    ) {
        let (only, viewer) = (only.map(member), viewer.map(member));
        let names = if flat { NameForm::Flat } else { NameForm::Nibble };
        let extent = || Extent { member: only.clone(), viewer: viewer.clone(), names };
        let mut history = vec![empty(serial.max(1)).with_policy(Arc::new(policy))];
        let mut deltas = Vec::new();
        for step in &steps {
            let (zones, delta) = apply(history.last().expect("one"), step);
            history.push(zones);
            deltas.push(delta);
        }
        let now = history.last().expect("one").clone();
        let whole = messages(Outgoing::whole(now.clone(), Zone::DevEui, extent()), &now, Zone::DevEui, RecordType::AXFR);
        let received_whole = received(&now, Asked::Whole, &whole);
        let expected: Vec<DevEui> = seen(&now, &extent()).into_iter().collect();
        prop_assert_eq!(received_whole.content, Content::Whole(expected));
        prop_assert_eq!(received_whole.soa.serial, now.serial().get());

        let owners = |outgoing: Outgoing, rtype| {
            let all = messages(outgoing, &now, Zone::NetId, rtype);
            let records = all.iter().flat_map(|message| Oracle::from_vec(message).expect("reads").answers);
            records.map(|record| record.name.to_string()).collect::<BTreeSet<String>>()
        };
        let netids = owners(Outgoing::whole(now.clone(), Zone::NetId, extent()), RecordType::AXFR);
        for network in now.networks() {
            let ruling = viewer.as_ref().map(|viewer| now.policy().decide(viewer, network.netid, &network.member));
            let seen = only.as_ref().is_none_or(|only| network.member == *only)
                && ruling.is_none_or(|ruling| ruling.is_seen());
            let label = format!("{}.", network.netid);
            prop_assert_eq!(netids.iter().any(|owner| owner.contains(&label)), seen, "{}", network.netid);
        }

        let from = from.min(history.len() - 1);
        let then = &history[from];
        let mut changes = Changes::default();
        deltas[from..].iter().for_each(|delta| changes.push(delta));
        let since = then.serial();
        let changed = owners(Outgoing::difference(now.clone(), Zone::NetId, extent(), since, &changes), RecordType::IXFR);
        let apex = now.names().apex(Zone::NetId).to_string();
        for owner in changed.iter().filter(|owner| **owner != apex) {
            let labels: Vec<&str> = owner.split('.').collect();
            let label = labels.iter().find_map(|label| label.parse::<NetId>().ok()).expect("names a NetID");
            let network = now.network(label).expect("none is removed here");
            let ruling = viewer.as_ref().map(|viewer| now.policy().decide(viewer, label, &network.member));
            prop_assert!(ruling.is_none_or(|ruling| ruling.is_seen()), "{}", owner);
        }
        let outgoing = Outgoing::difference(now.clone(), Zone::DevEui, extent(), since, &changes);
        let all = messages(outgoing, &now, Zone::DevEui, RecordType::IXFR);
        if from < deltas.len() {
            let Received { content, soa, .. } = received(&now, Asked::Since(since), &all);
            prop_assert_eq!(soa.serial, now.serial().get());
            let Content::Difference { came, gone } = content else { panic!("a difference") };
            // A device that moved goes and comes: its net is nothing.
            let mut led = seen(then, &extent());
            for device in gone {
                prop_assert!(led.remove(&device), "{} went and was not there", device);
            }
            for device in came {
                prop_assert!(led.insert(device), "{} came and was there", device);
            }
            prop_assert_eq!(led, seen(&now, &extent()));
        }
    }

    #[test]
    fn every_cut_of_a_transfer_is_an_error_and_no_octets_panic(
        devices in proptest::collection::btree_map(0..300_u16, Just(Some(1_usize)), 1..40),
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
        at: prop::sample::Index,
        flip in 1_u8..,
    ) {
        let (zones, _) = apply(&empty(5), &(devices, None));
        let extent = Extent { member: None, viewer: None, names: NameForm::Nibble };
        let whole = messages(Outgoing::whole(zones.clone(), Zone::DevEui, extent), &zones, Zone::DevEui, RecordType::AXFR);
        let apex = zones.names().apex(Zone::DevEui);
        let message = &whole[0];
        for cut in 0..message.len() {
            let mut inbound = Inbound::new(apex, Asked::Whole, [0, 7], &[], BOUNDS);
            prop_assert!(inbound.take(&message[..cut]).is_err());
            prop_assert!(inbound.finish().is_err());
        }
        let mut altered = message.clone();
        let at = at.index(altered.len());
        altered[at] ^= flip;
        for asked in [Asked::Whole, Asked::Since(Serial::new(4))] {
            for octets in [&altered, &garbage, &[&message[..], &garbage].concat()] {
                let mut inbound = Inbound::new(apex, asked, [0, 7], &[], BOUNDS);
                let _ = inbound.take(octets);
                let _ = inbound.finish();
            }
        }
    }
}

#[test]
fn records_of_netids_come_and_go_as_they_change() {
    let then = empty(1);
    let (now, delta) = apply(&then, &(BTreeMap::new(), Some((1, 8))));
    let mut changes = Changes::default();
    changes.push(&delta);
    let extent = Extent { member: None, viewer: None, names: NameForm::Nibble };
    let outgoing = Outgoing::difference(now.clone(), Zone::NetId, extent, then.serial(), &changes);
    assert!(outgoing.difference_len() > 0);
    let all = messages(outgoing, &now, Zone::NetId, RecordType::IXFR);
    let records = Oracle::from_vec(&all[0]).expect("reads").answers;
    let shown: Vec<String> = records.iter().map(|record| format!("{} {}", record.name, record.record_type())).collect();
    let soa = "netids.fed.example. SOA";
    let label = "600011.netids.fed.example.";
    assert_eq!(
        shown,
        [
            soa,
            soa,
            &format!("{label} A"),
            soa,
            &format!("_lwns._tcp.{label} SRV"),
            &format!("{label} A"),
            &format!("{label} NAPTR"),
            soa
        ]
    );
}

/// A message of a primary that keeps its devices in `z.example`: SOAs by serial, devices by their lower digits.
fn primary(rtype: RecordType, records: &[Result<u32, u16>]) -> Vec<u8> {
    let zone = b"\x01z\x07example\x00";
    let mut octets = vec![0, 7, 0x84, 0, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
    octets.extend(question(zone, rtype));
    for record in records {
        match record {
            Ok(serial) => {
                octets.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
                octets.extend(serial.to_be_bytes());
                octets.extend([0; 16]);
            }
            Err(low) => {
                octets.push(16);
                octets.extend(device(*low).to_string().bytes());
                octets.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            }
        }
    }
    octets
}

#[test]
fn a_difference_from_serial_zero_that_touches_no_device_is_no_empty_zone() {
    let zone = "z.example".parse().expect("a name");
    let take = |records: &[Result<u32, u16>]| {
        let mut inbound = Inbound::new(&zone, Asked::Since(Serial::new(0)), [0, 7], &[], BOUNDS);
        let complete = inbound.take(&primary(RecordType::IXFR, records)).expect("is taken");
        (complete, inbound.is_lone(), inbound.finish().map(|received| received.content))
    };
    let (complete, _, content) = take(&[Ok(1), Ok(0), Ok(1), Ok(1)]);
    assert!(complete);
    assert_eq!(content, Ok(Content::Difference { came: vec![], gone: vec![] }));
    let (_, _, content) = take(&[Ok(1), Err(5), Ok(1)]);
    assert_eq!(content, Ok(Content::Whole(vec![device(5)])));
    let (complete, lone, content) = take(&[Ok(1)]);
    assert!(!complete && lone && content.is_err(), "a newer SOA alone tells nothing");
}
