//! What passes between the machine and the engine.

use logchan::limits::PAGE_BYTES;

use crate::replay::boundary::{DeviceCapacity, Input};

/// The answer to a machine that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step<T> {
    /// Here it is: go on.
    Ready(T),
    /// Not yet: ask the same again when something has happened.
    Pending,
    /// What this machine is, is of no use any more. Make an empty one, and begin where a region
    /// begins.
    Invalidated,
}

impl<T> Step<T> {
    /// PageDelta what is ready.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Step::Ready(value) => Step::Ready(change(value)),
            Step::Pending => Step::Pending,
            Step::Invalidated => Step::Invalidated,
        }
    }
}

/// How the next region ends, or what comes instead of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRegion {
    /// In an exit of the guest's own making, a window at CPL3, or wherever the primary stops it: run.
    Run,
    /// In an exit, says the log: run, and ask for no window.
    RunToExit,
    /// In a checkpoint: do not run, apply [`Replica::take_checkpoint`](super::Replica::take_checkpoint).
    Apply,
    /// A backup is to be given the state here: stop the vCPU, and give it to
    /// [`Replica::checkpoint`](super::Replica::checkpoint).
    Capture,
    /// The machine stops here.
    End,
}

/// What to do about a run that ended at no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAdvice {
    /// Re-enter with the same window request.
    Resume,
    /// Make it a position: take a checkpoint here.
    Checkpoint,
    /// As the world wants it: a checkpoint if an input has waited for too long.
    AsNeeded,
}

/// What a machine whose guest has halted waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halted {
    /// An input from the world.
    World,
    /// Nothing: one is in the log.
    Look,
    /// Nothing: a backup is to be given the state. The guest leaves its halt without an interrupt,
    /// here and there, and [`NextRegion::Capture`] follows; if it has nothing to do it halts again.
    Capture,
}

/// What the engine wants of guest memory while it copies it to a backup beside the running VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRequest {
    /// From here on note which pages are written:
    /// [`Replica::copy_begun`](super::Replica::copy_begun).
    Begin,
    /// The contents of this page now: [`Replica::copied`](super::Replica::copied).
    Page(u64),
}

/// Where a live machine's readings and inputs come from.
pub trait World {
    /// What can go wrong with it.
    type Error;

    /// Guest time: nanoseconds since the guest started, never going back.
    fn clock_ns(&mut self) -> Result<u64, Self::Error>;

    /// Wall clock: nanoseconds since 1970-01-01T00:00Z.
    fn wall_clock_ns(&mut self) -> Result<u64, Self::Error>;

    /// Fills `bytes` with entropy.
    fn entropy(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error>;

    /// The next input, if there is one that the devices could take.
    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, Self::Error>;

    /// The machine was a backup's and is live now: guest time goes on from `clock_ns`.
    fn go_live(&mut self, clock_ns: u64);
}

/// A machine's state where it stands, as a checkpoint carries it.
pub trait CheckpointImage {
    /// vCPU state.
    fn vcpu(&self) -> &[u8];
    /// Device state.
    fn devices(&self) -> &[u8];
    /// Numbers of the pages written since [`CopyRequest::Begin`] or since the last checkpoint,
    /// whichever was later; ascending.
    fn pages(&self) -> &[u64];
    /// Copies the contents of one of them.
    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]);
}
