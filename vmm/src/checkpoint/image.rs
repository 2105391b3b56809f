//! A checkpoint that was just taken.

use crate::mem::GuestRam;
use crate::mem::guest::{self, read_page};
use crate::mem::layout::PAGE;
use logchan::limits::PAGE_BYTES;
use replication::checkpoint::CheckpointImage;

/// A checkpoint that was just taken: the states are encoded, the pages are still in guest RAM.
#[derive(Debug)]
pub struct ImageView<'a> {
    /// `pages` lists every page that is not zero, and not only those that changed.
    pub full: bool,
    /// Encoded `VcpuState`.
    pub vcpu: &'a [u8],
    /// Encoded `DevicesState`.
    pub devices: &'a [u8],
    /// Page numbers, ascending.
    pub pages: &'a [u64],
    /// Guest RAM, which holds the contents of the pages.
    pub ram: &'a GuestRam,
}

impl CheckpointImage for ImageView<'_> {
    fn full(&self) -> bool {
        self.full
    }

    fn vcpu(&self) -> &[u8] {
        self.vcpu
    }

    fn devices(&self) -> &[u8] {
        self.devices
    }

    fn pages(&self) -> &[u64] {
        self.pages
    }

    fn memory_pages(&self) -> u64 {
        guest::bytes(self.ram) / PAGE
    }

    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]) {
        read_page(self.ram, number, page);
    }
}
