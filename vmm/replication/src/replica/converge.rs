//! Whether a precopy comes to an end: what follows each of its passes, and how much the guest is slowed.
//!
//! The closing checkpoint contains the pages that were written during the last pass, and the VM is paused while it is
//! sent. So another pass follows while these pages are more than the link carries in [`pause_wanted`]. A guest that writes
//! about as fast as the link carries, or faster, makes no pass shorter than the one before. It gets half the share of time
//! after each such pass (auto-converge, as QEMU calls it). At the smallest share, and after the last pass that is allowed,
//! the sync is closed if the pause stays below [`pause_max`], and given up if not.
//!
//! ```text
//!              <= pause_wanted          next pass takes < half the time
//!  pass over -----------------> close  --------------------------------> pass
//!      |                                otherwise
//!      +--------------------------------------------> share > least ---> pass, half the share
//!                                                     otherwise -------> <= pause_max: close, else give up
//! ```

use crate::limits::{COPY_PASSES_MAX, GUEST_SHARE_HALVINGS_MAX, PAGE_ENTRY_BYTES_MAX};
use core::fmt::{self, Display};
use logchan::limits::{CHECKPOINT_PAGES_MAX, PAGE_BYTES};
use logchan::time::{Duration, Time};

/// Pages of a pass from which its rate is measured: bytes that wait in queues and buckets of the link are few against
/// these. In a tiny memory, a quarter of its pages are enough. The first pass is always measured.
const MEASURED_PAGES_MIN: u64 = 32;

/// Returns the pause that the closing checkpoint may take without another attempt to make it shorter: a quarter of the
/// silence timeout. Nobody takes the VM for dead within it.
fn pause_wanted(silence: Duration) -> Duration {
    Duration::from_nanos(silence.as_nanos() / 4)
}

/// Returns the longest pause that a closing checkpoint may be expected to take: ten silence timeouts. Connections of
/// clients survive it, as they survive a takeover.
fn pause_max(silence: Duration) -> Duration {
    silence * 10
}

/// The share of time for which a guest runs while its memory is copied: 1, or 1/2, 1/4, ... .
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestShare {
    halvings: u32,
}

impl GuestShare {
    /// The guest is not slowed.
    pub const WHOLE: GuestShare = GuestShare { halvings: 0 };

    /// The guest pauses for as long as it runs.
    #[cfg(test)]
    pub(crate) const HALF: GuestShare = GuestShare { halvings: 1 };

    /// Returns whether the guest is not slowed.
    pub fn is_whole(self) -> bool {
        self == GuestShare::WHOLE
    }

    /// Returns how many times longer the guest takes for its work.
    pub fn divisor(self) -> u64 {
        1 << self.halvings
    }

    /// Returns how long a guest that ran for `ran` must pause for its share.
    pub fn pause_after(self, ran: Duration) -> Duration {
        ran * (self.divisor() - 1)
    }

    pub(super) fn halved(self) -> Option<GuestShare> {
        let halvings = self.halvings + 1;
        (halvings <= GUEST_SHARE_HALVINGS_MAX).then_some(GuestShare { halvings })
    }
}

/// `1`, or `1/8`.
impl Display for GuestShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.divisor() {
            1 => f.write_str("1"),
            divisor => write!(f, "1/{divisor}"),
        }
    }
}

/// How far a precopy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// Number of the current pass; the first is 1.
    pub pass: u32,
    /// Pages that this pass has to copy still.
    pub pages_left: u64,
    /// The guest's share of time.
    pub share: GuestShare,
    /// What the log link carried in the passes before, bytes per second; `None` in the first one.
    pub carried_per_s: Option<u64>,
}

/// What follows a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterPass {
    /// The closing checkpoint.
    Close,
    /// Another pass.
    Pass,
    /// Another pass, in which the guest gets a smaller share of time than before.
    SlowerPass,
    /// The sync is given up.
    GiveUp,
}

