//! Precopy: sends guest memory to a backup while the VM runs.
//!
//! ```text
//!  begin: track writes   send page 0, 1, 2, ... as it is now      stop: send the pages written since begin
//!  --------|------------------------------------------------------|-----> protected
//!                        the VM runs                               a pause
//! ```
//!
//! The pages are copied at different times. They become one consistent state because the closing checkpoint
//! contains every page that was written since the beginning.

use super::resync::SyncDelay;
use super::step::CopyRequest;
use crate::checkpoint::CheckpointDigest;
use logchan::time::Time;

/// Progress of a precopy.
#[derive(Debug)]
pub(super) struct Precopy {
    /// Number of the next page to copy; `None` before writes are tracked.
    next: Option<u64>,
    memory_pages: u64,
    /// Pages sent; pages of zeros are not.
    pub(super) pages: u32,
    pub(super) digest: CheckpointDigest,
    /// Since when it made no progress, as it was reported.
    pub(super) stalled_since: Option<Time>,
    /// It has not begun yet.
    pub(super) delay: Option<SyncDelay>,
    /// When it is given up.
    pub(super) ends_at: Time,
}

impl Precopy {
    pub(super) fn new(memory_pages: u64, delay: Option<SyncDelay>, ends_at: Time) -> Precopy {
        Precopy {
            next: None,
            memory_pages,
            pages: 0,
            digest: CheckpointDigest::default(),
            stalled_since: None,
            delay,
            ends_at,
        }
    }

    /// Returns the next request to the machine; `None` when every page was copied, or before it begins.
    pub(super) fn request(&self) -> Option<CopyRequest> {
        match self.next {
            None if self.delay.is_some() => None,
            None => Some(CopyRequest::Begin),
            Some(page) => (page < self.memory_pages).then_some(CopyRequest::Page(page)),
        }
    }

    /// Returns whether every page was copied.
    pub(super) fn is_complete(&self) -> bool {
        self.next.is_some() && self.request().is_none()
    }

    /// Writes are tracked from here on.
    pub(super) fn begin(&mut self) {
        assert_eq!(self.next, None, "the copy was begun twice");
        self.next = Some(0);
    }

    /// Returns the number of the next page to copy.
    pub(super) fn page(&self) -> u64 {
        self.next.expect("the copy was begun")
    }

    /// Moves on to the next page. `sent`: the current one was not a page of zeros.
    pub(super) fn advance(&mut self, sent: bool) {
        self.next = Some(self.page() + 1);
        self.pages += u32::from(sent);
    }
}
