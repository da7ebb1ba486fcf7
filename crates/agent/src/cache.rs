//! Answers by question, bounded in number, in two generations: what is used moves to the young one; when that is full, the
//! old one is forgotten as a whole. So nothing is ever scanned, and what stays is what was used of late.
//!
//! A question is kept as two keyed hashes of 64 bits: nobody who does not know the keys finds two that agree. Answers point into
//! their questions, so that all devices of a NetID have the same, octet for octet: it is kept once in each shard.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::answer::Answer;

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

/// An answer at rest.
struct Kept {
    answer: Arc<Answer>,
    /// Seconds from the beginning of the cache.
    since: u32,
}

type Generation = HashMap<Key, Kept, BuildHasherDefault<AsIs>>;

#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
    /// Each answer that is in one of them.
    answers: HashSet<Arc<Answer>>,
}

impl Shard {
    /// The same answer, if it is here already.
    fn shared(&mut self, answer: Arc<Answer>) -> Arc<Answer> {
        if let Some(known) = self.answers.get(&answer) {
            return Arc::clone(known);
        }
        self.answers.insert(Arc::clone(&answer));
        answer
    }

    fn insert(&mut self, key: Key, kept: Kept, bound: usize) {
        if self.young.len() >= bound && !self.young.contains_key(&key) {
            // The old table is used again, so that memory does not grow and shrink.
            self.old.clear();
            std::mem::swap(&mut self.young, &mut self.old);
            self.forget_answers();
        }
        self.young.insert(key, kept);
    }

    /// Those that no question has any more. Answers that were replaced stay until a generation ends, or until there are twice as
    /// many as questions.
    fn forget_answers(&mut self) {
        self.answers.retain(|answer| Arc::strong_count(answer) > 1);
    }
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The answer.
    pub answer: Arc<Answer>,
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

impl Kept {
    fn found(&self, now: u32) -> Found {
        Found { answer: Arc::clone(&self.answer), age: now.saturating_sub(self.since) }
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
            return Some(kept.found(now));
        }
        let kept = shard.old.remove(&key)?;
        let found = kept.found(now);
        shard.insert(key, kept, self.bound);
        Some(found)
    }

    /// Keeps an answer.
    pub fn put(&self, key: Key, answer: Arc<Answer>) {
        let since = self.now();
        let mut shard = self.shard(key);
        shard.old.remove(&key);
        if shard.answers.len() > 2 * (shard.young.len() + shard.old.len()) + 16 {
            shard.forget_answers();
        }
        let answer = shard.shared(answer);
        shard.insert(key, Kept { answer, since }, self.bound);
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
            let here = shard.young.len() + shard.old.len();
            names += here;
            octets += here * size_of::<(Key, Kept)>();
            octets += shard.answers.iter().map(|answer| answer.size() + size_of::<Answer>()).sum::<usize>();
        }
        (names, octets)
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

    fn answer(ttl: u32) -> Arc<Answer> {
        let mut answer = Answer::empty(Rcode::NXDOMAIN, None);
        answer.ttl = ttl;
        Arc::new(answer)
    }

    #[test]
    fn a_question_and_its_place_take_thirty_two_octets() {
        assert_eq!(size_of::<(Key, Kept)>(), 32);
    }

    #[test]
    fn the_same_answer_is_kept_once_and_goes_with_the_last_question() {
        let cache = Cache::new(3_200);
        for number in 0..1_000_u32 {
            cache.put(cache.key(0, &number.to_be_bytes(), 0), answer(60));
        }
        let kept = |cache: &Cache| -> usize {
            cache.shards.iter().map(|shard| shard.lock().expect("a shard").answers.len()).sum()
        };
        assert_eq!(kept(&cache), SHARDS);
        // As from an upstream, where each answer has a TTL of its own, and replaces the one before.
        let key = cache.key(0, b"upstream", 0);
        for ttl in 0..10_000 {
            cache.put(key, answer(ttl));
            assert_eq!(cache.get(key).expect("just put").answer.ttl, ttl);
        }
        assert!(kept(&cache) < 1_500, "{}", kept(&cache));
        for number in 0..20_000_u32 {
            cache.put(cache.key(1, &number.to_be_bytes(), 0), answer(70));
        }
        assert_eq!(kept(&cache), SHARDS, "those of the first thousand have gone with them");
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
        assert!((names * 32..names * 40).contains(&octets), "{octets}");
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
