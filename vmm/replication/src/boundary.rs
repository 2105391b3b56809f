//! The nondeterminism boundary between the machine and the world.
//!
//! Everything that the guest learns and that is not a function of its own state enters through
//! [`Boundary`]; everything that the guest sends to the world leaves through it. One implementation reads
//! the world, one wraps another and appends what passes to a log, one reads a log, and one is a host of a
//! pair. The vCPU loop and the devices are the same code for all of them.
//!
//! Order of calls, from one position to the next:
//!
//! ```text
//! poll_memory -> next_region -> Run     -> [interrupted | window_at_cpl0]* -> reached | checkpoint
//!                        -> Apply   -> take_checkpoint
//!                        -> Capture -> checkpoint
//!                        -> Pending -> poll_memory ...
//!                        -> End     -> end
//! at a natural exit:  (readings, outputs and disk requests of the exit)*  exit_handled
//! at any position:    next_input* [wait poll_memory next_input*]* [interrupt]
//! ```

use crate::checkpoint::{CheckpointImage, Image};
use alloc::vec::Vec;
use logchan::entry::REGISTERS;
use logchan::limits::{DISKS_MAX, PAGE_BYTES};

pub use logchan::entry::DiskStatus;

/// An input from outside that enters the guest at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Sets guest time, in nanoseconds since the guest started. Timers that are due fire.
    Clock {
        /// Guest time in nanoseconds, never less than an earlier clock value.
        now_ns: u64,
    },
    /// A frame for the guest's NIC, without the virtio-net header.
    Frame(&'a [u8]),
    /// Bytes typed at the serial console.
    Console(&'a [u8]),
    /// A request to a disk is done.
    Disk(DiskCompletion<'a>),
}

/// What a guest asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskOperation {
    /// Reads sectors.
    Read,
    /// Writes sectors. The data may be volatile until a flush.
    Write,
    /// Makes every write that was done before this request stable.
    Flush,
    /// Says that the contents of sectors are not needed any more.
    Discard,
    /// Fills sectors with zeros.
    WriteZeroes,
}

impl DiskOperation {
    /// Returns whether it changes the contents of a disk.
    pub const fn modifies(self) -> bool {
        match self {
            Self::Read | Self::Flush => false,
            Self::Write | Self::Discard | Self::WriteZeroes => true,
        }
    }
}

/// A set of disks, by their indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSet(u8);

// Each disk has a bit.
const _: () = assert!(DISKS_MAX <= u8::BITS as usize);

impl DiskSet {
    /// No disk.
    pub const NONE: Self = Self(0);

    /// Returns the set with disk `disk`, too.
    ///
    /// # Panics
    ///
    /// If a VM has no disk with this index.
    #[must_use]
    pub const fn with(self, disk: u8) -> Self {
        assert!((disk as usize) < DISKS_MAX, "a VM has fewer disks");
        Self(self.0 | 1 << disk)
    }

    /// Returns whether disk `disk` is in the set.
    pub const fn has(self, disk: u8) -> bool {
        (disk as usize) < DISKS_MAX && self.0 >> disk & 1 == 1
    }

    /// Returns whether no disk is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the number of disks.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

/// A request to a disk. The device has checked that it lies on the disk and that the disk may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRequest<'a> {
    /// Index of the disk.
    pub disk: u8,
    /// Number of the request: 1 is the first of this disk, and each has the next one. Requests that overlap, one of
    /// which changes the disk, take effect in the order of their numbers.
    pub number: u64,
    /// What is asked.
    pub operation: DiskOperation,
    /// First sector, in units of 512 bytes; 0 for a flush.
    pub sector: u64,
    /// Length in bytes, a multiple of 512; 0 for a flush. At most
    /// [`DISK_BYTES_MAX`](logchan::limits::DISK_BYTES_MAX) for a read and a write.
    pub bytes: u32,
    /// The data of a write, as many bytes as `bytes` says; empty for any other operation.
    pub data: &'a [u8],
}

/// How a request to a disk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskCompletion<'a> {
    /// Index of the disk.
    pub disk: u8,
    /// Number of the request.
    pub number: u64,
    /// How it ended.
    pub status: DiskStatus,
    /// The data of a read that is done; otherwise empty.
    pub data: &'a [u8],
}

