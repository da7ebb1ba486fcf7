//! Answers: whatever comes in, what goes out is a message that hickory-proto reads, belongs to its query, and gives
//! away no more than the asker may know. The first octet says who asks, the rest is the message.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use dnsbroker_federation::{DevEui, DomainName, MemberId, Namespace, Serial, ZoneLabels};
use dnsbroker_zone::answer::{Answered, Asker, Outcome, answer};
use dnsbroker_zone::delta::{Delta, DeviceChange, Network, NetworkChange};
use dnsbroker_zone::table::Devices;
use dnsbroker_zone::wire::{MAX_MESSAGE, Rcode, RecordType, rdata};
use dnsbroker_zone::zones::{PublicRecord, PublicZone, Timing, Zones};
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{Name, RecordType as Type};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    static ZONES: OnceLock<(Zones, MemberId)> = OnceLock::new();
    let (zones, member) = ZONES.get_or_init(|| (zones(), "alpine-lora".parse().expect("a member")));
    let Some((who, message)) = data.split_first() else { return };
    let asker = [Asker::Public, Asker::Member(member), Asker::Signed, Asker::Secondary][usize::from(who & 3)];
    // What was in the buffer is of no consequence.
    let (mut out, mut again) = (vec![0xff; usize::from(*who)], Vec::new());
    let answered = answer(zones, asker, message, &mut out);
    let heard = message.len() >= 12 && message[2] & 0x80 == 0;
    assert_eq!(answered.is_ok(), heard);
    let Ok(answered) = answered else { return };
    assert_eq!(answer(zones, asker, message, &mut again), Ok(answered));
    assert_eq!(out, again);
    header(message, &out, answered);
    let response = Message::from_vec(&out).expect("hickory reads it");
    sections(&response, answered);
    if let [question] = response.queries.as_slice() {
        let length = question_length(&out);
        assert_eq!(out[12..12 + length], message[12..12 + length], "the question is echoed, letter by letter");
        secrecy(asker, &response, question.name(), answered);
        meaning(asker, &response, answered);
        other_case(zones, asker, message, &out, length);
    } else {
        assert!(response.queries.is_empty() && response.answers.is_empty() && response.authorities.is_empty());
    }
});

fn header(message: &[u8], out: &[u8], answered: Answered) {
    assert!((12..=MAX_MESSAGE).contains(&out.len()));
    assert_eq!(out[..2], message[..2], "the DNS ID is echoed");
    assert_eq!(out[2] & 0x80, 0x80, "it is a response");
    assert_eq!(out[2] & 0x79, message[2] & 0x79, "opcode and RD are echoed");
    assert_eq!(out[2] & 2, 0, "nothing is cut off here");
    assert_eq!(out[3] & 0xf0, message[3] & 0x10, "CD is echoed, and nobody recurses");
    assert_eq!(out[3] & 15, (answered.rcode.0 & 15) as u8);
    let authoritative = out[2] & 4 != 0;
    assert_eq!(authoritative, !matches!(answered.outcome, Outcome::Refused | Outcome::Rejected));
}

fn sections(response: &Message, answered: Answered) {
    assert_eq!(response.metadata.message_type, MessageType::Response);
    let records = || response.answers.iter().chain(&response.authorities).chain(&response.additionals);
    assert_eq!(answered.ttl, records().map(|record| record.ttl).min());
    let high = response.edns.as_ref().map_or(0, |edns| u16::from(edns.rcode_high()));
    assert_eq!(high << 4 | answered.rcode.0 & 15, answered.rcode.0, "the extended response code is whole");
    let soa = response.authorities.iter().filter(|record| record.record_type() == Type::SOA).count();
    match answered.outcome {
        Outcome::Found => assert!(!response.answers.is_empty() && soa <= 1),
        Outcome::NxDomain => assert!(answered.rcode == Rcode::NXDOMAIN && response.answers.is_empty() && soa == 1),
        // A public name outside the federation has no SOA of ours.
        Outcome::NoData => assert!(answered.rcode == Rcode::NOERROR && response.answers.is_empty() && soa <= 1),
        Outcome::Refused | Outcome::Rejected => assert!(answered.rcode != Rcode::NOERROR && records().count() == 0),
    }
}

fn is_private(name: &Name) -> bool {
    let name = name.to_lowercase();
    ["deveuis.fed.example.", "netids.fed.example."]
        .iter()
        .any(|zone| Name::from_ascii(zone).expect("a name").zone_of(&name))
}

fn is_apex(name: &Name) -> bool {
    let name = name.to_lowercase();
    ["deveuis.fed.example.", "netids.fed.example."].iter().any(|zone| Name::from_ascii(zone).expect("a name") == name)
}

fn secrecy(asker: Asker<'_>, response: &Message, name: &Name, answered: Answered) {
    if matches!(asker, Asker::Member(_)) {
        return;
    }
    // A secondary may ask how new a zone is, and nothing else.
    let soa = asker == Asker::Secondary && response.queries[0].query_type() == Type::SOA && is_apex(name);
    if is_private(name) && !soa {
        assert!(matches!(answered.outcome, Outcome::Refused | Outcome::Rejected), "{name} is private");
    }
    for record in response.all_sections() {
        if soa {
            assert!(record.record_type() == Type::SOA && is_apex(&record.name), "{record}");
            continue;
        }
        let text = record.to_string().to_ascii_lowercase();
        assert!(!is_private(&record.name), "{text}");
        assert!(!text.contains("netids.fed") && !text.contains("deveuis.fed"), "{text}");
    }
}

/// The device of a name, or how many nibbles it has, read from its text.
enum Named {
    Device(Option<u64>),
    Prefix,
    Other,
}

