//! The log writer: turns what passes the nondeterminism boundary into log entries, for a file and for the
//! logging channel. The [`verifier`](crate::verifier) is its counterpart.

use crate::boundary::{DiskCompletion, DiskSet, EndState, Input, Position, VcpuDigest};
use crate::checkpoint::{CheckpointDigest, CheckpointImage, DeltaCache};
use crate::limits::PAGE_ENTRY_BYTES_MAX;
use crate::limits::SMALL_ENTRY_BYTES_MAX;
use crate::mutant::{Mutant, Mutants};
use logchan::entry::{Entry, REGISTERS, RegisterDelta, StateBytes};
use logchan::entry_codec::encoded_length;
use logchan::ids::Lane;
use logchan::limits::PAGE_BYTES;
use xxhash_rust::xxh3::xxh3_64;

/// A log that takes entries.
pub trait LogSink {
    /// Why the log cannot be written.
    type Error;

    /// Returns whether `bytes` bytes of entries can be appended now. A log with lanes has each entry in the
    /// one that [`lane_of`] names.
    fn has_room(&self, lane: Lane, bytes: usize) -> bool;

    /// Appends `entry`, for which there is room.
    ///
    /// # Errors
    ///
    /// The log cannot be written.
    fn append(&mut self, entry: &Entry<'_>) -> Result<(), Self::Error>;
}

/// Returns the lane of the logging channel that carries `entry`.
pub fn lane_of(entry: &Entry<'_>) -> Lane {
    match entry {
        Entry::Page { .. } | Entry::DiskCopy(_) => Lane::Bulk,
        Entry::Exit { .. }
        | Entry::Window { .. }
        | Entry::CheckpointBegin { .. }
        | Entry::CheckpointEnd { .. }
        | Entry::Clock { .. }
        | Entry::WallClock { .. }
        | Entry::Entropy(_)
        | Entry::Frame(_)
        | Entry::Console(_)
        | Entry::DiskDone { .. }
        | Entry::Interrupt { .. }
        | Entry::Output { .. }
        | Entry::End { .. }
        | Entry::HandOver => Lane::Latency,
    }
}

/// What a log has of the data that a guest reads from its disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedReads {
    /// A digest: a replay needs the disk.
    Digest,
    /// The data.
    Data,
}

/// What the entries of a log are relative to: its last clock reading, its last registers, and the pages and
/// states that it carried.
#[derive(Debug)]
pub struct LogWriter {
    /// Guest time of the last `Clock` entry, nanoseconds.
    clock_ns: u64,
    /// Registers at the last exit.
    registers: [u64; REGISTERS],
    cache: DeltaCache,
    reads: LoggedReads,
    /// Disks whose data are logged whatever `reads` says.
    shared: DiskSet,
    mutants: Mutants,
}

impl LogWriter {
    /// Creates the writer of a log whose reader has a delta cache of `delta_cache_pages_max` pages.
    ///
    /// # Panics
    ///
    /// If `delta_cache_pages_max` is zero.
    pub fn new(delta_cache_pages_max: usize, mutants: Mutants) -> LogWriter {
        LogWriter {
            mutants,
            clock_ns: 0,
            registers: [0; REGISTERS],
            cache: DeltaCache::with_pages_max(delta_cache_pages_max),
            reads: LoggedReads::Digest,
            shared: DiskSet::NONE,
        }
    }

    /// Makes the log have `reads` of the data that the guest reads from its disks.
    pub fn with_reads(self, reads: LoggedReads) -> LogWriter {
        LogWriter { reads, ..self }
    }

    /// Makes the log have the data that the guest reads from the disks `shared`: its reader has none of its own.
    pub fn with_shared(self, shared: DiskSet) -> LogWriter {
        LogWriter { shared, ..self }
    }

    /// Begins another log: the entries that follow are relative to nothing before.
    pub fn restart(&mut self) {
        self.clock_ns = 0;
        self.registers = [0; REGISTERS];
        self.cache.begin(true);
    }

    /// Returns the entry for a reading of guest time, or for an input that sets it.
    ///
    /// # Panics
    ///
    /// If guest time has gone back.
    pub fn clock(&mut self, now_ns: u64) -> Entry<'static> {
        let advance_ns = now_ns.checked_sub(self.clock_ns).expect("guest time never goes back");
        self.clock_ns = now_ns;
        Entry::Clock { advance_ns }
    }

    /// Returns the entry for a position that the vCPU reached by running.
    pub fn position(&mut self, position: Position, vcpu: &VcpuDigest) -> Entry<'static> {
        let digest = vcpu.digest;
        match position {
            Position::Exit => {
                let mut delta = RegisterDelta::default();
                for (index, (old, new)) in self.registers.iter().zip(&vcpu.registers).enumerate() {
                    delta.xor[index] = old ^ new;
                    delta.changed |= u32::from(old != new) << index;
                }
                self.registers = vcpu.registers;
                Entry::Exit { digest, registers: Some(delta) }
            }
            Position::Window => Entry::Window { digest },
        }
    }

    /// Returns the entry for an input.
    pub fn input<'a>(&mut self, input: &Input<'a>) -> Entry<'a> {
        match *input {
            Input::Clock { now_ns } => self.clock(now_ns),
            Input::Frame(frame) => Entry::Frame(frame),
            Input::Console(bytes) => Entry::Console(bytes),
            Input::Disk(completion) => self.disk_done(&completion),
        }
    }

    fn disk_done<'a>(&self, completion: &DiskCompletion<'a>) -> Entry<'a> {
        let &DiskCompletion { disk, number, status, data: read } = completion;
        let data = match self.reads {
            LoggedReads::Digest if !self.shared.has(disk) => &[],
            LoggedReads::Digest | LoggedReads::Data => read,
        };
        Entry::DiskDone { disk, number, status, digest: read_digest(read), data }
    }
}

