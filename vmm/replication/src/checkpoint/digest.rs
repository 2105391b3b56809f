//! The digest that ends a checkpoint. Writer and reader of a log compute it, and the reader compares.

use alloc::boxed::Box;
use logchan::limits::PAGE_BYTES;
use xxhash_rust::xxh3::Xxh3;

/// xxh3-64 over the pages in the order sent, followed by the vCPU and device states. It covers the contents,
/// not their encoding. Pages come first because some of them are sent before the states exist.
#[derive(Clone, Default)]
pub struct CheckpointDigest(Box<Xxh3>);

impl CheckpointDigest {
    /// Adds a page's contents.
    pub fn page(&mut self, number: u64, bytes: &[u8; PAGE_BYTES]) {
        self.0.update(&number.to_le_bytes());
        self.0.update(bytes);
    }

    /// Returns the digest of the pages so far and these states.
    pub fn finish(&self, full: bool, vcpu: &[u8], devices: &[u8]) -> u64 {
        let mut hasher = self.0.clone();
        hasher.update(&[u8::from(full)]);
        for state in [vcpu, devices] {
            hasher.update(&(state.len() as u64).to_le_bytes());
            hasher.update(state);
        }
        hasher.digest()
    }
}

impl core::fmt::Debug for CheckpointDigest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("CheckpointDigest(..)")
    }
}