/// The passes of a precopy.
#[derive(Debug)]
pub(super) struct Passes {
    /// Number of the current pass; 0 before the first one.
    pass: u32,
    /// Pages sent in the passes before, and in this one at most: with those, the checkpoint's number of pages must stay
    /// below its limit.
    pages: u64,
    began_at: Time,
    /// Bytes appended to the bulk lane when it began.
    began_bytes: u64,
    /// Bytes of a pass from which its rate is measured.
    measured_bytes_min: u64,
    share: GuestShare,
    carried_per_s: Option<u64>,
}

impl Passes {
    /// Creates the passes over `memory_pages` pages.
    pub(super) fn new(memory_pages: u64) -> Passes {
        Passes {
            pass: 0,
            pages: 0,
            began_at: Time::default(),
            began_bytes: 0,
            measured_bytes_min: MEASURED_PAGES_MIN.min(memory_pages / 4) * PAGE_BYTES as u64,
            share: GuestShare::WHOLE,
            carried_per_s: None,
        }
    }

    /// A pass over at most `pages` pages begins, when `bulk_bytes` bytes were appended to the bulk lane.
    pub(super) fn begin(&mut self, now: Time, bulk_bytes: u64, pages: u64) {
        self.pass += 1;
        self.pages += pages;
        self.began_at = now;
        self.began_bytes = bulk_bytes;
    }

    /// The backup has acknowledged every page of the pass, up to `bulk_bytes` of the bulk lane, and `written` pages were
    /// written since it began. Returns what follows.
    pub(super) fn end(
        &mut self,
        now: Time,
        bulk_bytes: u64,
        written: u64,
        silence: Duration,
    ) -> AfterPass {
        let took = now.since(self.began_at);
        self.measure(took, bulk_bytes - self.began_bytes);
        let pause = self.time_of(written);
        if pause <= pause_wanted(silence) {
            return AfterPass::Close;
        }
        let is_last = self.pass == COPY_PASSES_MAX
            || self.pages + 2 * written > u64::from(CHECKPOINT_PAGES_MAX);
        if !is_last && pause * 2 <= took {
            return AfterPass::Pass;
        }
        match self.share.halved().filter(|_| !is_last) {
            Some(share) => {
                self.share = share;
                AfterPass::SlowerPass
            }
            None if pause <= pause_max(silence) => AfterPass::Close,
            None => AfterPass::GiveUp,
        }
    }

    /// The pass took `took` for `bytes` bytes.
    fn measure(&mut self, took: Duration, bytes: u64) {
        if bytes > 0 && (bytes >= self.measured_bytes_min || self.carried_per_s.is_none()) {
            let per_s = u128::from(bytes) * 1_000_000_000 / u128::from(took.as_nanos().max(1));
            self.carried_per_s = Some(u64::try_from(per_s).unwrap_or(u64::MAX).max(1));
        }
    }

