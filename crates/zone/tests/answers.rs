//! Answers as hickory-proto reads them: every kind of name, type and asker.

use std::net::IpAddr;
use std::sync::Arc;

use dnsbroker_federation::{DevEui, DomainName, MemberId, Namespace, Serial, Zone, ZoneLabels};
use dnsbroker_zone::answer::{Answered, Asker, Outcome, answer};
use dnsbroker_zone::delta::{Delta, DeviceChange, Network, NetworkChange, Tlsa};
use dnsbroker_zone::table::Devices;
use dnsbroker_zone::wire::{RecordType, rdata};
use dnsbroker_zone::zones::{PublicRecord, PublicZone, Timing, Zones};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType as Type};

const DEVICE: &str = "0004a30b001c0530";
const NIBBLES: &str = "0.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0.deveuis.fed.example.";
const FLAT: &str = "0004a30b001c0530.deveuis.fed.example.";
const ABSENT: &str = "1.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0.deveuis.fed.example.";
const V4_ONLY: &str = "60002d.netids.fed.example.";
const BOTH: &str = "600013.netids.fed.example.";

fn name(text: &str) -> DomainName {
    text.parse().expect(text)
}

fn network(netid: &str, member: &str, addresses: &[&str], port: Option<u16>) -> Network {
    Network {
        netid: netid.parse().expect("valid"),
        member: member.parse().expect("valid"),
        addresses: addresses.iter().map(|a| a.parse().expect("valid")).collect(),
        port,
        target: None,
        tlsa: vec![],
    }
}

fn zones() -> Zones {
    let names = Namespace::new(name("fed.example"), name("broker.fed.example"), &ZoneLabels::default()).expect("valid");
    let zones = Zones::new(Arc::new(names), Serial::new(7), Devices::default(), []);
    let public = |owner: &str, rtype, rdata| PublicRecord { owner: name(owner), rtype, ttl: 300, rdata };
    let records = [
        public("broker.fed.example", RecordType::A, rdata::a([192, 0, 2, 53].into())),
        public("_dns.broker.fed.example", RecordType::SVCB, {
            rdata::svcb_doh(&name("broker.fed.example"), 443, "/dns-query{?dns}")
        }),
        public("fed.example", RecordType::CAA, rdata::caa("issue", ";")),
    ];
    // Targets in the spelling of the zone file.
    let alias = |owner: &str, target: &str| {
        let mut wire = name(target).wire().to_vec();
        wire.make_ascii_uppercase();
        public(owner, RecordType::CNAME, wire)
    };
    let long = (0..12).map(|step| alias(&format!("long{step}.fed.example"), &format!("long{}.fed.example", step + 1)));
    let records = records.into_iter().chain(long).chain([
        alias("www.fed.example", "pages.fed.example"),
        alias("pages.fed.example", "broker.fed.example"),
        alias("home.fed.example", "fed.example"),
        alias("gone.fed.example", "nothing.fed.example"),
        alias("away.fed.example", "www.example.org"),
        alias("private.fed.example", "60002d.netids.fed.example"),
        alias("one.fed.example", "two.fed.example"),
        alias("two.fed.example", "one.fed.example"),
        alias("self.fed.example", "self.fed.example"),
    ]);
    let zones = zones.with_settings(Timing::default(), name("fed.example"), PublicZone::new(3, records));
    let networks = [
        network("60002d", "atlantic-iot", &["192.0.2.7", "192.0.2.8"], None),
        Network {
            tlsa: vec![Tlsa::of_key(true, [0xab; 32]), Tlsa::of_key(false, [0xcd; 32])],
            ..network("600013", "alpine-lora", &["198.51.100.1", "2001:db8::1"], Some(8443))
        },
    ];
    let device = |value: u64, netid: &str| DeviceChange {
        device: DevEui::from_u64(value).expect("valid"),
        before: None,
        after: Some(netid.parse().expect("valid")),
    };
    let delta = Delta {
        before: Serial::new(7),
        after: Serial::new(8),
        devices: vec![device(0x0004_a30b_001c_0530, "60002d"), device(0x70b3_d5a1_4100_0001, "600013")],
        networks: networks.map(|after| NetworkChange { before: None, after: Some(after) }).to_vec(),
    };
    zones.apply(&delta).expect("serial fits")
}

fn ask(qname: &str, qtype: Type) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(qname).expect("valid"), qtype));
    message
}

fn send(asker: Asker<'_>, query: &[u8]) -> (Message, Answered) {
    let mut out = Vec::new();
    let answered = answer(&zones(), asker, query, &mut out).expect("a response");
    let response = Message::from_vec(&out).expect("hickory reads it");
    assert_eq!(u16::from(response.metadata.response_code.low()), answered.rcode.0 & 15);
    (response, answered)
}

