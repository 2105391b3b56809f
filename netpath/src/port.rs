//! [`FramePort`]: the trait of everything that sends and receives Ethernet frames.

use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use crate::error::PortError;

/// Largest frame a port carries: 14 bytes of Ethernet header, 1500 of payload, 4 of VLAN tag.
pub const FRAME_MAX: usize = 1518;

/// Smallest frame a port carries: an Ethernet header without payload. Taps do not pad frames to the 60
/// bytes that IEEE 802.3 requires on a wire, so shorter frames are normal here.
pub const FRAME_MIN: usize = 14;

/// Why a [`FramePort::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A frame may be waiting.
    Frame,
    /// The timeout passed.
    Timeout,
    /// A signal interrupted the wait.
    Interrupted,
}

/// A port that receives and sends Ethernet frames (without FCS).
///
/// A port belongs to one thread and shares no state. Receiving never blocks; only
/// [`wait`](FramePort::wait) does. A loop calls, in this order: `has_frame`, `receive` until it returns
/// `None`, `send` any number of times, `flush` once, `wait`.
///
/// # Errors
///
/// All methods return [`PortError`] if the port can no longer be used: its interface is gone, it is used
/// from a thread that does not own it, or a system call failed.
pub trait FramePort {
    /// Whether a frame may be waiting. Makes no system call: one load from memory shared with the
    /// kernel. False positives are allowed. False negatives are not allowed once the kernel has
    /// announced the frame.
    fn has_frame(&self) -> bool;

    /// Copies the next received frame to the front of `buffer` and returns its length in bytes, or
    /// `None` if no frame is waiting. Never blocks.
    ///
    /// # Errors
    ///
    /// [`PortError`] if the port can no longer receive.
    ///
    /// # Panics
    ///
    /// If `buffer` is shorter than [`FRAME_MAX`].
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError>;

    /// Queues a frame for sending; it leaves at the next [`flush`](FramePort::flush), in order.
    ///
    /// Frames whose length is outside [`FRAME_MIN`]..=[`FRAME_MAX`] are dropped and counted, which is not
    /// an error: the guest chooses the length, and must not be able to stop the VMM.
    ///
    /// # Errors
    ///
    /// [`PortError`] if the port can no longer send. A frame that the interface refuses is dropped and
    /// counted instead.
    fn send(&mut self, frame: &[u8]) -> Result<(), PortError>;

    /// Hands all queued frames to the kernel with one system call.
    ///
    /// # Errors
    ///
    /// [`PortError`] if the port can no longer send.
    fn flush(&mut self) -> Result<(), PortError>;

    /// The descriptor that [`wait_any`](crate::wait_any::wait_any) polls: readable once a frame is
    /// announced. `None` if no event of this port can end a wait.
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Consumes an event other than a frame that polling reported, so that the next poll does not
    /// report it again.
    ///
    /// # Errors
    ///
    /// [`PortError`] if the port can no longer be used.
    fn handle_poll_event(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    /// Blocks until a frame is waiting, a signal arrives or `timeout` passes (`None`: no limit).
    ///
    /// # Errors
    ///
    /// [`PortError`] if nothing can end the wait any more, or a system call failed.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError>;
}

impl<P: FramePort + ?Sized> FramePort for Box<P> {
    fn has_frame(&self) -> bool {
        (**self).has_frame()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        (**self).receive(buffer)
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        (**self).send(frame)
    }

    fn flush(&mut self) -> Result<(), PortError> {
        (**self).flush()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        (**self).pollable()
    }

    fn handle_poll_event(&mut self) -> Result<(), PortError> {
        (**self).handle_poll_event()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        (**self).wait(timeout)
    }
}

/// Whether a port carries frames of `length` bytes.
pub(crate) fn length_fits(length: usize) -> bool {
    (FRAME_MIN..=FRAME_MAX).contains(&length)
}

/// Checks the contract of [`FramePort::receive`]: a short buffer is a bug of the caller.
pub(crate) fn assert_receive_buffer(buffer: &[u8]) {
    assert!(
        buffer.len() >= FRAME_MAX,
        "receive needs a buffer of {FRAME_MAX} bytes, not {}",
        buffer.len()
    );
}
