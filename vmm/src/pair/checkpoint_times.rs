//! How long checkpoints take on either host, and how many pages they have. The checkpoints that close a
//! sync are not among them: they have the sync's pause for themselves.
//!
//! ```text
//! primary:  kick -> stopped, state and page list read -> pages in the channel -> the guest runs on
//!                  |------------- capture -----------|
//!                  |-------------------------- still --------------------------|
//! backup:   fetched -> pages, vCPU and devices as in the checkpoint
//!           |------------------------ apply -----------------------|
//! ```

use hdrhistogram::Histogram;
use logchan::time::{Duration, Time};

/// Longest time that is told apart from longer ones, nanoseconds: a minute.
const LONGEST_NS: u64 = 60_000_000_000;
/// More pages than a guest can have.
const PAGES_MAX: u64 = 1 << 32;
/// Decimal digits that a value keeps.
const DIGITS: u8 = 2;

/// Histograms since the process began.
#[derive(Debug)]
pub(super) struct CheckpointTimes {
    /// Until vCPU, devices and the list of changed pages were read, nanoseconds.
    pub(super) capture_ns: Histogram<u64>,
    /// Until all of it was in the channel, for which the guest stood still, nanoseconds.
    pub(super) still_ns: Histogram<u64>,
    /// Pages in each that was sent.
    pub(super) pages: Histogram<u64>,
    /// Until the machine was in the state of one that came, nanoseconds.
    pub(super) apply_ns: Histogram<u64>,
    applying_since: Option<Time>,
}

impl CheckpointTimes {
    /// None yet.
    pub(super) fn new() -> CheckpointTimes {
        let of = |longest| Histogram::new_with_bounds(1, longest, DIGITS).expect("sound bounds");
        CheckpointTimes {
            capture_ns: of(LONGEST_NS),
            still_ns: of(LONGEST_NS),
            pages: of(PAGES_MAX),
            apply_ns: of(LONGEST_NS),
            applying_since: None,
        }
    }

    /// One with `pages` pages was sent.
    pub(super) fn sent(&mut self, capture: Duration, still: Duration, pages: u64) {
        self.capture_ns.saturating_record(capture.as_nanos());
        self.still_ns.saturating_record(still.as_nanos());
        self.pages.saturating_record(pages);
    }

    /// One is being applied from `now` on.
    pub(super) fn fetched(&mut self, now: Time) {
        self.applying_since = Some(now);
    }

    /// It is applied.
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
    fn applied_counts_only_what_was_fetched() {
        let mut times = CheckpointTimes::new();
        times.applied(Time::from_nanos(50));
        times.fetched(Time::from_nanos(1000));
        times.applied(Time::from_nanos(1090));
        times.applied(Time::from_nanos(5000));
        assert_eq!((times.apply_ns.len(), times.apply_ns.max()), (1, 90));
    }

    #[test]
    fn a_checkpoint_without_pages_counts() {
        let mut times = CheckpointTimes::new();
        times.sent(Duration::from_micros(80), Duration::from_micros(90), 0);
        times.sent(Duration::from_micros(80), Duration::from_micros(90), 7);
        assert_eq!((times.pages.len(), times.pages.min(), times.pages.max()), (2, 0, 7));
    }
}
