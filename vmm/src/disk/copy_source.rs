//! [`CopySource`]: which blocks of a primary's disks are read and sent to a new backup, and in which order.
//!
//! ```text
//!  left to compare --+-- read --+-- zeros, or changed ---------------------> sent
//!  changed ----------+          +-- others: digest sent, held -- differs --> sent
//!                                                             +-- equal --> dropped
//! ```
//!
//! A block leaves both sets when its read is submitted. While it is read or held it is not read again, even if it has
//! changed meanwhile: the older contents would arrive after the newer ones.
//!
//! When nothing is left, both hosts make everything durable. What changes meanwhile is sent, and they do it again. The source
//! has to, as well: a power cut would otherwise leave it without something that the target has, and nobody would know.

use super::buffers::Buffer;
use super::bugs::{DiskBug, DiskBugs};
use super::changes::{BLOCK_BYTES, BlockSet};
use super::copy::{
    Contents, CopyAnswer, CopyFault, CopyProgress, CopyRequest, CopyResult, CopyState,
};
use super::image::SECTOR_BYTES;
use super::options::DiskAccess;
use crate::limits::{DISK_COPY_HELD_MAX, DISK_COPY_REQUESTS_MAX};
use logchan::disk_copy::{DISK_DIGEST_BYTES, DiskCopy};
use logchan::limits::{DISK_COPY_BYTES_MAX, DISK_DIGESTS_MAX};
use replication::boundary::DiskOperation;
use std::collections::VecDeque;
use std::ops::Range;

/// Most blocks of zeros in one message: 1 GiB. The target may have to write them.
const ZEROS_BLOCKS_MAX: u64 = (1 << 30) / BLOCK_BYTES;

/// Why a block is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The target may have the same contents.
    Unknown,
    /// It has changed since the copy began.
    Changed,
}

/// A block on its way, until it is dropped or waits to be sent.
#[derive(Debug)]
struct Item {
    block: u64,
    tag: u64,
    why: Why,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The thread of the disk reads it.
    Reading,
    Read {
        digest: u128,
        contents: Contents,
        buffer: Buffer,
    },
    /// The target compares its digest.
    Asked {
        buffer: Buffer,
    },
}

/// Something that waits to be sent.
#[derive(Debug)]
enum Outgoing {
    Zeros {
        disk: u8,
        blocks: Range<u64>,
    },
    /// The contents of a block, of which `sent` bytes were sent.
    Block {
        disk: u8,
        block: u64,
        buffer: Buffer,
        sent: usize,
    },
}

#[derive(Debug)]
struct SourceDisk {
    bytes: u64,
    access: DiskAccess,
    /// The target has said what it has.
    is_known: bool,
    /// Blocks that the target may have already.
    unknown: BlockSet,
    /// Blocks that have changed since the copy began.
    changed: BlockSet,
    /// Where the search for the next block begins.
    cursor: u64,
    /// Blocks on their way, in the order of their reads.
    items: VecDeque<Item>,
    /// First block and number of the digests that the target has not answered.
    asked: VecDeque<Range<u64>>,
    flush: Flush,
}

/// What is durable on both hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// Not everything that was sent.
    Due,
    /// Both disks were asked.
    Asked(Asked),
    /// Everything.
    Done,
}

/// A flush that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    mark: u64,
    /// Disks whose answers are awaited.
    awaits_here: bool,
    awaits_there: bool,
    /// Something was sent since, so another one must follow.
    is_outdated: bool,
}

/// The source's side of a copy.
#[derive(Debug)]
pub(super) struct CopySource {
    disks: Vec<SourceDisk>,
    outgoing: VecDeque<Outgoing>,
    /// Buffers that are not needed any more, with their disks.
    free: Vec<(u8, Buffer)>,
    /// The digests of the message that was returned last.
    digests: Vec<u8>,
    /// Flushes of this host's disks that are to be submitted.
    flushes: VecDeque<CopyRequest>,
    next_tag: u64,
    progress: CopyProgress,
    fault: Option<CopyFault>,
    bugs: DiskBugs,
}

