//! [`CopyTarget`]: what a new backup does with the messages about the copy of its disks.

use super::buffers::Buffer;
use super::changes::BLOCK_BYTES;
use super::copy::{CopyAnswer, CopyFault, CopyRequest, CopyResult, CopyState};
use super::image::SECTOR_BYTES;
use super::options::DiskAccess;
use crate::limits::DISK_COPY_REQUESTS_MAX;
use logchan::disk_copy::{DISK_DIGEST_BYTES, DiskCopy, Generation};
use logchan::limits::DISK_EXTENTS_BYTES;
use replication::boundary::DiskOperation;
use std::collections::VecDeque;
use std::ops::Range;

/// What the image of a target's disk has.
#[derive(Clone, Debug)]
pub(super) struct Had {
    /// Whose contents it has completely, but for `extents`.
    pub(super) generation: Option<Generation>,
    /// The extents that may differ from that.
    pub(super) extents: Box<[u8; DISK_EXTENTS_BYTES]>,
}

/// Blocks whose digests the source has sent.
#[derive(Debug)]
struct Comparison {
    block: u64,
    digests: Vec<u128>,
    /// Blocks whose read was submitted, and whose read has ended.
    submitted: usize,
    compared: usize,
    /// Bit `i`: block `block + i` differs.
    differing: u64,
}

#[derive(Debug)]
struct TargetDisk {
    bytes: u64,
    access: DiskAccess,
    in_flight: usize,
    comparisons: VecDeque<Comparison>,
    /// Number of the first comparison in the queue.
    first_comparison: u64,
}

/// A message to the source.
#[derive(Debug)]
enum Reply {
    Have { disk: u8, had: Had },
    Wanted { disk: u8, block: u64, blocks: u64 },
    Flushed { disk: u8, mark: u64 },
}

/// The target's side of a copy.
#[derive(Debug)]
pub(super) struct CopyTarget {
    disks: Vec<TargetDisk>,
    /// Changes and flushes that wait for a place.
    changes: VecDeque<CopyRequest>,
    replies: VecDeque<Reply>,
    /// The message that was returned last.
    reply: Option<Reply>,
    free: Vec<(u8, Buffer)>,
    fault: Option<CopyFault>,
}

impl CopyTarget {
    /// A copy to disks with these sizes in bytes, which have this now.
    pub(super) fn new(disks: impl Iterator<Item = (u64, DiskAccess, Had)>) -> CopyTarget {
        let mut replies = VecDeque::new();
        let new = |(index, (bytes, access, had))| {
            replies.push_back(Reply::Have { disk: index as u8, had });
            TargetDisk {
                bytes,
                access,
                in_flight: 0,
                comparisons: VecDeque::new(),
                first_comparison: 0,
            }
        };
        let disks = disks.enumerate().map(new).collect();
        CopyTarget {
            disks,
            changes: VecDeque::new(),
            replies,
            reply: None,
            free: Vec::new(),
            fault: None,
        }
    }

    /// Returns whether there is room for another message.
    pub(super) fn takes(&self) -> bool {
        let is_submitted = |c: &Comparison| c.submitted == c.digests.len();
        self.changes.is_empty()
            && self.disks.iter().flat_map(|disk| &disk.comparisons).all(is_submitted)
    }

    /// Takes a message of the source. `buffer` makes a buffer of a disk.
    pub(super) fn take(
        &mut self,
        message: &DiskCopy<'_>,
        buffer: impl FnOnce(u8, usize) -> Buffer,
    ) -> Result<(), CopyFault> {
        let outside = Err(CopyFault::Unexpected { what: "a range that is not on the disk" });
        let index = usize::from(message.disk());
        let Some(disk) = self.disks.get_mut(index) else {
            return Err(CopyFault::Unexpected { what: "a disk" });
        };
        match *message {
            DiskCopy::Digests { disk: _, block, digests } => {
                let digests: Vec<_> = digests
                    .as_chunks::<DISK_DIGEST_BYTES>()
                    .0
                    .iter()
                    .map(|digest| u128::from_le_bytes(*digest))
                    .collect();
                if block + digests.len() as u64 > disk.bytes.div_ceil(BLOCK_BYTES) {
                    return outside;
                }
                disk.comparisons.push_back(Comparison {
                    block,
                    digests,
                    submitted: 0,
                    compared: 0,
                    differing: 0,
                });
            }
            DiskCopy::Zeros { disk: number, sector, sectors } => {
                let bytes = u64::from(sectors) * SECTOR_BYTES;
                let Some(range) = disk.writable(sector, bytes) else { return outside };
                let (operation, buffer) = (DiskOperation::Discard, Buffer::default());
                self.changes.push_back(CopyRequest {
                    disk: number,
                    tag: 0,
                    operation,
                    range,
                    buffer,
                });
            }
            DiskCopy::Data { disk: number, sector, data } => {
                let Some(range) = disk.writable(sector, data.len() as u64) else { return outside };
                let mut buffer = buffer(number, data.len());
                buffer.bytes_mut().copy_from_slice(data);
                let operation = DiskOperation::Write;
                self.changes.push_back(CopyRequest {
                    disk: number,
                    tag: 0,
                    operation,
                    range,
                    buffer,
                });
            }
            DiskCopy::Flush { disk: number, mark } => {
                let (operation, buffer) = (DiskOperation::Flush, Buffer::default());
                self.changes.push_back(CopyRequest {
                    disk: number,
                    tag: mark,
                    operation,
                    range: 0..0,
                    buffer,
                });
            }
            DiskCopy::Have { .. } | DiskCopy::Wanted { .. } | DiskCopy::Flushed { .. } => {
                return Err(CopyFault::Unexpected { what: "a message of a backup" });
            }
        }
        Ok(())
    }

