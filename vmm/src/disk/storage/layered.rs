//! [`Layered`]: an image and what a guest had written to it when it was saved. It is only read: a guest that goes on has an
//! overlay on it.

use super::overlay::BLOCK_BYTES;
use super::{Spare, Storage};
use crate::disk::frozen::{Contents, Frozen};
use std::io;
use std::ops::Range;

/// A disk with the contents of `base` where `frozen` has none.
pub(in crate::disk) struct Layered {
    base: Box<dyn Storage>,
    frozen: Frozen,
    /// The block that was read last: a block is read whole, because it is checked.
    block: Box<[u8; BLOCK_BYTES as usize]>,
}

impl Layered {
    /// `frozen` lies on the disk that `base` is.
    pub(in crate::disk) fn new(base: Box<dyn Storage>, frozen: Frozen) -> Layered {
        Layered { base, frozen, block: Box::new([0; BLOCK_BYTES as usize]) }
    }

    /// Reads at `offset` from the stored blocks; the block around `offset` is number `index` of them.
    fn read_stored(&mut self, offset: u64, mut index: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut from = (offset % BLOCK_BYTES) as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            self.frozen.read_block(index, &mut self.block)?;
            let (part, behind) = rest.split_at_mut(rest.len().min(self.block.len() - from));
            part.copy_from_slice(&self.block[from..from + part.len()]);
            (rest, from, index) = (behind, 0, index + 1);
        }
        Ok(())
    }
}

impl Storage for Layered {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let mut start = offset;
        while start < end {
            let (first, last) = (start / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
            let (contents, blocks) = self.frozen.run(first..last);
            let stop = end.min((first + blocks) * BLOCK_BYTES);
            let part = &mut bytes[(start - offset) as usize..(stop - offset) as usize];
            match contents {
                Contents::Unchanged => self.base.read(start, part)?,
                Contents::Zeros => part.fill(0),
                Contents::Stored { index } => self.read_stored(start, index, part)?,
            }
            start = stop;
        }
        Ok(())
    }

    fn write(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn zero(&mut self, _range: Range<u64>, _spare: Spare) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&mut self, from: u64) -> io::Result<Option<Range<u64>>> {
        let below = self.base.next_data(from)?;
        let size = self.size();
        let stored = self.frozen.next_stored(from / BLOCK_BYTES);
        let stored =
            stored.map(|run| from.max(run.start * BLOCK_BYTES)..size.min(run.end * BLOCK_BYTES));
        Ok([below, stored].into_iter().flatten().min_by_key(|data| data.start))
    }
}