impl CopySource {
    /// A copy of disks with these sizes in bytes. Nothing is read before the target has said what it has.
    pub(super) fn new(
        disks: impl Iterator<Item = (u64, DiskAccess)>,
        bugs: DiskBugs,
    ) -> CopySource {
        let disks: Vec<_> = disks
            .map(|(bytes, access)| SourceDisk {
                bytes,
                access,
                is_known: false,
                unknown: BlockSet::new(bytes),
                changed: BlockSet::new(bytes),
                cursor: 0,
                items: VecDeque::new(),
                asked: VecDeque::new(),
                // Also if nothing is sent: what the target has may be of a copy that was given up.
                flush: match access {
                    DiskAccess::ReadWrite => Flush::Due,
                    DiskAccess::ReadOnly => Flush::Done,
                },
            })
            .collect();
        let blocks = disks.iter().map(|disk| disk.unknown.blocks()).sum();
        CopySource {
            disks,
            outgoing: VecDeque::new(),
            free: Vec::new(),
            digests: Vec::new(),
            flushes: VecDeque::new(),
            next_tag: 0,
            progress: CopyProgress { blocks, ..CopyProgress::default() },
            fault: None,
            bugs,
        }
    }

    /// A request that changes `range` of disk `disk` is submitted.
    pub(super) fn changed(&mut self, disk: u8, range: &Range<u64>) {
        self.disks[usize::from(disk)].changed.add_bytes(range);
    }

    /// The target has said what it has of disk `disk`: only `differing` blocks may differ, or any, if that is `None`.
    pub(super) fn known(
        &mut self,
        disk: u8,
        differing: Option<&BlockSet>,
    ) -> Result<(), CopyFault> {
        let Some(disk) = self.disks.get_mut(usize::from(disk)).filter(|disk| !disk.is_known) else {
            return Err(CopyFault::Unexpected { what: "what it has of a disk" });
        };
        disk.is_known = true;
        match differing {
            Some(blocks) => disk.unknown.add_all(blocks),
            None => disk.unknown.add(0..disk.unknown.blocks()),
        }
        Ok(())
    }

    /// Returns the next request to submit. The buffer of a read is empty: the caller provides it.
    pub(super) fn next_request(&mut self) -> Option<CopyRequest> {
        if self.fault.is_some() {
            return None;
        }
        if let Some(flush) = self.flushes.pop_front() {
            return Some(flush);
        }
        if self.held() >= DISK_COPY_HELD_MAX {
            return None;
        }
        let index = (0..self.disks.len()).find(|&index| self.disks[index].may_read())?;
        let disk = &mut self.disks[index];
        let (block, why) = disk.take_next()?;
        let tag = self.next_tag;
        self.next_tag += 1;
        disk.items.push_back(Item { block, tag, why, stage: Stage::Reading });
        let start = block * BLOCK_BYTES;
        let range = start..disk.bytes.min(start + BLOCK_BYTES);
        let operation = DiskOperation::Read;
        let (disk, buffer) = (index as u8, Buffer::default());
        Some(CopyRequest { disk, tag, operation, range, buffer })
    }

    /// A request has ended.
    pub(super) fn answered(&mut self, answer: CopyAnswer) {
        let CopyAnswer { disk, tag, operation, result, buffer } = answer;
        let source = &mut self.disks[usize::from(disk)];
        if let (DiskOperation::Flush, CopyResult::Done, Flush::Asked(asked)) =
            (operation, result, &mut source.flush)
        {
            asked.awaits_here = false;
            return source.flush.answered();
        }
        let items = &mut source.items;
        let Some(index) = items.iter().position(|item| item.tag == tag) else {
            // A flush that has failed.
            self.fault.get_or_insert(CopyFault::Io { disk, operation });
            return self.free.push((disk, buffer));
        };
        match result {
            CopyResult::Read { digest, contents } => {
                items[index].stage = Stage::Read { digest, contents, buffer };
            }
            CopyResult::Done | CopyResult::Failed => {
                self.fault.get_or_insert(CopyFault::Io { disk, operation });
                self.free.push((disk, buffer));
            }
        }
    }

