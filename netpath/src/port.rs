//! [`FramePort`]: what every way of sending and receiving Ethernet frames has in common.

use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use crate::error::PortError;

/// Largest frame a port carries: 14 bytes of Ethernet header, 1500 of payload, 4 of VLAN tag.
pub const FRAME_MAX: usize = 1518;

/// Smallest frame a port carries: a bare Ethernet header. Taps do not pad to the 60 bytes that
/// IEEE 802.3 asks of a wire, so shorter frames than that are ordinary here.
pub const FRAME_MIN: usize = 14;

/// Why a [`FramePort::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A frame may be there.
    Frame,
    /// The time given was up.
    Timeout,
    /// A signal interrupted the wait.
    Interrupted,
}

/// A port that Ethernet frames (without FCS) come out of and go into.
///
/// A port belongs to one thread; nothing in it is shared. Receiving never blocks; only
/// [`wait`](FramePort::wait) does. The order of use in a loop: `has_frame`, `receive` until
/// `None`, `send` any number of times, `flush` once, `wait`.
pub trait FramePort {
    /// Looks whether a frame may be waiting, without a system call: one load from memory shared
    /// with the kernel. False positives are allowed, false negatives are not once the kernel has
    /// announced the frame.
    fn has_frame(&self) -> bool;

    /// Takes the next received frame and copies it to the front of `buffer`
    /// (at least [`FRAME_MAX`] bytes); `None` when there is none. Never blocks.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError>;

    /// Queues a frame for sending; it leaves at the next [`flush`](FramePort::flush), in order.
    ///
    /// Frames outside [`FRAME_MIN`]..=[`FRAME_MAX`] are dropped and counted, not an error: their
    /// length is a guest's choice, and a guest must not be able to stop its host.
    fn send(&mut self, frame: &[u8]) -> Result<(), PortError>;

    /// Hands all queued frames to the kernel with one system call.
    fn flush(&mut self) -> Result<(), PortError>;

    /// What to poll for [`wait_any`](crate::wait_any::wait_any): readable once a frame is announced.
    /// `None` if nothing can end a wait here.
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Polling found something other than a frame: take note of it, so that it is not found again.
    fn attend(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    /// Blocks until a frame is there, a signal came or `timeout` passed (`None`: no limit).
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

    fn attend(&mut self) -> Result<(), PortError> {
        (**self).attend()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        (**self).wait(timeout)
    }
}

/// Whether a port may carry a frame of `length` bytes.
pub(crate) fn length_fits(length: usize) -> bool {
    (FRAME_MIN..=FRAME_MAX).contains(&length)
}

/// Checks the contract of [`FramePort::receive`]; a short buffer is a bug of the caller.
pub(crate) fn assert_receive_buffer(buffer: &[u8]) {
    assert!(
        buffer.len() >= FRAME_MAX,
        "receive needs a buffer of {FRAME_MAX} bytes, not {}",
        buffer.len()
    );
}
