//! Precopy: sends guest memory to a backup while the VM runs.
//!
//! ```text
//!  track writes                 take the set of                            stop: send the pages
//!  from here on                 written pages                              written since the last set
//!  --------|--- pass 1 -----------|--- pass 2 ---------|--- ... --------------|------------> protected
//!           page 0, 1, 2, ...      the pages of the set                       a pause
//!           as they are now        as they are now
//! ```
//!
//! The pages are copied at different times. They become one consistent state, because every write is in a set: the set
//! before is taken, and the next one begun, while the guest is stopped. A page of a set is read after the set was taken.
//! So a page is either sent after its last write, or it is in the last set, which the closing checkpoint contains. The
//! backup keeps the newest contents of each page.
//!
//! A pass ends when the backup has acknowledged all of it. [`converge`](super::converge) decides what follows.

use super::converge::{CopyProgress, GuestShare, Passes};
use super::disk::CopyState;
use super::disk_pace::{DiskPace, Pace};
use super::resync::SyncDelay;
use super::step::CopyRequest;
use crate::boundary::DiskOperation;
use crate::checkpoint::CheckpointDigest;
use crate::limits::COPY_REST_BYTES_MAX;
use alloc::vec::Vec;
use logchan::ids::LogSeq;
use logchan::time::{Duration, Time};

/// Progress of a precopy.
#[derive(Debug)]
pub(super) struct Precopy {
    phase: Phase,
    memory_pages: u64,
    /// Pages sent, in all passes.
    pub(super) pages: u32,
    /// Bytes of their entries.
    pub(super) page_bytes: u64,
    pub(super) digest: CheckpointDigest,
    pub(super) passes: Passes,
    pub(super) disks: DiskProgress,
    disk_pace: DiskPace,
    /// Where the last page ends in the bulk lane, which carries messages of the disks' copy, too.
    pub(super) pages_end: LogSeq,
    /// Since when it made no progress, as it was reported.
    pub(super) stalled_since: Option<Time>,
    /// It has not begun yet.
    pub(super) delay: Option<SyncDelay>,
    /// When it is given up. While most of the disks is not copied yet, it has no such time.
    pub(super) ends_at: Time,
}

/// Progress of the copy of the disks, which begins before that of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskProgress {
    /// Most of them is not copied yet, and the memory waits. The bytes that are left, once they are known.
    Far(Option<u64>),
    /// What is left is copied beside the memory.
    Near {
        /// Bytes left.
        bytes_left: u64,
    },
    /// The backup's disks have the same contents.
    Whole,
}

impl DiskProgress {
    /// Returns whether the backup's disks have the same contents.
    pub(super) fn is_whole(self) -> bool {
        match self {
            DiskProgress::Far(_) | DiskProgress::Near { .. } => false,
            DiskProgress::Whole => true,
        }
    }