    /// The target has compared the digests from block `block` on.
    pub(super) fn wanted(&mut self, disk: u8, block: u64, blocks: u64) -> Result<(), CopyFault> {
        let unexpected = Err(CopyFault::Unexpected { what: "an answer to digests" });
        let Some(source) = self.disks.get_mut(usize::from(disk)) else { return unexpected };
        let Some(asked) = source.asked.pop_front() else { return unexpected };
        let count = asked.end - asked.start;
        if asked.start != block || count < 64 && blocks >> count != 0 {
            return unexpected;
        }
        for (index, block) in asked.enumerate() {
            let buffer = source.take_asked(block);
            let differs = blocks >> index & 1 != 0;
            self.progress.equal += u64::from(!differs);
            // One that has changed meanwhile is read again. Of a read-only disk the target says itself that it differs.
            if differs && source.access == DiskAccess::ReadWrite && !source.changed.has(block) {
                self.outgoing.push_back(Outgoing::Block { disk, block, buffer, sent: 0 });
            } else {
                self.free.push((disk, buffer));
            }
        }
        Ok(())
    }

    /// The target has made durable what was sent before the flush with this mark.
    pub(super) fn flushed(&mut self, disk: u8, mark: u64) -> Result<(), CopyFault> {
        let flush = self.disks.get_mut(usize::from(disk)).map(|source| &mut source.flush);
        match flush {
            Some(flush) => match flush {
                Flush::Asked(asked) if asked.mark == mark && asked.awaits_there => {
                    asked.awaits_there = false;
                    flush.answered();
                    Ok(())
                }
                Flush::Asked(_) | Flush::Due | Flush::Done => {
                    Err(CopyFault::Unexpected { what: "that a disk is flushed" })
                }
            },
            None => Err(CopyFault::Unexpected { what: "that a disk is flushed" }),
        }
    }

