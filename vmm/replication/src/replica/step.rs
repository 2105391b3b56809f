//! What the machine and the engine exchange: answers, requests, and the traits that each side implements.

use super::disk::LocalDisks;
use crate::boundary::{DeviceCapacity, Input};

/// The engine's answer to a question of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step<T> {
    /// The answer: continue.
    Ready(T),
    /// No answer yet: ask the same question again after the engine has handled an input.
    Pending,
    /// The machine's state is no longer valid. Replace the machine by an empty one, and continue at the
    /// beginning of a region.
    Invalidated,
}

impl<T> Step<T> {
    /// Applies `change` to the value of [`Ready`](Self::Ready).
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Step::Ready(value) => Step::Ready(change(value)),
            Step::Pending => Step::Pending,
            Step::Invalidated => Step::Invalidated,
        }
    }
}

/// How the next region ends, or what the machine does instead of entering it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRegion {
    /// Run: the region ends in a natural exit or a user window. On a live machine it may also end where
    /// the vCPU is stopped for a checkpoint.
    Run,
    /// Run without asking for an interrupt window: the region ends in a natural exit, as the log says.
    RunToExit,
    /// Do not run: the region ends in a checkpoint. Apply
    /// [`Replica::take_checkpoint`](super::Replica::take_checkpoint).
    Apply,
    /// Stop the vCPU here, and pass the machine's state to
    /// [`Replica::checkpoint`](super::Replica::checkpoint): a backup needs it.
    Capture,
    /// The machine stops here.
    End,
}

/// What to do after a mid-region stop, that is, when a run ended at no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAdvice {
    /// Re-enter with the same window request.
    Resume,
    /// Take a checkpoint here, which makes this point a position.
    Checkpoint,
    /// The world decides: take a checkpoint if an input has waited for too long.
    AsNeeded,
}

/// What a machine waits for while its guest is halted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// An input from the world.
    Input,
    /// Nothing: an input may be available. Call [`Replica::next_input`](super::Replica::next_input).
    Nothing,
    /// Nothing: a backup needs the state. The guest leaves its halt without an interrupt, on both hosts,
    /// and [`NextRegion::Capture`] follows; if it has nothing to do, it halts again.
    Capture,
}

/// What the engine needs of guest memory while it copies memory to a backup and the VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRequest {
    /// Start to track written pages, then call
    /// [`Replica::copy_begun`](super::Replica::copy_begun).
    Begin,
    /// Pass the current contents of this page to [`Replica::copied`](super::Replica::copied).
    Page(u64),
    /// Pass the numbers of the pages that were written since tracking began, or since the last answer to this request,
    /// to [`Replica::written`](super::Replica::written), and track from here on which ones are written.
    Written,
}

/// Source of a live machine's clock readings, entropy and inputs; and the disks, which a backup uses, too.
pub trait LiveInputs: LocalDisks {
    /// Error of the world.
    type Error;

    /// Returns guest time: nanoseconds since the guest started. It never goes back.
    fn clock_ns(&mut self) -> Result<u64, Self::Error>;

    /// Returns the wall clock: nanoseconds since 1970-01-01T00:00Z.
    fn wall_clock_ns(&mut self) -> Result<u64, Self::Error>;

    /// Fills the front of `bytes` with entropy and returns how many bytes it filled: at least one, unless `bytes` is
    /// empty.
    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error>;

    /// Returns the next input that the devices have capacity for, if there is one.
    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, Self::Error>;

    /// The machine of a backup has gone live: guest time continues from `clock_ns`.
    fn go_live(&mut self, clock_ns: u64);
}
