//! Errors when device state is restored.

use crate::replay::error::SourceError;
use thiserror::Error;

/// Why a request in flight cannot be passed on to another boundary.
#[derive(Debug, Error)]
pub enum ReissueError {
    /// The boundary failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The guest has changed the data of a write, or its place in the queue, before the write was done.
    #[error(
        "request {number} of disk {disk} is in flight, and guest memory does not have its data any more"
    )]
    Changed {
        /// Index of the disk.
        disk: u8,
        /// Number of the request.
        number: u64,
    },
}

/// A saved state that no device of this build can be in.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// A field has a value that the named device cannot have.
    #[error("the saved state of the {0} is impossible")]
    Impossible(&'static str),
    /// A virtqueue has a size or addresses that the device would have refused.
    #[error("saved virtqueue {index} of the {device} is invalid: {reason}")]
    Queue {
        /// The device.
        device: &'static str,
        /// Index of the queue.
        index: usize,
        /// What is wrong with it.
        reason: virtio_queue::Error,
    },
}
