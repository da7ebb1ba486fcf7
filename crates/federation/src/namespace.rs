//! The zones of one federation, and what a name in them stands for.
//!
//! ```text
//! fed.example.                              public zone: the broker's own names
//! 0.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0.deveuis.fed.example.   a device, nibbles, least significant first (TS002, section 19)
//! 0004a30b001c0530.deveuis.fed.example.     the same device, flat
//! 60002d.netids.fed.example.                a NetID
//! _lwns._tcp.60002d.netids.fed.example.     its SRV record, when a port is known
//! ```

use crate::{DevEui, DomainName, DomainNameError, Labels, NetId};

/// The two labels that a federation may choose: `deveuis`/`netids`, or the singular forms of IoTRoam.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneLabels {
    /// Label of the zone of devices.
    #[serde(default = "ZoneLabels::default_deveui")]
    pub deveui: String,
    /// Label of the zone of NetIDs.
    #[serde(default = "ZoneLabels::default_netid")]
    pub netid: String,
}

impl ZoneLabels {
    fn default_deveui() -> String {
        "deveuis".to_owned()
    }

    fn default_netid() -> String {
        "netids".to_owned()
    }
}

impl Default for ZoneLabels {
    fn default() -> Self {
        Self { deveui: Self::default_deveui(), netid: Self::default_netid() }
    }
}

/// One of the three zones of a federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// `<fed>`: the broker's own names, on plain DNS too.
    Public,
    /// `deveuis.<fed>`: private.
    DevEui,
    /// `netids.<fed>`: private.
    NetId,
}

impl Zone {
    /// Whether names of this zone leave only through authenticated transports.
    pub fn is_private(self) -> bool {
        self != Self::Public
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The name of a zone itself.
    Apex(Zone),
    /// A complete device name, nibble or flat.
    Device(DevEui),
    /// 1 to 15 nibble labels: an empty non-terminal, whatever is registered below.
    Nibbles,
    /// A NetID.
    Network(NetId),
    /// `_tcp.<netid>`: the empty non-terminal above its SRV record.
    Protocol(NetId),
    /// `_lwns._tcp.<netid>`: the SRV record of a NetID.
    Service(NetId),
    /// `_<port>._tcp.<netid>`: what the server on that port is trusted by (RFC 6698, section 3).
    Port(NetId, u16),
    /// Any other name within that zone.
    Within(Zone),
    /// In none of our zones.
    Outside,
}

impl Owner {
    /// The zone the name belongs to.
    pub fn zone(self) -> Option<Zone> {
        match self {
            Self::Apex(zone) | Self::Within(zone) => Some(zone),
            Self::Device(_) | Self::Nibbles => Some(Zone::DevEui),
            Self::Network(_) | Self::Protocol(_) | Self::Service(_) | Self::Port(..) => Some(Zone::NetId),
            Self::Outside => None,
        }
    }
}

/// The names of one federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    federation: DomainName,
    broker: DomainName,
    deveui: DomainName,
    netid: DomainName,
}

/// Why names cannot make a federation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// A zone label that is no label, or makes a name too long.
    #[error("the zone label {label:?} cannot be used")]
    Label {
        /// The label.
        label: String,
        /// Why.
        #[source]
        source: DomainNameError,
    },
    /// A zone label with a dot.
    #[error("the zone label {label:?} has a dot; it is one label")]
    Dotted {
        /// The label.
        label: String,
    },
    /// Both zones under one label.
    #[error("the DevEUI and the NetID zone have the same label {label:?}")]
    SameLabel {
        /// The label.
        label: String,
    },
    /// The broker's name cannot be served by the public zone.
    #[error("the broker's name {broker} is not within {federation}, so the federation's public zone cannot hold it")]
    ForeignBroker {
        /// The broker's name.
        broker: DomainName,
        /// The federation's name.
        federation: DomainName,
    },
    /// The broker's name would be hidden with the devices.
    #[error("the broker's name {broker} is within a private zone, where nobody could look it up")]
    PrivateBroker {
        /// The broker's name.
        broker: DomainName,
    },
}