    /// Returns the next request to submit. The buffer of a read is empty: the caller provides it.
    pub(super) fn next_request(&mut self) -> Option<CopyRequest> {
        if self.fault.is_some() {
            return None;
        }
        if let Some(change) = self.changes.front()
            && self.disks[usize::from(change.disk)].has_place()
        {
            let change = self.changes.pop_front()?;
            self.disks[usize::from(change.disk)].in_flight += 1;
            return Some(change);
        }
        let index = (0..self.disks.len()).find(|&index| self.disks[index].has_work())?;
        let disk = &mut self.disks[index];
        let (tag, range) = disk.next_work()?;
        disk.in_flight += 1;
        let operation = DiskOperation::Read;
        Some(CopyRequest { disk: index as u8, tag, operation, range, buffer: Buffer::default() })
    }

    /// A request has ended.
    pub(super) fn answered(&mut self, answer: CopyAnswer) {
        let CopyAnswer { disk: number, tag, operation, result, buffer } = answer;
        self.free.push((number, buffer));
        let disk = &mut self.disks[usize::from(number)];
        disk.in_flight -= 1;
        match result {
            CopyResult::Failed => {
                self.fault.get_or_insert(CopyFault::Io { disk: number, operation });
            }
            CopyResult::Done if operation == DiskOperation::Flush => {
                self.replies.push_back(Reply::Flushed { disk: number, mark: tag });
            }
            CopyResult::Done => {}
            CopyResult::Read { digest, .. } => {
                let offset = disk.compared(tag, digest);
                if let Some(offset) = offset.filter(|_| disk.access == DiskAccess::ReadOnly) {
                    self.fault.get_or_insert(CopyFault::ReadOnlyDiffers { disk: number, offset });
                }
            }
        }
        let is_compared = |c: &Comparison| c.compared == c.digests.len();
        while disk.comparisons.front().is_some_and(is_compared) {
            if let Some(Comparison { block, differing, .. }) = disk.comparisons.pop_front() {
                disk.first_comparison += 1;
                self.replies.push_back(Reply::Wanted { disk: number, block, blocks: differing });
            }
        }
    }

    /// Returns the next message to the source.
    pub(super) fn next_message(&mut self) -> Option<DiskCopy<'_>> {
        self.reply = Some(self.replies.pop_front()?);
        Some(match self.reply.as_ref()? {
            Reply::Have { disk, had } => {
                let generation = had.generation;
                DiskCopy::Have { disk: *disk, generation, extents: &had.extents[..] }
            }
            &Reply::Wanted { disk, block, blocks } => DiskCopy::Wanted { disk, block, blocks },
            &Reply::Flushed { disk, mark } => DiskCopy::Flushed { disk, mark },
        })
    }

    /// Returns a buffer that is not needed any more, and its disk.
    pub(super) fn next_free(&mut self) -> Option<(u8, Buffer)> {
        self.free.pop()
    }

    pub(super) fn state(&self) -> CopyState {
        let is_idle = |disk: &TargetDisk| disk.in_flight == 0 && disk.comparisons.is_empty();
        match self.fault {
            Some(fault) => CopyState::Failed(fault),
            None if self.changes.is_empty()
                && self.replies.is_empty()
                && self.disks.iter().all(is_idle) =>
            {
                CopyState::Whole
            }
            None => CopyState::Running,
        }
    }
}

impl TargetDisk {
    /// Returns the bytes of a range that may be written.
    fn writable(&self, sector: u64, bytes: u64) -> Option<Range<u64>> {
        let start = sector.checked_mul(SECTOR_BYTES)?;
        let end = start.checked_add(bytes)?;
        (end <= self.bytes && self.access == DiskAccess::ReadWrite).then_some(start..end)
    }

    fn has_place(&self) -> bool {
        self.in_flight < DISK_COPY_REQUESTS_MAX
    }

    fn has_work(&self) -> bool {
        self.has_place() && self.comparisons.iter().any(|c| c.submitted < c.digests.len())
    }

    /// Returns tag and range of the next read.
    fn next_work(&mut self) -> Option<(u64, Range<u64>)> {
        let waits = |c: &Comparison| c.submitted < c.digests.len();
        let index = self.comparisons.iter().position(waits)?;
        let comparison = &mut self.comparisons[index];
        let place = comparison.submitted as u64;
        comparison.submitted += 1;
        let start = (comparison.block + place) * BLOCK_BYTES;
        let tag = (self.first_comparison + index as u64) * u64::from(u64::BITS) + place;
        Some((tag, start..self.bytes.min(start + BLOCK_BYTES)))
    }

    /// A block of a comparison was read. Returns its offset on the disk if it differs.
    fn compared(&mut self, tag: u64, digest: u128) -> Option<u64> {
        let (number, place) = (tag / u64::from(u64::BITS), tag % u64::from(u64::BITS));
        let index = (number - self.first_comparison) as usize;
        let comparison = &mut self.comparisons[index];
        comparison.compared += 1;
        let differs = comparison.digests[place as usize] != digest;
        comparison.differing |= u64::from(differs) << place;
        differs.then_some((comparison.block + place) * BLOCK_BYTES)
    }
}
