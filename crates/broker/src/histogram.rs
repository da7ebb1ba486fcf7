//! Times, counted in buckets: one relaxed addition each, and percentiles afterwards.
//!
//! The bounds of the buckets go up by a third at most, from 100 ns to a second, so a percentile is right to a third.
//! The bounds of what Prometheus is told are among them.

use std::time::Duration;

use dnsbroker_api::statistics::Latency;

use crate::metrics::Counter;

/// Bounds within a factor of ten.
const STEPS: [u64; 10] = [100, 125, 150, 200, 250, 300, 400, 500, 600, 800];
const TENS: usize = 7;
/// Buckets; the last has all that took longer.
pub const BUCKETS: usize = STEPS.len() * TENS + 1;
/// Upper bounds, in nanoseconds.
const BOUNDS: [u64; BUCKETS - 1] = bounds();

const fn bounds() -> [u64; BUCKETS - 1] {
    let mut bounds = [0; BUCKETS - 1];
    let (mut place, mut ten) = (0, 1);
    while place < bounds.len() {
        bounds[place] = STEPS[place % STEPS.len()] * ten;
        place += 1;
        if place.is_multiple_of(STEPS.len()) {
            ten *= 10;
        }
    }
    bounds
}

/// What was counted.
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    nanoseconds: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), nanoseconds: Counter::default() }
    }
}

/// How many are in each bucket.
pub type Counts = [u64; BUCKETS];

impl Histogram {
    /// Counts a time.
    pub fn add(&self, took: Duration) {
        let nanoseconds = took.as_nanos() as u64;
        self.buckets[BOUNDS.partition_point(|bound| *bound < nanoseconds)].add(1);
        self.nanoseconds.add(nanoseconds);
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        std::array::from_fn(|place| self.buckets[place].get())
    }

    /// All times together, in nanoseconds.
    pub fn sum(&self) -> u64 {
        self.nanoseconds.get()
    }
}

/// How many took at most so many nanoseconds, which is one of the bounds.
pub fn at_most(counts: &Counts, nanoseconds: u64) -> u64 {
    counts.iter().zip(BOUNDS).take_while(|(_, bound)| *bound <= nanoseconds).map(|(count, _)| count).sum()
}

/// The percentiles, if anything was counted.
pub fn latency(counts: &Counts) -> Option<Latency> {
    let answers: u64 = counts.iter().sum();
    let percentile = |share: f64| {
        let wanted = (answers as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let place = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let bound = place.and_then(|place| BOUNDS.get(place)).or(BOUNDS.last()).copied().unwrap_or_default();
        bound as f64 / 1e3
    };
    (answers > 0).then(|| Latency {
        p50: percentile(0.5),
        p90: percentile(0.9),
        p99: percentile(0.99),
        p999: percentile(0.999),
        answers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_go_up_by_a_third_at_most_and_times_fall_under_them() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1] && pair[1] * 3 <= pair[0] * 4), "{BOUNDS:?}");
        let histogram = Histogram::default();
        for nanoseconds in [1, 100, 101, 999_999_999, 60_000_000_000] {
            histogram.add(Duration::from_nanos(nanoseconds));
        }
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[BUCKETS - 1]), (2, 1, 2));
        assert_eq!((at_most(&counts, 100), at_most(&counts, 1_000)), (2, 3));
    }

    #[test]
    fn percentiles_are_right_to_a_third() {
        let histogram = Histogram::default();
        assert!(latency(&histogram.counts()).is_none());
        (1..=10_000).for_each(|microseconds| histogram.add(Duration::from_micros(microseconds)));
        let found = latency(&histogram.counts()).expect("some");
        for (found, exact) in [(found.p50, 5_000.0), (found.p90, 9_000.0), (found.p99, 9_900.0), (found.p999, 9_990.0)]
        {
            assert!((exact..=exact * 4.0 / 3.0).contains(&found), "{found} for {exact}");
        }
    }

    /// Counting is on the way of each answer. The bound is far above what it costs, for machines that are busy.
    #[test]
    fn counting_costs_next_to_nothing() {
        let histogram = Histogram::default();
        let begun = std::time::Instant::now();
        for nanoseconds in 0..1_000_000_u64 {
            histogram.add(Duration::from_nanos(nanoseconds * 7 % 50_000));
        }
        let each = begun.elapsed().as_nanos() / 1_000_000;
        assert_eq!(histogram.counts().iter().sum::<u64>(), 1_000_000);
        eprintln!("{each} ns each");
        assert!(each < 1_000, "{each} ns");
    }
}
