//! Digest of a checkpoint, computed by both hosts and compared by the backup.

use logchan::limits::PAGE_BYTES;
use xxhash_rust::xxh3::Xxh3;

/// xxh3-64 over the pages in the order sent, followed by the vCPU and device states. It covers the contents,
/// not their encoding. Pages come first because some of them are sent before the states exist.
#[derive(Clone, Default)]
pub(super) struct CheckpointDigest(Box<Xxh3>);

impl CheckpointDigest {
    pub(super) fn page(&mut self, number: u64, bytes: &[u8; PAGE_BYTES]) {
        self.0.update(&number.to_le_bytes());
        self.0.update(bytes);
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
