//! `FrameRing`: frames in and out of one descriptor through an io_uring of its own.
//!
//! One multishot read stays armed and puts each frame into a provided buffer; writes are collected
//! and submitted with one system call. The ring belongs to the thread that starts it.
//!
//! ```text
//! made (any thread) --start--> armed <--> ended (no buffer was free)     gone (file unusable)
//!                                 receive/wait re-arms once drained        every call fails
//! ```

mod buffers;
mod ops;
pub mod probe;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use self::buffers::{RX_BUFFERS, RxFrame, TX_SLOTS};
use self::ops::{Completion, Ops};
use crate::error::PortError;
use crate::port::{Wake, assert_receive_buffer, length_fits};
use crate::stats::PortStats;
use crate::sys::signal::SignalMask;
use crate::wait::{self, WaitPolicy};

/// Whether the kernel will put further frames into buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Not yet started, or ended because every buffer was full.
    Stopped,
    Armed,
    /// The file will never give a frame again.
    Gone,
}

/// A ring on one descriptor. `Send` until it is started; after that it works on that thread only.
pub(crate) struct FrameRing {
    ops: Ops,
    /// Interface name, for messages.
    name: String,
    owner: Option<ThreadId>,
    reading: Reading,
    /// Frames announced and not yet received; at most [`RX_BUFFERS`].
    frames: VecDeque<RxFrame>,
    /// Writes pushed since the last submission.
    queued: usize,
    /// Writes submitted and not yet completed.
    in_flight: usize,
    policy: WaitPolicy,
    mask: Option<SignalMask>,
    stats: PortStats,
}

impl FrameRing {
    /// Makes the ring. Nothing is read before it is started, so it may still change threads.
    pub(crate) fn new(
        file: BorrowedFd<'_>,
        name: &str,
        policy: WaitPolicy,
    ) -> Result<FrameRing, PortError> {
        let ops = Ops::new(file).map_err(probe::explain_setup)?;
        Ok(FrameRing {
            ops,
            name: name.to_string(),
            owner: None,
            reading: Reading::Stopped,
            frames: VecDeque::with_capacity(usize::from(RX_BUFFERS)),
            queued: 0,
            in_flight: 0,
            policy,
            mask: None,
            stats: PortStats::default(),
        })
    }

    /// Makes the calling thread the owner and arms the read; does nothing the second time.
    pub(crate) fn start(&mut self) -> Result<(), PortError> {
        if self.owner.is_some() {
            return Ok(());
        }
        self.mask = match self.policy.wake_signal {
            Some(signal) => Some(
                SignalMask::current_without(signal)
                    .map_err(PortError::system("cannot read the signal mask"))?,
            ),
            None => None,
        };
        self.ops.enable().map_err(PortError::system("cannot enable the io_uring"))?;
        self.owner = Some(thread::current().id());
        self.ops.push_read();
        self.reading = Reading::Armed;
        self.submit()?;
        self.reap();
        Ok(())
    }

    pub(crate) fn stats(&self) -> PortStats {
        self.stats
    }

