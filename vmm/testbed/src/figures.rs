//! Times of answers, and statistics of values.

use serde_json::{Value, json};
use std::ops::Range;

/// Times of answers in nanoseconds, ascending.
#[derive(Debug, Default)]
pub struct Times(Vec<u64>);

impl Times {
    /// Adds the time of an answer, which must not be before the last one.
    pub fn push(&mut self, t_ns: u64) {
        debug_assert!(self.last().is_none_or(|last| last <= t_ns), "time does not go back");
        self.0.push(t_ns);
    }

    /// Returns the time of the last answer.
    pub fn last(&self) -> Option<u64> {
        self.0.last().copied()
    }

    /// Returns the number of answers.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the longest time between two consecutive answers, among those that overlap `from_ns..=to_ns`.
    /// `None` if there are none.
    pub fn longest_gap(&self, from_ns: u64, to_ns: u64) -> Option<u64> {
        self.longest_gap_without(from_ns, to_ns, &[])
    }

    /// As [`longest_gap`](Self::longest_gap), but the time within `others`, which do not overlap, does not count.
    pub fn longest_gap_without(
        &self,
        from_ns: u64,
        to_ns: u64,
        others: &[Range<u64>],
    ) -> Option<u64> {
        // The first answer at or after `from_ns` ends the first gap that reaches into the span.
        let first = self.0.partition_point(|&t| t < from_ns).max(1);
        let gaps = self.0[first - 1..].windows(2).take_while(|pair| pair[0] <= to_ns);
        let counted = gaps.map(|pair| {
            let within = |other: &Range<u64>| {
                other.end.min(pair[1]).saturating_sub(other.start.max(pair[0]))
            };
            (pair[1] - pair[0]).saturating_sub(others.iter().map(within).sum())
        });
        counted.max()
    }
}

/// Returns a percentile by the nearest-rank method, or `None` if there are no values.
pub fn percentile(values: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Converts nanoseconds to milliseconds, rounded to a microsecond.
pub fn ms(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

/// Returns an object with the given percentiles in milliseconds: `p50` and so on, and `max` for the 100th.
pub fn spread_ms(values_ns: &[u64], percents: &[usize]) -> Value {
    let of = |percent| percentile(values_ns, percent).map(ms);
    let named = percents.iter().map(|&percent| match percent {
        100 => (String::from("max"), json!(of(100))),
        other => (format!("p{other}"), json!(of(other))),
    });
    Value::Object(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_gap_counts_gaps_that_reach_into_the_span() {
        let mut times = Times::default();
        assert_eq!(times.longest_gap(0, 100), None);
        for t_ns in [10, 11, 12, 40, 41, 60, 61] {
            times.push(t_ns);
        }
        assert_eq!(times.longest_gap(0, 100), Some(28));
        assert_eq!(times.longest_gap(20, 30), Some(28), "begins before and ends after");
        assert_eq!(times.longest_gap(41, 50), Some(19));
        assert_eq!(times.longest_gap(40, 40), Some(28), "the ends belong to it");
        assert_eq!(times.longest_gap(11, 12), Some(28));
        assert_eq!(times.longest_gap(60, 100), Some(19));
        assert_eq!(times.longest_gap(62, 100), None, "the last answer is the end of no gap");
    }

    #[test]
    fn time_within_other_spans_does_not_count() {
        let mut times = Times::default();
        for t_ns in [10, 20, 50, 70] {
            times.push(t_ns);
        }
        let longest = |others: &[Range<u64>]| times.longest_gap_without(0, 100, others);
        assert_eq!(longest(&[]), Some(30));
        assert_eq!(longest(&[25..30, 30..35]), Some(20), "the last gap is as long as the rest");
        assert_eq!(longest(&[0..15, 45..60]), Some(25), "parts of gaps");
        assert_eq!(longest(&[0..60, 60..100]), Some(0));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[7], 1), Some(7));
        let values: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(percentile(&values, 50), Some(100));
        assert_eq!(percentile(&values, 99), Some(198));
        assert_eq!(percentile(&values, 100), Some(200));
        assert_eq!(spread_ms(&[1_500_000], &[50, 100]), json!({ "p50": 1.5, "max": 1.5 }));
    }
}
