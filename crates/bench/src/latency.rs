//! Latencies: a histogram whose buckets are 3 percent wide, so that recording one costs an addition.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of one power of two.
const STEPS: usize = 32;
/// Buckets up to the longest time 64 bits of nanoseconds hold.
const BUCKETS: usize = 60 * STEPS;

/// What was recorded, by many tasks at once.
#[derive(Debug)]
pub struct Latencies(Box<[AtomicU64]>);

impl Default for Latencies {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

/// The bucket of a time in nanoseconds.
fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < STEPS as u64 {
        return nanoseconds as usize;
    }
    let octave = nanoseconds.ilog2() as usize;
    (octave - 4) * STEPS + (nanoseconds >> (octave - 5)) as usize % STEPS
}

/// The longest time of a bucket, in nanoseconds.
fn longest(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (octave, step) = (bucket / STEPS + 4, (bucket % STEPS) as u128);
    (((STEPS as u128 + step + 1) << (octave - 5)) - 1) as u64
}

impl Latencies {
    /// Records one.
    pub fn record(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0[bucket(nanoseconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The time within which `share` (0 to 1) of them were, at most 3 percent too long; 0 where there are none.
    pub fn percentile(&self, share: f64) -> Duration {
        let wanted = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.0.iter().enumerate() {
            seen += count.load(Ordering::Relaxed);
            if seen >= wanted {
                return Duration::from_nanos(longest(index));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for index in 0..BUCKETS - 1 {
            let end = longest(index);
            assert_eq!(bucket(end), index);
            assert_eq!(bucket(end + 1), index + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(longest(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn percentiles_are_right_within_3_percent() {
        let latencies = Latencies::default();
        for microseconds in 1..=1_000 {
            latencies.record(Duration::from_micros(microseconds));
        }
        assert_eq!(latencies.count(), 1_000);
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1_000.0)] {
            let found = latencies.percentile(share).as_secs_f64() * 1e6;
            assert!(found >= exact && found <= exact * 1.04, "{share}: {found} is not {exact}");
        }
    }

    #[test]
    fn one_slow_answer_in_a_thousand_shows_only_beyond_p999() {
        let latencies = Latencies::default();
        for _ in 0..999 {
            latencies.record(Duration::from_micros(10));
        }
        latencies.record(Duration::from_secs(1));
        assert!(latencies.percentile(0.999) < Duration::from_micros(11));
        assert!(latencies.percentile(1.0) >= Duration::from_secs(1));
    }

    #[test]
    fn nothing_recorded_is_no_time() {
        assert_eq!(Latencies::default().percentile(0.5), Duration::ZERO);
    }
}