    /// Returns whether the copy of the memory may begin.
    pub(super) fn is_near(self) -> bool {
        match self {
            DiskProgress::Far(_) => false,
            DiskProgress::Near { .. } | DiskProgress::Whole => true,
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// Writes are not tracked yet.
    NotBegun,
    /// The first pass copies every page. `next` is the number of the next one.
    First { next: u64 },
    /// A later pass copies pages that were written, which are ascending. `next` is an index.
    Again { pages: Vec<u64>, next: usize },
    /// The closing checkpoint is due, and contains these pages.
    Closing { pages: Vec<u64> },
}

impl Precopy {
    pub(super) fn new(
        memory_pages: u64,
        disks: DiskProgress,
        delay: Option<SyncDelay>,
        ends_at: Time,
    ) -> Precopy {
        Precopy {
            phase: Phase::NotBegun,
            memory_pages,
            pages: 0,
            page_bytes: 0,
            digest: CheckpointDigest::default(),
            passes: Passes::new(memory_pages),
            disks,
            disk_pace: DiskPace::NEW,
            pages_end: LogSeq(0),
            stalled_since: None,
            delay,
            ends_at,
        }
    }

    /// Returns the next request to the machine; `None` before it begins, and when the closing checkpoint is due.
    pub(super) fn request(&self) -> Option<CopyRequest> {
        match &self.phase {
            Phase::NotBegun if self.delay.is_some() || !self.disks.is_near() => None,
            Phase::NotBegun => Some(CopyRequest::Begin),
            Phase::First { .. } | Phase::Again { .. } => {
                Some(self.page().map_or(CopyRequest::Written, CopyRequest::Page))
            }
            Phase::Closing { .. } => None,
        }
    }

    /// The copier of the disks is in `state`. If the copy of the memory begins now, it is given up at `ends_at`.
    pub(super) fn note_disks(&mut self, state: CopyState, ends_at: Time) {
        let was_near = self.disks.is_near();
        self.disks = match state {
            CopyState::Whole => DiskProgress::Whole,
            CopyState::Running { bytes_left } if was_near || bytes_left <= COPY_REST_BYTES_MAX => {
                DiskProgress::Near { bytes_left }
            }
            CopyState::Running { bytes_left } => DiskProgress::Far(Some(bytes_left)),
            CopyState::Failed { .. } => self.disks,
        };
        if !was_near && self.disks.is_near() {
            self.ends_at = ends_at;
        }
    }

    /// Returns what is to be done about the copy of the disks: nothing once the memory is copied, too, which has
    /// [its own end](Self::gives_up_at).
    pub(super) fn pace_disks(&mut self, now: Time, silence: Duration) -> Pace {
        match self.disks {
            DiskProgress::Far(Some(bytes_left)) => self.disk_pace.note(now, bytes_left, silence),
            DiskProgress::Far(None) | DiskProgress::Near { .. } | DiskProgress::Whole => Pace::Goes,
        }
    }

    /// Returns whether the guest was slowed for this copy.
    pub(super) fn has_slowed(&self) -> bool {
        !self.passes.share().is_whole() || !self.disk_pace.share().is_whole()
    }

    /// A request to a disk begins. What it writes is not copied before the copier says so.
    pub(super) fn disks_written(&mut self, operation: DiskOperation) {
        let writes = match operation {
            DiskOperation::Read | DiskOperation::Flush => false,
            DiskOperation::Write | DiskOperation::Discard | DiskOperation::WriteZeroes => true,
        };
        if writes && self.disks.is_whole() {
            self.disks = DiskProgress::Near { bytes_left: 0 };
        }
    }

    /// Returns whether the memory is being copied.
    pub(super) fn copies_pages(&self) -> bool {
        match &self.phase {
            Phase::First { .. } | Phase::Again { .. } => true,
            Phase::NotBegun | Phase::Closing { .. } => false,
        }
    }

    /// Returns when the sync is given up; `None` while the copy of the memory waits for that of the disks.
    pub(super) fn gives_up_at(&self) -> Option<Time> {
        self.disks.is_near().then_some(self.ends_at)
    }

    /// Returns whether the closing checkpoint is due.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Returns whether this is the pass over every page. The backup's memory starts as zeros, so this pass need not send
    /// pages of zeros. A later one must: the backup has earlier contents.
    pub(super) fn is_first_pass(&self) -> bool {
        matches!(self.phase, Phase::First { .. })
    }

    /// Writes are tracked from here on.
    pub(super) fn begin(&mut self, now: Time) {
        assert!(matches!(self.phase, Phase::NotBegun), "the copy was begun twice");
        self.phase = Phase::First { next: 0 };
        self.passes.begin(now, 0, self.memory_pages);
    }

    /// Returns the number of the next page to copy; `None` at the end of a pass.
    pub(super) fn page(&self) -> Option<u64> {
        match &self.phase {
            Phase::First { next } => (*next < self.memory_pages).then_some(*next),
            Phase::Again { pages, next } => pages.get(*next).copied(),
            Phase::NotBegun | Phase::Closing { .. } => None,
        }
    }

    /// Moves on to the next page. `sent`: the current one was sent.
    pub(super) fn advance(&mut self, sent: bool) {
        match &mut self.phase {
            Phase::First { next } => *next += 1,
            Phase::Again { next, .. } => *next += 1,
            Phase::NotBegun | Phase::Closing { .. } => unreachable!("no page was asked for"),
        }
        self.pages += u32::from(sent);
    }

    /// Begins a pass over `pages`, when `bulk_bytes` bytes were appended to the bulk lane.
    pub(super) fn begin_pass(&mut self, now: Time, bulk_bytes: u64, pages: Vec<u64>) {
        self.passes.begin(now, bulk_bytes, pages.len() as u64);
        self.phase = Phase::Again { pages, next: 0 };
    }

    /// Leaves `pages` to the closing checkpoint.
    pub(super) fn close(&mut self, pages: Vec<u64>) {
        self.phase = Phase::Closing { pages };
    }

    /// Returns the pages of the closing checkpoint, ascending: those that were left to it, and `written`, which were
    /// written since.
    pub(super) fn closing_pages(&self, written: &[u64]) -> Vec<u64> {
        let mut pages = match &self.phase {
            Phase::Closing { pages } => pages.clone(),
            Phase::NotBegun | Phase::First { .. } | Phase::Again { .. } => Vec::new(),
        };
        pages.extend_from_slice(written);
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    /// Returns the share of time for which the guest runs.
    pub(super) fn share(&self) -> GuestShare {
        match &self.phase {
            Phase::Again { .. } => self.passes.share(),
            Phase::NotBegun if !self.disks.is_near() => self.disk_pace.share(),
            // The guest is to reach the closing checkpoint.
            Phase::Closing { .. } | Phase::NotBegun | Phase::First { .. } => GuestShare::WHOLE,
        }
    }

    /// Returns how far it is; `None` before it begins.
    pub(super) fn progress(&self) -> Option<CopyProgress> {
        let pages_left = match &self.phase {
            Phase::NotBegun => return None,
            Phase::First { next } => self.memory_pages - next,
            Phase::Again { pages, next } => (pages.len() - next) as u64,
            Phase::Closing { pages } => pages.len() as u64,
        };
        Some(self.passes.progress(pages_left))
    }
}
