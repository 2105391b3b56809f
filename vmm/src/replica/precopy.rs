//! Giving a backup the memory beside the running VM.
//!
//! ```text
//!  begin: note writes   page 0, 1, 2, ... as they are now      stop: what was written since begin
//!  --------|------------------------------------------------------|-----> protected
//!                        the VM runs                               a pause
//! ```
//!
//! Pages that are copied early may be of different moments; what makes them one state is that every
//! page written since the beginning is in the closing checkpoint again.

use super::digest::CheckpointDigest;
use super::step::CopyRequest;

/// How far the copy is.
#[derive(Debug)]
pub(super) struct Precopy {
    /// The next page; `None` before writes are noted.
    next: Option<u64>,
    memory_pages: u64,
    /// Pages sent.
    pub(super) pages: u32,
    pub(super) digest: CheckpointDigest,
}

impl Precopy {
    pub(super) fn new(memory_pages: u64) -> Precopy {
        Precopy { next: None, memory_pages, pages: 0, digest: CheckpointDigest::default() }
    }

    /// What is wanted next; `None` when every page was copied.
    pub(super) fn request(&self) -> Option<CopyRequest> {
        match self.next {
            None => Some(CopyRequest::Begin),
            Some(page) => (page < self.memory_pages).then_some(CopyRequest::Page(page)),
        }
    }

    /// Every page was copied: the closing checkpoint can be taken.
    pub(super) fn is_through(&self) -> bool {
        self.request().is_none()
    }

    pub(super) fn begin(&mut self) {
        assert_eq!(self.next, None, "the copy was begun twice");
        self.next = Some(0);
    }

    /// The next page, which has this number.
    pub(super) fn page(&self) -> u64 {
        self.next.expect("the copy was begun")
    }

    pub(super) fn advance(&mut self, sent: bool) {
        self.next = Some(self.page() + 1);
        self.pages += u32::from(sent);
    }
}
