//! A run of devices packed into one immutable block of bytes, the same in memory and in the store.
//!
//! A million devices of one maker differ only in their low bits, so a chunk stores short differences, all of one
//! width within a run of 128, and finds a device by two binary searches that touch few cache lines. Layout, little-endian:
//!
//! ```text
//! 0  u8   version (1)
//! 1  u8   bits of a route
//! 2  u16  P, NetIDs in the palette
//! 4  u32  N, devices
//! 8       palette:  P x { u32 NetID, u32 devices that have it }
//!         runs:     ceil(N / 128) x { u64 first device, u32 bit offset into keys, u8 width }
//!         keys:     device - first, `width` bits each, run after run
//!         routes:   N x index into the palette
//!         16 zero octets, so that a wide read at the end stays inside
//! ```
//!
//! Measured on uniformly random devices in 64 OUI blocks: 4.7 octets a device at 10 million.

use dnsbroker_federation::{DevEui, NetId};

/// Where a device is registered: its key and the NetID it resolves to.
pub type Entry = (DevEui, NetId);

const VERSION: u8 = 1;
const HEADER: usize = 8;
const PALETTE_ENTRY: usize = 8;
const RUN_ENTRY: usize = 13;
const PADDING: usize = 16;
/// Devices that share a width.
const RUN: usize = 128;
/// A chunk is closed before it grows past this: with its key it then fits a 32 KiB page of the store.
pub(super) const MAX_OCTETS: usize = 30 * 1024;
/// A chunk is closed at this many devices, however small: it is the unit that a fold rewrites.
pub(super) const MAX_DEVICES: usize = 16 * 1024;

/// Immutable sorted devices.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    bytes: Box<[u8]>,
    count: u32,
    palette: u16,
    route_bits: u8,
    keys: u32,
    routes: u32,
}

/// Why bytes are not a chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Written by another version of dnsbroker.
    #[error("block has version {0}; this program reads version 1")]
    Version(u8),
    /// Lengths inside do not fit the bytes.
    #[error("block is damaged: its {what} do not fit its {octets} octets")]
    Size {
        /// Which part.
        what: &'static str,
        /// Octets there are.
        octets: usize,
    },
    /// A value that no builder writes.
    #[error("block is damaged: {0}")]
    Value(&'static str),
}

impl Chunk {
    /// Takes bytes read from a store, checking once all that look-ups rely on.
    pub fn from_bytes(bytes: Box<[u8]>) -> Result<Self, ChunkError> {
        let size = |what| ChunkError::Size { what, octets: bytes.len() };
        if bytes.len() < HEADER + PADDING {
            return Err(size("header"));
        }
        if bytes[0] != VERSION {
            return Err(ChunkError::Version(bytes[0]));
        }
        let route_bits = bytes[1];
        let palette = u16::from_le_bytes([bytes[2], bytes[3]]);
        let count = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if count == 0 || palette == 0 || route_bits > 16 {
            return Err(ChunkError::Value("it has no devices, no NetIDs or routes of more than 16 bits"));
        }
        let runs = (count as usize).div_ceil(RUN);
        let keys = HEADER + usize::from(palette) * PALETTE_ENTRY + runs * RUN_ENTRY;
        if keys + PADDING > bytes.len() {
            return Err(size("runs"));
        }
        let mut chunk = Self { bytes, count, palette, route_bits, keys: keys as u32, routes: 0 };
        chunk.routes = chunk.check_runs(runs)? as u32;
        chunk.check_routes()?;
        Ok(chunk)
    }

    /// Checks the run directory and gives where the routes start.
    fn check_runs(&self, runs: usize) -> Result<usize, ChunkError> {
        let mut bits = 0_u64;
        let mut last = None;
        for index in 0..runs {
            let run = self.run(index);
            if u64::from(run.offset) != bits || run.width > 64 {
                return Err(ChunkError::Value("a run starts where the one before does not end"));
            }
            if last.is_some_and(|last| last >= run.first) {
                return Err(ChunkError::Value("its runs are out of order"));
            }
            last = Some(run.first);
            bits += run.width as u64 * self.run_len(index) as u64;
        }
        let routes = self.keys as usize + bits.div_ceil(8) as usize;
        let end = routes + (usize::from(self.route_bits) * self.count as usize).div_ceil(8) + PADDING;
        if end != self.bytes.len() {
            return Err(ChunkError::Size { what: "devices", octets: self.bytes.len() });
        }
        Ok(routes)
    }