fn named(name: &Name) -> Named {
    let labels: Vec<Vec<u8>> = name.to_lowercase().iter().map(<[u8]>::to_vec).collect();
    let Some((zone, below)) = labels.split_last_chunk::<3>().map(|(below, zone)| (zone, below)) else {
        return Named::Other;
    };
    if *zone != [b"deveuis".to_vec(), b"fed".to_vec(), b"example".to_vec()] || below.is_empty() {
        return Named::Other;
    }
    let hex = |octets: &[u8]| octets.iter().all(u8::is_ascii_hexdigit);
    let value = |octets: &[u8]| u64::from_str_radix(std::str::from_utf8(octets).ok()?, 16).ok();
    if let [flat] = below
        && flat.len() == 16
        && hex(flat)
    {
        return Named::Device(value(flat));
    }
    if below.len() > 16 || !below.iter().all(|label| label.len() == 1 && hex(label)) {
        return Named::Other;
    }
    let digits: Vec<u8> = below.iter().rev().flatten().copied().collect();
    if digits.len() == 16 { Named::Device(value(&digits)) } else { Named::Prefix }
}

/// Members learn of whole names only: a part of one tells nothing, a whole one everything.
fn meaning(asker: Asker<'_>, response: &Message, answered: Answered) {
    let question = &response.queries[0];
    let refused = matches!(answered.outcome, Outcome::Refused | Outcome::Rejected);
    if !matches!(asker, Asker::Member(_)) || refused {
        return;
    }
    match named(question.name()) {
        Named::Prefix => assert_eq!(answered.outcome, Outcome::NoData, "{}", question.name()),
        Named::Device(value) => {
            let found = value.and_then(|value| DEVICES.iter().find(|(known, _)| *known == value));
            assert_eq!(answered.outcome == Outcome::Found, found.is_some());
            assert_eq!(answered.outcome == Outcome::NxDomain, found.is_none());
            let Some((_, netid)) = found else { return };
            let first = &response.answers[0];
            assert_eq!(first.record_type(), Type::CNAME);
            assert!(first.data.to_string().starts_with(netid));
            let addresses = response.answers.iter().filter(|record| record.record_type() == Type::A).count();
            assert_eq!(addresses, if question.query_type() == Type::A { 2 } else { 0 });
        }
        Named::Other => {}
    }
}

/// 0x20: letters of another case ask for the same.
fn other_case(zones: &Zones, asker: Asker<'_>, message: &[u8], out: &[u8], length: usize) {
    let mut swapped = message.to_vec();
    let name = 12..12 + length - 4;
    for octet in &mut swapped[name.clone()] {
        if octet.is_ascii_alphabetic() {
            *octet ^= 0x20;
        }
    }
    // A length octet in the range of letters is more than a label may have: there is none.
    let mut answer_to_swapped = Vec::new();
    answer(zones, asker, &swapped, &mut answer_to_swapped).expect("the same message");
    assert_eq!(answer_to_swapped[name.clone()], swapped[name.clone()]);
    answer_to_swapped[name.clone()].copy_from_slice(&out[name]);
    assert_eq!(answer_to_swapped, out);
}

fn question_length(out: &[u8]) -> usize {
    let mut at = 12;
    while out[at] != 0 {
        at += 1 + usize::from(out[at]);
    }
    at + 5 - 12
}

const DEVICES: [(u64, &str); 3] =
    [(0x0004_a30b_001c_0530, "60002d"), (0x70b3_d5a1_4100_0001, "600013"), (0xffff_ffff_ffff_fffe, "60002d")];

fn zones() -> Zones {
    let name = |text: &str| text.parse::<DomainName>().expect("a name");
    let names = Namespace::new(name("fed.example"), name("broker.fed.example"), &ZoneLabels::default());
    let zones = Zones::new(Arc::new(names.expect("a federation")), Serial::new(7), Devices::default(), []);
    let public = |owner: &str, rtype, rdata| PublicRecord { owner: name(owner), rtype, ttl: 300, rdata };
    let records = [
        public("broker.fed.example", RecordType::A, rdata::a([192, 0, 2, 53].into())),
        public("_dns.broker.fed.example", RecordType::SVCB, {
            rdata::svcb_doh(&name("broker.fed.example"), 443, "/dns-query{?dns}")
        }),
        public("_dns.resolver.arpa", RecordType::SVCB, {
            rdata::svcb_doh(&name("broker.fed.example"), 443, "/dns-query{?dns}")
        }),
        public("fed.example", RecordType::CAA, rdata::caa("issue", ";")),
    ];
    let zones = zones.with_settings(Timing::default(), name("fed.example"), PublicZone::new(3, records));
    let network = |netid: &str, member: &str, addresses: [&str; 3], port| Network {
        netid: netid.parse().expect("a NetID"),
        member: member.parse().expect("a member"),
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        port,
        target: None,
        tlsa: vec![],
    };
    let networks = [
        network("60002d", "atlantic-iot", ["192.0.2.7", "192.0.2.8", "2001:db8::7"], None),
        network("600013", "alpine-lora", ["198.51.100.1", "198.51.100.2", "2001:db8::1"], Some(8443)),
    ];
    let devices: BTreeMap<u64, &str> = DEVICES.into();
    let devices = devices.into_iter().map(|(device, netid)| DeviceChange {
        device: DevEui::from_u64(device).expect("a DevEUI"),
        before: None,
        after: Some(netid.parse().expect("a NetID")),
    });
    let delta = Delta {
        before: Serial::new(7),
        after: Serial::new(8),
        devices: devices.collect(),
        networks: networks.map(|after| NetworkChange { before: None, after: Some(after) }).to_vec(),
    };
    zones.apply(&delta).expect("the serial fits")
}