/// Which inputs the devices can accept now. It is a function of guest and device state alone.
///
/// Only a live boundary uses it: it decides which inputs to deliver, and the log records the decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCapacity {
    /// The NIC's receive queue has a buffer.
    pub frame: bool,
    /// Free bytes in the UART's receive FIFO.
    pub console_bytes: usize,
    /// Guest time at which the next timer is due, nanoseconds.
    pub timer_ns: Option<u64>,
    /// How far the guest is with the interrupts of its timers.
    pub timers: TimerInterrupts,
    /// Requests to disks that are in flight, of all disks together.
    pub disk_requests: u32,
    /// Requests to disks wait in queues although the disk could take them: they
    /// were [held](DeviceBoundary::holds_disk_requests).
    pub disk_requests_held: bool,
    /// Set only when the vCPU is stopped in mid-region and interrupt windows are off: an interrupt is
    /// pending and needs a position to be injected at.
    pub interrupt: bool,
    /// Set only when the vCPU is stopped in mid-region and interrupt windows are off: the guest cannot
    /// take an interrupt here, so a position here would be of no use.
    pub interrupts_blocked: bool,
}

/// The interrupts of the guest's timers as the interrupt controller has them. Each timer has a bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerInterrupts {
    /// The guest is serving them: they were injected, and it has not ended the service.
    pub in_service: u8,
    /// The guest has masked them.
    pub masked: u8,
}

/// What devices may read and send while an exit is handled.
///
/// # Errors
///
/// A method fails if the world or the log fails, or if the replay diverged.
pub trait DeviceBoundary {
    /// Error of the world, of the log or of the comparison with a log.
    type Error;

    /// Returns guest time: nanoseconds since the guest started. It never goes back.
    fn clock_ns(&mut self) -> Result<u64, Self::Error>;
    /// Returns the wall clock: nanoseconds since 1970-01-01T00:00Z.
    fn wall_clock_ns(&mut self) -> Result<u64, Self::Error>;
    /// Fills the front of `bytes` with entropy and returns how many bytes it filled: at least one, unless `bytes` is
    /// empty. How many is a decision of the live boundary, which the log contains.
    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error>;
    /// Sends a frame that the guest transmitted, without the virtio-net header.
    fn output(&mut self, frame: &[u8]) -> Result<(), Self::Error>;
    /// Outputs a byte that the guest wrote to its serial console.
    fn console_output(&mut self, byte: u8);
    /// Begins a request to a disk. It is done aside; [`Input::Disk`] says when it is done.
    fn disk_request(&mut self, request: &DiskRequest<'_>) -> Result<(), Self::Error>;
    /// Returns whether disks must leave new requests in their queues for now. Only where no log is written or followed.
    fn holds_disk_requests(&mut self) -> bool {
        false
    }
    /// Notes that the guest's interrupt handler has acknowledged the NIC's interrupt. Only the statistics
    /// of a live boundary use it.
    fn interrupt_served(&mut self);
}

/// How the region after a position ends, as far as this must be known before the vCPU enters it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// It ends in a natural exit or in a window, or this is a live boundary, which always says so:
    /// run it.
    Run,
    /// It ends in a natural exit, as the log says: run it without asking for an interrupt window. A window
    /// at CPL0 that the recording did not meet would open again at every entry on a KVM that opens it
    /// before the next instruction.
    RunToExit,
    /// It ends in a checkpoint: do not run it, apply [`Boundary::take_checkpoint`] instead.
    Apply,
    /// Take a checkpoint here, before anything runs.
    Capture,
    /// The next entry is not known yet, so nothing may run. Call [`Boundary::poll_memory`] and ask again.
    Pending,
    /// The machine stops here.
    End,
}

/// Guest memory, for a boundary that copies it while the guest runs (precopy). It is accessed only while
/// the vCPU is stopped.
pub trait Memory {
    /// Error of the machine.
    type Error;

    /// Returns the numbers, ascending, of the pages that were written since the last call or the last checkpoint, and
    /// starts a new set: the next call returns, or the next checkpoint contains, the pages that are written from here on.
    fn take_written(&mut self) -> Result<Vec<u64>, Self::Error>;
    /// Copies the contents of page `number` into `page`.
    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]);
}

