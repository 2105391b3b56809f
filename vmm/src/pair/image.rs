//! A captured checkpoint in the form that the engine sends.

use crate::checkpoint::ImageView;
use crate::mem::guest::read_page;
use crate::replica::CheckpointImage;
use logchan::limits::PAGE_BYTES;

/// A checkpoint image whose pages are read from guest RAM.
pub(super) struct InRam<'a, 'v>(pub(super) &'a ImageView<'v>);

impl CheckpointImage for InRam<'_, '_> {
    fn vcpu(&self) -> &[u8] {
        self.0.vcpu
    }

    fn devices(&self) -> &[u8] {
        self.0.devices
    }

    fn pages(&self) -> &[u64] {
        self.0.pages
    }

    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]) {
        read_page(self.0.ram, number, page);
    }
}