    /// Loads only. True as well while no read is armed: then frames may wait unannounced, and the
    /// next [`receive`](Self::receive) finds out (or reports that the file is gone).
    #[inline]
    pub(crate) fn has_frame(&self) -> bool {
        !self.frames.is_empty() || self.reading != Reading::Armed || self.ops.work_pending()
    }

    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        assert_receive_buffer(buffer);
        if self.frames.is_empty() {
            self.look()?;
        }
        let Some(frame) = self.frames.pop_front() else { return Ok(None) };
        let length = frame.length;
        self.ops.copy_out(&frame, &mut buffer[..length]);
        self.ops.give_back(frame);
        self.stats.rx_frames += 1;
        self.stats.rx_bytes += length as u64;
        Ok(Some(length))
    }

    /// Queues a frame. When every slot is taken, what is queued is submitted first; a tap takes or
    /// refuses a write within the submission, so that frees them all, and if not, the frame is
    /// dropped.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        if !length_fits(frame.len()) {
            self.stats.tx_bad_length += 1;
            return Ok(());
        }
        if self.ops.push_write(frame) {
            self.queued += 1;
            return Ok(());
        }
        self.flush()?;
        if self.ops.push_write(frame) {
            self.queued += 1;
        } else {
            self.stats.tx_dropped += 1;
        }
        Ok(())
    }

    /// Leaves the completion queue empty of writes, so that `has_frame` speaks of frames only.
    pub(crate) fn flush(&mut self) -> Result<(), PortError> {
        self.start()?;
        if self.queued > 0 {
            self.submit()?;
            self.reap();
        }
        // What the tap took is complete by now. What it refused is reported by deferred work, of
        // which the kernel does some 20 pieces per call. The bound keeps received frames, which are
        // such work too, from prolonging this.
        for _ in 0..TX_SLOTS {
            if self.in_flight == 0 || !self.ops.task_work_pending() {
                break;
            }
            self.enter(Ops::run_task_work)?;
            self.reap();
        }
        Ok(())
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        self.flush()?;
        // A deadline too far for the clock to name is none.
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut policy = self.policy;
        loop {
            self.look()?;
            if !self.frames.is_empty() {
                return Ok(Wake::Frame);
            }
            if wait::spin(&policy, deadline, || self.ops.work_pending()) {
                continue;
            }
            // Only the first block has a look window before it.
            policy.spin = Duration::ZERO;
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Wake::Timeout);
            }
            self.stats.enters += 1;
            match self.ops.block(left, self.mask.as_ref()) {
                Ok(()) => {}
                Err(e) => match e.raw_os_error() {
                    // The next turn looks once more, then finds the time to be up.
                    Some(libc::ETIME) => {}
                    Some(libc::EINTR) => return Ok(Wake::Interrupted),
                    _ => return Err(self.enter_failed(e)),
                },
            }
        }
    }

    /// Brings announced frames into `frames`: takes completions, runs deferred work if the kernel
    /// flagged some, and arms the read again if it has ended and nothing is left of it.
    fn look(&mut self) -> Result<(), PortError> {
        self.start()?;
        self.reap();
        if self.frames.is_empty() && self.ops.task_work_pending() {
            self.enter(Ops::run_task_work)?;
            self.reap();
        }
        if self.frames.is_empty() && self.reading == Reading::Stopped {
            self.ops.push_read();
            self.reading = Reading::Armed;
            self.stats.rearms += 1;
            self.submit()?;
            self.reap();
        }
        if self.frames.is_empty() && self.reading == Reading::Gone {
            return Err(PortError::TapGone { name: self.name.clone() });
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<(), PortError> {
        self.in_flight += std::mem::take(&mut self.queued);
        self.enter(Ops::submit)
    }

    /// Takes every completion that is there.
    fn reap(&mut self) {
        while let Some(completion) = self.ops.next_completion() {
            match completion {
                Completion::Read { frame, error, armed } => {
                    if !armed {
                        self.reading = Reading::Stopped;
                    }
                    match error {
                        // No free buffer, or nothing that a new read would not put right.
                        None
                        | Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR | libc::ECANCELED) => {}
                        Some(_) => self.reading = Reading::Gone,
                    }
                    match frame {
                        Some(frame) if error.is_none() && length_fits(frame.length) => {
                            self.frames.push_back(frame);
                        }
                        Some(frame) => {
                            self.stats.rx_oversize += 1;
                            self.ops.give_back(frame);
                        }
                        None => {}
                    }
                }
                Completion::Write { result } => {
                    self.in_flight -= 1;
                    match u64::try_from(result) {
                        Ok(bytes) => {
                            self.stats.tx_frames += 1;
                            self.stats.tx_bytes += bytes;
                        }
                        Err(_) => self.stats.tx_dropped += 1,
                    }
                }
            }
        }
    }

    /// A system call that neither blocks nor reports waiting: tried again when interrupted.
    fn enter(&mut self, call: fn(&mut Ops) -> io::Result<()>) -> Result<(), PortError> {
        loop {
            self.stats.enters += 1;
            match call(&mut self.ops) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.enter_failed(e)),
            }
        }
    }

    fn enter_failed(&self, error: io::Error) -> PortError {
        if error.raw_os_error() == Some(libc::EEXIST) {
            PortError::WrongThread { name: self.name.clone() }
        } else {
            PortError::System { doing: "io_uring_enter failed", source: error }
        }
    }
}

impl Drop for FrameRing {
    fn drop(&mut self) {
        if self.owner.is_none_or(|owner| owner == thread::current().id()) {
            self.ops.release_file();
        }
    }
}