/// A position that the vCPU reached by running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// A natural exit.
    Exit,
    /// The first interrupt window since the last position; where KVM is not exact at CPL0, the first one at CPL3.
    Window,
}

/// The vCPU's state at a position, for comparison between recording and replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuDigest {
    /// Hash of registers, system registers, pending events and the exit's own data, with a sub-digest of
    /// each: see [`vcpu_digest`](crate::vcpu_digest).
    pub digest: u64,
    /// General registers in the order of `struct kvm_regs`.
    pub registers: [u64; REGISTERS],
}

/// What to do after a mid-region stop, which is a `KVM_RUN` that ended at no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAction {
    /// Re-enter the guest with the same interrupt-window request.
    Resume,
    /// Take a checkpoint here, which makes it a position.
    Checkpoint,
}

/// Why [`Boundary::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Ask for inputs again: one may have arrived.
    Poll,
    /// Stop waiting: [`Boundary::next_region`] says what follows.
    End,
}

/// The machine's state where it stopped, for comparison between recording and replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndState {
    /// Natural exits since the start.
    pub natural_exits: u64,
    /// Interrupts injected since the start.
    pub interrupts: u64,
    /// xxh3-64 of guest memory.
    pub memory_digest: u64,
    /// xxh3-64 of vCPU and device state.
    pub state_digest: u64,
}

/// The nondeterminism boundary. The module documentation gives the order of calls.
///
/// # Errors
///
/// A method fails if the world or the log fails, if the replay diverged, or if the machine's state was
/// invalidated.
pub trait Boundary: DeviceBoundary {
    /// Gives a boundary that copies guest memory the opportunity to copy some of it. It is called while
    /// the vCPU is stopped: at every position, after every wait, and after a kick.
    fn poll_memory(
        &mut self,
        memory: &mut dyn Memory<Error = Self::Error>,
    ) -> Result<(), Self::Error>;

    /// Returns how the next region ends. It is called at a position, before the guest is entered.
    fn next_region(&mut self) -> Result<Region, Self::Error>;

    /// Reports that the region ended at `position` with the vCPU state `vcpu`. `exit` names the kind of
    /// exit.
    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn core::fmt::Display,
    ) -> Result<(), Self::Error>;

    /// Reports that the devices have handled the exit, so that its outputs may be sent.
    fn exit_handled(&mut self) -> Result<(), Self::Error>;

    /// Returns the next input for this position, if there is one.
    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, Self::Error>;

    /// Waits for an input. The guest has executed HLT and no interrupt is pending.
    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, Self::Error>;

    /// Reports that `vector` is injected at this position.
    fn interrupt(&mut self, vector: u8) -> Result<(), Self::Error>;

    /// Decides what to do after `KVM_RUN` was interrupted in mid-region. `window` says whether an
    /// interrupt window is armed.
    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, Self::Error>;

    /// Decides what to do about an interrupt window at CPL0, which is not an exact position on every KVM.
    fn window_at_cpl0(&mut self) -> Result<StopAction, Self::Error>;

    /// Reports that the guest cannot continue (a triple fault, or an instruction that KVM does not
    /// emulate). `exit` and `registers` describe where it stopped.
    ///
    /// # Errors
    ///
    /// A divergence, if the log has the guest continue here.
    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn core::fmt::Display,
    ) -> Result<(), Self::Error>;

    /// Whether the images passed to [`Boundary::checkpoint`] are used. If not, none is captured.
    fn keeps_checkpoints(&self) -> bool;

    /// Records the checkpoint that was taken at this position.
    fn checkpoint(&mut self, image: &dyn CheckpointImage) -> Result<(), Self::Error>;

    /// Returns the checkpoint that [`Region::Apply`] announced.
    fn take_checkpoint(&mut self) -> Result<Image, Self::Error>;

    /// Keeps the connection to a peer alive while a long checkpoint is being applied. It is called about
    /// every millisecond.
    fn keepalive(&mut self) -> Result<(), Self::Error>;

    /// Reports that the checkpoint from [`Boundary::take_checkpoint`] has been applied.
    fn applied(&mut self) -> Result<(), Self::Error>;

    /// Reports the state in which the machine stopped after [`Region::End`].
    fn end(&mut self, end: &EndState) -> Result<(), Self::Error>;
}
