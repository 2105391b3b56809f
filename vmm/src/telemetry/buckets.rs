//! [`Buckets`]: a histogram with few and fixed buckets, as a monitoring system takes it.

use hdrhistogram::Histogram;
use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets for times, nanoseconds: 1, 2.5 and 5 in each decade from 1 us to 10 s.
pub const TIME_BOUNDS_NS: [u64; 22] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of the buckets for numbers of pages: powers of four, from a page to 4 GiB.
pub const PAGE_BOUNDS: [u64; 11] =
    [1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576];

/// Counts of values by bucket, and their sum. Neither ever falls when values are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets<const N: usize> {
    /// Values in each bucket: those up to its bound, and above the bound before.
    pub counts: [u64; N],
    /// Values above the last bound.
    pub above: u64,
    /// Sum of all values.
    pub sum: u64,
}

/// Buckets with [`TIME_BOUNDS_NS`].
pub type TimeBuckets = Buckets<{ TIME_BOUNDS_NS.len() }>;

/// Buckets with [`PAGE_BOUNDS`].
pub type PageBuckets = Buckets<{ PAGE_BOUNDS.len() }>;

impl<const N: usize> Buckets<N> {
    /// Sorts the values of `histogram` into buckets with these upper bounds, which must ascend. Reads the counters of the
    /// histogram up to its largest value.
    ///
    /// A histogram knows its values to two or three significant digits only. A value whose digits can stand for one above
    /// a bound is in the bucket above it, and the sum has the value in the middle for each.
    pub fn of(histogram: &Histogram<u64>, bounds: &[u64; N]) -> Buckets<N> {
        let mut buckets = Buckets { counts: [0; N], above: 0, sum: 0 };
        let mut index = 0;
        for step in histogram.iter_recorded() {
            let (value, count) = (step.value_iterated_to(), step.count_at_value());
            while bounds.get(index).is_some_and(|bound| value > *bound) {
                index += 1;
            }
            *buckets.counts.get_mut(index).unwrap_or(&mut buckets.above) += count;
            // In whole numbers: a sum of fractions may fall when a value is added.
            let middle = histogram.median_equivalent(value);
            buckets.sum = buckets.sum.saturating_add(middle.saturating_mul(count));
        }
        buckets
    }

    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.above
    }
}

/// [`TimeBuckets`] that a thread fills and others read.
#[derive(Debug, Default)]
pub struct SharedTimes {
    counts: [AtomicU64; TIME_BOUNDS_NS.len()],
    above: AtomicU64,
    sum_ns: AtomicU64,
}

impl SharedTimes {
    /// Adds a time, nanoseconds.
    pub fn record(&self, time_ns: u64) {
        let index = TIME_BOUNDS_NS.partition_point(|bound| *bound < time_ns);
        self.counts.get(index).unwrap_or(&self.above).fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(time_ns, Ordering::Relaxed);
    }

    /// Returns what was added so far. The sum may lack a time that is being added.
    pub fn load(&self) -> TimeBuckets {
        Buckets {
            counts: array::from_fn(|index| self.counts[index].load(Ordering::Relaxed)),
            above: self.above.load(Ordering::Relaxed),
            sum: self.sum_ns.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 2).unwrap();
        for value in values {
            histogram.saturating_record(*value);
        }
        histogram
    }

    fn nonzero(buckets: &TimeBuckets) -> Vec<(u64, u64)> {
        let pairs = TIME_BOUNDS_NS.into_iter().zip(buckets.counts);
        pairs.filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn values_are_in_the_first_bucket_that_has_them() {
        let buckets = Buckets::of(
            &histogram(&[0, 1, 900, 1200, 1300, 40_000, 90_000_000_000]),
            &TIME_BOUNDS_NS,
        );
        assert_eq!(nonzero(&buckets), [(1_000, 3), (2_500, 2), (50_000, 1)]);
        assert_eq!((buckets.above, buckets.count()), (1, 7), "longer than a minute");
        let off = buckets.sum.abs_diff(60_000_043_401);
        assert!(off < 600_000_000, "{off}: one percent of a minute");
    }

    #[test]
    fn value_that_may_be_above_a_bound_is_not_counted_below_it() {
        // With two digits, 999,424 to 1,003,519 have one counter.
        let buckets = Buckets::of(&histogram(&[999_999]), &TIME_BOUNDS_NS);
        assert_eq!(nonzero(&buckets), [(2_500_000, 1)]);
    }

    /// A sum that falls looks like a process that was started again.
    #[test]
    fn no_count_and_no_sum_falls_when_values_are_added() {
        let mut histogram = histogram(&[]);
        let mut before = Buckets::of(&histogram, &TIME_BOUNDS_NS);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            histogram.saturating_record(1 << random.u32(0..36));
            let after = Buckets::of(&histogram, &TIME_BOUNDS_NS);
            let grown = before.counts.iter().zip(after.counts).all(|(a, b)| *a <= b);
            assert!(grown && before.above <= after.above && before.sum < after.sum);
            before = after;
        }
        assert_eq!(before.count(), 2000);
    }

    #[test]
    fn shared_times_are_sorted_as_those_of_a_histogram() {
        let shared = SharedTimes::default();
        for time_ns in [0, 1_000, 1_001, 10_000_000_000, 10_000_000_001] {
            shared.record(time_ns);
        }
        let buckets = shared.load();
        assert_eq!(nonzero(&buckets), [(1_000, 2), (2_500, 1), (10_000_000_000, 1)]);
        assert_eq!((buckets.above, buckets.count(), buckets.sum), (1, 5, 20_000_002_002));
    }
}
