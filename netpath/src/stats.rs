//! [`PortStats`]: the counters of a port.

/// Counters of one port since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames handed to the caller of `receive`.
    pub rx_frames: u64,
    /// Bytes of those frames, Ethernet header included.
    pub rx_bytes: u64,
    /// Frames discarded because they were longer than [`FRAME_MAX`](crate::port::FRAME_MAX) (the
    /// interface's MTU is above 1500) or shorter than [`FRAME_MIN`](crate::port::FRAME_MIN).
    pub rx_oversize: u64,
    /// Frames the kernel accepted.
    pub tx_frames: u64,
    /// Bytes of those frames, Ethernet header included.
    pub tx_bytes: u64,
    /// Frames the kernel refused: the interface is down (EIO) or its queue is full.
    pub tx_dropped: u64,
    /// Frames never offered to the kernel because they were shorter or longer than a port carries.
    pub tx_bad_length: u64,
    /// How often the read ended and was started again. A multishot read ends after a burst of more frames
    /// than there are receive buffers, a single read after each frame.
    pub rearms: u64,
    /// `io_uring_enter` system calls.
    pub enters: u64,
}
