//! Requests and what became of them, as they pass between the vCPU thread and the thread of a disk.

use super::buffers::Buffer;
use super::image::SECTOR_BYTES;
use super::superblock::Superblock;
use replication::boundary::{DiskOperation, DiskRequest, DiskStatus};
use replication::replica::SharedUse;
use std::ops::Range;

/// What the vCPU thread passes to the thread of a disk.
#[derive(Debug)]
pub(super) enum ToDisk {
    /// A request.
    Request(Request),
    /// The superblock of its image is to be replaced, before any request that comes later.
    Keep(Box<Superblock>),
    /// This host uses the image that both hosts share, from the next request on, or the other one does.
    Share(SharedUse),
}

/// A request on its way to the disk.
#[derive(Debug)]
pub(super) struct Request {
    /// Who makes it.
    pub(super) origin: Origin,
    /// What it asks for.
    pub(super) operation: DiskOperation,
    /// Position on the disk, bytes; empty for a flush.
    pub(super) range: Range<u64>,
    /// What to write, or where to read to; empty otherwise.
    pub(super) buffer: Buffer,
}

/// Who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The guest, or the host when it begins or ends.
    Guest {
        /// The number that the device gave the request.
        number: u64,
    },
    /// The copy of the disk to or from another host.
    Copy {
        /// Comes back with the answer.
        tag: u64,
    },
}

/// A request of the guest that is complete.
#[derive(Debug)]
pub(super) struct Completed {
    /// Index of the disk.
    pub(super) disk: u8,
    /// The number of the request.
    pub(super) number: u64,
    /// What it asked for.
    pub(super) operation: DiskOperation,
    /// Whether it was done.
    pub(super) status: DiskStatus,
    /// Its buffer; of a read that was done, it has the data.
    pub(super) buffer: Buffer,
}

impl Completed {
    /// Returns the data that were read.
    pub(super) fn data(&self) -> &[u8] {
        match (self.operation, self.status) {
            (DiskOperation::Read, DiskStatus::Done) => self.buffer.bytes(),
            (DiskOperation::Read, DiskStatus::Failed) => &[],
            (
                DiskOperation::Write
                | DiskOperation::Flush
                | DiskOperation::Discard
                | DiskOperation::WriteZeroes,
                DiskStatus::Done | DiskStatus::Failed,
            ) => &[],
        }
    }
}

/// Returns the bytes of the disk that `request` is about.
///
/// # Panics
///
/// If they are not on a disk of `bytes` bytes: the device validates what the guest asks for.
pub(super) fn range(request: &DiskRequest<'_>, bytes: u64) -> Range<u64> {
    let start = request.sector.checked_mul(SECTOR_BYTES);
    let range = start.and_then(|start| Some(start..start.checked_add(request.bytes.into())?));
    match (request.operation, range) {
        (DiskOperation::Flush, _) => 0..0,
        (
            DiskOperation::Read
            | DiskOperation::Write
            | DiskOperation::Discard
            | DiskOperation::WriteZeroes,
            Some(range),
        ) if range.end <= bytes && u64::from(request.bytes).is_multiple_of(SECTOR_BYTES) => range,
        (operation, _) => panic!(
            "{operation:?} of {} bytes at sector {} is not on a disk of {bytes} bytes",
            request.bytes, request.sector
        ),
    }
}

/// Returns whether `operation` changes the contents of a disk.
pub(super) fn modifies(operation: DiskOperation) -> bool {
    match operation {
        DiskOperation::Read | DiskOperation::Flush => false,
        DiskOperation::Write | DiskOperation::Discard | DiskOperation::WriteZeroes => true,
    }
}
