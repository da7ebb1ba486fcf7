//! The DevEUI table: every device of the federation and the NetID it resolves to, in 5 to 7 octets a device.
//!
//! - [`Base`] is a sorted list of immutable [`Chunk`]s. Folding changes into it rewrites only the chunks they touch;
//!   the others are shared between the old base and the new.
//! - [`Devices`] is a base and a small overlay of recent changes. It is a snapshot: cloning it is cheap, and it never
//!   changes under a reader.
//!
//! Nibble names are made from the number when they are needed, never stored.

mod chunk;

use std::collections::BTreeMap;
use std::sync::Arc;

use dnsbroker_federation::{DevEui, NetId};
use imbl::OrdMap;

pub use chunk::{Chunk, ChunkError, Entry};
use chunk::{ChunkBuilder, MAX_DEVICES};

use crate::delta::DeviceChange;

/// A chunk with fewer devices than this is merged with its neighbour when a fold comes by.
const SMALL: usize = MAX_DEVICES / 16;

/// A device's new NetID, or `None` where it is gone. Lists of these are sorted by device, one a device.
pub type Edit = (DevEui, Option<NetId>);

/// Sorted immutable chunks that do not overlap.
#[derive(Clone, Default, Debug)]
pub struct Base {
    chunks: Vec<Arc<Chunk>>,
    firsts: Vec<u64>,
    count: usize,
}

/// Why chunks do not make a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {second:016x} begins before block {first:016x} ends: the store is damaged")]
pub struct OverlapError {
    first: u64,
    second: u64,
}

impl Base {
    /// From chunks in order, as read from a store.
    pub fn from_chunks(chunks: impl IntoIterator<Item = Chunk>) -> Result<Self, OverlapError> {
        let mut base = Self::default();
        let mut end = None;
        for chunk in chunks {
            if end.is_some_and(|end| end >= chunk.first()) {
                let first = base.firsts.last().copied().unwrap_or_default();
                return Err(OverlapError { first, second: chunk.first() });
            }
            end = chunk.entry(chunk.count() - 1).map(|(device, _)| device.as_u64());
            base.push(Arc::new(chunk));
        }
        Ok(base)
    }

    fn push(&mut self, chunk: Arc<Chunk>) {
        self.count += chunk.count();
        self.firsts.push(chunk.first());
        self.chunks.push(chunk);
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// Devices in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no device.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn get(&self, device: u64) -> Option<NetId> {
        let index = self.firsts.partition_point(|&first| first <= device).checked_sub(1)?;
        self.chunks[index].get(device)
    }

    /// The place of the first device that is not below `device`: chunk and index in it.
    fn seek(&self, device: u64) -> (usize, usize) {
        match self.firsts.partition_point(|&first| first <= device).checked_sub(1) {
            None => (0, 0),
            Some(index) => (index, self.chunks[index].rank(device)),
        }
    }