    /// Returns the next message to the target.
    pub(super) fn next_message(&mut self) -> Option<DiskCopy<'_>> {
        self.sort_items();
        self.drop_sent();
        if self.outgoing.is_empty() {
            return match self.next_flush() {
                Some(flush) => Some(flush),
                None => self.next_digests(),
            };
        }
        let message = match self.outgoing.front_mut()? {
            Outgoing::Zeros { disk, blocks } => {
                let bytes = self.disks[usize::from(*disk)].bytes;
                let many = (blocks.end - blocks.start).min(ZEROS_BLOCKS_MAX);
                let (disk, start) = (*disk, blocks.start * BLOCK_BYTES);
                self.disks[usize::from(disk)].flush.sent();
                let end = bytes.min(start + many * BLOCK_BYTES);
                blocks.start += many;
                zeros(disk, start..end)
            }
            Outgoing::Block { disk, block, buffer, sent } => {
                let (from, disk) = (*sent, *disk);
                let to = buffer.bytes().len().min(from + DISK_COPY_BYTES_MAX);
                let start = *block * BLOCK_BYTES;
                *sent = to;
                self.disks[usize::from(disk)].flush.sent();
                let data = &buffer.bytes()[from..to];
                match Contents::of(data) {
                    Contents::Zeros => zeros(disk, start + from as u64..start + to as u64),
                    Contents::Other => {
                        let sector = (start + from as u64) / SECTOR_BYTES;
                        DiskCopy::Data { disk, sector, data }
                    }
                }
            }
        };
        Some(message)
    }

    /// Returns a buffer that is not needed any more, and its disk.
    pub(super) fn next_free(&mut self) -> Option<(u8, Buffer)> {
        self.free.pop()
    }

    pub(super) fn state(&self) -> CopyState {
        let is_done = |disk: &SourceDisk| disk.is_sent() && disk.flush == Flush::Done;
        let is_whole =
            self.disks.iter().all(is_done) && self.outgoing.iter().all(Outgoing::is_sent);
        match (self.fault, is_whole) {
            (Some(fault), _) => CopyState::Failed(fault),
            (None, true) => CopyState::Whole,
            (None, false) => CopyState::Running,
        }
    }

    pub(super) fn progress(&self) -> CopyProgress {
        let left = |disk: &SourceDisk| match disk.is_known {
            true => disk.unknown.count() + disk.changed.count() + disk.items.len() as u64,
            false => disk.unknown.blocks(),
        };
        CopyProgress { left: self.disks.iter().map(left).sum(), ..self.progress }
    }

    /// Returns the number of blocks that are read or held.
    fn held(&self) -> usize {
        self.disks.iter().map(|disk| disk.items.len()).sum::<usize>() + self.outgoing.len()
    }

    /// Moves what needs no comparison to what waits to be sent.
    fn sort_items(&mut self) {
        for (index, disk) in self.disks.iter_mut().enumerate() {
            let number = index as u8;
            let mut at = 0;
            while let Some(item) = disk.items.get(at) {
                let (block, why) = (item.block, item.why);
                let Stage::Read { contents, .. } = item.stage else {
                    at += 1;
                    continue;
                };
                let is_compared = why == Why::Unknown
                    && (contents == Contents::Other || disk.access == DiskAccess::ReadOnly);
                if is_compared {
                    at += 1;
                    continue;
                }
                let Some(Item { stage: Stage::Read { buffer, .. }, .. }) = disk.items.remove(at)
                else {
                    unreachable!("the item is there");
                };
                if self.bugs.has(DiskBug::BitmapClearedEarly) {
                    disk.changed.remove(block);
                }
                match contents {
                    Contents::Zeros => {
                        self.progress.zero += 1;
                        self.free.push((number, buffer));
                        self.outgoing
                            .push_back(Outgoing::Zeros { disk: number, blocks: block..block + 1 });
                    }
                    Contents::Other => {
                        self.outgoing.push_back(Outgoing::Block {
                            disk: number,
                            block,
                            buffer,
                            sent: 0,
                        });
                    }
                }
            }
        }
        self.merge_zeros();
    }

    /// Makes successive blocks of zeros one message.
    fn merge_zeros(&mut self) {
        let mut at = 1;
        while at < self.outgoing.len() {
            let (before, this) = (&self.outgoing[at - 1], &self.outgoing[at]);
            let merged = match (before, this) {
                (
                    Outgoing::Zeros { disk, blocks },
                    Outgoing::Zeros { disk: next, blocks: after },
                ) if disk == next && blocks.end == after.start => {
                    Some(Outgoing::Zeros { disk: *disk, blocks: blocks.start..after.end })
                }
                (Outgoing::Zeros { .. } | Outgoing::Block { .. }, _) => None,
            };
            match merged {
                Some(merged) => {
                    self.outgoing[at - 1] = merged;
                    self.outgoing.remove(at);
                }
                None => at += 1,
            }
        }
    }

    /// Removes what was sent completely.
    fn drop_sent(&mut self) {
        while self.outgoing.front().is_some_and(Outgoing::is_sent) {
            match self.outgoing.pop_front() {
                Some(Outgoing::Block { disk, buffer, .. }) => {
                    self.progress.sent += 1;
                    self.free.push((disk, buffer));
                }
                Some(Outgoing::Zeros { .. }) | None => {}
            }
        }
    }

    /// Returns the flush of a disk of which everything was sent.
    fn next_flush(&mut self) -> Option<DiskCopy<'static>> {
        let is_due = |disk: &SourceDisk| disk.is_sent() && disk.flush == Flush::Due;
        let index = self.disks.iter().position(is_due)?;
        let mark = self.next_tag;
        self.next_tag += 1;
        self.disks[index].flush =
            Flush::Asked(Asked { mark, awaits_here: true, awaits_there: true, is_outdated: false });
        let (operation, buffer) = (DiskOperation::Flush, Buffer::default());
        let disk = index as u8;
        self.flushes.push_back(CopyRequest { disk, tag: mark, operation, range: 0..0, buffer });
        Some(DiskCopy::Flush { disk: index as u8, mark })
    }

    /// Returns the digests of the first successive blocks that are to be compared.
    fn next_digests(&mut self) -> Option<DiskCopy<'_>> {
        for (index, disk) in self.disks.iter_mut().enumerate() {
            self.digests.clear();
            let mut blocks = 0..0;
            for item in &mut disk.items {
                let is_next = blocks.is_empty() || item.block == blocks.end;
                let count = (blocks.end - blocks.start) as usize;
                let Stage::Read { digest, buffer, .. } = &mut item.stage else {
                    match blocks.is_empty() {
                        true => continue,
                        false => break,
                    }
                };
                if !is_next || count == DISK_DIGESTS_MAX {
                    break;
                }
                self.digests.extend_from_slice(&digest.to_le_bytes());
                let start = if blocks.is_empty() { item.block } else { blocks.start };
                blocks = start..item.block + 1;
                item.stage = Stage::Asked { buffer: std::mem::take(buffer) };
            }
            if !blocks.is_empty() {
                debug_assert_eq!(self.digests.len() % DISK_DIGEST_BYTES, 0);
                let block = blocks.start;
                disk.asked.push_back(blocks);
                let digests = &self.digests;
                return Some(DiskCopy::Digests { disk: index as u8, block, digests });
            }
        }
        None
    }
}