/// Octets of a nibble name before the zone's apex.
const NIBBLE_OCTETS: usize = 32;
/// Octets of a flat name before the zone's apex.
const FLAT_OCTETS: usize = 17;

impl Namespace {
    /// The zones of `federation`, served by `broker`.
    pub fn new(federation: DomainName, broker: DomainName, labels: &ZoneLabels) -> Result<Self, NamespaceError> {
        let apex = |label: &str| {
            if label.contains('.') {
                return Err(NamespaceError::Dotted { label: label.to_owned() });
            }
            let fail = |source| NamespaceError::Label { label: label.to_owned(), source };
            let apex = federation.child(label).map_err(fail)?;
            // The longest name below it must fit as well, so that making names never fails.
            apex.child(&["0"; NIBBLE_OCTETS / 2].join(".")).map_err(fail)?;
            Ok(apex)
        };
        let (deveui, netid) = (apex(&labels.deveui)?, apex(&labels.netid)?);
        if deveui == netid {
            return Err(NamespaceError::SameLabel { label: labels.deveui.clone() });
        }
        if !broker.is_within(&federation) {
            return Err(NamespaceError::ForeignBroker { broker, federation });
        }
        if broker.is_within(&deveui) || broker.is_within(&netid) {
            return Err(NamespaceError::PrivateBroker { broker });
        }
        Ok(Self { federation, broker, deveui, netid })
    }

    /// The broker's own name.
    pub fn broker(&self) -> &DomainName {
        &self.broker
    }

    /// The name of a zone.
    pub fn apex(&self, zone: Zone) -> &DomainName {
        match zone {
            Zone::Public => &self.federation,
            Zone::DevEui => &self.deveui,
            Zone::NetId => &self.netid,
        }
    }

    /// What an uncompressed, lower-case name in wire form stands for.
    pub fn owner(&self, name: &[u8]) -> Owner {
        if let Some(below) = name.strip_suffix(self.deveui.wire())
            && let Some(owner) = device_owner(below)
        {
            return owner;
        }
        let mut labels = Labels::of(name);
        let mut depth = 0;
        loop {
            let rest = labels.rest();
            if rest == self.netid.wire() {
                return network_owner(name, depth);
            }
            if rest == self.deveui.wire() {
                return if depth == 0 { Owner::Apex(Zone::DevEui) } else { Owner::Within(Zone::DevEui) };
            }
            if rest == self.federation.wire() {
                return if depth == 0 { Owner::Apex(Zone::Public) } else { Owner::Within(Zone::Public) };
            }
            if labels.next().is_none() {
                return Owner::Outside;
            }
            depth += 1;
        }
    }

    /// The nibble name of a device, for people.
    pub fn nibble_name(&self, device: DevEui) -> String {
        let mut text = String::with_capacity(NIBBLE_OCTETS + 32);
        for digit in device.to_string().chars().rev() {
            text.push(digit);
            text.push('.');
        }
        text + &self.deveui.to_string()
    }

    /// The flat name of a device, for people.
    pub fn flat_name(&self, device: DevEui) -> String {
        format!("{device}.{}", self.deveui)
    }

    /// The name of a NetID, for people.
    pub fn network_name(&self, netid: NetId) -> String {
        format!("{netid}.{}", self.netid)
    }
}

/// What stands before the DevEUI zone's apex, if it is a device or a prefix of one.
fn device_owner(below: &[u8]) -> Option<Owner> {
    let complete = |value: Option<u64>| {
        Some(value.and_then(|v| DevEui::from_u64(v).ok()).map_or(Owner::Within(Zone::DevEui), Owner::Device))
    };
    if below.len() == FLAT_OCTETS && below[0] == 16 {
        return complete(hex(&below[1..])?.into());
    }
    if below.is_empty() || !below.len().is_multiple_of(2) || below.len() > NIBBLE_OCTETS {
        return None;
    }
    let mut value = 0_u64;
    for (place, label) in below.chunks_exact(2).enumerate() {
        let [1, digit] = label else { return None };
        value |= u64::from(hex_digit(*digit)?) << (4 * place);
    }
    if below.len() < NIBBLE_OCTETS { Some(Owner::Nibbles) } else { complete(Some(value)) }
}