    fn iter_from(&self, device: u64) -> impl Iterator<Item = Entry> + '_ {
        let (chunk, mut place) = self.seek(device);
        self.chunks[chunk.min(self.chunks.len())..].iter().flat_map(move |chunk| {
            let start = std::mem::take(&mut place);
            (start..chunk.count()).filter_map(|i| chunk.entry(i))
        })
    }

    /// This base with sorted edits worked in; chunks that no edit touches are shared.
    #[must_use]
    pub fn fold(&self, edits: impl IntoIterator<Item = Edit>) -> Self {
        let mut edits = edits.into_iter().peekable();
        let mut folded = Folded::default();
        for (index, chunk) in self.chunks.iter().enumerate() {
            // Edits below the first chunk belong to the first chunk, all others to the chunk that begins before them.
            let end = self.firsts.get(index + 1).copied();
            let is_mine = |edit: &Edit| end.is_none_or(|end| edit.0.as_u64() < end);
            if edits.peek().is_none_or(|edit| !is_mine(edit)) && !folded.wants_more() {
                folded.keep(Arc::clone(chunk));
                continue;
            }
            let mut old = chunk.iter().peekable();
            while let Some((device, netid)) = edits.next_if(is_mine) {
                while let Some(entry) = old.next_if(|entry| entry.0 < device) {
                    folded.add(entry);
                }
                let _ = old.next_if(|entry| entry.0 == device);
                if let Some(netid) = netid {
                    folded.add((device, netid));
                }
            }
            old.for_each(|entry| folded.add(entry));
        }
        for (device, netid) in edits {
            if let Some(netid) = netid {
                folded.add((device, netid));
            }
        }
        folded.finish()
    }

    /// What turns a stored `older` base into this one: keys of chunks to delete, and chunks to write.
    pub fn diff<'a>(&'a self, older: &'a Self) -> (Vec<u64>, Vec<&'a Arc<Chunk>>) {
        let kept: std::collections::HashSet<*const Chunk> = older.chunks.iter().map(Arc::as_ptr).collect();
        let written: Vec<_> = self.chunks.iter().filter(|c| !kept.contains(&Arc::as_ptr(c))).collect();
        let current: std::collections::HashSet<u64> = self.firsts.iter().copied().collect();
        let deleted = older.firsts.iter().copied().filter(|first| !current.contains(first)).collect();
        (deleted, written)
    }
}

/// A base in the making.
#[derive(Default)]
struct Folded {
    base: Base,
    builder: ChunkBuilder,
}

impl Folded {
    /// Whether the open chunk is too small to stand alone.
    fn wants_more(&self) -> bool {
        (1..SMALL).contains(&self.builder.len())
    }

    fn add(&mut self, (device, netid): Entry) {
        self.builder.push(device, netid);
        if self.builder.is_full() {
            self.close();
        }
    }

    fn keep(&mut self, chunk: Arc<Chunk>) {
        self.close();
        self.base.push(chunk);
    }

    fn close(&mut self) {
        if let Some(chunk) = self.builder.finish() {
            self.base.push(Arc::new(chunk));
        }
    }

    fn finish(mut self) -> Base {
        self.close();
        self.base
    }
}

/// A snapshot of all devices: the base and what has changed since.
#[derive(Clone, Default, Debug)]
pub struct Devices {
    base: Arc<Base>,
    overlay: OrdMap<u64, Option<NetId>>,
    counts: Arc<BTreeMap<NetId, u64>>,
}

impl Devices {
    /// Of a base alone.
    pub fn new(base: Base) -> Self {
        let mut counts = BTreeMap::new();
        for (netid, devices) in base.chunks.iter().flat_map(|chunk| chunk.counts()) {
            *counts.entry(netid).or_default() += devices;
        }
        Self { base: Arc::new(base), overlay: OrdMap::new(), counts: Arc::new(counts) }
    }