    /// Returns how long the link takes for `pages` pages.
    fn time_of(&self, pages: u64) -> Duration {
        let bytes = u128::from(pages) * PAGE_ENTRY_BYTES_MAX as u128;
        // Nothing was sent yet: the guest's memory was zero.
        let per_s = self.carried_per_s.unwrap_or(u64::MAX);
        let nanos = bytes * 1_000_000_000 / u128::from(per_s);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4).min(u64::MAX / 4))
    }

    pub(super) fn share(&self) -> GuestShare {
        self.share
    }

    /// Returns what the link carried in the last pass that was measured, bytes per second; 0 before.
    pub(super) fn carried_per_s(&self) -> u64 {
        self.carried_per_s.unwrap_or(0)
    }

    pub(super) fn progress(&self, pages_left: u64) -> CopyProgress {
        let &Passes { pass, share, carried_per_s, .. } = self;
        CopyProgress { pass, pages_left, share, carried_per_s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_millis(100);
    /// Pages that a link of 10 MB/s carries in a second.
    const PER_S: u64 = 10_000_000 / PAGE_ENTRY_BYTES_MAX as u64;

    /// A link of 10 MB/s, and a guest that writes `written` pages in each pass. Returns what followed the passes.
    fn run(
        first: u64,
        mut written: impl FnMut(u64, GuestShare) -> u64,
    ) -> (Vec<AfterPass>, GuestShare) {
        let (mut now, mut bytes) = (Time::from_nanos(1 << 40), 0);
        let mut passes = Passes::new(first);
        let mut pages = first;
        let mut all = Vec::new();
        loop {
            passes.begin(now, bytes, pages);
            let sent = pages * PAGE_ENTRY_BYTES_MAX as u64;
            now = now + Duration::from_micros(sent / 10);
            bytes += sent;
            pages = written(pages, passes.share());
            let after = passes.end(now, bytes, pages, SILENCE);
            all.push(after);
            match after {
                AfterPass::Close | AfterPass::GiveUp => return (all, passes.share()),
                AfterPass::Pass | AfterPass::SlowerPass => {}
            }
        }
    }

    #[test]
    fn few_written_pages_are_left_to_the_closing_checkpoint() {
        let (all, share) = run(4 * PER_S, |_, _| PER_S / 50);
        assert_eq!((&all[..], share), (&[AfterPass::Close][..], GuestShare::WHOLE));
    }

    #[test]
    fn passes_that_get_shorter_do_not_slow_the_guest() {
        let (all, share) = run(4 * PER_S, |pages, _| pages / 3);
        assert!(all.len() > 3 && share.is_whole(), "{all:?}");
        assert!(all[..all.len() - 1].iter().all(|&after| after == AfterPass::Pass), "{all:?}");
        assert_eq!(all.last(), Some(&AfterPass::Close));
    }

    #[test]
    fn guest_that_writes_as_fast_as_the_link_is_slowed_until_the_passes_get_shorter() {
        // It writes three times as fast as the link carries, in all of its memory.
        let (all, share) = run(4 * PER_S, |pages, share| pages * 3 / share.divisor());
        assert_eq!(share.divisor(), 8, "{all:?}");
        assert_eq!(all.iter().filter(|&&after| after == AfterPass::SlowerPass).count(), 3);
        assert_eq!(all.last(), Some(&AfterPass::Close));
    }

    #[test]
    fn pages_that_are_written_in_every_pass_are_closed_or_given_up_at_the_smallest_share() {
        for (pages, end) in [(PER_S / 2, AfterPass::Close), (2 * PER_S, AfterPass::GiveUp)] {
            let (all, share) = run(4 * PER_S, |_, _| pages);
            assert_eq!(share.divisor(), 1 << GUEST_SHARE_HALVINGS_MAX, "{all:?}");
            assert_eq!(all.last(), Some(&end));
        }
    }

    #[test]
    fn number_of_passes_is_limited() {
        let mut turn = 0;
        let (all, _share) = run(PER_S, |pages, _| {
            turn += 1;
            if turn % 2 == 0 { pages * 3 } else { pages / 2 }
        });
        assert!(all.len() <= COPY_PASSES_MAX as usize, "{all:?}");
    }

    #[test]
    fn pass_that_sent_nothing_has_no_rate_and_small_ones_do_not_change_it() {
        let mut passes = Passes::new(1 << 12);
        let at = |ms| Time::from_nanos(1 << 40) + Duration::from_millis(ms);
        passes.begin(at(0), 0, 9);
        assert_eq!(passes.end(at(5), 0, 9, SILENCE), AfterPass::Close);
        passes.begin(at(5), 0, 1);
        passes.end(at(6), 5000, 9, SILENCE);
        passes.begin(at(6), 5000, 1);
        passes.end(at(7), 8000, 9, SILENCE);
        assert_eq!(passes.progress(0).carried_per_s, Some(5_000_000));
    }

    #[test]
    fn share_says_how_long_the_guest_pauses() {
        let ms = Duration::from_millis;
        let quarter = GuestShare::WHOLE.halved().and_then(GuestShare::halved).unwrap();
        assert_eq!(quarter.pause_after(ms(2)), ms(6));
        assert_eq!(GuestShare::WHOLE.pause_after(ms(2)), ms(0));
        assert_eq!([quarter.to_string(), GuestShare::WHOLE.to_string()], ["1/4", "1"]);
    }
}
