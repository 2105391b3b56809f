//! Ways in which device state can be refused.

use thiserror::Error;

/// A saved state that no device of this build can be in.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// A field holds a value the device cannot have; the device is named.
    #[error("the saved state of the {0} is not one it can be in")]
    Impossible(&'static str),
    /// A virtqueue whose size or addresses the device would have refused.
    #[error("saved virtqueue {index} of the {device} is invalid: {reason}")]
    Queue {
        /// Which device.
        device: &'static str,
        /// Which of its queues.
        index: usize,
        /// What is wrong with it.
        reason: virtio_queue::Error,
    },
}
