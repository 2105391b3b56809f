//! The copy of the disks to a new backup: what both sides have in common.
//!
//! ```text
//! source (primary)                                 target (backup)
//!  CopySource: which blocks, in which order         CopyTarget: writes, comparisons
//!      |  reads                ^ contents               |  reads, writes         ^ done
//!      v                       |                        v                        |
//!  thread of the disk, beside the guest's requests  thread of the disk
//! ```
//!
//! Reads and writes of a copy take the way of the guest's requests, so [`Order`](super::order::Order) applies to them: a
//! block that is read has every overlapping change that was submitted before. A change that is submitted later adds the
//! block to the set of those that are still to be copied. Both happen on the vCPU thread. So no change is missed, and
//! when nothing is left and no request is in flight, both images have the same contents.

use super::buffers::Buffer;
use super::changes::BLOCK_BYTES;
use crate::limits::DISK_COPY_HELD_MAX;
use logchan::limits::{DISK_DIGESTS_MAX, DISKS_MAX};
use replication::boundary::DiskOperation;
use replication::replica::DisksCopied;
use serde::Serialize;
use std::fmt::{self, Display};
use std::ops::Range;

// The blocks of a message are held until its answer.
const _: () = assert!(DISK_COPY_HELD_MAX >= DISK_DIGESTS_MAX && DISKS_MAX > 0);

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// There is no copy.
    None,
    /// Blocks are left, or are on their way.
    Running,
    /// At the source: everything that has changed so far is durable on both hosts. At the target: everything that has
    /// arrived is written, and answered.
    Whole,
    /// It can't go on.
    Failed(CopyFault),
}

/// Why a copy can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFault {
    /// The image of this host has an error. The log has its cause.
    Io {
        /// Index of the disk.
        disk: u8,
        /// What failed.
        operation: DiskOperation,
    },
    /// The disk is read-only, and the images of the two hosts differ.
    ReadOnlyDiffers {
        /// Index of the disk.
        disk: u8,
        /// The first byte of a block that differs.
        offset: u64,
    },
    /// The peer sent a message that has no place here.
    Unexpected {
        /// What it was.
        what: &'static str,
    },
}

impl CopyFault {
    /// Returns the index of the disk; that of the first one if no disk has failed.
    pub fn disk(self) -> u8 {
        match self {
            CopyFault::Io { disk, .. } | CopyFault::ReadOnlyDiffers { disk, .. } => disk,
            CopyFault::Unexpected { .. } => 0,
        }
    }
}

impl Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            CopyFault::Io { disk, operation } => {
                let what = match operation {
                    DiskOperation::Read => "a read",
                    DiskOperation::Write => "a write",
                    DiskOperation::Flush => "a flush",
                    DiskOperation::Discard | DiskOperation::WriteZeroes => "writing zeros",
                };
                write!(f, "disk {disk}: {what} failed while it was copied")
            }
            CopyFault::ReadOnlyDiffers { disk, offset } => write!(
                f,
                "disk {disk} is read-only and differs from the primary's at byte {offset}: copy the primary's \
                 image to this host"
            ),
            CopyFault::Unexpected { what } => {
                write!(f, "the peer sent {what} that this host did not expect")
            }
        }
    }
}

impl std::error::Error for CopyFault {}

/// Numbers of a copy, in blocks of 64 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CopyProgress {
    /// Blocks of all disks.
    pub blocks: u64,
    /// Blocks that are still to be read.
    pub left: u64,
    /// Blocks that were sent.
    pub sent: u64,
    /// Blocks of zeros.
    pub zero: u64,
    /// Blocks that the backup had already.
    pub equal: u64,
}

impl CopyProgress {
    /// Returns what a copy with these numbers took, rounded up to blocks.
    pub fn result(self) -> DisksCopied {
        let CopyProgress { blocks, left: _, sent, zero, equal } = self;
        let [size, sent, zero, equal] = [blocks, sent, zero, equal].map(|n| n * BLOCK_BYTES);
        DisksCopied { size, sent, zero, equal }
    }

    /// Returns how many bytes are still to be read, rounded up to blocks.
    pub fn bytes_left(self) -> u64 {
        self.left * BLOCK_BYTES
    }
}

/// A request of a copy to the thread of a disk.
#[derive(Debug)]
pub(super) struct CopyRequest {
    pub(super) disk: u8,
    /// Comes back with the answer.
    pub(super) tag: u64,
    pub(super) operation: DiskOperation,
    pub(super) range: Range<u64>,
    pub(super) buffer: Buffer,
}

/// What has become of a request of a copy.
#[derive(Debug)]
pub(super) struct CopyAnswer {
    pub(super) disk: u8,
    pub(super) tag: u64,
    pub(super) operation: DiskOperation,
    pub(super) result: CopyResult,
    pub(super) buffer: Buffer,
}

/// How a request of a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyResult {
    /// A read: xxh3-128 of the contents, and what they are.
    Read {
        digest: u128,
        contents: Contents,
    },
    /// Another request.
    Done,
    Failed,
}

/// Whether a block has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    Zeros,
    Other,
}

impl Contents {
    pub(super) fn of(bytes: &[u8]) -> Contents {
        let (words, rest) = bytes.as_chunks::<16>();
        let is_zero = words.iter().all(|&word| u128::from_ne_bytes(word) == 0)
            && rest.iter().all(|&byte| byte == 0);
        if is_zero { Contents::Zeros } else { Contents::Other }
    }
}
