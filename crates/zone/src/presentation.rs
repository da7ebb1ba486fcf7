//! Zones as RFC 1035 text (section 5), piece by piece, from one snapshot however long it takes.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use dnsbroker_federation::{DevEui, DomainName, Zone};

pub use crate::transfer::NameForm;
use crate::wire::RecordType;
use crate::zones::Zones;

/// Devices in one piece of text.
const PIECE: usize = 1_000;

/// A zone as text, in pieces of some 50 KiB.
pub fn export(zones: Zones, zone: Zone, form: NameForm) -> impl Iterator<Item = String> {
    let mut next = Some(0_u64);
    let head = head(&zones, zone);
    std::iter::once(head).chain(std::iter::from_fn(move || {
        if zone != Zone::DevEui {
            return None;
        }
        let mut text = String::with_capacity(64 * PIECE);
        let mut last = None;
        for (device, netid) in zones.devices().iter_from(next?).take(PIECE) {
            last = Some(device);
            let target = zones.names().network_name(netid);
            if form != NameForm::Flat {
                push_nibbles(&mut text, device);
                // Writing to a String cannot fail.
                let _ = writeln!(text, " CNAME {target}");
            }
            if form != NameForm::Nibble {
                let _ = writeln!(text, "{device} CNAME {target}");
            }
        }
        next = last.map(|device: DevEui| device.as_u64() + 1);
        last.map(|_| text)
    }))
}

fn push_nibbles(text: &mut String, device: DevEui) {
    for place in 0..16 {
        let digit = b"0123456789abcdef"[(device.as_u64() >> (4 * place) & 15) as usize];
        text.push(char::from(digit));
        if place < 15 {
            text.push('.');
        }
    }
}

fn head(zones: &Zones, zone: Zone) -> String {
    let apex = zones.names().apex(zone);
    let timing = zones.timing();
    let serial = if zone.is_private() { zones.serial().get() } else { zones.public().serial };
    let mut text = format!(
        "$ORIGIN {apex}\n$TTL {}\n@ SOA {broker} hostmaster.{contact} ( {serial} {} {} {} {} )\n@ NS {broker}\n",
        timing.ttl,
        timing.refresh,
        timing.retry,
        timing.expire,
        timing.negative_ttl,
        broker = zones.names().broker(),
        contact = zones.contact(),
    );
    match zone {
        Zone::Public => push_public(&mut text, zones),
        Zone::NetId => push_networks(&mut text, zones),
        Zone::DevEui => {}
    }
    text
}

fn push_networks(text: &mut String, zones: &Zones) {
    for network in zones.networks() {
        let netid = network.netid;
        for address in &network.addresses {
            let rtype = if address.is_ipv4() { "A" } else { "AAAA" };
            let _ = writeln!(text, "{netid} {rtype} {address}");
        }
        if let Some(port) = network.port {
            let name = zones.names().network_name(netid);
            let target = network.target.as_ref().map_or_else(|| name.clone(), ToString::to_string);
            let _ = writeln!(text, "{netid} NAPTR 10 10 \"S\" \"LWNS\" \"\" _lwns._tcp.{name}");
            let _ = writeln!(text, "_lwns._tcp.{netid} SRV 0 0 {port} {target}");
            for tlsa in &network.tlsa {
                let _ = writeln!(text, "_{port}._tcp.{netid} TLSA {tlsa}");
            }
        }
    }
}

fn push_public(text: &mut String, zones: &Zones) {
    // A name in another zone (the discovery name resolver.arpa) is answered, but is not part of this zone.
    let within = |owner: &DomainName| zones.names().owner(owner.wire()).zone().is_some();
    for record in zones.public().iter().filter(|record| within(&record.owner)) {
        let _ = write!(text, "{} {} {} ", record.owner, record.ttl, type_name(record.rtype));
        push_rdata(text, record.rtype, &record.rdata);
        text.push('\n');
    }
}