fn network_owner(name: &[u8], depth: usize) -> Owner {
    let mut labels = Labels::of(name);
    let service = if depth == 3 { labels.next() } else { None };
    let protocol = if depth == 2 || depth == 3 { labels.next() } else { None };
    if depth > 3 || protocol.is_some_and(|label| label != b"_tcp") {
        return Owner::Within(Zone::NetId);
    }
    let netid = labels.next().filter(|l| l.len() == 6).and_then(hex).and_then(|v| NetId::from_u32(v as u32).ok());
    match (depth, netid, service) {
        (0, ..) => Owner::Apex(Zone::NetId),
        (1, Some(netid), _) => Owner::Network(netid),
        (2, Some(netid), _) => Owner::Protocol(netid),
        (3, Some(netid), Some(b"_lwns")) => Owner::Service(netid),
        (3, Some(netid), Some(label)) => {
            port(label).map_or(Owner::Within(Zone::NetId), |port| Owner::Port(netid, port))
        }
        _ => Owner::Within(Zone::NetId),
    }
}

/// `_8444`: a port in decimal digits, without zeros before it.
fn port(label: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(label.strip_prefix(b"_")?).ok()?;
    let port: u16 = digits.parse().ok()?;
    (port != 0 && port.to_string() == digits).then_some(port)
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, &digit| Some(value << 4 | u64::from(hex_digit(digit)?)))
}

