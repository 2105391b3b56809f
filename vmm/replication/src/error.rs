//! Errors of the nondeterminism boundary.

use crate::divergence::Divergence;
use alloc::boxed::Box;

/// Why a question to the nondeterminism boundary got no answer. `E` is the error of the host.
#[derive(Debug, thiserror::Error)]
pub enum BoundaryError<E> {
    /// The host failed: its clocks, its network, its files.
    #[error(transparent)]
    Host(#[from] E),
    /// The execution differs from the log.
    #[error("{0}")]
    Diverged(Box<Divergence>),
    /// A stop was requested where the replay cannot end in order.
    #[error("stopped before the end of the log")]
    Stopped,
    /// The guest asked a disk for I/O, and the boundary has none.
    #[error("the guest asked disk {disk} for I/O, and the VM has no such disk here")]
    NoDisk {
        /// Index of the disk.
        disk: u8,
    },
    /// The machine's state was invalidated; another machine takes its place.
    #[error("the machine's state was invalidated")]
    Invalidated,
}