fn type_name(rtype: RecordType) -> String {
    match rtype {
        RecordType::A => "A".to_owned(),
        RecordType::AAAA => "AAAA".to_owned(),
        RecordType::CAA => "CAA".to_owned(),
        RecordType(other) => format!("TYPE{other}"),
    }
}

/// A quoted string (RFC 1035, section 5.1).
fn quoted(octets: &[u8]) -> String {
    let mut text = String::from("\"");
    for octet in octets {
        match octet {
            b'"' | b'\\' => text.extend(['\\', char::from(*octet)]),
            b' '..=b'~' => text.push(char::from(*octet)),
            other => {
                let _ = write!(text, "\\{other:03}");
            }
        }
    }
    text + "\""
}

/// Flags, tag and value (RFC 8659, section 4.1), if they are there.
fn caa(rdata: &[u8]) -> Option<String> {
    let [flags, length, rest @ ..] = rdata else { return None };
    let (tag, value) = rest.split_at_checked(usize::from(*length))?;
    let tag = std::str::from_utf8(tag).ok().filter(|tag| tag.bytes().all(|octet| octet.is_ascii_alphanumeric()))?;
    Some(format!("{flags} {tag} {}", quoted(value)))
}

/// Addresses and CAA as people write them; all else as RFC 3597 (section 5) has it, which every server reads.
fn push_rdata(text: &mut String, rtype: RecordType, rdata: &[u8]) {
    let v4: Option<[u8; 4]> = rdata.try_into().ok();
    let v6: Option<[u8; 16]> = rdata.try_into().ok();
    if let (RecordType::CAA, Some(caa)) = (rtype, caa(rdata)) {
        text.push_str(&caa);
        return;
    }
    let _ = match (rtype, v4, v6) {
        (RecordType::A, Some(octets), _) => write!(text, "{}", Ipv4Addr::from(octets)),
        (RecordType::AAAA, _, Some(octets)) => write!(text, "{}", Ipv6Addr::from(octets)),
        _ => {
            let _ = write!(text, "\\# {}", rdata.len());
            rdata.iter().try_for_each(|octet| write!(text, " {octet:02x}"))
        }
    };
}

/// What is wrong or odd in a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What must not be.
    pub errors: Vec<String>,
    /// What may be meant.
    pub warnings: Vec<String>,
}

/// Checks what is served: every device has a network, every network is reachable by somebody.
pub fn check(zones: &Zones) -> Findings {
    let mut findings = Findings::default();
    let mut orphans = 0_u64;
    let mut last = None;
    for (device, netid) in zones.devices().iter() {
        if zones.network(netid).is_none() {
            orphans += 1;
            if orphans <= 10 {
                findings.errors.push(format!("device {device} has NetID {netid}, which is not in the federation"));
            }
        }
        if last.is_some_and(|last| last >= device) {
            findings.errors.push(format!("device {device} is out of order: the table is damaged"));
        }
        last = Some(device);
    }
    if orphans > 10 {
        findings.errors.push(format!("{} more devices have no network", orphans - 10));
    }
    for network in zones.networks() {
        if network.addresses.is_empty() {
            findings.errors.push(format!("NetID {} has no address", network.netid));
        }
        if zones.devices().count(network.netid) == 0 {
            findings.warnings.push(format!("NetID {} has no devices", network.netid));
        }
        if network.netid.is_experimental() {
            findings.warnings.push(format!("NetID {} is experimental, and shared by the world", network.netid));
        }
        for address in network.addresses.iter().filter(|address| address.is_loopback()) {
            findings.warnings.push(format!("NetID {} has the loopback address {address}", network.netid));
        }
    }
    let broker = zones.names().broker();
    if zones
        .public()
        .at(broker.wire())
        .is_none_or(|records| records.iter().all(|record| !matches!(record.rtype, RecordType::A | RecordType::AAAA)))
    {
        findings
            .warnings
            .push(format!("the broker's name {broker} has no address: set `addresses` in the configuration"));
    }
    findings
}
