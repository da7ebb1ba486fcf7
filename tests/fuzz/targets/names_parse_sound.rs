//! Identifiers and names: what is taken prints as itself, and means what a second, slower reading says it means.
#![no_main]

use dnsbroker_ca::{Fingerprint, Principal, SerialNumber, TokenHash};
use dnsbroker_federation::{DevEui, DomainName, MemberId, Namespace, NetId, Owner, Serial, Zone, ZoneLabels};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    owner_of_octets(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    device(text);
    netid(text);
    domain(text);
    round_trip::<MemberId>(text);
    round_trip::<Serial>(text);
    round_trip::<SerialNumber>(text);
    round_trip::<Fingerprint>(text);
    round_trip::<TokenHash>(text);
    principal(text);
    namespace(text);
});

fn round_trip<T: std::str::FromStr + ToString + PartialEq>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let printed = value.to_string();
    assert!(printed.parse().is_ok_and(|again: T| again == value), "{text:?} prints as {printed:?}");
    Some(value)
}

fn device(text: &str) {
    let body = text.trim();
    let body = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")).unwrap_or(body);
    let mut digits: String = body.to_ascii_lowercase();
    for separator in ['-', ':'] {
        let pairs: Vec<&str> = body.split(separator).collect();
        if pairs.len() == 8 && pairs.iter().all(|pair| pair.len() == 2) {
            digits = pairs.concat().to_ascii_lowercase();
        }
    }
    let hex = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let valid = hex && digits != "0".repeat(16) && digits != "f".repeat(16);
    let device = round_trip::<DevEui>(text);
    assert_eq!(device.is_some(), valid, "{text:?}");
    if let Some(device) = device {
        assert_eq!(device.to_string(), digits);
        assert_eq!(DevEui::from_u64(device.as_u64()), Ok(device));
    }
}

fn netid(text: &str) {
    let Some(netid) = round_trip::<NetId>(text) else { return };
    assert_eq!(NetId::from_u32(netid.as_u32()), Ok(netid));
    let body = text.trim();
    let body = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")).unwrap_or(body);
    assert!(body.eq_ignore_ascii_case(&netid.to_string()), "{text:?}");
    let (kind, rest) = (netid.as_u32() >> 21, netid.as_u32() & 0x1f_ffff);
    let largest = [0x3f, 0x3f, 0x1ff, 0x1f_ffff][kind.min(3) as usize];
    assert!(kind < 8 && rest <= largest, "{netid} has reserved bits set");
}

fn domain(text: &str) {
    let Some(name) = round_trip::<DomainName>(text) else { return };
    assert!(name.to_string().trim_end_matches('.').eq_ignore_ascii_case(text.trim_end_matches('.')));
    assert!(name.wire().len() <= 255 && name.wire().last() == Some(&0));
    assert!(name.labels().all(|label| (1..=63).contains(&label.len())));
    assert_eq!(name.wire().len(), 1 + name.labels().map(|label| label.len() + 1).sum::<usize>());
    assert!(name.is_within(&name));
    if let Ok(child) = name.child("x") {
        assert!(child.is_within(&name) && !name.is_within(&child));
    }
}

/// What a certificate may say is exactly what we write.
fn principal(text: &str) {
    let federation = "fed.example".parse().expect("a name");
    if let Ok(principal) = Principal::from_uri(text, &federation) {
        let tail = text.len() - principal.to_string().len();
        assert!(principal.uri(&federation)[tail..] == text[tail..]);
        assert!(principal.uri(&federation).eq_ignore_ascii_case(text), "{text:?}");
        assert!(Principal::from_uri(text, &"other.example".parse().expect("a name")).is_err());
    }
}

/// Federation, broker, and the two labels, on a line each; and a device.
fn namespace(text: &str) {
    let mut words = text.split_ascii_whitespace();
    let mut word = || words.next().unwrap_or("fed.example");
    let (federation, broker) = (word().parse::<DomainName>(), word().parse::<DomainName>());
    let labels = ZoneLabels { deveui: word().to_owned(), netid: word().to_owned() };
    let (Ok(federation), Ok(broker)) = (federation, broker) else { return };
    let Ok(names) = Namespace::new(federation.clone(), broker.clone(), &labels) else { return };
    let owner = |name: &str| names.owner(name.parse::<DomainName>().expect("our own names fit").wire());
    let device = word().parse().unwrap_or_else(|_| DevEui::from_u64(0x0004_a30b_001c_0530).expect("a DevEUI"));
    assert_eq!(owner(&names.flat_name(device)), Owner::Device(device));
    let mut name = names.nibble_name(device);
    assert_eq!(owner(&name), Owner::Device(device));
    for _ in 1..16 {
        name.drain(..2);
        assert_eq!(owner(&name), Owner::Nibbles, "{name}");
    }
    let netid = "60002d".parse().expect("a NetID");
    assert_eq!(owner(&names.network_name(netid)), Owner::Network(netid));
    for zone in [Zone::Public, Zone::DevEui, Zone::NetId] {
        assert_eq!(names.owner(names.apex(zone).wire()), Owner::Apex(zone));
    }
    assert!(!names.owner(broker.wire()).zone().is_none_or(Zone::is_private), "the broker must be public");
}

/// Names as they come in a query: any octets in labels.
fn owner_of_octets(data: &[u8]) {
    let labels = ZoneLabels::default();
    let name = |text: &str| text.parse::<DomainName>().expect("a name");
    let names = Namespace::new(name("fed.example"), name("broker.fed.example"), &labels).expect("a federation");
    names.owner(data);
    let below = [data, names.apex(Zone::DevEui).wire()].concat();
    if let Owner::Device(device) = names.owner(&below) {
        let flat = name(&names.flat_name(device));
        let nibbles = name(&names.nibble_name(device));
        assert!(below == flat.wire() || below == nibbles.wire());
    }
    let below = [data, names.apex(Zone::NetId).wire()].concat();
    if let Owner::Network(netid) = names.owner(&below) {
        assert_eq!(below, name(&names.network_name(netid)).wire());
    }
}
