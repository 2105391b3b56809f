//! [`Stages`].

use super::passage::{Passage, Stage};
use super::time_status::TimeStatus;
use super::trace::Trace;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// A minute: longer is not told apart.
const LONGEST_NS: u64 = 60_000_000_000;

/// From one frame that is followed to the next, at least, unless a trace of all of them is wanted: so that
/// a busy machine's time is its guest's.
const GAP_NS: u64 = 1_000_000;

/// Decimal digits that are kept of a time: the vCPU's thread goes through all of these histograms every
/// 100 ms for its status, in 6 us (33 with three digits). A trace has every time as it was.
const DIGITS: u8 = 2;

/// Follows frames through the machine, one at a time and one in a millisecond: under load that is a
/// sample. The guest's first frame after the interrupt is taken for the answer. Nothing here allocates after [`new`](Self::new).
///
/// Call order for a frame that is followed to its end: `taken`, `injected`, `served`, `made`, `sent`,
/// `acked`, `left`. An interrupt that was acknowledged counts even if no answer follows, or if the
/// answer to an earlier one is still awaited.
pub struct Stages {
    is_on: bool,
    /// When the last one that was followed was taken from the tap.
    last_taken: u64,
    /// A frame on its way to the guest.
    coming: Passage,
    /// A frame that reached the guest, on its way back.
    going: Passage,
    spans_ns: Vec<Histogram<u64>>,
    trace: Option<Trace>,
}

impl Stages {
    /// Nothing followed yet. Off, it follows nothing and its calls return at once: for the one who
    /// wants to know what it costs.
    pub fn new(is_on: bool, trace: Option<Trace>) -> Stages {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("sound bounds");
        Stages {
            is_on,
            last_taken: 0,
            coming: Passage::default(),
            going: Passage::default(),
            spans_ns: Stage::ALL.iter().map(|_| histogram()).collect(),
            trace,
        }
    }

    /// A frame was taken from the tap.
    pub fn taken(&mut self, now: impl FnOnce() -> u64) {
        if self.is_on && self.coming.taken == 0 {
            let now = now();
            if self.trace.is_some() || now >= self.last_taken + GAP_NS {
                self.last_taken = now;
                self.coming.taken = now;
            }
        }
    }

    /// An interrupt was injected. The last one before the guest acknowledges is the NIC's.
    pub fn injected(&mut self, now: impl FnOnce() -> u64) {
        if self.coming.taken != 0 {
            self.coming.injected = now();
        }
    }

    /// The guest's handler acknowledged the NIC's interrupt.
    pub fn served(&mut self, now: impl FnOnce() -> u64) {
        if self.coming.injected == 0 {
            return;
        }
        let mut coming = std::mem::take(&mut self.coming);
        coming.served = now();
        self.record(&coming, &[Stage::Inject, Stage::Handler]);
        if let Some(trace) = &mut self.trace {
            trace.delivered(&coming);
        }
        if self.going.taken == 0 {
            self.going = coming;
        }
    }

    /// The guest handed the NIC a frame.
    pub fn made(&mut self, now: impl FnOnce() -> u64) {
        if self.going.taken != 0 && self.going.made == 0 {
            self.going.made = now();
        }
        // A guest that polls took it without an interrupt.
        self.coming = Passage::default();
    }

    /// Everything logged so far is with the kernel.
    pub fn sent(&mut self, now: impl FnOnce() -> u64) {
        if self.going.made != 0 && self.going.sent == 0 {
            self.going.sent = now();
        }
    }

    /// The frame that was made at `made` may leave: its acknowledgement was seen, at `now`.
    pub fn acked(&mut self, made: u64, now: u64) {
        if self.going.made == made && self.going.sent != 0 {
            self.going.acked = now;
        }
    }

    /// Every frame that might leave is on the tap. `all` are those of a VM without a backup, where none
    /// waits for anything.
    pub fn left(&mut self, all: bool, now: impl FnOnce() -> u64) {
        if self.going.made == 0 || !(all || self.going.acked != 0) {
            return;
        }
        let mut going = std::mem::take(&mut self.going);
        going.left = now();
        self.record(
            &going,
            &[Stage::Guest, Stage::Send, Stage::Ack, Stage::Leave, Stage::Hold, Stage::Whole],
        );
        if let Some(trace) = &mut self.trace {
            trace.answered(&going);
        }
    }

    fn record(&mut self, passage: &Passage, stages: &[Stage]) {
        for &stage in stages {
            if let Some(span_ns) = passage.span_ns(stage) {
                self.spans_ns[stage as usize].saturating_record(span_ns);
            }
        }
    }

    /// Each stage that was passed, by name.
    pub fn status(&self) -> BTreeMap<&'static str, TimeStatus> {
        let passed = |stage: &Stage| {
            let ns = &self.spans_ns[*stage as usize];
            (!ns.is_empty()).then(|| (stage.name(), TimeStatus::of(ns)))
        };
        Stage::ALL.iter().filter_map(passed).collect()
    }

    /// What was followed, for who asked for it.
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
    fn protected_answer_is_followed_to_the_tap() {
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
    fn interrupts_count_while_an_answer_is_awaited_and_the_first_one_is_followed() {
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
    fn frame_that_the_guest_took_without_an_interrupt_is_not_followed() {
        let mut stages = Stages::new(true, Some(Trace::new(8)));
        stages.taken(at(100));
        stages.made(at(110));
        stages.left(true, at(120));
        stages.injected(at(130));
        stages.served(at(140));
        assert_eq!(counts(&stages), [0; 8]);
    }

    #[test]
    fn last_interrupt_before_the_acknowledgement_is_the_one() {
        let mut stages = Stages::new(true, Some(Trace::new(8)));
        stages.taken(at(100));
        stages.injected(at(110));
        stages.injected(at(120));
        stages.served(at(130));
        assert_eq!(stages.trace().unwrap().deliveries()[0].injected, 120);
    }

    #[test]
    fn without_a_trace_one_frame_in_a_millisecond_is_followed() {
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