    /// The NetID of a device.
    pub fn get(&self, device: DevEui) -> Option<NetId> {
        let device = device.as_u64();
        if !self.overlay.is_empty()
            && let Some(netid) = self.overlay.get(&device)
        {
            return *netid;
        }
        self.base.get(device)
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many have this NetID.
    pub fn count(&self, netid: NetId) -> u64 {
        self.counts.get(&netid).copied().unwrap_or_default()
    }

    /// How many there are of each OUI (the first 24 bits). Blocks of one OUI are not looked into.
    pub fn ouis(&self) -> BTreeMap<u32, u64> {
        let oui = |device: u64| (device >> 40) as u32;
        let mut ouis: BTreeMap<u32, u64> = BTreeMap::new();
        for chunk in &self.base.chunks {
            let last = chunk.entry(chunk.count() - 1).map_or(u64::MAX, |(device, _)| device.as_u64());
            if oui(chunk.first()) == oui(last) {
                *ouis.entry(oui(last)).or_default() += chunk.count() as u64;
            } else {
                chunk.iter().for_each(|(device, _)| *ouis.entry(oui(device.as_u64())).or_default() += 1);
            }
        }
        for (&device, netid) in &self.overlay {
            let known = ouis.entry(oui(device)).or_default();
            *known += u64::from(netid.is_some());
            *known -= u64::from(self.base.get(device).is_some());
        }
        ouis.retain(|_, devices| *devices > 0);
        ouis
    }

    /// How many recent changes are not in the base.
    pub fn overlay_len(&self) -> usize {
        self.overlay.len()
    }

    /// The base, to be stored.
    pub fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// All devices in order, from the first that is not below `from`.
    pub fn iter_from(&self, from: u64) -> impl Iterator<Item = Entry> + '_ {
        let mut base = self.base.iter_from(from).peekable();
        let mut overlay = self.overlay.range(from..).peekable();
        std::iter::from_fn(move || {
            loop {
                let Some(&(&device, &netid)) = overlay.peek() else { return base.next() };
                if let Some(entry) = base.next_if(|entry| entry.0.as_u64() < device) {
                    return Some(entry);
                }
                let _ = base.next_if(|entry| entry.0.as_u64() == device);
                overlay.next();
                if let (Ok(device), Some(netid)) = (DevEui::from_u64(device), netid) {
                    return Some((device, netid));
                }
            }
        })
    }

