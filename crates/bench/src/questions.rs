//! What is asked: random names out of a list, as DNS queries for an address.

use std::path::Path;

use anyhow::{Context, bail};
use dnsbroker_federation::{DevEui, DomainName};

use crate::devices::Random;

/// Header of a query: ID 0, so that caches see equal questions as equal (RFC 8484, section 4.1), and one question.
const HEADER: [u8; 12] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
/// Type A, class IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

/// Names to ask for. Devices are kept as numbers: ten million of them are 80 megabytes.
#[derive(Debug, Clone)]
pub struct Questions {
    /// The zone of devices.
    apex: DomainName,
    devices: Vec<DevEui>,
    names: Vec<DomainName>,
}

impl Questions {
    /// Of devices in the zone `apex`.
    pub fn of_devices(apex: DomainName, devices: Vec<DevEui>) -> Self {
        Self { apex, devices, names: Vec::new() }
    }

    /// From a file with a DevEUI (16 hexadecimal digits) or a whole name on each line. Empty lines and what follows
    /// a `#` are left out.
    pub fn from_file(path: &Path, apex: DomainName) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut questions = Self::of_devices(apex, Vec::new());
        for (number, line) in text.lines().enumerate() {
            let name = line.split('#').next().unwrap_or_default().trim();
            if name.is_empty() {
                continue;
            }
            if let Ok(device) = name.parse() {
                questions.devices.push(device);
            } else {
                let name = name.parse().with_context(|| format!("{}:{}", path.display(), number + 1))?;
                questions.names.push(name);
            }
        }
        if questions.len() == 0 {
            bail!("{} has no names to ask for", path.display());
        }
        Ok(questions)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.devices.len() + self.names.len()
    }

    /// Writes a query for one of the names into `out`, which is cleared first.
    pub fn write(&self, random: &mut Random, out: &mut Vec<u8>) {
        self.nth(random.below(self.len() as u64) as usize, out);
    }

    /// The same for the name at a place.
    pub fn nth(&self, place: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&HEADER);
        match self.devices.get(place) {
            Some(device) => {
                write_nibbles(*device, out);
                out.extend_from_slice(self.apex.wire());
            }
            None => out.extend_from_slice(self.names[place - self.devices.len()].wire()),
        }
        out.extend_from_slice(&ADDRESS);
    }
}

/// The 16 labels of a device, least significant nibble first (TS002, section 19).
fn write_nibbles(device: DevEui, out: &mut Vec<u8>) {
    for place in 0..16 {
        let nibble = device.as_u64() >> (4 * place) & 15;
        out.extend_from_slice(&[1, b"0123456789abcdef"[nibble as usize]]);
    }
}

#[cfg(test)]
mod tests {
    use dnsbroker_federation::{Namespace, Owner, ZoneLabels};

    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_query_asks_for_the_device_the_federation_means() {
        let device: DevEui = "0004a30b001c0530".parse().expect("a DevEUI");
        let questions = Questions::of_devices(name("deveuis.fed.example"), vec![device]);
        let mut query = Vec::new();
        questions.write(&mut Random::new(1), &mut query);
        let names =
            Namespace::new(name("fed.example"), name("broker.fed.example"), &ZoneLabels::default()).expect("names");
        assert_eq!(names.owner(&query[12..query.len() - 4]), Owner::Device(device));
        assert_eq!(query[query.len() - 4..], ADDRESS);
    }

    #[test]
    fn a_file_has_devices_names_and_comments() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "# all\n0004a30b001c0530\n\n60002d.netids.fed.example # a network\n")
            .expect("written");
        let questions = Questions::from_file(file.path(), name("deveuis.fed.example")).expect("read");
        assert_eq!((questions.devices.len(), questions.names.len()), (1, 1));
        let mut lengths = std::collections::BTreeSet::new();
        let (mut random, mut query) = (Random::new(1), Vec::new());
        for _ in 0..100 {
            questions.write(&mut random, &mut query);
            lengths.insert(query.len());
        }
        assert_eq!(lengths.len(), 2, "both are asked for");
    }

    #[test]
    fn a_file_without_names_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(Questions::from_file(file.path(), name("deveuis.fed.example")).is_err());
    }
}
