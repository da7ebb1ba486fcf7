//! The sample lists in `zones/`: each is told and read as what its README says, and no device stands in two of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use dnsbroker_api::listing::{self, Format, Item, Summary};
use dnsbroker_federation::DevEui;

const SAMPLES: [(&str, Format, u64); 7] = [
    ("atlantic-iot.txt", Format::Plain, 2_500),
    ("alpine-lora.csv", Format::Csv, 2_000),
    ("example-plain.txt", Format::Plain, 60),
    ("example-comma.csv", Format::Csv, 40),
    ("example-chirpstack.json", Format::Json, 30),
    ("example-the-things-stack.json", Format::Json, 30),
    ("example-ndjson.json", Format::Ndjson, 30),
];

/// Blocks of makers in the IEEE registry, as numbers and how many bits they have.
const BLOCKS: [(u64, u32); 8] = [
    (0x0004a3, 24),
    (0x0018b2, 24),
    (0x24e124, 24),
    (0x647fda, 24),
    (0xa81758, 24),
    (0xa84041, 24),
    (0x70b3d5499, 36),
    (0x70b3d57ed, 36),
];

fn zones() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../zones")
}

fn read(name: &str, format: Option<Format>) -> (Summary, Vec<DevEui>) {
    let mut devices = Vec::new();
    let input = BufReader::new(File::open(zones().join(name)).expect("opens"));
    let summary = listing::read(input, format, &mut |item| match item {
        Item::Device(device) => devices.push(device),
        Item::Reject(reject) => panic!("{name}: {reject:?}"),
    });
    (summary.expect("reads"), devices)
}

#[test]
fn each_is_told_and_read_whole() {
    for (name, format, devices) in SAMPLES {
        let (summary, found) = read(name, None);
        assert_eq!(summary, Summary { format, devices, rejected: 0 }, "{name}");
        assert_eq!(read(name, Some(format)), (summary, found), "{name}");
    }
}

#[test]
fn every_sample_is_tested_and_described() {
    let readme = std::fs::read_to_string(zones().join("README.md")).expect("reads");
    for entry in std::fs::read_dir(zones()).expect("reads") {
        let name = entry.expect("reads").file_name().to_string_lossy().into_owned();
        // The zone file is of another kind, and is served by an end-to-end test.
        let other = ["README.md", "public.zone"].contains(&name.as_str());
        assert!(other || SAMPLES.iter().any(|(known, ..)| *known == name), "{name} is not tested");
        assert!(name == "README.md" || readme.contains(&format!("`{name}`")), "{name} is not described");
    }
}

#[test]
fn devices_are_of_makers_that_exist_and_stand_in_one_list() {
    let mut seen = HashMap::new();
    for (name, ..) in SAMPLES {
        for device in read(name, None).1 {
            let made = BLOCKS.iter().any(|(block, bits)| device.as_u64() >> (64 - bits) == *block);
            assert!(made, "{name}: {device} is of no known maker");
            assert_eq!(seen.insert(device, name), None, "{device} stands twice");
        }
    }
    let tutorial = "0004a30b001c0530".parse().expect("a DevEUI");
    assert_eq!(seen.get(&tutorial), Some(&"atlantic-iot.txt"));
}
