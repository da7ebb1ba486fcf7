//! What changes between two serials: the one form that REST edits, lists, updates and transfers all become.
//!
//! A delta carries what was there before as well as what comes after, so that it can be undone in the mind of a
//! secondary (IXFR, RFC 1995) without looking anything up. Its stored form is the journal:
//!
//! ```text
//! u8 version (1) | u32 serial before | u32 serial after | u32 N | N x { u64 device | u32 before | u32 after }
//! | JSON of the networks that changed          (all big-endian; ffffffff is "none")
//! ```

use std::fmt;
use std::net::IpAddr;

use dnsbroker_federation::{DevEui, DomainName, MemberId, NetId, Serial};
use serde::{Deserialize, Serialize};

/// A device that came, went or moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceChange {
    /// The device.
    pub device: DevEui,
    /// Its NetID before, if it was registered.
    pub before: Option<NetId>,
    /// Its NetID after, if it still is.
    pub after: Option<NetId>,
}

/// A NetID, its holder, and where its LNS is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The NetID.
    pub netid: NetId,
    /// The member that holds it.
    pub member: MemberId,
    /// Addresses of the LNS; at least one.
    pub addresses: Vec<IpAddr>,
    /// TCP port of the LNS, published by SRV and NAPTR when known (TS002, section 19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name in the LNS's certificate, published as the SRV target; the NetID's own name otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<DomainName>,
    /// What its servers are trusted by, where that is not the federation's CA; published when the port is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tlsa: Vec<Tlsa>,
}

/// A TLSA record by the SHA-256 of a public key: selector 1, matching type 1 (RFC 6698, section 2.1). It is as good as
/// the channel it comes by, which is not DNSSEC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tlsa {
    /// 2 for a CA (DANE-TA), 3 for the server's own certificate (DANE-EE).
    usage: u8,
    /// SHA-256 of the SubjectPublicKeyInfo.
    key: [u8; 32],
}

impl Tlsa {
    /// Of a public key.
    pub fn of_key(is_ca: bool, sha256: [u8; 32]) -> Self {
        Self { usage: if is_ca { 2 } else { 3 }, key: sha256 }
    }

    /// RDATA.
    pub fn rdata(&self) -> Vec<u8> {
        [&[self.usage, 1, 1], &self.key[..]].concat()
    }
}

impl fmt::Display for Tlsa {
    /// As in a zone file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} 1 1 ", self.usage)?;
        self.key.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// A NetID that came, went or has other data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkChange {
    /// What was there.
    pub before: Option<Network>,
    /// What is there now.
    pub after: Option<Network>,
}

/// All that changes from one serial to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The serial it starts from.
    pub before: Serial,
    /// The serial it leads to.
    pub after: Serial,
    /// Devices, sorted, one change a device.
    pub devices: Vec<DeviceChange>,
    /// NetIDs, sorted, one change a NetID.
    pub networks: Vec<NetworkChange>,
}

/// Why bytes are not a delta.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// Written by another version of dnsbroker.
    #[error("journal entry has version {0}; this program reads version 1")]
    Version(u8),
    /// Too short, or a value no writer makes.
    #[error("journal entry is damaged at octet {at}")]
    Damaged {
        /// Where.
        at: usize,
    },
    /// The networks do not read.
    #[error("journal entry is damaged in its networks")]
    Networks(#[source] serde_json::Error),
}

const VERSION: u8 = 1;
const HEADER: usize = 13;
const CHANGE: usize = 16;
const NONE: u32 = u32::MAX;

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.networks.is_empty()
    }

    /// Octets of the stored form, networks apart.
    pub fn device_octets(&self) -> usize {
        self.devices.len() * CHANGE
    }

    /// The stored form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = Vec::with_capacity(HEADER + self.device_octets() + 64);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.before.get().to_be_bytes());
        bytes.extend_from_slice(&self.after.get().to_be_bytes());
        bytes.extend_from_slice(&(self.devices.len() as u32).to_be_bytes());
        for change in &self.devices {
            bytes.extend_from_slice(&change.device.as_u64().to_be_bytes());
            bytes.extend_from_slice(&change.before.map_or(NONE, NetId::as_u32).to_be_bytes());
            bytes.extend_from_slice(&change.after.map_or(NONE, NetId::as_u32).to_be_bytes());
        }
        serde_json::to_writer(&mut bytes, &self.networks)?;
        Ok(bytes)
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DeltaError> {
        let number = |at: usize| match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(octets) => Ok(u32::from_be_bytes(*octets)),
            None => Err(DeltaError::Damaged { at }),
        };
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(DeltaError::Version(other)),
            None => return Err(DeltaError::Damaged { at: 0 }),
        }
        let count = number(9)? as usize;
        let end = count.checked_mul(CHANGE).and_then(|n| n.checked_add(HEADER)).filter(|&end| end <= bytes.len());
        let end = end.ok_or(DeltaError::Damaged { at: 9 })?;
        let mut devices = Vec::with_capacity(count);
        for at in (HEADER..end).step_by(CHANGE) {
            let damaged = || DeltaError::Damaged { at };
            let netid = |at| match number(at)? {
                NONE => Ok(None),
                value => NetId::from_u32(value).map(Some).map_err(|_| DeltaError::Damaged { at }),
            };
            let device = u64::from(number(at)?) << 32 | u64::from(number(at + 4)?);
            let device = DevEui::from_u64(device).map_err(|_| damaged())?;
            let change = DeviceChange { device, before: netid(at + 8)?, after: netid(at + 12)? };
            let in_order = devices.last().is_none_or(|last: &DeviceChange| last.device < device);
            if !in_order || change.before == change.after {
                return Err(damaged());
            }
            devices.push(change);
        }
        let networks = serde_json::from_slice(&bytes[end..]).map_err(DeltaError::Networks)?;
        Ok(Self { before: Serial::new(number(1)?), after: Serial::new(number(5)?), devices, networks })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network() -> Network {
        Network {
            netid: "60002d".parse().expect("valid"),
            member: "atlantic-iot".parse().expect("valid"),
            addresses: vec!["192.0.2.7".parse().expect("valid"), "2001:db8::7".parse().expect("valid")],
            port: Some(8080),
            target: Some("lns.atlantic.example".parse().expect("valid")),
            tlsa: vec![Tlsa::of_key(true, [7; 32])],
        }
    }

    proptest! {
        #[test]
        fn deltas_round_trip(
            devices in proptest::collection::btree_map(1..u64::MAX, proptest::option::of(0..64_u32), 0..50),
            serial in any::<u32>(),
        ) {
            let devices = devices.into_iter().map(|(device, netid)| DeviceChange {
                device: DevEui::from_u64(device).expect("valid"),
                before: netid.map(|n| NetId::from_u32(n).expect("valid")),
                after: netid.is_none().then(|| NetId::from_u32(7).expect("valid")),
            }).collect();
            let networks = vec![NetworkChange { before: None, after: Some(network()) }];
            let before = Serial::new(serial);
            let delta = Delta { before, after: before.next(), devices, networks };
            let bytes = delta.encode().expect("encodes");
            prop_assert_eq!(Delta::decode(&bytes).expect("decodes"), delta);
            for cut in 0..bytes.len().min(200) {
                prop_assert!(Delta::decode(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Delta::decode(&bytes);
            let mut versioned = bytes;
            versioned.insert(0, VERSION);
            let _ = Delta::decode(&versioned);
        }
    }
}
