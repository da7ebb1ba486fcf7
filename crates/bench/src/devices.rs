//! DevEUIs such as a federation has: 64 makers, some much larger than others, half of the devices in runs.
//!
//! A maker counts its serial numbers up, and an operator buys boxes of them: that gives runs. The other half is spread
//! over the 40 bits a maker has below its OUI, the worst a table of devices can meet. The same count gives the same
//! list, so that figures of different days can be compared.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use dnsbroker_federation::DevEui;

use crate::output;

/// Makers.
const BLOCKS: usize = 64;
/// Bits below an OUI.
const SUFFIX: u64 = (1 << 40) - 1;
/// Devices of one run.
const RUN: std::ops::Range<u64> = 16..1_024;
/// Where the generator starts.
const SEED: u64 = 0x0004_a30b_001c_0530;

/// The command `devices`.
#[derive(Args)]
pub struct Devices {
    /// How many
    #[arg(long)]
    count: usize,
    /// Where to [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Devices {
    /// Writes the list, one DevEUI a line.
    pub fn run(self) -> anyhow::Result<()> {
        let devices = devices(self.count);
        match self.out {
            Some(path) => {
                let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
                write_list(&devices, file).with_context(|| format!("cannot write {}", path.display()))
            }
            None => Ok(write_list(&devices, output::stdout())?),
        }
    }
}

/// Writes DevEUIs as a plain list.
pub fn write_list(devices: &[DevEui], to: impl Write) -> std::io::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 20, to);
    for device in devices {
        writeln!(to, "{device}")?;
    }
    to.flush()
}

/// A small generator of uniform numbers (SplitMix64): the same on all machines.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of the product is below bound / 2^64.
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }
}

/// The 64 OUIs, each in the upper 24 bits.
fn blocks(random: &mut Random) -> Vec<u64> {
    let mut blocks = BTreeSet::new();
    while blocks.len() < BLOCKS {
        // Neither a group nor locally administered: the two lowest bits of the first octet are clear.
        let oui = random.below(1 << 24) & 0xfc_ffff;
        if oui != 0 {
            blocks.insert(oui << 40);
        }
    }
    blocks.into_iter().collect()
}

/// A maker; those at the front have more devices than those at the end.
fn pick(blocks: &[u64], random: &mut Random) -> u64 {
    let place = random.below(BLOCKS as u64).min(random.below(BLOCKS as u64));
    blocks[place as usize]
}

/// `count` different DevEUIs in ascending order.
pub fn devices(count: usize) -> Vec<DevEui> {
    let mut random = Random::new(SEED);
    let blocks = blocks(&mut random);
    let mut numbers: Vec<u64> = Vec::with_capacity(count);
    while numbers.len() < count {
        while numbers.len() < count {
            let length = RUN.start + random.below(RUN.end - RUN.start);
            let (block, first) = (pick(&blocks, &mut random), random.below(SUFFIX - length));
            numbers.extend((first..first + length).map(|serial| block | serial));
            for _ in 0..length {
                numbers.push(pick(&blocks, &mut random) | random.below(SUFFIX));
            }
        }
        numbers.truncate(count);
        numbers.sort_unstable();
        numbers.dedup();
    }
    // An OUI is neither all zeros nor all ones.
    numbers.into_iter().filter_map(|number| DevEui::from_u64(number).ok()).collect()
}

/// `count` DevEUIs of the same makers that are not among `devices`, which are in order.
pub fn strangers(devices: &[DevEui], count: usize) -> Vec<DevEui> {
    let blocks = blocks(&mut Random::new(SEED));
    let mut random = Random::new(!SEED);
    let numbers = std::iter::repeat_with(|| pick(&blocks, &mut random) | random.below(SUFFIX));
    let numbers = numbers.filter_map(|number| DevEui::from_u64(number).ok());
    numbers.filter(|device| devices.binary_search(device).is_err()).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_count_gives_the_same_list() {
        assert_eq!(devices(10_000), devices(10_000));
        let first: Vec<String> = devices(3).iter().map(ToString::to_string).collect();
        assert_eq!(first.len(), 3);
        assert_ne!(devices(10_000), devices(10_001));
    }

    #[test]
    fn devices_are_different_and_in_order() {
        let devices = devices(50_000);
        assert_eq!(devices.len(), 50_000);
        assert!(devices.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn they_are_of_64_makers_and_about_half_of_them_in_runs() {
        let devices = devices(200_000);
        let makers: BTreeSet<u32> = devices.iter().map(|device| device.oui()).collect();
        assert_eq!(makers.len(), BLOCKS);
        assert!(makers.iter().all(|oui| oui >> 16 & 3 == 0), "no group, not locally administered");
        let next = devices.windows(2).filter(|pair| pair[1].as_u64() - pair[0].as_u64() == 1).count();
        assert!((80_000..120_000).contains(&next), "{next} of 200000 follow their neighbour");
    }

    #[test]
    fn strangers_are_not_registered_and_of_the_same_makers() {
        let devices = devices(5_000);
        let makers: BTreeSet<u32> = blocks(&mut Random::new(SEED)).iter().map(|block| (block >> 40) as u32).collect();
        let strangers = strangers(&devices, 1_000);
        assert_eq!(strangers.len(), 1_000);
        assert!(strangers.iter().all(|stranger| devices.binary_search(stranger).is_err()));
        assert!(strangers.iter().all(|stranger| makers.contains(&stranger.oui())));
    }

    #[test]
    fn a_list_has_one_device_a_line() {
        let mut list = Vec::new();
        let devices = devices(2);
        write_list(&devices, &mut list).expect("memory takes all");
        assert_eq!(String::from_utf8(list).expect("text"), format!("{}\n{}\n", devices[0], devices[1]));
    }
}
