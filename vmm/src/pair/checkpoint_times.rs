//! Durations and page counts of checkpoints, on either host. The closing checkpoint of a sync is not
//! included: its pause is reported separately.
//!
//! ```text
//! primary:  kick -> stopped, state and page list read -> pages in the channel -> the guest continues
//!                  |------------- capture -----------|
//!                  |-------------------------- pause --------------------------|
//! backup:   fetched -> pages, vCPU and devices as in the checkpoint
//!           |------------------------ apply -----------------------|
//! ```

use hdrhistogram::Histogram;
use logchan::time::{Duration, Time};

/// Largest time that a histogram records, nanoseconds: one minute. Longer times are recorded as this.
const LONGEST_NS: u64 = 60_000_000_000;
/// Upper bound of a checkpoint's page count; no guest has so many pages.
const PAGES_MAX: u64 = 1 << 32;
/// Significant decimal digits of a recorded value.
const DIGITS: u8 = 2;

/// Histograms since the process started.
#[derive(Debug)]
pub(super) struct CheckpointTimes {
    /// From the vCPU's stop until vCPU state, device state and dirty page list were read, nanoseconds.
    pub(super) capture_ns: Histogram<u64>,
    /// From the vCPU's stop until the whole checkpoint was in the channel, nanoseconds: the guest's pause.
    pub(super) pause_ns: Histogram<u64>,
    /// Pages in each checkpoint sent.
    pub(super) pages: Histogram<u64>,
    /// From fetching a received checkpoint until the machine was in its state, nanoseconds.
    pub(super) apply_ns: Histogram<u64>,
    applying_since: Option<Time>,
}

impl CheckpointTimes {
    /// Creates empty histograms.
    pub(super) fn new() -> CheckpointTimes {
        let of = |longest| Histogram::new_with_bounds(1, longest, DIGITS).expect("sound bounds");
        CheckpointTimes {
            capture_ns: of(LONGEST_NS),
            pause_ns: of(LONGEST_NS),
            pages: of(PAGES_MAX),
            apply_ns: of(LONGEST_NS),
            applying_since: None,
        }
    }

    /// Records a checkpoint of `pages` pages that was sent.
    pub(super) fn sent(&mut self, capture: Duration, pause: Duration, pages: u64) {
        self.capture_ns.saturating_record(capture.as_nanos());
        self.pause_ns.saturating_record(pause.as_nanos());
        self.pages.saturating_record(pages);
    }

    /// A received checkpoint was fetched; the machine now applies it.
    pub(super) fn fetched(&mut self, now: Time) {
        self.applying_since = Some(now);
    }

    /// The fetched checkpoint was applied.
    pub(super) fn applied(&mut self, now: Time) {
        if let Some(since) = self.applying_since.take() {
            self.apply_ns.saturating_record(now.since(since).as_nanos());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applied_without_fetched_is_not_recorded() {
        let mut times = CheckpointTimes::new();
        times.applied(Time::from_nanos(50));
        times.fetched(Time::from_nanos(1000));
        times.applied(Time::from_nanos(1090));
        times.applied(Time::from_nanos(5000));
        assert_eq!((times.apply_ns.len(), times.apply_ns.max()), (1, 90));
    }

    #[test]
    fn sent_checkpoint_without_pages_is_recorded() {
        let mut times = CheckpointTimes::new();
        times.sent(Duration::from_micros(80), Duration::from_micros(90), 0);
        times.sent(Duration::from_micros(80), Duration::from_micros(90), 7);
        assert_eq!((times.pages.len(), times.pages.min(), times.pages.max()), (2, 0, 7));
    }
}