    fn check_routes(&self) -> Result<(), ChunkError> {
        let mut total = 0_u64;
        for index in 0..usize::from(self.palette) {
            let (netid, devices) = self.palette_entry(index);
            NetId::from_u32(netid).map_err(|_| ChunkError::Value("a NetID in its palette is no NetID"))?;
            total += u64::from(devices);
        }
        if total != u64::from(self.count) {
            return Err(ChunkError::Value("its counts by NetID do not add up"));
        }
        // Powers of two need no check: each index is in the palette.
        if usize::from(self.palette) != 1 << self.route_bits {
            let over = (0..self.count as usize).any(|i| self.route(i) >= usize::from(self.palette));
            if over {
                return Err(ChunkError::Value("a device's NetID is not in its palette"));
            }
        }
        Ok(())
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many devices it holds; never zero.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// The number of its first device.
    pub fn first(&self) -> u64 {
        self.run(0).first
    }

    /// NetIDs and how many devices here have each.
    pub fn counts(&self) -> impl Iterator<Item = (NetId, u64)> + '_ {
        (0..usize::from(self.palette)).filter_map(|index| {
            let (netid, devices) = self.palette_entry(index);
            Some((NetId::from_u32(netid).ok()?, u64::from(devices)))
        })
    }

    /// The NetID of a device.
    pub fn get(&self, device: u64) -> Option<NetId> {
        let runs = self.count().div_ceil(RUN);
        let index = partition_point(runs, |i| self.run(i).first <= device).checked_sub(1)?;
        let run = self.run(index);
        let wanted = device - run.first;
        let len = self.run_len(index);
        let place = partition_point(len, |i| self.key(&run, i) < wanted);
        if place == len || self.key(&run, place) != wanted {
            return None;
        }
        self.netid(self.route(index * RUN + place))
    }

    /// All devices in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.count()).filter_map(|i| self.entry(i))
    }

    /// How many devices are below `device`.
    pub(super) fn rank(&self, device: u64) -> usize {
        let runs = self.count().div_ceil(RUN);
        let Some(index) = partition_point(runs, |i| self.run(i).first <= device).checked_sub(1) else { return 0 };
        let run = self.run(index);
        index * RUN + partition_point(self.run_len(index), |i| self.key(&run, i) < device - run.first)
    }

    /// The device at a place in the order.
    pub(super) fn entry(&self, place: usize) -> Option<Entry> {
        if place >= self.count() {
            return None;
        }
        let run = self.run(place / RUN);
        let device = DevEui::from_u64(run.first.wrapping_add(self.key(&run, place % RUN))).ok()?;
        Some((device, self.netid(self.route(place))?))
    }

    fn netid(&self, index: usize) -> Option<NetId> {
        NetId::from_u32(self.palette_entry(index).0).ok()
    }

    fn palette_entry(&self, index: usize) -> (u32, u32) {
        let at = HEADER + index * PALETTE_ENTRY;
        (self.u32_at(at), self.u32_at(at + 4))
    }

    fn run(&self, index: usize) -> Run {
        let at = HEADER + usize::from(self.palette) * PALETTE_ENTRY + index * RUN_ENTRY;
        Run { first: self.u64_at(at), offset: self.u32_at(at + 8), width: u32::from(self.bytes[at + 12]) }
    }

    fn run_len(&self, index: usize) -> usize {
        (self.count() - index * RUN).min(RUN)
    }

    fn key(&self, run: &Run, place: usize) -> u64 {
        let bit = run.offset as usize + place * run.width as usize;
        self.bits(self.keys as usize, bit, run.width)
    }

    fn route(&self, place: usize) -> usize {
        let width = u32::from(self.route_bits);
        self.bits(self.routes as usize, place * width as usize, width) as usize
    }

    fn bits(&self, base: usize, bit: usize, width: u32) -> u64 {
        let at = base + bit / 8;
        let shift = (bit % 8) as u32;
        if shift + width <= 64 {
            if width == 0 {
                return 0;
            }
            self.u64_at(at) >> shift & (u64::MAX >> (64 - width))
        } else {
            let low = u128::from(self.u64_at(at)) | u128::from(self.u64_at(at + 8)) << 64;
            (low >> shift) as u64 & (u64::MAX >> (64 - width))
        }
    }

    fn u32_at(&self, at: usize) -> u32 {
        self.bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
    }

    fn u64_at(&self, at: usize) -> u64 {
        self.bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({} devices from {:016x}, {} octets)", self.count, self.first(), self.bytes.len())
    }
}