/// Lower case only: names have been folded before.
fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().expect(text)
    }

    fn fed() -> Namespace {
        Namespace::new(name("fed.example"), name("broker.fed.example"), &ZoneLabels::default()).expect("valid")
    }

    fn owner(text: &str) -> Owner {
        fed().owner(name(text).wire())
    }

    #[test]
    fn the_example_of_ts002_is_reversed_nibbles() {
        let device: DevEui = "00-00-5E-10-00-00-00-2F".parse().expect("valid");
        assert_eq!(fed().nibble_name(device), "f.2.0.0.0.0.0.0.0.1.e.5.0.0.0.0.deveuis.fed.example.");
        assert_eq!(owner("f.2.0.0.0.0.0.0.0.1.e.5.0.0.0.0.deveuis.fed.example"), Owner::Device(device));
        assert_eq!(owner("00005e100000002f.deveuis.fed.example"), Owner::Device(device));
    }

    #[test]
    fn every_name_has_its_owner() {
        let netid: NetId = "60002d".parse().expect("valid");
        for (text, expected) in [
            ("fed.example", Owner::Apex(Zone::Public)),
            ("broker.fed.example", Owner::Within(Zone::Public)),
            ("deveuis.fed.example", Owner::Apex(Zone::DevEui)),
            ("0.deveuis.fed.example", Owner::Nibbles),
            ("f.e.d.c.b.a.9.8.7.6.5.4.3.2.1.deveuis.fed.example", Owner::Nibbles),
            ("x.deveuis.fed.example", Owner::Within(Zone::DevEui)),
            ("1.x.deveuis.fed.example", Owner::Within(Zone::DevEui)),
            ("x.f.2.0.0.0.0.0.0.0.1.e.5.0.0.0.0.deveuis.fed.example", Owner::Within(Zone::DevEui)),
            ("0.f.2.0.0.0.0.0.0.0.1.e.5.0.0.0.0.deveuis.fed.example", Owner::Within(Zone::DevEui)),
            ("x.00005e100000002f.deveuis.fed.example", Owner::Within(Zone::DevEui)),
            ("00005e100000002g.deveuis.fed.example", Owner::Within(Zone::DevEui)),
            ("0000000000000000.deveuis.fed.example", Owner::Within(Zone::DevEui)),
            ("ffffffffffffffff.deveuis.fed.example", Owner::Within(Zone::DevEui)),
            ("netids.fed.example", Owner::Apex(Zone::NetId)),
            ("60002d.netids.fed.example", Owner::Network(netid)),
            ("_tcp.60002d.netids.fed.example", Owner::Protocol(netid)),
            ("_lwns._tcp.60002d.netids.fed.example", Owner::Service(netid)),
            ("_8444._tcp.60002d.netids.fed.example", Owner::Port(netid, 8444)),
            ("_65536._tcp.60002d.netids.fed.example", Owner::Within(Zone::NetId)),
            ("_lwn._tcp.60002d.netids.fed.example", Owner::Within(Zone::NetId)),
            ("000040.netids.fed.example", Owner::Within(Zone::NetId)),
            ("060002d.netids.fed.example", Owner::Within(Zone::NetId)),
            ("a.60002d.netids.fed.example", Owner::Within(Zone::NetId)),
            ("example", Owner::Outside),
            ("xfed.example", Owner::Outside),
            ("xdeveuis.fed.example", Owner::Within(Zone::Public)),
        ] {
            assert_eq!(owner(text), expected, "{text}");
        }
        assert_eq!(fed().owner(b"\x00"), Owner::Outside);
    }

    #[test]
    fn the_singular_labels_of_the_tutorial_work() {
        let labels = ZoneLabels { deveui: "deveui".to_owned(), netid: "netid".to_owned() };
        let fed = Namespace::new(name("dnsbroker.example"), name("ns.dnsbroker.example"), &labels).expect("valid");
        let device: DevEui = "0004a30b001c0530".parse().expect("valid");
        assert_eq!(fed.owner(name("0004A30B001C0530.deveui.dnsbroker.example").wire()), Owner::Device(device));
        assert_eq!(fed.network_name("000002".parse().expect("valid")), "000002.netid.dnsbroker.example.");
    }

    #[test]
    fn names_that_make_no_federation_are_refused() {
        let new = |fed: &str, broker: &str, deveui: &str, netid: &str| {
            let labels = ZoneLabels { deveui: deveui.to_owned(), netid: netid.to_owned() };
            Namespace::new(name(fed), name(broker), &labels)
        };
        assert!(matches!(new("f.ex", "b.f.ex", "a.b", "n"), Err(NamespaceError::Dotted { .. })));
        assert!(matches!(new("f.ex", "b.f.ex", "", "n"), Err(NamespaceError::Label { .. })));
        assert!(matches!(new("f.ex", "b.f.ex", "same", "Same"), Err(NamespaceError::SameLabel { .. })));
        assert!(matches!(new("f.ex", "b.other", "d", "n"), Err(NamespaceError::ForeignBroker { .. })));
        assert!(matches!(new("f.ex", "b.d.f.ex", "d", "n"), Err(NamespaceError::PrivateBroker { .. })));
        let long = vec!["a".repeat(60); 3].join(".") + "." + &"b".repeat(50);
        assert!(matches!(new(&long, &long, "d", "n"), Err(NamespaceError::Label { .. })));
    }

    proptest! {
        #[test]
        fn names_round_trip(value in 1..u64::MAX) {
            let device = DevEui::from_u64(value).expect("in range");
            let fed = fed();
            prop_assert_eq!(fed.owner(name(&fed.nibble_name(device)).wire()), Owner::Device(device));
            prop_assert_eq!(fed.owner(name(&fed.flat_name(device)).wire()), Owner::Device(device));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let fed = fed();
            let _ = fed.owner(&bytes);
            let mut suffixed = bytes;
            suffixed.extend_from_slice(b"\x07deveuis\x03fed\x07example\x00");
            let _ = fed.owner(&suffixed);
        }
    }
}