fn member(qname: &str, qtype: Type) -> Message {
    let member: MemberId = "alpine-lora".parse().expect("valid");
    let (response, answered) = send(Asker::Member(&member), &ask(qname, qtype).to_vec().expect("encodes"));
    assert_eq!(response.metadata.id, 0x1234, "the DNS ID is echoed");
    assert_eq!(response.queries.len(), 1);
    let least = response.answers.iter().chain(&response.authorities).map(|r| r.ttl).min();
    assert_eq!(answered.ttl, least);
    response
}

fn summary(message: &Message) -> Vec<String> {
    let record =
        |section: &'static str| move |r: &hickory_proto::rr::Record| format!("{section} {} {}", r.name, r.data);
    let answers = message.answers.iter().map(record("an"));
    answers.chain(message.authorities.iter().map(record("au"))).collect()
}

fn soa(message: &Message) -> (String, u32) {
    let record = &message.authorities[0];
    let RData::SOA(soa) = &record.data else { panic!("{record}") };
    (record.name.to_string(), soa.serial)
}

#[test]
fn an_address_query_gets_cname_and_addresses_in_one_message() {
    for qname in [NIBBLES, FLAT] {
        let response = member(qname, Type::A);
        assert_eq!(response.metadata.response_code, ResponseCode::NoError);
        assert!(response.metadata.authoritative);
        let expected = [
            format!("an {qname} 60002d.netids.fed.example."),
            "an 60002d.netids.fed.example. 192.0.2.7".to_owned(),
            "an 60002d.netids.fed.example. 192.0.2.8".to_owned(),
        ];
        assert_eq!(summary(&response), expected);
    }
}

#[test]
fn aaaa_without_v6_is_noerror_with_the_cname_and_the_soa_of_the_targets_zone() {
    let response = member(NIBBLES, Type::AAAA);
    assert_eq!(response.metadata.response_code, ResponseCode::NoError);
    assert_eq!(response.answers.len(), 1);
    assert_eq!(soa(&response), ("netids.fed.example.".to_owned(), 8));
    assert_eq!(member("1.0.0.0.0.0.1.4.1.a.5.d.3.b.0.7.deveuis.fed.example.", Type::AAAA).answers.len(), 2);
}

#[test]
fn cname_and_any_give_the_cname_alone() {
    for qtype in [Type::CNAME, Type::ANY] {
        assert_eq!(summary(&member(FLAT, qtype)), [format!("an {FLAT} 60002d.netids.fed.example.")]);
    }
}

#[test]
fn one_to_fifteen_nibbles_are_no_data_whatever_is_registered() {
    for qname in [NIBBLES, ABSENT] {
        let labels: Vec<&str> = qname.split('.').collect();
        for cut in 1..16 {
            let response = member(&labels[cut..].join("."), Type::A);
            assert_eq!(response.metadata.response_code, ResponseCode::NoError, "{cut}");
            assert_eq!((response.answers.len(), soa(&response).0.as_str()), (0, "deveuis.fed.example."));
        }
    }
}

