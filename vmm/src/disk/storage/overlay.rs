//! [`Overlay`]: a disk whose writes go to a private file. The image below stays as it is.
//!
//! The file is sparse and has each block at its position on the disk; a bitmap in memory says which blocks it has. A
//! write of a part of a block first copies the rest of it from the image. The file has no name, so it is gone when the
//! process ends, and a flush has nothing to do.

use super::file::FileStorage;
use super::{Spare, Storage};
use crate::disk::frozen::{Changes, Frozen};
use std::io;
use std::ops::Range;

/// Bytes of a block: what guests write at once, so that whole blocks are the rule.
pub(in crate::disk) const BLOCK_BYTES: u64 = 4096;

/// A disk with the contents of `base` and of what was written since.
pub(in crate::disk) struct Overlay {
    base: Box<dyn Storage>,
    /// The changes of an image that `base` consists of, besides this image.
    frozen: Option<Frozen>,
    file: FileStorage,
    written: Bitmap,
}

impl Overlay {
    /// Nothing is written yet. `file` is empty and has the size of `base`. If `base` consists of an image and of changes,
    /// `frozen` is these.
    pub(in crate::disk) fn new(
        base: Box<dyn Storage>,
        frozen: Option<Frozen>,
        file: FileStorage,
    ) -> Overlay {
        let blocks = base.size().div_ceil(BLOCK_BYTES);
        Overlay { base, frozen, file, written: Bitmap::new(blocks) }
    }

    /// Returns the bytes of block `number`. The last block of a disk may be shorter.
    fn block(&self, number: u64) -> Range<u64> {
        let start = number * BLOCK_BYTES;
        start..self.base.size().min(start + BLOCK_BYTES)
    }

    /// Makes the file have the block around `offset`, so that a part of it can be written.
    fn copy_block(&mut self, offset: u64) -> io::Result<()> {
        let number = offset / BLOCK_BYTES;
        if self.written.has(number) {
            return Ok(());
        }
        let range = self.block(number);
        let mut bytes = [0; BLOCK_BYTES as usize];
        let bytes = &mut bytes[..(range.end - range.start) as usize];
        self.base.read(range.start, bytes)?;
        self.file.write(range.start, bytes)?;
        self.written.add(number..number + 1);
        Ok(())
    }

    /// Copies the blocks of which `range` has only a part: the first, the last, or none.
    fn copy_ends(&mut self, range: &Range<u64>) -> io::Result<()> {
        for edge in [range.start, range.end] {
            if !edge.is_multiple_of(BLOCK_BYTES) && edge < self.base.size() {
                self.copy_block(edge)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, range: &Range<u64>) {
        self.written.add(range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES));
    }
}

impl Storage for Overlay {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let mut start = offset;
        while start < end {
            let (first, last) = (start / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
            let (is_written, blocks) = self.written.run(first..last);
            let stop = end.min((first + blocks) * BLOCK_BYTES);
            let part = &mut bytes[(start - offset) as usize..(stop - offset) as usize];
            match is_written {
                true => self.file.read(start, part)?,
                false => self.base.read(start, part)?,
            }
            start = stop;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let range = offset..offset + bytes.len() as u64;
        self.copy_ends(&range)?;
        self.file.write(offset, bytes)?;
        self.add(&range);
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>, _spare: Spare) -> io::Result<()> {
        self.copy_ends(&range)?;
        // The memory of the file is given back in any case: nobody counts on it.
        self.file.zero(range.clone(), Spare::GiveBack)?;
        self.add(&range);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&mut self, from: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size();
        let mut start = from;
        while start < size {
            let blocks = start / BLOCK_BYTES..size.div_ceil(BLOCK_BYTES);
            let (is_written, count) = self.written.run(blocks.clone());
            let end = size.min((blocks.start + count) * BLOCK_BYTES);
            let below: &mut dyn Storage = if is_written { &mut self.file } else { &mut *self.base };
            match below.next_data(start)?.filter(|data| data.start < end) {
                Some(data) => return Ok(Some(data.start..data.end.min(end))),
                None => start = end,
            }
        }
        Ok(None)
    }

    fn into_changes(self: Box<Self>) -> Option<Changes> {
        let mut changed = self.written.clone();
        for run in self.frozen.iter().flat_map(Frozen::changed) {
            changed.add(run);
        }
        Some(Changes::new(self, changed))
    }
}

/// A set of blocks.
#[derive(Clone)]
pub(in crate::disk) struct Bitmap {
    /// Zeroed memory that the kernel provides when it is used: for an empty set, nearly none.
    words: Vec<u64>,
}

impl Bitmap {
    pub(in crate::disk) fn new(blocks: u64) -> Bitmap {
        Bitmap { words: vec![0; blocks.div_ceil(64) as usize] }
    }

    fn has(&self, block: u64) -> bool {
        self.words[(block / 64) as usize] >> (block % 64) & 1 == 1
    }

    pub(in crate::disk) fn add(&mut self, blocks: Range<u64>) {
        for block in blocks {
            self.words[(block / 64) as usize] |= 1 << (block % 64);
        }
    }

    /// Returns whether the first of `blocks` is in the set, and how many from it on have the same answer.
    fn run(&self, blocks: Range<u64>) -> (bool, u64) {
        let first = self.has(blocks.start);
        let whole = if first { u64::MAX } else { 0 };
        let mut end = blocks.start + 1;
        while end < blocks.end {
            if end.is_multiple_of(64) && self.words[(end / 64) as usize] == whole {
                end += 64;
            } else if self.has(end) == first {
                end += 1;
            } else {
                break;
            }
        }
        (first, end.min(blocks.end) - blocks.start)
    }

    /// Returns the runs of blocks in the set, ascending.
    pub(in crate::disk) fn runs(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let used = self.words.iter().zip(0u64..).filter(|(word, _)| **word != 0);
        for (word, index) in used {
            for block in (0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| index * 64 + bit) {
                match runs.last_mut() {
                    Some(run) if run.end == block => run.end += 1,
                    Some(_) | None => runs.push(block..block + 1),
                }
            }
        }
        runs
    }
}
