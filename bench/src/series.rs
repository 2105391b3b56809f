//! A series of times, its percentiles and its file formats.

use crate::error::BenchError;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Upper bound of recorded times: one minute. Longer times are recorded as this value.
const LONGEST_NS: u64 = 60_000_000_000;
/// Significant decimal digits of a recorded time.
const DIGITS: u8 = 3;
/// Lines of a percentile distribution per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;

/// An HDR histogram of times in nanoseconds.
#[derive(Clone)]
pub(crate) struct Series {
    times_ns: Histogram<u64>,
    began: SystemTime,
}

impl Series {
    /// Creates an empty series that starts now.
    pub(crate) fn new() -> Series {
        let times_ns = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS);
        Series { times_ns: times_ns.expect("the bounds are sound"), began: SystemTime::now() }
    }

    /// Adds a time. A time outside the bounds is recorded as the bound.
    pub(crate) fn record(&mut self, time_ns: u64) {
        self.times_ns.saturating_record(time_ns);
    }

    /// Adds all times of `other`.
    pub(crate) fn add(&mut self, other: &Series) {
        self.times_ns.add(&other.times_ns).expect("all series have the same bounds");
    }

    /// Returns the number of recorded times.
    pub(crate) fn len(&self) -> u64 {
        self.times_ns.len()
    }

    /// Returns the time that the fraction `quantile` of all times do not exceed, nanoseconds.
    pub(crate) fn quantile_ns(&self, quantile: f64) -> u64 {
        self.times_ns.value_at_quantile(quantile)
    }

    /// Returns the points of a percentile plot, `(quantile, nanoseconds)`. The distance to 1 halves in
    /// equal steps. Quantiles that rest on less than one value are omitted.
    pub(crate) fn curve(&self) -> Vec<(f64, u64)> {
        let steps = self.times_ns.iter_quantiles(TICKS_PER_HALF);
        let inside = |quantile: f64| (1.0 - quantile) * self.len() as f64 >= 1.0;
        steps
            .map(|step| (step.quantile_iterated_to(), step.value_iterated_to()))
            .filter(|&(quantile, _)| inside(quantile))
            .collect()
    }

    /// Returns the percentiles that are reported of every series.
    pub(crate) fn json(&self) -> Value {
        json!({
            "p50_ns": self.quantile_ns(0.5),
            "p99_ns": self.quantile_ns(0.99),
            "p999_ns": self.quantile_ns(0.999),
        })
    }

    /// Saves the histogram as `NAME.hgrm`, the percentile distribution that HdrHistogram's plotters
    /// read, and as `NAME.hlog`, the HdrHistogram log format.
    pub(crate) fn save(&self, folder: &Path, name: &str) -> Result<(), BenchError> {
        let save = |ending: &str, write: &dyn Fn(&mut Vec<u8>) -> io::Result<()>| {
            let path = folder.join(format!("{name}.{ending}"));
            let mut bytes = Vec::new();
            write(&mut bytes)
                .and_then(|()| fs::write(&path, &bytes))
                .map_err(BenchError::os(format!("writing {}", path.display())))
        };
        save("hgrm", &|out| self.write_distribution(out))?;
        save("hlog", &|out| self.write_log(out))
    }

    /// Writes the percentile distribution. Columns and footer are those of
    /// `outputPercentileDistribution` of the Java implementation.
    fn write_distribution(&self, out: &mut impl Write) -> io::Result<()> {
        let times = &self.times_ns;
        writeln!(
            out,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        for step in times.iter_quantiles(TICKS_PER_HALF) {
            let (value, quantile) = (step.value_iterated_to(), step.quantile_iterated_to());
            let below = times.count_between(0, value);
            write!(out, "{value:>12} {quantile:>14.12} {below:>10}")?;
            match quantile {
                1.0.. => writeln!(out)?,
                _ => writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?,
            }
        }
        let (mean, deviation) = (times.mean(), times.stdev());
        writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
        let (max, count) = (times.max(), times.len());
        writeln!(out, "#[Max     = {max:>12}, Total count    = {count:>12}]")
    }

    fn write_log(&self, out: &mut impl Write) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut log = IntervalLogWriterBuilder::new()
            .with_base_time(SystemTime::UNIX_EPOCH)
            .begin_log_with(out, &mut serializer)?;
        let since = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let length = self.began.elapsed().unwrap_or(Duration::ZERO);
        log.write_histogram(&self.times_ns, since, length, None).map_err(io::Error::other)
    }
}

/// Returns `a / b` rounded to three decimals; `None` if `b` is zero.
pub(crate) fn ratio(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| (a as f64 / b as f64 * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn thousand() -> Series {
        let mut series = Series::new();
        (1..=1000).for_each(|n| series.record(n * 1000));
        series
    }

    #[test]
    fn saved_log_holds_one_interval_with_all_times() {
        let folder = tempfile::tempdir().unwrap();
        thousand().save(folder.path(), "x").unwrap();
        let bytes = fs::read(folder.path().join("x.hlog")).unwrap();
        let entries: Vec<LogEntry<'_>> =
            IntervalLogIterator::new(&bytes).map(|entry| entry.unwrap()).collect();
        let [LogEntry::BaseTime(base), LogEntry::Interval(interval)] = &entries[..] else {
            panic!("{entries:?}");
        };
        assert_eq!(*base, Duration::ZERO);
        assert_eq!(interval.max(), thousand().times_ns.max() as f64);
        // The cookie of a compressed V2 histogram, base64-encoded.
        assert!(interval.encoded_histogram().starts_with("HISTFAA"), "{interval:?}");
    }

    #[test]
    fn distribution_last_line_counts_all_times() {
        let mut text = Vec::new();
        thousand().write_distribution(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let columns: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(columns[1..], ["1.000000000000", "1000"], "{text}");
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }
}
