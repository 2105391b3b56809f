//! [`Stages`].

use super::buckets::{Buckets, TIME_BOUNDS_NS, TimeBuckets};
use super::passage::{Passage, Stage};
use super::time_status::TimeStatus;
use super::trace::Trace;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Largest time that a histogram records, nanoseconds: one minute. Longer times are recorded as this.
const LONGEST_NS: u64 = 60_000_000_000;

/// Shortest interval between two sampled frames, unless a trace is recorded: the measurement must not cost
/// a busy guest's time.
const SAMPLE_INTERVAL_NS: u64 = 1_000_000;

/// Significant decimal digits of a recorded time. The vCPU thread reads all of these histograms every 100 ms
/// for its status, which takes 6 us (33 us with three digits). A trace has the exact times.
const DIGITS: u8 = 2;

/// Samples frames on their way through the machine: one at a time, and at most one per millisecond. The
/// guest's first frame after the interrupt is taken for the answer. Nothing here allocates after
/// [`new`](Self::new).
///
/// Call order for a frame that is answered: `taken`, `injected`, `served`, `made`, `sent`, `acked`, `left`.
/// An acknowledged interrupt is recorded even if no answer follows, or while the answer to an earlier frame
/// is outstanding.
pub struct Stages {
    is_on: bool,
    /// When the last sampled frame was read from the tap.
    last_taken: u64,
    /// The sampled frame on its way to the guest.
    inbound: Passage,
    /// The sampled frame that reached the guest, whose answer is outstanding.
    outbound: Passage,
    spans_ns: Vec<Histogram<u64>>,
    trace: Option<Trace>,
}

impl Stages {
    /// Creates empty histograms. If `is_on` is false, nothing is sampled and all calls return at once: to
    /// measure what the sampling costs.
    pub fn new(is_on: bool, trace: Option<Trace>) -> Stages {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("sound bounds");
        Stages {
            is_on,
            last_taken: 0,
            inbound: Passage::default(),
            outbound: Passage::default(),
            spans_ns: Stage::ALL.iter().map(|_| histogram()).collect(),
            trace,
        }
    }

    /// A frame was read from the tap.
    pub fn taken(&mut self, now: impl FnOnce() -> u64) {
        if self.is_on && self.inbound.taken == 0 {
            let now = now();
            if self.trace.is_some() || now >= self.last_taken + SAMPLE_INTERVAL_NS {
                self.last_taken = now;
                self.inbound.taken = now;
            }
        }
    }

    /// An interrupt was injected. The last one before the guest's acknowledgement is taken for the NIC's.
    pub fn injected(&mut self, now: impl FnOnce() -> u64) {
        if self.inbound.taken != 0 {
            self.inbound.injected = now();
        }
    }

    /// The guest's handler acknowledged the NIC's interrupt.
    pub fn served(&mut self, now: impl FnOnce() -> u64) {
        if self.inbound.injected == 0 {
            return;
        }
        let mut inbound = std::mem::take(&mut self.inbound);
        inbound.served = now();
        self.record(&inbound, &[Stage::Inject, Stage::Handler]);
        if let Some(trace) = &mut self.trace {
            trace.delivered(&inbound);
        }
        if self.outbound.taken == 0 {
            self.outbound = inbound;
        }
    }

    /// The guest gave the NIC a frame.
    pub fn made(&mut self, now: impl FnOnce() -> u64) {
        if self.outbound.taken != 0 && self.outbound.made == 0 {
            self.outbound.made = now();
        }
        // A guest that polls took the frame without an interrupt: drop the sample.
        self.inbound = Passage::default();
    }

    /// Everything logged so far was given to the kernel.
    pub fn sent(&mut self, now: impl FnOnce() -> u64) {
        if self.outbound.made != 0 && self.outbound.sent == 0 {
            self.outbound.sent = now();
        }
    }

    /// The frame that was made at `made` may leave: its acknowledgement was seen at `now`.
    pub fn acked(&mut self, made: u64, now: u64) {
        if self.outbound.made == made && self.outbound.sent != 0 {
            self.outbound.acked = now;
        }
    }

    /// All frames that were allowed to leave are on the tap. `all`: the VM has no backup, so that no frame
    /// waits for an acknowledgement.
    pub fn left(&mut self, all: bool, now: impl FnOnce() -> u64) {
        if self.outbound.made == 0 || !(all || self.outbound.acked != 0) {
            return;
        }
        let mut outbound = std::mem::take(&mut self.outbound);
        outbound.left = now();
        self.record(
            &outbound,
            &[Stage::Guest, Stage::Send, Stage::Ack, Stage::Leave, Stage::Hold, Stage::Whole],
        );
        if let Some(trace) = &mut self.trace {
            trace.answered(&outbound);
        }
    }