struct Run {
    first: u64,
    offset: u32,
    width: u32,
}

fn partition_point(len: usize, mut below: impl FnMut(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if below(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// Collects sorted devices and cuts them into chunks.
#[derive(Default)]
pub(super) struct ChunkBuilder {
    palette: Vec<(NetId, u32)>,
    runs: Vec<(u64, u32, u32)>,
    keys: BitWriter,
    routes: Vec<u16>,
    open: Vec<u64>,
    /// NetIDs come in long stretches more often than not.
    last_route: Option<(NetId, u16)>,
}

impl ChunkBuilder {
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Adds a device that is larger than all before.
    pub fn push(&mut self, device: DevEui, netid: NetId) {
        self.open.push(device.as_u64());
        let route = self.route_of(netid);
        self.routes.push(route);
        if self.open.len() == RUN {
            self.close_run();
        }
    }

    fn route_of(&mut self, netid: NetId) -> u16 {
        let index = match self.last_route {
            Some((last, index)) if last == netid => usize::from(index),
            _ => self.palette.iter().position(|(known, _)| *known == netid).unwrap_or_else(|| {
                self.palette.push((netid, 0));
                self.palette.len() - 1
            }),
        };
        self.palette[index].1 += 1;
        self.last_route = Some((netid, index as u16));
        index as u16
    }

    /// Whether it is time to [`finish`](Self::finish).
    pub fn is_full(&self) -> bool {
        // One more run may add a palette entry and 64 bits a device, and widen every route by a bit.
        let one_more_run = RUN * (PALETTE_ENTRY + 8 + 2) + RUN_ENTRY + self.len() / 8;
        self.len() >= MAX_DEVICES || (self.open.is_empty() && self.octets() + one_more_run > MAX_OCTETS)
    }

    fn octets(&self) -> usize {
        let routes = (route_bits(self.palette.len()) as usize * self.len()).div_ceil(8);
        let directory = self.palette.len() * PALETTE_ENTRY + self.runs.len() * RUN_ENTRY;
        HEADER + directory + self.keys.bits.div_ceil(8) as usize + routes + PADDING
    }

    fn close_run(&mut self) {
        let (Some(&first), Some(&last)) = (self.open.first(), self.open.last()) else { return };
        let width = u64::BITS - (last - first).leading_zeros();
        self.runs.push((first, self.keys.bits as u32, width));
        for device in self.open.drain(..) {
            self.keys.push(device - first, width);
        }
    }

    /// The chunk, if there is any device, leaving the builder empty.
    pub fn finish(&mut self) -> Option<Chunk> {
        self.close_run();
        if self.routes.is_empty() {
            return None;
        }
        let built = std::mem::take(self);
        let route_bits = route_bits(built.palette.len());
        let mut bytes = Vec::with_capacity(built.octets());
        bytes.extend_from_slice(&[VERSION, route_bits as u8]);
        bytes.extend_from_slice(&(built.palette.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(built.routes.len() as u32).to_le_bytes());
        for (netid, devices) in &built.palette {
            bytes.extend_from_slice(&netid.as_u32().to_le_bytes());
            bytes.extend_from_slice(&devices.to_le_bytes());
        }
        for (first, offset, width) in &built.runs {
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.push(*width as u8);
        }
        let keys = bytes.len() as u32;
        bytes.extend_from_slice(&built.keys.finish());
        let routes_at = bytes.len() as u32;
        let mut routes = BitWriter::default();
        for route in &built.routes {
            routes.push(u64::from(*route), route_bits);
        }
        bytes.extend_from_slice(&routes.finish());
        bytes.extend_from_slice(&[0; PADDING]);
        Some(Chunk {
            bytes: bytes.into(),
            count: built.routes.len() as u32,
            palette: built.palette.len() as u16,
            route_bits: route_bits as u8,
            keys,
            routes: routes_at,
        })
    }
}

/// Bits to tell `palette` NetIDs apart.
fn route_bits(palette: usize) -> u32 {
    usize::BITS - palette.saturating_sub(1).leading_zeros()
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    bits: u64,
    pending: u128,
    held: u32,
}

impl BitWriter {
    fn push(&mut self, value: u64, width: u32) {
        self.pending |= u128::from(value) << self.held;
        self.held += width;
        self.bits += u64::from(width);
        while self.held >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.held -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.held > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn build(entries: &BTreeMap<u64, u32>) -> Vec<Chunk> {
        let mut builder = ChunkBuilder::default();
        let mut chunks = Vec::new();
        for (&device, &netid) in entries {
            builder.push(DevEui::from_u64(device).expect("valid"), NetId::from_u32(netid).expect("valid"));
            if builder.is_full() {
                chunks.extend(builder.finish());
            }
        }
        chunks.extend(builder.finish());
        chunks
    }

    fn check(entries: &BTreeMap<u64, u32>) {
        let chunks = build(entries);
        let back: Vec<Entry> = chunks.iter().flat_map(Chunk::iter).collect();
        assert_eq!(back.len(), entries.len());
        for (entry, (&device, &netid)) in back.iter().zip(entries) {
            assert_eq!((entry.0.as_u64(), entry.1.as_u32()), (device, netid));
        }
        for chunk in &chunks {
            assert!(chunk.as_bytes().len() <= MAX_OCTETS, "{chunk:?}");
            let again = Chunk::from_bytes(chunk.as_bytes().into()).expect("what was built is valid");
            assert_eq!(&again, chunk);
            for (device, netid) in chunk.iter() {
                assert_eq!(chunk.get(device.as_u64()), Some(netid));
                for near in [device.as_u64().wrapping_sub(1), device.as_u64().wrapping_add(1)] {
                    let expected = entries.get(&near).copied().filter(|_| chunk.iter().any(|e| e.0.as_u64() == near));
                    assert_eq!(chunk.get(near).map(NetId::as_u32), expected);
                }
            }
        }
    }

    #[test]
    fn the_widest_and_the_densest_keys_are_kept() {
        check(&BTreeMap::from([(1, 0), (u64::MAX - 1, 0xff_ffff)]));
        check(&(1..300).map(|n| (n, 1)).collect());
        check(&BTreeMap::from([(0x8000_0000_0000_0000, 1)]));
    }

    #[test]
    fn dense_and_sparse_lists_are_cut_into_bounded_chunks() {
        let dense: BTreeMap<u64, u32> = (1..40_000).map(|n| (0x0004_a30b_0000_0000 + n, 0x13)).collect();
        let chunks = build(&dense);
        assert!(chunks.iter().all(|c| c.count() <= MAX_DEVICES && c.as_bytes().len() <= MAX_OCTETS));
        let sparse: BTreeMap<u64, u32> =
            (1..40_000).map(|n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1), 0x60_0000 + n as u32)).collect();
        let chunks = build(&sparse);
        assert!(chunks.iter().all(|c| c.as_bytes().len() <= MAX_OCTETS), "{chunks:?}");
        assert_eq!(chunks.iter().map(Chunk::count).sum::<usize>(), sparse.len());
    }

    proptest! {
        #[test]
        fn chunks_hold_exactly_what_was_put_in(
            entries in proptest::collection::btree_map(1..u64::MAX, 0..64_u32, 1..400),
            squeeze in 0..40_u32,
        ) {
            let squeezed = entries.into_iter().map(|(device, netid)| ((device >> squeeze).max(1), netid)).collect();
            check(&squeezed);
        }

        #[test]
        fn damaged_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            device in any::<u64>(),
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(chunk) = Chunk::from_bytes(bytes.into()) {
                let _ = (chunk.get(device), chunk.iter().count());
            }
        }

        #[test]
        fn a_flipped_octet_is_refused_or_still_reads(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let entries: BTreeMap<u64, u32> = (1..500).map(|n| (n * 977, (n % 5) as u32)).collect();
            let mut bytes = build(&entries)[0].as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(chunk) = Chunk::from_bytes(bytes.into()) {
                for device in (0..500).map(|n| n * 977) {
                    let _ = chunk.get(device);
                }
                let _ = chunk.iter().count();
            }
        }
    }
}
