//! How long things took, counted by a logarithmic scale: eight buckets to each power of two, from a microsecond to 17
//! seconds. What is told of them is at most an eighth too long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The first bucket ends at 2^10 ns: no miss is answered in less.
const FIRST_POWER: u32 = 10;
/// The last one with an end ends at 2^34 ns, 17 s: beyond any deadline of a miss but one that somebody has set.
const LAST_POWER: u32 = 34;
/// 2^3 buckets to each power of two.
const STEPS_POWER: u32 = 3;
const STEPS: usize = 1 << STEPS_POWER;
/// The first, those between, and the one without an end.
const BUCKETS: usize = (LAST_POWER - FIRST_POWER) as usize * STEPS + 2;

/// Times that are being counted: two additions for each, by any thread.
#[derive(Debug)]
pub struct TimesCounter {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl TimesCounter {
    /// Something took so long.
    pub fn count(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Default for TimesCounter {
    fn default() -> Self {
        TimesCounter { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }
}

/// What has been counted up to some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// By bucket; those that are missing are empty.
    counts: Vec<u64>,
    sum_ns: u64,
}

impl Times {
    /// Adds what `counter` has.
    pub fn add(&mut self, counter: &TimesCounter) {
        self.counts.resize(BUCKETS, 0);
        for (count, other) in self.counts.iter_mut().zip(&counter.counts) {
            *count += other.load(Ordering::Relaxed);
        }
        self.sum_ns += counter.sum_ns.load(Ordering::Relaxed);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// So many of a hundred took no longer than this; 0 if there are none, and 17 s for all that took longer.
    pub fn percentile_ns(&self, percent: u64) -> u64 {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return end_ns(bucket).unwrap_or(1 << LAST_POWER);
            }
        }
        0
    }

    /// Those that took no longer than each power of two, in nanoseconds.
    pub fn by_powers_of_two(&self) -> impl Iterator<Item = (u64, u64)> {
        (FIRST_POWER..=LAST_POWER).map(|power| {
            let ends = (power - FIRST_POWER) as usize * STEPS;
            (1 << power, self.counts.iter().take(ends + 1).sum())
        })
    }

    /// The buckets that are not empty: where each ends, which is in it, and how many are. The last one may have no end.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (end_ns(bucket), *count))
    }
}

fn bucket_of(ns: u64) -> usize {
    let below = ns.saturating_sub(1);
    let power = below.checked_ilog2().unwrap_or(0);
    if power < FIRST_POWER {
        return 0;
    }
    // Its highest bits are a one and which of the power's steps it is in.
    let step = (below >> (power - STEPS_POWER)) - STEPS as u64;
    let bucket = 1 + u64::from(power - FIRST_POWER) * STEPS as u64 + step;
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// The longest time in a bucket.
fn end_ns(bucket: usize) -> Option<u64> {
    let Some(above_first) = bucket.checked_sub(1) else { return Some(1 << FIRST_POWER) };
    let (power, step) = (above_first / STEPS, above_first % STEPS);
    let shift = u32::try_from(power).unwrap_or(u32::MAX).saturating_add(FIRST_POWER - STEPS_POWER);
    (bucket < BUCKETS - 1).then(|| ((STEPS + step + 1) as u64) << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(all_ns: &[u64]) -> Times {
        let counter = TimesCounter::default();
        all_ns.iter().for_each(|ns| counter.count(Duration::from_nanos(*ns)));
        let mut times = Times::default();
        times.add(&counter);
        times
    }

    #[test]
    fn a_bucket_has_what_is_above_the_last_ones_end_and_up_to_its_own() {
        for bucket in 0..BUCKETS - 1 {
            let end = end_ns(bucket).unwrap();
            assert_eq!((bucket_of(end), bucket_of(end + 1)), (bucket, bucket + 1), "{end}");
            let begin = bucket.checked_sub(1).map_or(0, |before| end_ns(before).unwrap());
            assert!(begin < end && (bucket == 0 || 8 * (end - begin) <= begin), "{begin} {end}");
        }
        assert_eq!((end_ns(BUCKETS - 2), end_ns(BUCKETS - 1)), (Some(1 << 34), None));
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn percentiles_are_at_most_an_eighth_too_long() {
        let all: Vec<u64> = (1..=1000).map(|us| us * 1000).collect();
        let times = times(&all);
        assert_eq!((times.count(), times.sum_ns()), (1000, 500_500_000));
        for percent in [1, 50, 99, 100] {
            let (told, exact) = (times.percentile_ns(percent), percent * 10_000);
            assert!(told >= exact && told <= exact + exact / 8, "{percent}: {told}");
        }
    }

    #[test]
    fn few_many_and_none_have_percentiles() {
        assert_eq!(times(&[]).percentile_ns(50), 0);
        assert_eq!(Times::default().percentile_ns(99), 0);
        assert_eq!(times(&[2048]).percentile_ns(1), 2048);
        assert_eq!(times(&[u64::MAX / 2]).percentile_ns(50), 1 << 34);
        // 99 of a hundred: the slowest one is not among them.
        let mut all = vec![2048; 99];
        all.push(1 << 30);
        assert_eq!(
            (times(&all).percentile_ns(99), times(&all).percentile_ns(100)),
            (2048, 1 << 30)
        );
    }

    #[test]
    fn powers_of_two_add_up() {
        let times = times(&[1, 1024, 1025, 2048, 2049, 1 << 34, 1 << 35]);
        let powers: Vec<_> = times.by_powers_of_two().collect();
        assert_eq!(powers[..3], [(1024, 2), (2048, 4), (4096, 5)]);
        assert_eq!((powers.len(), powers.last()), (25, Some(&(1 << 34, 6))));
        let buckets: Vec<_> = times.buckets().collect();
        assert_eq!(buckets.len(), 6);
        assert_eq!((buckets[0], buckets[5]), ((Some(1024), 2), (None, 1)));
    }
}