    fn record(&mut self, passage: &Passage, stages: &[Stage]) {
        for &stage in stages {
            if let Some(span_ns) = passage.span_ns(stage) {
                self.spans_ns[stage as usize].saturating_record(span_ns);
            }
        }
    }

    /// Returns a summary of each stage that was recorded, by name.
    pub fn status(&self) -> BTreeMap<&'static str, TimeStatus> {
        let passed = |stage: &Stage| {
            let ns = &self.spans_ns[*stage as usize];
            (!ns.is_empty()).then(|| (stage.name(), TimeStatus::of(ns)))
        };
        Stage::ALL.iter().filter_map(passed).collect()
    }

    /// Returns how long each stage took, in the order of [`Stage::ALL`]. Reads all histograms.
    pub fn buckets(&self) -> [TimeBuckets; Stage::ALL.len()] {
        Stage::ALL.map(|stage| Buckets::of(&self.spans_ns[stage as usize], &TIME_BOUNDS_NS))
    }

    /// Returns the trace, if one is recorded.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> impl FnOnce() -> u64 {
        move || ns
    }

    fn delivered(stages: &mut Stages, from: u64) {
        stages.taken(at(from));
        stages.injected(at(from + 1));
        stages.served(at(from + 3));
    }

    fn counts(stages: &Stages) -> Vec<u64> {
        Stage::ALL.iter().map(|stage| stages.spans_ns[*stage as usize].len()).collect()
    }

    #[test]
    fn protected_answer_is_recorded_in_all_stages() {
        let mut stages = Stages::new(true, Some(Trace::new(8)));
        delivered(&mut stages, 100);
        stages.made(at(110));
        stages.left(false, at(1));
        stages.sent(at(120));
        stages.sent(at(121));
        stages.acked(99, 130);
        stages.left(false, at(131));
        stages.acked(110, 140);
        stages.left(false, at(150));
        assert_eq!(counts(&stages), [1, 1, 1, 1, 1, 1, 1, 1]);
        let [passage] = stages.trace().unwrap().answers() else { panic!() };
        let expected = Passage {
            taken: 100,
            injected: 101,
            served: 103,
            made: 110,
            sent: 120,
            acked: 140,
            left: 150,
        };
        assert_eq!(*passage, expected);
    }

    #[test]
    fn interrupt_while_answer_is_outstanding_is_recorded_and_first_frame_is_answered() {
        let mut stages = Stages::new(true, Some(Trace::new(8)));
        delivered(&mut stages, 100);
        delivered(&mut stages, 200);
        stages.made(at(300));
        stages.left(true, at(310));
        assert_eq!(counts(&stages), [2, 2, 1, 0, 0, 1, 0, 1]);
        assert_eq!(stages.trace().unwrap().answers()[0].taken, 100);
        assert_eq!(stages.trace().unwrap().deliveries().len(), 2);
    }

    #[test]
    fn frame_taken_without_interrupt_is_not_recorded() {
        let mut stages = Stages::new(true, Some(Trace::new(8)));
        stages.taken(at(100));
        stages.made(at(110));
        stages.left(true, at(120));
        stages.injected(at(130));
        stages.served(at(140));
        assert_eq!(counts(&stages), [0; 8]);
    }

    #[test]
    fn last_interrupt_before_acknowledgement_is_recorded() {
        let mut stages = Stages::new(true, Some(Trace::new(8)));
        stages.taken(at(100));
        stages.injected(at(110));
        stages.injected(at(120));
        stages.served(at(130));
        assert_eq!(stages.trace().unwrap().deliveries()[0].injected, 120);
    }

    #[test]
    fn without_trace_one_frame_per_millisecond_is_sampled() {
        let mut stages = Stages::new(true, None);
        for from in [5_000_000, 5_100_000, 5_999_999, 6_000_000, 6_500_000, 7_000_001] {
            delivered(&mut stages, from);
            stages.made(at(from + 10));
            stages.left(true, at(from + 20));
        }
        assert_eq!(counts(&stages), [3, 3, 3, 0, 0, 3, 0, 3]);
    }

    #[test]
    fn off_reads_no_clock() {
        let mut stages = Stages::new(false, None);
        stages.taken(|| panic!("read"));
        stages.injected(|| panic!("read"));
        stages.served(|| panic!("read"));
        stages.made(|| panic!("read"));
        stages.sent(|| panic!("read"));
        stages.left(true, || panic!("read"));
        assert!(stages.status().is_empty());
    }
}
