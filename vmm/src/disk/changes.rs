//! [`BlockSet`]: blocks of a disk that have changed.

use logchan::limits::DISK_BLOCK_BYTES;
use std::ops::Range;

/// Bytes of a block. The last block of a disk may be shorter.
pub(super) const BLOCK_BYTES: u64 = DISK_BLOCK_BYTES as u64;

/// A set of blocks of one disk.
#[derive(Clone, Debug)]
pub(super) struct BlockSet {
    /// A bit for each block. Zeroed memory that the kernel provides when it is used: for an empty set, nearly none.
    words: Vec<u64>,
    blocks: u64,
    count: u64,
}

impl BlockSet {
    /// An empty set for a disk of `bytes` bytes.
    pub(super) fn new(bytes: u64) -> BlockSet {
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        let words = vec![0; blocks.div_ceil(u64::BITS.into()) as usize];
        BlockSet { words, blocks, count: 0 }
    }

    /// Returns the number of blocks of the disk.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Returns the number of blocks in the set.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Adds every block of which `range`, in bytes, has a part.
    pub(super) fn add_bytes(&mut self, range: &Range<u64>) {
        if range.start < range.end {
            self.add(range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES));
        }
    }

    /// Adds blocks.
    pub(super) fn add(&mut self, blocks: Range<u64>) {
        let end = blocks.end.min(self.blocks);
        let mut next = blocks.start;
        while next < end {
            let (index, first) = place(next);
            let many = (end - next).min(u64::from(u64::BITS - first));
            let mask = (u64::MAX >> (u64::from(u64::BITS) - many)) << first;
            let word = &mut self.words[index];
            self.count += u64::from((mask & !*word).count_ones());
            *word |= mask;
            next += many;
        }
    }

    /// Adds every block of `other`, a set for the same disk.
    pub(super) fn add_all(&mut self, other: &BlockSet) {
        self.count = 0;
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
            self.count += u64::from(word.count_ones());
        }
    }

    /// Removes a block. Returns whether it was in the set.
    pub(super) fn remove(&mut self, block: u64) -> bool {
        let was_there = self.has(block);
        if was_there {
            let (index, bit) = place(block);
            self.words[index] &= !(1 << bit);
            self.count -= 1;
        }
        was_there
    }

    /// Removes all blocks.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
        self.count = 0;
    }

    /// Returns whether a block is in the set.
    pub(super) fn has(&self, block: u64) -> bool {
        let (index, bit) = place(block);
        block < self.blocks && self.words[index] >> bit & 1 != 0
    }

    /// Returns the first block of the set at or after `from`.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        if self.count == 0 || from >= self.blocks {
            return None;
        }
        let (first, bit) = place(from);
        let masked = |index: usize| {
            let word = self.words[index];
            if index == first { word & (u64::MAX << bit) } else { word }
        };
        let index = (first..self.words.len()).find(|&index| masked(index) != 0)?;
        let bit = masked(index).trailing_zeros();
        Some(index as u64 * u64::from(u64::BITS) + u64::from(bit))
    }
}

/// Returns the index of a block's word, and its bit.
fn place(block: u64) -> (usize, u32) {
    let bits = u64::from(u64::BITS);
    ((block / bits) as usize, (block % bits) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn set_acts_as_a_model() {
        let mut random = fastrand::Rng::with_seed(7);
        for blocks in [1, 63, 64, 65, 300] {
            let mut set = BlockSet::new(blocks * BLOCK_BYTES - 512);
            let mut model = BTreeSet::new();
            assert_eq!(set.blocks(), blocks);
            for _ in 0..500 {
                let start = random.u64(..blocks);
                match random.u8(..4) {
                    0 => assert_eq!(set.remove(start), model.remove(&start)),
                    1 => {
                        let range = start..start + random.u64(1..100);
                        model.extend(range.clone().filter(|&block| block < blocks));
                        set.add(range);
                    }
                    2 => {
                        let first = start * BLOCK_BYTES + random.u64(..BLOCK_BYTES);
                        let range = first..first + random.u64(1..3 * BLOCK_BYTES);
                        let touched = range.start / BLOCK_BYTES..=(range.end - 1) / BLOCK_BYTES;
                        model.extend(touched.filter(|&block| block < blocks));
                        set.add_bytes(&range);
                    }
                    _ => {
                        let mut other = BlockSet::new(blocks * BLOCK_BYTES);
                        other.add(start..start + 3);
                        set.add_all(&other);
                        model.extend((start..start + 3).filter(|&block| block < blocks));
                    }
                }
                assert_eq!(set.count(), model.len() as u64);
                let from = random.u64(..blocks + 1);
                assert_eq!(set.next(from), model.range(from..).next().copied());
            }
            set.add_bytes(&(5..5));
            set.clear();
            assert_eq!((set.count(), set.next(0)), (0, None));
        }
    }
}
