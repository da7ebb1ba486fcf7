//! What a broker may answer about private names. A broker of ours gives few kinds of answers, and each is known to the octet; so
//! what is well formed and of another kind comes from a broker that is broken, of something else, or lying, and the next one
//! is asked. It is neither passed on nor kept.
//!
//! ```text
//! device       CNAME to a NetID and what that has of the type, or its SOA where it has none of it; or NXDOMAIN
//! NetID        records of the type, or NODATA, or NXDOMAIN
//! no, always   with the SOA of the zone, and with no other record
//! ```
//!
//! What cannot be told is a lie in that form: a home that is another one, an address that is another one, a device that is
//! said not to be there. The certificate stands for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dnsbroker_federation::{Namespace, Owner, Zone};
use dnsbroker_zone::wire::message::{Message, Record};
use dnsbroker_zone::wire::{Rcode, RecordType, Section};

use crate::answer::{Answer, Unfit};

/// Reads a broker's response to a question that was sent with the ID 0, as over HTTPS it is (RFC 8484, section 4.1).
pub fn read(question: &[u8], response: &[u8], namespace: &Namespace) -> Result<Answer, Unfit> {
    let answer = Answer::read(question, response, namespace.apex(Zone::Public).wire())?;
    let message = Message::new(response).map_err(|error| Unfit(error.0))?;
    if message.header().id != [0, 0] {
        return Err(Unfit("it has the ID of another query"));
    }
    if message.is_truncated() {
        return Err(Unfit("it is cut off, which over HTTPS nothing is"));
    }
    let Some(asked) = message.question().map_err(|error| Unfit(error.0))? else { return Ok(answer) };
    let owner = namespace.owner(asked.name.as_slice());
    // Public names come from a zone file, which may hold anything.
    let Some(zone) = owner.zone().filter(|zone| zone.is_private()) else { return Ok(answer) };
    if ![Rcode::NOERROR, Rcode::NXDOMAIN].contains(&answer.rcode) {
        return Ok(answer);
    }
    let mut found = Found::default();
    for record in message.records().map_err(|error| Unfit(error.0))? {
        let record = record.map_err(|error| Unfit(error.0))?;
        found.take(&record, namespace)?;
    }
    found.judge(owner, zone, answer.rcode)?;
    Ok(answer)
}

/// What is in it.
#[derive(Default)]
struct Found {
    /// Records of the answer section.
    answers: usize,
    /// Those of them that are CNAMEs, and lead to a NetID.
    homes: usize,
    /// Those that are other CNAMEs.
    astray: usize,
    /// Zones whose SOA is there.
    zones: Vec<Zone>,
}

impl Found {
    fn take(&mut self, record: &Record<'_>, namespace: &Namespace) -> Result<(), Unfit> {
        match (record.section, record.rtype) {
            (Section::Answer, rtype) => {
                self.answers += 1;
                if rtype == RecordType::CNAME {
                    let target = record.target().map(|target| namespace.owner(target.as_slice()));
                    let home = matches!(target, Some(Owner::Network(_)));
                    *if home { &mut self.homes } else { &mut self.astray } += 1;
                }
                if address(record).is_some_and(|address| !can_be_reached(address)) {
                    return Err(Unfit("it gives an address that nobody can have"));
                }
            }
            (Section::Authority, RecordType::SOA) => {
                let Owner::Apex(zone) = namespace.owner(record.owner.as_slice()) else {
                    return Err(Unfit("it has the SOA of no zone of the federation"));
                };
                self.zones.push(zone);
            }
            (Section::Additional, RecordType::OPT) => {}
            (Section::Authority | Section::Additional, _) => {
                return Err(Unfit("it has records beside the answer that nobody asked for"));
            }
        }
        Ok(())
    }

    fn judge(&self, owner: Owner, zone: Zone, rcode: Rcode) -> Result<(), Unfit> {
        if self.astray > 0 {
            return Err(Unfit("a CNAME leads to no NetID of the federation"));
        }
        let device = matches!(owner, Owner::Device(_));
        match (rcode, device) {
            (Rcode::NXDOMAIN, _) if self.answers > 0 => {
                Err(Unfit("it says that the name is not there, and has records"))
            }
            (Rcode::NXDOMAIN, _) => self.denied_by(zone, "it says that the name is not there without the zone's SOA"),
            (_, true) if self.homes != 1 => {
                Err(Unfit("it names no home of the device, and does not say that there is none"))
            }
            (_, false) if self.homes > 0 => Err(Unfit("it has a CNAME where there is none")),
            (_, false) if self.answers == 0 => self.denied_by(zone, "it has no records, and no SOA of the zone either"),
            _ => Ok(()),
        }
    }