    /// All devices in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.iter_from(0)
    }

    /// The table after changes, sorted by device. Many go straight into the base, few into the overlay.
    #[must_use]
    pub fn edited(&self, changes: &[DeviceChange]) -> Self {
        let mut next = self.clone();
        let counts = Arc::make_mut(&mut next.counts);
        for change in changes {
            if let Some(before) = change.before {
                let left = counts.get(&before).copied().unwrap_or_default().saturating_sub(1);
                if left == 0 {
                    counts.remove(&before)
                } else {
                    counts.insert(before, left)
                };
            }
            if let Some(after) = change.after {
                *counts.entry(after).or_default() += 1;
            }
        }
        if changes.len() > Self::OVERLAY_LIMIT {
            next.base = Arc::new(next.folded_base().fold(changes.iter().map(|c| (c.device, c.after))));
            next.overlay = OrdMap::new();
            return next;
        }
        for change in changes {
            next.overlay.insert(change.device.as_u64(), change.after);
        }
        next
    }

    /// The overlay that a base of any size may have before it should be folded.
    pub const OVERLAY_LIMIT: usize = 16 * 1024;

    /// Whether the overlay has grown so that a fold pays: the larger the base, the more a fold costs.
    pub fn wants_fold(&self) -> bool {
        self.overlay.len() > Self::OVERLAY_LIMIT.max(self.base.len() / 256)
    }

    fn folded_base(&self) -> Base {
        let edits = self.overlay.iter().filter_map(|(&device, &netid)| Some((DevEui::from_u64(device).ok()?, netid)));
        self.base.fold(edits)
    }

    /// The same devices with everything in the base.
    #[must_use]
    pub fn folded(&self) -> Self {
        if self.overlay.is_empty() {
            return self.clone();
        }
        Self { base: Arc::new(self.folded_base()), overlay: OrdMap::new(), counts: Arc::clone(&self.counts) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<u64, u32>;

    fn edits(model: &Model, wanted: &BTreeMap<u64, Option<u32>>) -> Vec<DeviceChange> {
        let netid = |n: &u32| NetId::from_u32(*n).expect("valid");
        wanted
            .iter()
            .map(|(&device, after)| {
                let before = model.get(&device).map(netid);
                DeviceChange {
                    device: DevEui::from_u64(device).expect("valid"),
                    before,
                    after: after.as_ref().map(netid),
                }
            })
            .filter(|change| change.before != change.after)
            .collect()
    }

    fn apply(model: &mut Model, wanted: &BTreeMap<u64, Option<u32>>) {
        for (&device, &after) in wanted {
            match after {
                Some(netid) => model.insert(device, netid),
                None => model.remove(&device),
            };
        }
    }

    fn check(devices: &Devices, model: &Model) {
        let listed: Model = devices.iter().map(|(d, n)| (d.as_u64(), n.as_u32())).collect();
        assert_eq!(&listed, model);
        assert_eq!(devices.len(), model.len() as u64);
        for (&device, &netid) in model {
            let device = DevEui::from_u64(device).expect("valid");
            assert_eq!(devices.get(device).map(NetId::as_u32), Some(netid));
        }
        let mut counts = BTreeMap::new();
        for netid in model.values() {
            *counts.entry(*netid).or_default() += 1;
        }
        let counted: BTreeMap<u32, u64> = devices.counts.iter().map(|(n, c)| (n.as_u32(), *c)).collect();
        assert_eq!(counted, counts);
        let mut ouis = BTreeMap::new();
        for device in model.keys() {
            *ouis.entry((device >> 40) as u32).or_default() += 1;
        }
        assert_eq!(devices.ouis(), ouis);
        Base::from_chunks(devices.base.chunks.iter().map(|c| Chunk::clone(c))).expect("in order");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn edits_and_folds_in_any_order_equal_a_map(
            steps in proptest::collection::vec(
                (proptest::collection::btree_map(1..3_000_u64, proptest::option::of(0..8_u32), 0..300), any::<bool>()),
                1..8,
            ),
            from in 0..3_100_u64,
        ) {
            let (mut devices, mut model) = (Devices::default(), Model::new());
            for (wanted, fold) in &steps {
                let older = devices.base.clone();
                devices = devices.edited(&edits(&model, wanted));
                apply(&mut model, wanted);
                if *fold {
                    devices = devices.folded();
                    let (deleted, written) = devices.base.diff(&older);
                    let mut stored: BTreeMap<u64, Arc<Chunk>> =
                        older.chunks.iter().map(|c| (c.first(), Arc::clone(c))).collect();
                    for key in deleted {
                        prop_assert!(stored.remove(&key).is_some());
                    }
                    for chunk in written {
                        stored.insert(chunk.first(), Arc::clone(chunk));
                    }
                    let stored: Vec<_> = stored.into_values().collect();
                    prop_assert_eq!(&stored, &devices.base.chunks);
                }
                check(&devices, &model);
            }
            let tail: Model = devices.iter_from(from).map(|(d, n)| (d.as_u64(), n.as_u32())).collect();
            let expected: Model = model.range(from..).map(|(d, n)| (*d, *n)).collect();
            prop_assert_eq!(tail, expected);
        }
    }

    #[test]
    fn a_fold_rewrites_only_the_chunks_it_touches() {
        let all: BTreeMap<u64, Option<u32>> = (1..200_000).map(|n| (n * 7_919, Some((n % 7) as u32))).collect();
        let mut model = Model::new();
        let first = Devices::default().edited(&edits(&model, &all));
        apply(&mut model, &all);
        check(&first, &model);
        assert!(first.base.chunks.len() > 8);
        let few = BTreeMap::from([(7_919 * 1_000, None), (7_919 * 1_000 + 1, Some(9))]);
        let second = first.edited(&edits(&model, &few)).folded();
        apply(&mut model, &few);
        check(&second, &model);
        let (deleted, written) = second.base.diff(&first.base);
        assert!(deleted.len() <= 1 && written.len() <= 2, "{deleted:?} {written:?}");
    }

    #[test]
    fn a_snapshot_does_not_change_under_its_reader() {
        let device = DevEui::from_u64(42).expect("valid");
        let netid = NetId::from_u32(0x13).expect("valid");
        let before = Devices::default();
        let after = before.edited(&[DeviceChange { device, before: None, after: Some(netid) }]);
        assert_eq!((before.get(device), after.get(device)), (None, Some(netid)));
    }
}
