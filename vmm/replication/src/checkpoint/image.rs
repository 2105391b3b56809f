//! The state of a stopped machine.

use alloc::boxed::Box;
use alloc::vec::Vec;
use logchan::limits::PAGE_BYTES;

/// State of a stopped machine that a log is to carry: the states are encoded, the pages are still in guest
/// memory.
pub trait CheckpointImage {
    /// Returns whether [`pages`](Self::pages) lists every page that is not zero, and not only those that
    /// changed.
    fn full(&self) -> bool;
    /// Returns the encoded vCPU state.
    fn vcpu(&self) -> &[u8];
    /// Returns the encoded device state.
    fn devices(&self) -> &[u8];
    /// Returns the numbers of the pages written since dirty tracking began or since the last checkpoint,
    /// whichever was later, in ascending order.
    fn pages(&self) -> &[u64];
    /// Returns the number of pages of guest memory.
    fn memory_pages(&self) -> u64;
    /// Copies the contents of page `number` to `page`.
    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]);
}

/// One page of an [`Image`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageImage {
    /// Page number.
    pub number: u64,
    /// Contents; `None` is a page of zeros.
    pub bytes: Option<Box<[u8; PAGE_BYTES]>>,
}

/// A complete checkpoint, received and verified, ready to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// A full checkpoint: pages that are not listed are zero.
    pub full: bool,
    /// Encoded vCPU state.
    pub vcpu: Vec<u8>,
    /// Encoded device state.
    pub devices: Vec<u8>,
    /// Pages in ascending order.
    pub pages: Vec<PageImage>,
}
