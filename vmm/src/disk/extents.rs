//! [`Extents`]: which parts of a disk may have changed, a bit each, in the size of a sector. A disk has at most 4096.

use super::changes::{BLOCK_BYTES, BlockSet};
use logchan::limits::DISK_EXTENTS_BYTES;
use std::ops::Range;

/// Most extents of a disk.
const EXTENTS_MAX: u64 = DISK_EXTENTS_BYTES as u64 * 8;

/// A set of extents of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extents {
    bits: [u8; DISK_EXTENTS_BYTES],
}

impl Extents {
    pub(super) const NONE: Extents = Extents { bits: [0; DISK_EXTENTS_BYTES] };
    pub(super) const ALL: Extents = Extents { bits: [0xff; DISK_EXTENTS_BYTES] };

    pub(super) fn from_bits(bits: [u8; DISK_EXTENTS_BYTES]) -> Extents {
        Extents { bits }
    }

    pub(super) fn bits(&self) -> &[u8; DISK_EXTENTS_BYTES] {
        &self.bits
    }

    /// Adds every extent of which `range`, in bytes, has a part. Returns whether one is new.
    pub(super) fn add_bytes(&mut self, range: &Range<u64>, disk_bytes: u64) -> Added {
        let extent_bytes = extent_blocks(disk_bytes) * BLOCK_BYTES;
        let mut added = Added::Nothing;
        if range.start < range.end {
            for extent in range.start / extent_bytes..range.end.div_ceil(extent_bytes) {
                let (byte, bit) = ((extent / 8) as usize, 1 << (extent % 8));
                if self.bits[byte] & bit == 0 {
                    self.bits[byte] |= bit;
                    added = Added::New;
                }
            }
        }
        added
    }

    /// Returns the extents that have one of `blocks`.
    pub(super) fn of(blocks: &BlockSet, disk_bytes: u64) -> Extents {
        let many = extent_blocks(disk_bytes);
        let mut extents = Extents::NONE;
        let mut from = 0;
        while let Some(block) = blocks.next(from) {
            let start = block * BLOCK_BYTES;
            extents.add_bytes(&(start..start + 1), disk_bytes);
            from = (block / many + 1) * many;
        }
        extents
    }

    /// Returns the extents' blocks.
    pub(super) fn blocks(&self, disk_bytes: u64) -> BlockSet {
        let many = extent_blocks(disk_bytes);
        let mut blocks = BlockSet::new(disk_bytes);
        for (byte, bits) in self.bits.iter().enumerate().filter(|(_, bits)| **bits != 0) {
            for bit in (0..8).filter(|bit| bits >> bit & 1 != 0) {
                let extent = byte as u64 * 8 + bit;
                blocks.add(extent * many..(extent + 1) * many);
            }
        }
        blocks
    }
}

/// Whether an extent was added that had not been in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    New,
    Nothing,
}

/// Returns the number of blocks of an extent: a power of two, so that a disk has at most [`EXTENTS_MAX`].
fn extent_blocks(disk_bytes: u64) -> u64 {
    disk_bytes.div_ceil(BLOCK_BYTES).div_ceil(EXTENTS_MAX).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_cover_what_was_added_and_little_else() {
        for bytes in [512, 1 << 20, 256 << 20, (256 << 20) + 512, 16 << 40] {
            let mut extents = Extents::NONE;
            let last = bytes - 512..bytes;
            assert_eq!(extents.add_bytes(&last, bytes), Added::New);
            assert_eq!(extents.add_bytes(&last, bytes), Added::Nothing);
            assert_eq!(extents.add_bytes(&(5..5), bytes), Added::Nothing);
            let blocks = extents.blocks(bytes);
            assert!(blocks.has(blocks.blocks() - 1));
            assert!(blocks.count() <= extent_blocks(bytes));
            assert_eq!(Extents::of(&blocks, bytes), extents);
            assert_eq!(Extents::ALL.blocks(bytes).count(), blocks.blocks());
            assert_eq!(Extents::NONE.blocks(bytes).count(), 0);
        }
        assert_eq!(extent_blocks(256 << 20), 1);
        assert_eq!(extent_blocks((256 << 20) + 512), 2);
    }
}
