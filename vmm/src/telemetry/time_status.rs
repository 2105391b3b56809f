//! [`TimeStatus`].

use hdrhistogram::Histogram;
use serde::Serialize;

/// Summary of times since the process started, microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TimeStatus {
    /// Number of times.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Longest.
    pub max_us: f64,
}

impl TimeStatus {
    /// Summarizes `times_ns`, which are in nanoseconds.
    pub fn of(times_ns: &Histogram<u64>) -> TimeStatus {
        let us = |quantile: f64| times_ns.value_at_quantile(quantile) as f64 / 1e3;
        TimeStatus {
            count: times_ns.len(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            max_us: times_ns.max() as f64 / 1e3,
        }
    }
}
