//! What a guest has written to a disk up to a moment, as a section of a file: [`Changes`] writes it, and any number of
//! disks read it ([`Frozen`]).
//!
//! ```text
//! runs      of changed blocks, ascending: first block u64, number of blocks u64, of which bit 63 says that all are zero
//! digests   xxh3-64 of each changed block that is not zero, u64
//! blocks    these blocks, 4096 bytes each; the last one of a disk is filled up with zeros
//! ```
//!
//! All numbers are little-endian, and each part begins at a multiple of 4096 bytes. The digest of a [`Section`] covers
//! runs and digests, and is checked when it is opened. A block is checked whenever it is read: the file is used for as
//! long as the VM runs, and somebody may write over it.

use super::storage::Storage;
use super::storage::overlay::{BLOCK_BYTES, Bitmap};
use crate::limits::{FROZEN_BLOCKS_MAX, FROZEN_RUNS_MAX};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const RUN_BYTES: u64 = 16;
const DIGEST_BYTES: u64 = 8;
/// Bit of a run's length that says that its blocks are zero.
const ZEROS: u64 = 1 << 63;
/// Bytes that are read at a time.
const PIECE_BYTES: u64 = 64 * 1024;

/// The size of a section, and the digest of its runs and digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    runs: u64,
    /// Stored blocks.
    blocks: u64,
    digest: u64,
}

impl Section {
    /// Returns how long the section is, bytes: a multiple of 4096. `None` if it is longer than any may be.
    pub fn bytes(&self) -> Option<u64> {
        let is_possible = self.runs <= FROZEN_RUNS_MAX && self.blocks <= FROZEN_BLOCKS_MAX;
        is_possible.then(|| self.blocks_at() + self.blocks * BLOCK_BYTES)
    }

    /// Returns how many blocks are stored.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    fn digests_at(&self) -> u64 {
        (self.runs * RUN_BYTES).next_multiple_of(BLOCK_BYTES)
    }

    fn blocks_at(&self) -> u64 {
        self.digests_at() + (self.blocks * DIGEST_BYTES).next_multiple_of(BLOCK_BYTES)
    }
}

/// Everything that a guest has written to a disk.
pub struct Changes {
    contents: Box<dyn Storage>,
    changed: Bitmap,
    /// Runs of stored blocks, once [`Changes::section`] has found them.
    stored: Vec<Range<u64>>,
    /// Runs and digests as bytes.
    runs: Vec<u8>,
    digests: Vec<u8>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("stored", &self.stored).finish_non_exhaustive()
    }
}

impl Changes {
    /// The blocks `changed` of `contents`.
    pub(super) fn new(contents: Box<dyn Storage>, changed: Bitmap) -> Changes {
        let (stored, runs, digests) = (Vec::new(), Vec::new(), Vec::new());
        Changes { contents, changed, stored, runs, digests }
    }

    /// Reads the changed blocks, and returns what the section will be like.
    ///
    /// # Errors
    ///
    /// A block can't be read, or there are too many.
    pub fn section(&mut self) -> io::Result<Section> {
        let (mut runs, mut digests) = (Vec::new(), Vec::new());
        let (mut block, mut data) = ([0; BLOCK_BYTES as usize], Some(0..0));
        for run in self.changed.runs() {
            for number in run {
                let is_zero = self.is_hole(number, &mut data)? || {
                    self.read(number, &mut block)?;
                    block == [0; BLOCK_BYTES as usize]
                };
                if !is_zero {
                    digests.extend(xxh3_64(&block).to_le_bytes());
                }
                add(&mut runs, number, is_zero);
            }
        }
        self.stored =
            runs.iter().filter(|(_, is_zero)| !is_zero).map(|(run, _)| run.clone()).collect();
        self.runs = runs.iter().flat_map(|(run, is_zero)| encode_run(run, *is_zero)).collect();
        self.digests = digests;
        let section = Section {
            runs: runs.len() as u64,
            blocks: self.digests.len() as u64 / DIGEST_BYTES,
            digest: digest(&self.runs, &self.digests),
        };
        match section.bytes() {
            Some(_) => Ok(section),
            None => Err(io::Error::other("the guest has changed too much of a disk to save it")),
        }
    }

