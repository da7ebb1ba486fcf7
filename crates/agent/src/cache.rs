//! Answers by question, bounded in number, in two generations: what is used moves to the young one; when that is full, the
//! old one is forgotten as a whole. So nothing is ever scanned, and what stays is what was used of late.
//!
//! A question is kept as two keyed hashes of 64 bits: nobody who does not know the keys finds two that agree.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::answer::{Answer, Packed};

/// Independent parts, so that threads seldom wait for each other.
const SHARDS: usize = 16;

/// A question, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64, u64);

/// The key is a hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0.rotate_left(8) ^ u64::from(*octet);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = self.0.rotate_left(1) ^ value;
    }
}

type Generation = HashMap<Key, Packed, BuildHasherDefault<AsIs>>;

#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The answer.
    pub answer: Answer,
    /// Seconds since it came.
    pub age: u32,
}

impl Found {
    /// Whether it may be given as it is.
    pub fn is_fresh(&self) -> bool {
        self.age < self.answer.ttl
    }

    /// Whether it will soon be over, so that it is worth asking again.
    pub fn is_ending(&self) -> bool {
        self.answer.ttl >= 10 && self.answer.ttl.saturating_sub(self.age) <= self.answer.ttl / 10
    }

    /// Seconds since its end.
    pub fn overdue(&self) -> u32 {
        self.age.saturating_sub(self.answer.ttl)
    }
}

/// The cache.
pub struct Cache {
    keys: [RandomState; 2],
    shards: [Mutex<Shard>; SHARDS],
    /// Answers of one generation of one shard.
    bound: usize,
    begun: Instant,
}

impl Cache {
    /// For so many answers.
    pub fn new(names: usize) -> Self {
        Self {
            keys: [RandomState::new(), RandomState::new()],
            shards: std::array::from_fn(|_| Mutex::default()),
            bound: (names / 2 / SHARDS).max(1),
            begun: Instant::now(),
        }
    }

    /// The key of a question to a route.
    pub fn key(&self, route: u16, question: &[u8], flags: u8) -> Key {
        let hash = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write_u16(route);
            hasher.write_u8(flags);
            hasher.write(question);
            hasher.finish()
        };
        Key(hash(&self.keys[0]), hash(&self.keys[1]))
    }

    /// The answer to a question, fresh or not.
    pub fn get(&self, key: Key) -> Option<Found> {
        let now = self.now();
        let mut shard = self.shard(key);
        if let Some(kept) = shard.young.get(&key) {
            return Some(Found { answer: kept.answer(), age: now.saturating_sub(kept.since) });
        }
        let kept = shard.old.remove(&key)?;
        let found = Found { answer: kept.answer(), age: now.saturating_sub(kept.since) };
        self.insert(&mut shard, key, kept);
        Some(found)
    }

    /// Keeps an answer.
    pub fn put(&self, key: Key, answer: Answer) {
        let Some(kept) = Packed::new(answer, self.now()) else { return };
        let mut shard = self.shard(key);
        shard.old.remove(&key);
        self.insert(&mut shard, key, kept);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for shard in &self.shards {
            *shard.lock().unwrap_or_else(PoisonError::into_inner) = Shard::default();
        }
    }

    /// Answers, and the octets they take.
    pub fn size(&self) -> (usize, usize) {
        let (mut names, mut octets) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for kept in shard.young.values().chain(shard.old.values()) {
                names += 1;
                octets += kept.size() + size_of::<Key>();
            }
        }
        (names, octets)
    }

    fn insert(&self, shard: &mut Shard, key: Key, kept: Packed) {
        if shard.young.len() >= self.bound && !shard.young.contains_key(&key) {
            // The old table is used again, so that memory does not grow and shrink.
            shard.old.clear();
            std::mem::swap(&mut shard.young, &mut shard.old);
        }
        shard.young.insert(key, kept);
    }

    fn shard(&self, key: Key) -> std::sync::MutexGuard<'_, Shard> {
        let index = (key.0 >> 32) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u32 {
        self.begun.elapsed().as_secs().try_into().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use dnsbroker_zone::wire::Rcode;

    use super::*;

    fn answer(ttl: u32) -> Answer {
        Answer::empty(Rcode::NXDOMAIN, None).kept_for(ttl)
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(1_600);
        let used = cache.key(0, b"used", 0);
        cache.put(used, answer(60));
        for number in 0..20_000_u32 {
            cache.put(cache.key(0, &number.to_be_bytes(), 0), answer(60));
            assert!(cache.get(used).is_some(), "after {number}");
        }
        let (names, octets) = cache.size();
        assert!((800..=1_600).contains(&names), "{names}");
        assert!(octets > names * 40);
        cache.clear();
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn questions_are_told_from_each_other() {
        let cache = Cache::new(1_000);
        let key = cache.key(0, b"a", 0);
        cache.put(key, answer(60));
        for other in [cache.key(1, b"a", 0), cache.key(0, b"b", 0), cache.key(0, b"a", 1)] {
            assert_eq!(cache.get(other), None);
        }
        assert_eq!(cache.get(key), Some(Found { answer: answer(60), age: 0 }));
    }

    #[test]
    fn fresh_ending_and_overdue_follow_the_age() {
        let at = |age| Found { answer: answer(60), age };
        assert!(at(0).is_fresh() && at(59).is_fresh() && !at(60).is_fresh());
        assert!(!at(53).is_ending() && at(54).is_ending());
        assert_eq!((at(60).overdue(), at(75).overdue()), (0, 15));
    }
}
