//! [`Overlay`]: a disk whose writes go to a private file. The image below stays as it is.
//!
//! The file is sparse and has each block at its position on the disk; a bitmap in memory says which blocks it has. A
//! write of a part of a block first copies the rest of it from the image. The file has no name, so it is gone when the
//! process ends, and a flush has nothing to do.

use super::file::FileStorage;
use super::{Spare, Storage};
use std::io;
use std::ops::Range;

/// Bytes of a block: what guests write at once, so that whole blocks are the rule.
pub(in crate::disk) const BLOCK_BYTES: u64 = 4096;

/// A disk with the contents of `base` and of what was written since.
pub(in crate::disk) struct Overlay {
    base: Box<dyn Storage>,
    file: FileStorage,
    written: Bitmap,
}

impl Overlay {
    /// Nothing is written yet. `file` is empty and has the size of `base`.
    pub(in crate::disk) fn new(base: Box<dyn Storage>, file: FileStorage) -> Overlay {
        let blocks = base.size().div_ceil(BLOCK_BYTES);
        Overlay { base, file, written: Bitmap::new(blocks) }
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
        Ok((from < size).then_some(from..size))
    }
}

/// A set of blocks.
struct Bitmap {
    /// Zeroed memory that the kernel provides when it is used: for an empty set, nearly none.
    words: Vec<u64>,
}

impl Bitmap {
    fn new(blocks: u64) -> Bitmap {
        Bitmap { words: vec![0; blocks.div_ceil(64) as usize] }
    }

    fn has(&self, block: u64) -> bool {
        self.words[(block / 64) as usize] >> (block % 64) & 1 == 1
    }

    fn add(&mut self, blocks: Range<u64>) {
        for block in blocks {
            self.words[(block / 64) as usize] |= 1 << (block % 64);
        }
    }

    /// Returns whether the first of `blocks` is in the set, and how many from it on have the same answer.
    fn run(&self, blocks: Range<u64>) -> (bool, u64) {
        let first = self.has(blocks.start);
        let end = blocks.clone().find(|&block| self.has(block) != first).unwrap_or(blocks.end);
        (first, end - blocks.start)
    }
}
