//! What both ends of a checkpoint compute over it.

use logchan::entry::PageBytes;
use logchan::limits::PAGE_BYTES;
use xxhash_rust::xxh3::Xxh3;

/// xxh3-64 over the pages in the order sent, then the states. Pages come first because some are on
/// their way before the states exist.
#[derive(Clone, Default)]
pub(super) struct CheckpointDigest(Box<Xxh3>);

impl CheckpointDigest {
    pub(super) fn page(&mut self, number: u64, bytes: &PageBytes<'_>) {
        self.0.update(&number.to_le_bytes());
        match bytes {
            PageBytes::Zero => self.0.update(&[0]),
            PageBytes::Raw(raw) => self.0.update(raw),
        }
    }

    pub(super) fn finish(&self, full: bool, vcpu: &[u8], devices: &[u8]) -> u64 {
        let mut hasher = self.0.clone();
        hasher.update(&[u8::from(full)]);
        for state in [vcpu, devices] {
            hasher.update(&(state.len() as u64).to_le_bytes());
            hasher.update(state);
        }
        hasher.digest()
    }
}

impl std::fmt::Debug for CheckpointDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckpointDigest(..)")
    }
}

/// A page as an entry has it.
pub(super) fn page_bytes(page: &[u8; PAGE_BYTES]) -> PageBytes<'_> {
    if page.iter().all(|&byte| byte == 0) { PageBytes::Zero } else { PageBytes::Raw(page) }
}
