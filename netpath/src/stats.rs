//! [`PortStats`]: what a port counted.

/// Counters of one port since it was opened. A plain copy, readable at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames handed to the caller of `receive`.
    pub rx_frames: u64,
    /// Bytes of those frames, Ethernet header included.
    pub rx_bytes: u64,
    /// Frames longer than [`FRAME_MAX`](crate::port::FRAME_MAX) or shorter than
    /// [`FRAME_MIN`](crate::port::FRAME_MIN), discarded: the interface's MTU is above 1500.
    pub rx_oversize: u64,
    /// Frames the kernel accepted.
    pub tx_frames: u64,
    /// Bytes of those frames, Ethernet header included.
    pub tx_bytes: u64,
    /// Frames the kernel refused: the interface is down (EIO) or its queue is full.
    pub tx_dropped: u64,
    /// Frames never offered to the kernel: shorter or longer than a port carries.
    pub tx_bad_length: u64,
    /// How often the read had ended and was started again. A multishot read ends with a burst of more
    /// frames than there are receive buffers, a single one with each frame.
    pub rearms: u64,
    /// `io_uring_enter` system calls.
    pub enters: u64,
}
