//! The one door for non-determinism.
//!
//! Everything the guest learns that is not a function of its own state comes through
//! [`Boundary`], and everything it does to the world leaves through it. The live side
//! ([`super::world`]) reads the world; the [`super::recorder`] wraps it and appends what passes to
//! the log; the [`super::replayer`] reads the log. The vCPU loop and the devices are the same code
//! for all of them.
//!
//! Order of calls, from one position to the next:
//!
//! ```text
//! poll_memory -> next_region -> Run     -> [interrupted | window_at_cpl0]* -> reached | checkpoint
//!                        -> Apply   -> take_checkpoint
//!                        -> Capture -> checkpoint
//!                        -> Stay    -> poll_memory ...
//!                        -> End     -> end
//! at a natural exit:  (readings and outputs of the exit)*  exit_handled
//! at any position:    next_input* [wait poll_memory next_input*]* [interrupt]
//! ```

use super::error::SourceError;
use crate::checkpoint::{Image, ImageView};
use logchan::entry::REGISTERS;
use logchan::limits::PAGE_BYTES;

/// Something from outside that enters the guest at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Guest time is now this many nanoseconds since the guest started; timers that are due fire.
    Clock {
        /// Nanoseconds; never less than any earlier clock value.
        now_ns: u64,
    },
    /// A frame for the guest's NIC, without virtio-net header.
    Frame(&'a [u8]),
    /// Bytes typed at the serial console.
    Console(&'a [u8]),
}

/// Which inputs the devices could take now: a function of guest and device state alone. Only a
/// live source looks at it; what it decides is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCapacity {
    /// The NIC's receive queue has a buffer.
    pub frame: bool,
    /// Free bytes in the UART's receive FIFO.
    pub console_bytes: usize,
    /// Guest time at which the next timer is due, nanoseconds.
    pub timer_ns: Option<u64>,
    /// In mid-region, without windows: an interrupt waits for a position.
    pub interrupt: bool,
    /// In mid-region, without windows: the guest could not take an interrupt here, so there is no use
    /// in a position.
    pub holds_off: bool,
}

/// What devices may ask and tell while an exit is handled.
pub trait DeviceBoundary {
    /// Guest time: nanoseconds since the guest started, never going back.
    fn clock_ns(&mut self) -> Result<u64, SourceError>;
    /// Wall clock: nanoseconds since 1970-01-01T00:00Z.
    fn wall_clock_ns(&mut self) -> Result<u64, SourceError>;
    /// Fills `bytes` with entropy.
    fn entropy(&mut self, bytes: &mut [u8]) -> Result<(), SourceError>;
    /// A frame the guest sends, without virtio-net header.
    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError>;
    /// A byte the guest writes to its serial console.
    fn console_output(&mut self, byte: u8);
    /// The guest's interrupt handler has acknowledged the NIC's interrupt: for the statistics of a live
    /// source, and nothing else.
    fn interrupt_served(&mut self) {}
}

/// How the region after a position ends, as far as it must be known before entering it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// In an exit of the guest's own making, or in a window at CPL3: run it. (A live source says so
    /// always.)
    Run,
    /// In an exit, says the log: run it, and ask for no window. One at CPL0 that the recording did not
    /// meet would open again at every entry, where KVM opens it before the next instruction.
    RunToExit,
    /// In a checkpoint: do not run it, apply [`Boundary::take_checkpoint`].
    Apply,
    /// A checkpoint is wanted here, before anything runs.
    Capture,
    /// Nothing may run yet. Ask again, after [`Boundary::poll_memory`].
    Stay,
    /// The machine stops here.
    End,
}

/// Guest memory, for a source that copies it beside the running guest. The vCPU stands still.
pub trait Memory {
    /// From here on note which pages are written: the next checkpoint has those.
    fn begin_noting(&mut self) -> Result<(), SourceError>;
    /// Copies the contents of page `number`.
    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]);
}

/// A position reached by running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// A natural exit.
    Exit,
    /// The first interrupt window at CPL3 since the last position.
    UserWindow,
}

/// The vCPU at a position, for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuDigest {
    /// xxh3-64 of registers, system registers, pending events and the exit's own data.
    pub digest: u64,
    /// General registers in the order of `struct kvm_regs`.
    pub registers: [u64; REGISTERS],
}

/// What to do about a run that ended at no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAction {
    /// Re-enter with the same window request.
    Resume,
    /// Make it a position: take a checkpoint here.
    Checkpoint,
}

/// Why [`Boundary::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Look again: an input may be there.
    Look,
    /// Do not wait here: what comes next says [`Boundary::next_region`].
    End,
}

/// The machine where it stopped, for comparison.
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

/// The door. See the module's head for the order of calls.
pub trait Boundary: DeviceBoundary {
    /// The guest stands still: a source that copies its memory may do some of that now. Called at
    /// every position, whenever a wait is over, and after a kick.
    fn poll_memory(&mut self, _memory: &mut dyn Memory) -> Result<(), SourceError> {
        Ok(())
    }

    /// How does the next region end? Asked at a position, before entering.
    fn next_region(&mut self) -> Result<Region, SourceError>;

    /// The region ended at `position`, with the vCPU as `vcpu`; `exit` says what kind it was.
    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError>;

    /// The exit's devices have done their work: outputs may leave.
    fn exit_handled(&mut self) -> Result<(), SourceError>;

    /// The next input for this position, if there is one.
    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError>;

    /// The guest halted and nothing is pending: wait for an input.
    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, SourceError>;

    /// `vector` is injected at this position.
    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError>;

    /// `KVM_RUN` was interrupted in mid-region; `window` says that one is armed.
    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, SourceError>;

    /// An interrupt window opened at CPL0, which is no exact position on every KVM.
    fn window_at_cpl0(&mut self) -> StopAction;

    /// The guest can't go on (a triple fault, an instruction that KVM does not emulate), in `exit`
    /// with these registers. `Ok` if that is how it is.
    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError>;

    /// Does anybody read the images given to [`Boundary::checkpoint`]? If not, none is taken.
    fn keeps_checkpoints(&self) -> bool;

    /// A checkpoint was taken at this position.
    fn checkpoint(&mut self, image: &ImageView<'_>) -> Result<(), SourceError>;

    /// The checkpoint that [`Region::Apply`] announced.
    fn take_checkpoint(&mut self) -> Result<Image, SourceError>;

    /// A long checkpoint is being applied: asked again and again meanwhile, about every millisecond. A
    /// source that somebody waits for gives a sign of life.
    fn keepalive(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    /// The machine is in the state of [`Boundary::take_checkpoint`].
    fn applied(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    /// The machine stopped after [`Region::End`].
    fn end(&mut self, end: &EndState) -> Result<(), SourceError>;
}
