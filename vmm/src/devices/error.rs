//! Errors when device state is restored.

use thiserror::Error;

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