    /// Writes the section, which is `section`, into `file` at `at`. The file is long enough and has nothing there.
    ///
    /// # Errors
    ///
    /// A block can't be read, or the file can't be written.
    pub fn write(&mut self, section: &Section, file: &File, at: u64) -> io::Result<()> {
        file.write_all_at(&self.runs, at)?;
        file.write_all_at(&self.digests, at + section.digests_at())?;
        let mut block = [0; BLOCK_BYTES as usize];
        let mut at = at + section.blocks_at();
        for number in self.stored.clone().into_iter().flatten() {
            self.read(number, &mut block)?;
            file.write_all_at(&block, at)?;
            at += BLOCK_BYTES;
        }
        Ok(())
    }

    /// Reads block `number`, and fills up the last one with zeros.
    fn read(&mut self, number: u64, block: &mut [u8; BLOCK_BYTES as usize]) -> io::Result<()> {
        let start = number * BLOCK_BYTES;
        let length = BLOCK_BYTES.min(self.contents.size() - start) as usize;
        block[length..].fill(0);
        self.contents.read(start, &mut block[..length])
    }

    /// Returns whether block `number` lies where the contents have no data. `data` is the range of data that was found
    /// last; `None`: there is none behind.
    fn is_hole(&mut self, number: u64, data: &mut Option<Range<u64>>) -> io::Result<bool> {
        let (start, end) = (number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES);
        if data.as_ref().is_some_and(|data| data.end <= start) {
            *data = self.contents.next_data(start)?;
        }
        Ok(data.as_ref().is_none_or(|data| data.start >= end))
    }
}

/// Adds a block behind those in `runs`.
fn add(runs: &mut Vec<(Range<u64>, bool)>, number: u64, is_zero: bool) {
    match runs.last_mut() {
        Some((run, zero)) if run.end == number && *zero == is_zero => run.end += 1,
        Some(_) | None => runs.push((number..number + 1, is_zero)),
    }
}

fn encode_run(run: &Range<u64>, is_zero: bool) -> [u8; RUN_BYTES as usize] {
    let length = (run.end - run.start) | if is_zero { ZEROS } else { 0 };
    let mut bytes = [0; RUN_BYTES as usize];
    bytes[..8].copy_from_slice(&run.start.to_le_bytes());
    bytes[8..].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn digest(runs: &[u8], digests: &[u8]) -> u64 {
    let mut digest = Xxh3::new();
    digest.update(runs);
    digest.update(digests);
    digest.digest()
}

/// A section that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FrozenError {
    /// It can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The digest does not match.
    #[error("damaged: the checksum of what its VM has written to a disk does not match")]
    Checksum,
    /// The digest matches, but the contents are invalid.
    #[error("what its VM has written to a disk is invalid: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

/// What a disk has in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// What the image has.
    Unchanged,
    /// Zeros.
    Zeros,
    /// Stored block number `index`.
    Stored {
        /// Counts all stored blocks of the section.
        index: u64,
    },
}

/// What a guest had written to a disk, in an open file.
#[derive(Clone, Debug)]
pub struct Frozen(Arc<Map>);

#[derive(Debug)]
struct Map {
    file: File,
    /// Where the stored blocks are.
    blocks_at: u64,
    /// Runs of changed blocks, ascending, and what their first block is.
    runs: Vec<(Range<u64>, Contents)>,
    digests: Vec<u64>,
}

impl Frozen {
    /// Opens the section at `at` in `file`, of a disk with `disk_bytes` bytes, and checks all but the blocks. The file
    /// remains open, with its lock.
    ///
    /// # Errors
    ///
    /// The section can't be read, is damaged, or does not fit the disk.
    pub fn open(
        file: &File,
        at: u64,
        section: &Section,
        disk_bytes: u64,
    ) -> Result<Frozen, FrozenError> {
        if section.bytes().is_none() {
            return Err(FrozenError::Malformed { what: "its length" });
        }
        let runs = read_piecewise(file, at, section.runs * RUN_BYTES)?;
        let digests =
            read_piecewise(file, at + section.digests_at(), section.blocks * DIGEST_BYTES)?;
        if digest(&runs, &digests) != section.digest {
            return Err(FrozenError::Checksum);
        }
        let runs = decode_runs(&runs, section.blocks, disk_bytes.div_ceil(BLOCK_BYTES))?;
        let digests = digests.chunks_exact(DIGEST_BYTES as usize).map(|one| word(one, 0)).collect();
        let file = file.try_clone()?;
        Ok(Frozen(Arc::new(Map { file, blocks_at: at + section.blocks_at(), runs, digests })))
    }

