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
    /// The machine's state was invalidated; another machine takes its place.
    #[error("the machine's state was invalidated")]
    Invalidated,
}