/// Returns the digest of what the guest has read from a disk; 0 if a request reads nothing.
pub fn read_digest(data: &[u8]) -> u64 {
    if data.is_empty() { 0 } else { xxh3_64(data) }
}

/// Returns the entry for a frame that the guest sent.
pub fn output(frame: &[u8]) -> Entry<'static> {
    let length = u32::try_from(frame.len()).expect("a frame is short");
    Entry::Output { length, digest: xxh3_64(frame) }
}

/// Returns the entry that ends a log.
pub fn end(end: &EndState) -> Entry<'static> {
    let &EndState { natural_exits, interrupts, memory_digest, state_digest } = end;
    Entry::End { natural_exits, interrupts, memory_digest, state_digest }
}

/// What a checkpoint contains.
pub struct CheckpointParts<'a> {
    /// The checkpoint contains every page that is not zero, and not only those that changed.
    pub full: bool,
    /// Encoded vCPU state.
    pub vcpu: &'a [u8],
    /// Encoded device state.
    pub devices: &'a [u8],
    /// Numbers of the pages to write, ascending.
    pub pages: &'a [u64],
    /// Contents of the pages.
    pub image: &'a dyn CheckpointImage,
}

impl<'a> CheckpointParts<'a> {
    /// Returns the contents of `image` without a change.
    pub fn of(image: &'a dyn CheckpointImage) -> CheckpointParts<'a> {
        CheckpointParts {
            full: image.full(),
            vcpu: image.vcpu(),
            devices: image.devices(),
            pages: image.pages(),
            image,
        }
    }
}

/// How far a checkpoint was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The log has no room for the next entry.
    Blocked,
    /// All of it.
    Done,
}

/// Writes a checkpoint into a log, as far as there is room.
#[derive(Debug)]
pub struct CheckpointWriter {
    /// Pages that the log carries already, in front of the checkpoint (precopy).
    copied: u32,
    digest: CheckpointDigest,
    next: Next,
}

/// The entry that a [`CheckpointWriter`] writes next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Begin,
    /// The page with this index.
    Page(usize),
    End,
}

impl CheckpointWriter {
    /// Begins a checkpoint.
    pub fn new() -> CheckpointWriter {
        CheckpointWriter::after_precopy(0, CheckpointDigest::default())
    }

    /// Begins the checkpoint that closes a precopy of `copied` pages, which `digest` covers.
    pub fn after_precopy(copied: u32, digest: CheckpointDigest) -> CheckpointWriter {
        CheckpointWriter { copied, digest, next: Next::Begin }
    }

    /// Returns whether nothing was written yet.
    pub fn is_new(&self) -> bool {
        match self.next {
            Next::Begin => true,
            Next::Page(_) | Next::End => false,
        }
    }

    /// Writes entries of the checkpoint `parts` to `sink` until it is complete or there is no room. To be
    /// called again with the same `parts` after [`Progress::Blocked`].
    ///
    /// # Errors
    ///
    /// The log cannot be written.
    pub fn write<S: LogSink>(
        &mut self,
        writer: &mut LogWriter,
        parts: &CheckpointParts<'_>,
        sink: &mut S,
    ) -> Result<Progress, S::Error> {
        let LogWriter { cache, mutants, .. } = writer;
        let &CheckpointParts { full, vcpu, devices, pages, image } = parts;
        let mut page = [0; PAGE_BYTES];
        loop {
            match self.next {
                Next::Begin => {
                    let count = u32::try_from(pages.len()).expect("memory has fewer pages");
                    let pages = count + self.copied;
                    let [whole_vcpu, whole_devices] = [vcpu, devices].map(StateBytes::Whole);
                    let whole = Entry::CheckpointBegin {
                        full,
                        pages,
                        vcpu: whole_vcpu,
                        devices: whole_devices,
                    };
                    if !sink.has_room(Lane::Latency, encoded_length(&whole)) {
                        return Ok(Progress::Blocked);
                    }
                    cache.begin(full);
                    let (vcpu, devices) = (cache.vcpu.encode(vcpu), cache.devices.encode(devices));
                    sink.append(&Entry::CheckpointBegin { full, pages, vcpu, devices })?;
                    self.next = Next::Page(0);
                }
                Next::Page(index) => match pages.get(index) {
                    None => self.next = Next::End,
                    Some(&number) => {
                        if !sink.has_room(Lane::Bulk, PAGE_ENTRY_BYTES_MAX) {
                            return Ok(Progress::Blocked);
                        }
                        image.read_page(number, &mut page);
                        self.digest.page(number, &page);
                        if mutants.has(Mutant::BaseAfterRegion) {
                            let _discarded = cache.encode(number, &page);
                        }
                        sink.append(&Entry::Page { number, bytes: cache.encode(number, &page) })?;
                        self.next = Next::Page(index + 1);
                    }
                },
                Next::End => {
                    if !sink.has_room(Lane::Latency, SMALL_ENTRY_BYTES_MAX) {
                        return Ok(Progress::Blocked);
                    }
                    let digest = self.digest.finish(full, vcpu, devices);
                    sink.append(&Entry::CheckpointEnd { digest })?;
                    // The deltas that follow are relative to this state.
                    cache.begin(false);
                    return Ok(Progress::Done);
                }
            }
        }
    }
}

impl Default for CheckpointWriter {
    fn default() -> Self {
        Self::new()
    }
}
