//! [`Families`]: writes metrics, one family after the other.

use crate::telemetry::{Buckets, PAGE_BOUNDS, PageBuckets, TIME_BOUNDS_NS, TimeBuckets};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;

/// Name of a metric, without the prefix of all and without `_total` or `_info`; and its help.
pub(super) type Named = (&'static str, &'static str);

/// Writes metrics.
pub(super) struct Families<'a>(pub(super) DescriptorEncoder<'a>);

impl Families<'_> {
    fn begin(
        &mut self,
        (name, help): Named,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// Writes a number that only grows while the process runs.
    pub(super) fn counter(&mut self, named: Named, value: u64) -> fmt::Result {
        count(&mut self.begin(named, MetricType::Counter)?, value)
    }

    /// Writes such numbers, each with a value of `label`.
    pub(super) fn counters<'l>(
        &mut self,
        named: Named,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut family = self.begin(named, MetricType::Counter)?;
        values.into_iter().try_for_each(|(name, value)| {
            count(&mut family.encode_family(&[(label, name)])?, value)
        })
    }

    /// Writes times that only grow, in seconds, each with a value of `label`.
    pub(super) fn seconds_counters<'l>(
        &mut self,
        named: Named,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, f64)>,
    ) -> fmt::Result {
        let mut family = self.begin(named, MetricType::Counter)?;
        values.into_iter().try_for_each(|(name, value)| {
            let labels = [(label, name)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, f64, f64>(&value, None)
        })
    }

    /// Writes a number.
    pub(super) fn gauge(&mut self, named: Named, value: f64) -> fmt::Result {
        self.begin(named, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// Writes numbers, each with the values of `labels`.
    pub(super) fn gauges<'l, const N: usize>(
        &mut self,
        named: Named,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([&'l str; N], f64)>,
    ) -> fmt::Result {
        let mut family = self.begin(named, MetricType::Gauge)?;
        values.into_iter().try_for_each(|(names, value)| {
            let mut index = 0;
            let labelled = names.map(|name| {
                index += 1;
                (labels[index - 1], name)
            });
            family.encode_family(&labelled)?.encode_gauge(&value)
        })
    }

    /// Writes 1 for `current`, and 0 for the other `states`, each as a value of `label`.
    pub(super) fn one_of<'l>(
        &mut self,
        named: Named,
        (label, current): (&str, &str),
        states: impl IntoIterator<Item = &'l str>,
    ) -> fmt::Result {
        let value = |state: &'l str| ([state], f64::from(u8::from(state == current)));
        self.gauges(named, [label], states.into_iter().map(value))
    }

    /// Writes 1, with labels that do not change while the process runs.
    pub(super) fn info(&mut self, named: Named, labels: &[(&str, &str)]) -> fmt::Result {
        self.begin(named, MetricType::Info)?.encode_info(&labels)
    }

    /// Writes a histogram of times, in seconds.
    pub(super) fn times(&mut self, named: Named, times: &TimeBuckets) -> fmt::Result {
        histogram(&mut self.begin(named, MetricType::Histogram)?, times, seconds_bounds())
    }

    /// Writes histograms of times, in seconds, each with a value of `label`.
    pub(super) fn times_by<'l>(
        &mut self,
        named: Named,
        label: &str,
        times: impl IntoIterator<Item = (&'l str, TimeBuckets)>,
    ) -> fmt::Result {
        let mut family = self.begin(named, MetricType::Histogram)?;
        times.into_iter().try_for_each(|(name, times)| {
            histogram(&mut family.encode_family(&[(label, name)])?, &times, seconds_bounds())
        })
    }

    /// Writes a histogram of numbers of pages.
    pub(super) fn pages(&mut self, named: Named, pages: &PageBuckets) -> fmt::Result {
        let bounds = (PAGE_BOUNDS.map(|pages| pages as f64), 1.0);
        histogram(&mut self.begin(named, MetricType::Histogram)?, pages, bounds)
    }
}

fn count(metric: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

/// Returns the bounds of times in seconds, and how many nanoseconds a second has.
fn seconds_bounds() -> ([f64; TIME_BOUNDS_NS.len()], f64) {
    (TIME_BOUNDS_NS.map(|ns| ns as f64 / 1e9), 1e9)
}

/// Writes `buckets` with these bounds. The sum is divided by `unit`.
fn histogram<const N: usize>(
    metric: &mut MetricEncoder<'_>,
    buckets: &Buckets<N>,
    (bounds, unit): ([f64; N], f64),
) -> fmt::Result {
    let pairs: Vec<_> = bounds.into_iter().zip(buckets.counts).collect();
    let sum = buckets.sum as f64 / unit;
    metric.encode_histogram::<NoLabelSet>(sum, buckets.count(), &pairs, None)
}