#[test]
fn complete_names_that_are_not_registered_are_nxdomain() {
    for qname in [
        ABSENT,
        "0004a30b001c0531.deveuis.fed.example.",
        "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.deveuis.fed.example.",
        "x.0004a30b001c0530.deveuis.fed.example.",
        "x.deveuis.fed.example.",
    ] {
        let response = member(qname, Type::A);
        assert_eq!(response.metadata.response_code, ResponseCode::NXDomain, "{qname}");
        assert_eq!(soa(&response), ("deveuis.fed.example.".to_owned(), 8));
        assert_eq!(response.authorities[0].ttl, 60);
    }
    let response = member("000013.netids.fed.example.", Type::A);
    assert_eq!(response.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(soa(&response).0, "netids.fed.example.");
}

#[test]
fn netids_have_addresses_and_services_when_a_port_is_known() {
    assert_eq!(member(V4_ONLY, Type::A).answers.len(), 2);
    assert_eq!(member(V4_ONLY, Type::AAAA).answers.len(), 0);
    assert_eq!(summary(&member(BOTH, Type::AAAA)), [format!("an {BOTH} 2001:db8::1")]);
    assert_eq!(summary(&member(BOTH, Type::ANY)), [format!("an {BOTH} 198.51.100.1")]);
    let naptr = member(BOTH, Type::NAPTR);
    let RData::NAPTR(naptr) = &naptr.answers[0].data else { panic!("{naptr:?}") };
    assert_eq!((&naptr.flags[..], &naptr.services[..]), (&b"S"[..], &b"LWNS"[..]));
    assert_eq!(naptr.replacement.to_string(), "_lwns._tcp.600013.netids.fed.example.");
    let service = "_lwns._tcp.600013.netids.fed.example.";
    assert_eq!(summary(&member(service, Type::SRV)), [format!("an {service} 0 0 8443 {BOTH}")]);
    assert_eq!(member("_tcp.600013.netids.fed.example.", Type::SRV).metadata.response_code, ResponseCode::NoError);
    assert_eq!(member(V4_ONLY, Type::NAPTR).answers.len(), 0);
    let absent = member("_lwns._tcp.60002d.netids.fed.example.", Type::SRV);
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn anchors_of_a_netid_stand_under_its_port_and_nowhere_else() {
    let owner = "_8443._tcp.600013.netids.fed.example.";
    let (ab, cd) = ("ab".repeat(32), "cd".repeat(32));
    let shown: Vec<String> =
        member(owner, Type::TLSA).answers.iter().map(|record| record.data.to_string().to_lowercase()).collect();
    assert_eq!(shown, [format!("2 1 1 {ab}"), format!("3 1 1 {cd}")]);
    assert_eq!(member(owner, Type::A).metadata.response_code, ResponseCode::NoError);
    for absent in
        ["_8444._tcp.600013", "_08443._tcp.600013", "_8443._udp.600013", "_8443._tcp.60002d", "_0._tcp.600013"]
    {
        let response = member(&format!("{absent}.netids.fed.example."), Type::TLSA);
        assert_eq!(response.metadata.response_code, ResponseCode::NXDomain, "{absent}");
    }
    let (refused, _) = send(Asker::Public, &ask(owner, Type::TLSA).to_vec().expect("encodes"));
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn every_apex_has_soa_and_ns_with_its_serial() {
    for (apex, serial) in [("deveuis.fed.example.", 8), ("netids.fed.example.", 8), ("fed.example.", 3)] {
        let response = member(apex, Type::SOA);
        let RData::SOA(soa) = &response.answers[0].data else { panic!("{response:?}") };
        assert_eq!(soa.serial, serial, "{apex}");
        assert_eq!((soa.mname.to_string(), soa.rname.to_string()), {
            ("broker.fed.example.".to_owned(), "hostmaster.fed.example.".to_owned())
        });
        assert_eq!(summary(&member(apex, Type::NS)), [format!("an {apex} broker.fed.example.")]);
        assert_eq!(member(apex, Type::TXT).metadata.response_code, ResponseCode::NoError);
    }
}

#[test]
fn plain_dns_serves_the_public_zone_and_refuses_every_private_name() {
    let public = |qname: &str, qtype| send(Asker::Public, &ask(qname, qtype).to_vec().expect("encodes")).0;
    assert_eq!(public("broker.fed.example.", Type::A).answers.len(), 1);
    assert_eq!(public("_dns.broker.fed.example.", Type::SVCB).answers.len(), 1);
    assert_eq!(public("fed.example.", Type::CAA).answers.len(), 1);
    assert_eq!(public("broker.fed.example.", Type::AAAA).metadata.response_code, ResponseCode::NoError);
    assert_eq!(public("other.fed.example.", Type::A).metadata.response_code, ResponseCode::NXDomain);
    for qname in [NIBBLES, FLAT, ABSENT, "0.deveuis.fed.example.", "deveuis.fed.example.", "netids.fed.example.", BOTH]
    {
        for qtype in [Type::A, Type::SOA, Type::NS, Type::ANY, Type::AXFR, Type::TXT] {
            let response = public(qname, qtype);
            assert_eq!(response.metadata.response_code, ResponseCode::Refused, "{qname} {qtype}");
            assert!(response.answers.is_empty() && response.authorities.is_empty());
        }
    }
    assert_eq!(public("example.com.", Type::A).metadata.response_code, ResponseCode::Refused);
}

#[test]
fn the_case_of_the_question_is_echoed_and_does_not_matter() {
    let mut query = ask("0004A30B001c0530.DEVeuis.Fed.exAMPle.", Type::A).to_vec().expect("encodes");
    // hickory folds names on the way in or out in some versions; what counts is the octets
    let place = query.windows(4).position(|w| w.eq_ignore_ascii_case(b"a30b")).expect("there");
    query[place] = b'A';
    let member: MemberId = "alpine-lora".parse().expect("valid");
    let mut out = Vec::new();
    answer(&zones(), Asker::Member(&member), &query, &mut out).expect("a response");
    assert_eq!(out[12..query.len()], query[12..]);
    assert_eq!(Message::from_vec(&out).expect("reads").answers.len(), 3);
}

#[test]
fn edns_is_answered_padding_only_when_asked_for() {
    let member: MemberId = "alpine-lora".parse().expect("valid");
    let mut query = ask(NIBBLES, Type::A);
    let mut edns = Edns::new();
    edns.set_version(0).set_max_payload(1232).set_dnssec_ok(true);
    query.set_edns(edns.clone());
    let (response, _) = send(Asker::Member(&member), &query.to_vec().expect("encodes"));
    let answered = response.edns.as_ref().expect("EDNS");
    assert!(answered.flags().dnssec_ok);
    assert!(response.to_vec().expect("encodes").len() < 300);

    edns.options_mut().insert(EdnsOption::Unknown(u16::from(EdnsCode::Padding), vec![0; 20]));
    query.set_edns(edns.clone());
    let mut out = Vec::new();
    answer(&zones(), Asker::Member(&member), &query.to_vec().expect("encodes"), &mut out).expect("a response");
    assert_eq!(out.len() % 468, 0, "RFC 8467, section 4.1");
    Message::from_vec(&out).expect("hickory reads it");

    edns.set_version(1);
    query.set_edns(edns);
    let (response, answered) = send(Asker::Member(&member), &query.to_vec().expect("encodes"));
    // hickory names 16 BADSIG, which shares its number with BADVERS (RFC 6891, section 9).
    assert_eq!((answered.rcode.0, u16::from(response.metadata.response_code)), (16, 16));
}

#[test]
fn refusals_carry_an_extended_error() {
    let mut query = ask(NIBBLES, Type::A);
    query.set_edns(Edns::new());
    let mut out = Vec::new();
    answer(&zones(), Asker::Public, &query.to_vec().expect("encodes"), &mut out).expect("a response");
    let text = b"private names are answered over DoH";
    assert!(out.windows(text.len()).any(|w| w == text));
    assert!(out.windows(4).any(|w| w[..2] == [0, 15] && w[2] == 0));
}

#[test]
fn other_classes_are_refused_and_other_opcodes_not_implemented() {
    let member: MemberId = "alpine-lora".parse().expect("valid");
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::NONE] {
        let mut query = ask(NIBBLES, Type::A);
        query.queries[0].set_query_class(class);
        for asker in [Asker::Public, Asker::Member(&member)] {
            let (response, answered) = send(asker, &query.to_vec().expect("encodes"));
            assert_eq!(response.metadata.response_code, ResponseCode::Refused, "{class}");
            assert_eq!(answered.outcome, Outcome::Refused);
        }
    }
    let query = ask(NIBBLES, Type::A).to_vec().expect("encodes");
    for opcode in 1..16_u8 {
        let mut message = query.clone();
        message[2] = opcode << 3;
        let code = |asker| {
            let mut out = Vec::new();
            answer(&zones(), asker, &message, &mut out).expect("a response");
            (out[2] >> 3 & 15, out[3] & 15)
        };
        assert_eq!(code(Asker::Member(&member)), (opcode, 4));
        assert_eq!(code(Asker::Public), (opcode, if matches!(opcode, 4 | 5) { 5 } else { 4 }));
    }
}

#[test]
fn malformed_messages_get_formerr_or_nothing() {
    let member: MemberId = "alpine-lora".parse().expect("valid");
    let query = ask(NIBBLES, Type::A).to_vec().expect("encodes");
    let rcode = |message: &[u8]| {
        let mut out = Vec::new();
        answer(&zones(), Asker::Member(&member), message, &mut out).map(|answered| answered.rcode.0)
    };
    for cut in 0..12 {
        assert!(rcode(&query[..cut]).is_err(), "{cut}");
    }
    for cut in 12..query.len() {
        assert_eq!(rcode(&query[..cut]), Ok(1), "{cut}");
    }
    let with = |at: usize, value: u8| {
        let mut message = query.clone();
        message[at] = value;
        rcode(&message)
    };
    assert!(with(2, 0x80).is_err(), "a response is not answered");
    assert_eq!(with(5, 0), Ok(1), "no question (RFC 9619)");
    assert_eq!(with(5, 2), Ok(1), "two questions (RFC 9619)");
    assert_eq!(with(7, 1), Ok(1), "an answer that is not there");
    assert_eq!(with(10, 255), Ok(1), "forged counts reserve nothing");
    assert_eq!(with(12, 0xc0), Ok(1), "a pointer in the question");
    assert_eq!(with(12, 64), Ok(1), "a label of 64 octets");
    let mut trailing = query.clone();
    trailing.push(0);
    assert_eq!(rcode(&trailing), Ok(1), "trailing octets");
    let mut tsig = query.clone();
    tsig[11] = 1;
    tsig.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rcode(&tsig), Ok(9), "TSIG is not accepted here");
}

#[test]
fn meta_types_and_transfers_are_not_answered() {
    for (qtype, expected) in [
        (Type::AXFR, ResponseCode::Refused),
        (Type::IXFR, ResponseCode::Refused),
        (Type::Unknown(249), ResponseCode::NotImp),
        (Type::Unknown(253), ResponseCode::NotImp),
        (Type::Unknown(254), ResponseCode::NotImp),
    ] {
        assert_eq!(member("deveuis.fed.example.", qtype).metadata.response_code, expected, "{qtype}");
    }
}

#[test]
fn a_moved_device_is_answered_from_the_next_snapshot_only() {
    let before = zones();
    let device: DevEui = DEVICE.parse().expect("valid");
    let delta = Delta {
        before: Serial::new(8),
        after: Serial::new(9),
        devices: vec![DeviceChange {
            device,
            before: Some("60002d".parse().expect("valid")),
            after: Some("600013".parse().expect("valid")),
        }],
        networks: vec![],
    };
    let after = before.apply(&delta).expect("serial fits");
    assert_eq!(before.devices().get(device).map(|n| n.to_string()).as_deref(), Some("60002d"));
    assert_eq!(after.devices().get(device).map(|n| n.to_string()).as_deref(), Some("600013"));
    assert_eq!(after.serial(), Serial::new(9));
    assert!(before.apply(&Delta { before: Serial::new(3), ..delta }).is_err());
    let addresses: Vec<IpAddr> = after.networks().flat_map(|n| n.addresses.clone()).collect();
    assert_eq!(addresses.len(), 4);
    assert!(after.soa_rdata(Zone::DevEui).len() > 20);
}

#[test]
fn an_alias_of_the_public_zone_is_followed_within_it_and_no_further() {
    let told = |qname: &str, qtype: Type, asker: Asker<'_>| {
        let (message, answered) = send(asker, &ask(qname, qtype).to_vec().expect("encodes"));
        let answers = message.answers.iter();
        let answers =
            answers.map(|record| format!("{} {}", record.name.to_lowercase(), record.data)).collect::<Vec<_>>();
        (message.metadata.response_code, answers, message.authorities.len(), answered.outcome)
    };
    let member = "alpine-lora".parse().expect("valid");
    for (qname, qtype, records, soas, rcode, outcome) in [
        ("www.fed.example.", Type::A, 3, 0, ResponseCode::NoError, Outcome::Found),
        ("www.fed.example.", Type::AAAA, 2, 1, ResponseCode::NoError, Outcome::Found),
        ("www.fed.example.", Type::CNAME, 1, 0, ResponseCode::NoError, Outcome::Found),
        ("www.fed.example.", Type::ANY, 1, 0, ResponseCode::NoError, Outcome::Found),
        ("home.fed.example.", Type::NS, 2, 0, ResponseCode::NoError, Outcome::Found),
        ("home.fed.example.", Type::CAA, 2, 0, ResponseCode::NoError, Outcome::Found),
        ("gone.fed.example.", Type::A, 1, 1, ResponseCode::NXDomain, Outcome::NxDomain),
        ("away.fed.example.", Type::A, 1, 0, ResponseCode::NoError, Outcome::Found),
        ("private.fed.example.", Type::A, 1, 0, ResponseCode::NoError, Outcome::Found),
        // Loops end where they began, and long chains are left to whoever asks.
        ("one.fed.example.", Type::A, 2, 0, ResponseCode::NoError, Outcome::Found),
        ("self.fed.example.", Type::A, 1, 0, ResponseCode::NoError, Outcome::Found),
        ("long0.fed.example.", Type::A, 9, 0, ResponseCode::NoError, Outcome::Found),
        ("long4.fed.example.", Type::A, 8, 1, ResponseCode::NXDomain, Outcome::NxDomain),
    ] {
        for asker in [Asker::Public, Asker::Signed, Asker::Member(&member)] {
            let (code, answers, authorities, kind) = told(qname, qtype, asker);
            assert_eq!(
                (code, answers.len(), authorities, kind),
                (rcode, records, soas, outcome),
                "{qname}: {answers:?}"
            );
        }
    }
    let (_, answers, ..) = told("www.fed.example.", Type::A, Asker::Public);
    assert_eq!(answers[2], "broker.fed.example. 192.0.2.53");
}