    /// Returns the runs of blocks that were changed, ascending.
    pub(super) fn changed(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.runs.iter().map(|(run, _)| run.clone())
    }

    /// Returns what is in the first of `blocks`, and how many blocks from it on follow in the same way.
    pub(super) fn run(&self, blocks: Range<u64>) -> (Contents, u64) {
        let next = self.0.runs.partition_point(|(run, _)| run.end <= blocks.start);
        let (contents, end) = match self.0.runs.get(next) {
            Some((run, contents)) if run.start <= blocks.start => {
                let contents = match contents {
                    Contents::Stored { index } => {
                        Contents::Stored { index: index + (blocks.start - run.start) }
                    }
                    Contents::Unchanged | Contents::Zeros => *contents,
                };
                (contents, run.end)
            }
            Some((run, _)) => (Contents::Unchanged, run.start),
            None => (Contents::Unchanged, blocks.end),
        };
        (contents, end.min(blocks.end) - blocks.start)
    }

    /// Returns the first run of stored blocks that ends behind `block`.
    pub(super) fn next_stored(&self, block: u64) -> Option<Range<u64>> {
        let next = self.0.runs.partition_point(|(run, _)| run.end <= block);
        let is_stored = |(_, contents): &&(Range<u64>, Contents)| match contents {
            Contents::Stored { .. } => true,
            Contents::Unchanged | Contents::Zeros => false,
        };
        self.0.runs[next..].iter().find(is_stored).map(|(run, _)| run.clone())
    }

    /// Reads stored block `index`, which a [run](Self::run) has named.
    ///
    /// # Errors
    ///
    /// An error of the host; [`io::ErrorKind::InvalidData`] if the file was changed.
    pub(super) fn read_block(
        &self,
        index: u64,
        block: &mut [u8; BLOCK_BYTES as usize],
    ) -> io::Result<()> {
        let Map { file, blocks_at, runs: _, digests } = &*self.0;
        file.read_exact_at(block, blocks_at + index * BLOCK_BYTES)?;
        match xxh3_64(block) == digests[index as usize] {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the snapshot of its VM is damaged, or was changed",
            )),
        }
    }
}

/// Reads piece by piece, so that no more memory is used than the file has bytes.
fn read_piecewise(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        let start = bytes.len();
        let piece = PIECE_BYTES.min(length - start as u64);
        bytes.resize(start + piece as usize, 0);
        file.read_exact_at(&mut bytes[start..], at + start as u64)?;
    }
    Ok(bytes)
}

fn decode_runs(
    bytes: &[u8],
    stored: u64,
    disk_blocks: u64,
) -> Result<Vec<(Range<u64>, Contents)>, FrozenError> {
    let malformed = FrozenError::Malformed { what: "runs of blocks" };
    let (mut runs, mut next, mut index) = (Vec::new(), 0, 0);
    for run in bytes.chunks_exact(RUN_BYTES as usize) {
        let (first, length) = (word(run, 0), word(run, 8) & !ZEROS);
        let end = first.checked_add(length).filter(|&end| end <= disk_blocks && length > 0);
        let Some(end) = end.filter(|_| first >= next) else { return Err(malformed) };
        let contents = match word(run, 8) & ZEROS {
            0 => Contents::Stored { index },
            _ => Contents::Zeros,
        };
        if let Contents::Stored { .. } = contents {
            index += length;
        }
        next = end;
        runs.push((first..end, contents));
    }
    if index == stored { Ok(runs) } else { Err(malformed) }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