    fn denied_by(&self, zone: Zone, words: &'static str) -> Result<(), Unfit> {
        if self.zones == [zone] { Ok(()) } else { Err(Unfit(words)) }
    }
}

fn address(record: &Record<'_>) -> Option<IpAddr> {
    match record.rtype {
        RecordType::A => Some(<[u8; 4]>::try_from(record.rdata).map_or(Ipv4Addr::UNSPECIFIED.into(), IpAddr::from)),
        RecordType::AAAA => Some(<[u8; 16]>::try_from(record.rdata).map_or(Ipv6Addr::UNSPECIFIED.into(), IpAddr::from)),
        _ => None,
    }
}

/// Whether a server can be there at all. Loopback can: network servers of one machine roam with each other, in laboratories.
fn can_be_reached(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.octets()[0] == 0 || v4.is_multicast() || v4.octets()[0] >= 240),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dnsbroker_federation::{DevEui, DomainName, Serial, ZoneLabels};
    use dnsbroker_zone::answer::{Asker, answer};
    use dnsbroker_zone::delta::{Delta, DeviceChange, Network, Tlsa};
    use dnsbroker_zone::table::Devices;
    use dnsbroker_zone::zones::Zones;
    use proptest::prelude::*;

    use super::*;
    use crate::answer::{query, question};

    const DEVICE: &str = "0004a30b001c0530.deveuis.fed.example";

    fn name(text: &str) -> DomainName {
        text.parse().expect(text)
    }

    fn namespace() -> Namespace {
        Namespace::new(name("fed.example"), name("broker.fed.example"), &ZoneLabels::default()).expect("valid")
    }

    /// The zones of a broker.
    fn zones() -> Zones {
        let network = |netid: &str, addresses: &[&str], port| Network {
            netid: netid.parse().expect("a NetID"),
            member: "atlantic".parse().expect("a member"),
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            port,
            target: None,
            tlsa: vec![Tlsa::of_key(true, [0xab; 32])],
        };
        let networks =
            [network("60002d", &["192.0.2.45"], None), network("600013", &["198.51.100.1", "2001:db8::1"], Some(8444))];
        let empty = Zones::new(Arc::new(namespace()), Serial::new(1), Devices::default(), networks);
        let device = |value: u64, netid: &str| DeviceChange {
            device: DevEui::from_u64(value).expect("a device"),
            before: None,
            after: Some(netid.parse().expect("a NetID")),
        };
        let devices = vec![device(0x0004_a30b_001c_0530, "60002d"), device(0x70b3_d57e_d000_0001, "600013")];
        let delta = Delta { before: Serial::new(1), after: Serial::new(2), devices, networks: vec![] };
        empty.apply(&delta).expect("follows")
    }

    /// What a broker answers.
    fn honest(asked: &[u8]) -> Vec<u8> {
        let member = "alpine".parse().expect("a member");
        let mut out = Vec::new();
        answer(&zones(), Asker::Member(&member), &query([0, 0], asked, false, false), &mut out).expect("a response");
        out
    }

    const NAMES: [&str; 14] = [
        DEVICE,
        "0.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0.deveuis.fed.example",
        "70b3d57ed0000001.deveuis.fed.example",
        "ffff00000000ffff.deveuis.fed.example",
        "5.0.deveuis.fed.example",
        "nonsense.deveuis.fed.example",
        "deveuis.fed.example",
        "60002d.netids.fed.example",
        "600013.netids.fed.example",
        "600014.netids.fed.example",
        "_tcp.600013.netids.fed.example",
        "_lwns._tcp.600013.netids.fed.example",
        "_8444._tcp.600013.netids.fed.example",
        "netids.fed.example",
    ];

    #[test]
    fn whatever_a_broker_of_ours_answers_is_believed() {
        for text in NAMES.into_iter().chain(["fed.example", "broker.fed.example", "nonsense.fed.example"]) {
            for qtype in [1, 2, 5, 6, 15, 16, 28, 33, 35, 41, 52, 64, 65, 250, 255, 257] {
                let asked = question(name(text).wire(), RecordType(qtype));
                let believed = read(&asked, &honest(&asked), &namespace());
                assert!(believed.is_ok(), "{text} {qtype}: {believed:?}");
            }
        }
    }

    #[test]
    fn what_no_broker_of_ours_answers_is_not_believed() {
        let asked = question(name(DEVICE).wire(), RecordType::A);
        let truth = honest(&asked);
        let unknown = question(name("ffff00000000ffff.deveuis.fed.example").wire(), RecordType::A);
        let no = honest(&unknown);
        let unfit = |asked: &[u8], octets: &[u8]| read(asked, octets, &namespace()).expect_err("is a lie").0;
        let changed = |of: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
            let mut octets = of.to_vec();
            change(&mut octets);
            octets
        };
        assert!(unfit(&asked, &changed(&truth, &|octets| octets[1] = 1)).contains("ID"));
        assert!(unfit(&asked, &changed(&truth, &|octets| octets[2] |= 2)).contains("cut off"));
        // NXDOMAIN and records; NOERROR and none, with and without a SOA; NXDOMAIN without one.
        assert!(unfit(&asked, &changed(&truth, &|octets| octets[3] |= 3)).contains("is not there, and has"));
        assert!(unfit(&unknown, &changed(&no, &|octets| octets[3] &= 0xf0)).contains("names no home"));
        let bare = |rcode: u8| [&[0, 0, 0x84, rcode, 0, 1, 0, 0, 0, 0, 0, 0][..], &asked].concat();
        assert!(unfit(&asked, &bare(0)).contains("names no home"));
        assert!(unfit(&asked, &bare(3)).contains("without the zone's SOA"));
        // The CNAME leads into the zone of devices, of a NetID of six other letters, and to the public zone.
        let cname = |target: &DomainName| {
            let length = (target.wire().len() as u16).to_be_bytes();
            let record = [&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60][..], &length, target.wire()].concat();
            [&[0, 0, 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0][..], &asked, &record].concat()
        };
        for target in [
            "ffff00000000ffff.deveuis.fed.example",
            "60002x.netids.fed.example",
            "fed.example",
            "a.example",
            "evil.test",
        ] {
            assert!(unfit(&asked, &cname(&name(target))).contains("leads to no NetID"), "{target}");
        }
        // An address is the end of the record before OPT, if there is one.
        let at = truth.windows(4).rposition(|four| four == [192, 0, 2, 45]).expect("an address");
        assert!(unfit(&asked, &changed(&truth, &|octets| octets[at..at + 4].fill(0))).contains("nobody can have"));
        // One record more in the additional section, before OPT.
        let extra = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &[192, 0, 2, 66]].concat();
        let more = changed(&truth, &|octets| {
            octets[11] += 1;
            octets.splice(at + 4..at + 4, extra.iter().copied());
        });
        assert!(unfit(&asked, &more).contains("nobody asked for"));
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_no_lie_names_a_home_elsewhere(flips in proptest::collection::vec(any::<(u16, u8)>(), 1..4)) {
            let asked = question(name(DEVICE).wire(), RecordType::A);
            let mut octets = honest(&asked);
            for (at, flip) in flips {
                let at = usize::from(at) % octets.len();
                octets[at] ^= flip;
            }
            if let Ok(answer) = read(&asked, &octets, &namespace())
                && [Rcode::NOERROR, Rcode::NXDOMAIN].contains(&answer.rcode)
            {
                prop_assert_eq!(answer.home(&asked, &namespace()).is_some(), answer.rcode == Rcode::NOERROR);
            }
        }
    }

    #[test]
    fn addresses_that_nobody_can_have() {
        for text in ["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::", "ff02::1"] {
            assert!(!can_be_reached(text.parse().expect(text)), "{text}");
        }
        for text in ["127.0.0.1", "10.0.0.1", "192.0.2.45", "100.64.0.1", "2001:db8::1", "fd00::1", "::1"] {
            assert!(can_be_reached(text.parse().expect(text)), "{text}");
        }
    }
}