impl Flush {
    /// Something is sent.
    fn sent(&mut self) {
        match self {
            Flush::Due | Flush::Done => *self = Flush::Due,
            Flush::Asked(asked) => asked.is_outdated = true,
        }
    }

    /// One of the disks has answered.
    fn answered(&mut self) {
        if let Flush::Asked(Asked {
            awaits_here: false, awaits_there: false, is_outdated, ..
        }) = *self
        {
            *self = if is_outdated { Flush::Due } else { Flush::Done };
        }
    }
}

impl SourceDisk {
    /// Returns whether nothing is left that has to be sent or compared, but for what waits to be sent.
    fn is_sent(&self) -> bool {
        self.is_known && self.unknown.count() + self.changed.count() == 0 && self.items.is_empty()
    }

    fn may_read(&self) -> bool {
        let reading = |item: &&Item| matches!(item.stage, Stage::Reading);
        self.is_known
            && self.unknown.count() + self.changed.count() > 0
            && self.items.iter().filter(reading).count() < DISK_COPY_REQUESTS_MAX
            && self.find_next().is_some()
    }

    /// Returns the next block to read. Those that may be equal come first; a block that is written often is then read
    /// once, at the end.
    fn find_next(&self) -> Option<u64> {
        [&self.unknown, &self.changed].into_iter().find_map(|set| {
            let from = |mut from: u64| {
                while let Some(block) = set.next(from) {
                    if !self.items.iter().any(|item| item.block == block) {
                        return Some(block);
                    }
                    from = block + 1;
                }
                None
            };
            from(self.cursor).or_else(|| from(0))
        })
    }

    fn take_next(&mut self) -> Option<(u64, Why)> {
        let block = self.find_next()?;
        self.cursor = block + 1;
        self.unknown.remove(block);
        let why = match self.changed.remove(block) {
            true => Why::Changed,
            false => Why::Unknown,
        };
        Some((block, why))
    }

    /// Returns the contents of a block whose digest was sent.
    fn take_asked(&mut self, block: u64) -> Buffer {
        let is_asked =
            |item: &Item| item.block == block && matches!(item.stage, Stage::Asked { .. });
        let index = self.items.iter().position(is_asked);
        match index.and_then(|index| self.items.remove(index)) {
            Some(Item { stage: Stage::Asked { buffer }, .. }) => buffer,
            Some(Item { stage: Stage::Reading | Stage::Read { .. }, .. }) | None => {
                unreachable!("its digest was sent")
            }
        }
    }
}

impl Outgoing {
    fn is_sent(&self) -> bool {
        match self {
            Outgoing::Zeros { blocks, .. } => blocks.is_empty(),
            Outgoing::Block { buffer, sent, .. } => *sent == buffer.bytes().len(),
        }
    }
}

fn zeros(disk: u8, bytes: Range<u64>) -> DiskCopy<'static> {
    let sectors = ((bytes.end - bytes.start) / SECTOR_BYTES) as u32;
    DiskCopy::Zeros { disk, sector: bytes.start / SECTOR_BYTES, sectors }
}
