//! Rings in memory shared with the kernel.
//!
//! `FrameRing` is frames in and out of one descriptor through an io_uring of its own (taps);
//! `SendRing` is the outgoing half for sockets, and `PacketRing` the incoming one. What the rings have
//! in common: `core` is the io_uring, `owner` is which thread may use it.
//!
//! One read stays armed and puts frames into provided buffers: each frame, where the kernel has multishot
//! reads (Linux 6.7), or one, and is then armed again. Writes are collected and submitted with one system
//! call. The ring belongs to the thread that starts it.
//!
//! ```text
//! made (any thread) --start--> armed <--> ended                          failed (file unusable)
//!                                 receive/wait re-arms once drained        every call fails
//! ```

mod buffers;
mod core;
mod ops;
mod owner;
pub(crate) mod packet_ring;
pub mod probe;
pub(crate) mod send_ring;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use self::buffers::{RX_BUFFERS, RxFrame, TX_SLOTS};
pub use self::ops::ReadPath;
use self::ops::{Completion, Ops};
use self::owner::Owner;
use crate::error::PortError;
use crate::port::{Wake, assert_receive_buffer, length_fits};
use crate::stats::PortStats;
use crate::wait::{self, Blocked, WaitPolicy, Waiter};

/// Whether the kernel will put further frames into buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Not yet started, or ended: with its one frame, or because every buffer was full.
    Stopped,
    Armed,
    /// The file will not give a frame again: the kernel's error number.
    Failed(i32),
}

/// Frames that single reads fetch at a time, at most: what one call of [`FrameRing::receive`] may cost.
const SINGLE_READS_MAX: usize = 16;

/// A ring on one descriptor. `Send` until it is started; after that it works on that thread only.
pub(crate) struct FrameRing {
    ops: Ops,
    owner: Owner,
    reading: Reading,
    /// Frames announced and not yet received; at most [`RX_BUFFERS`].
    frames: VecDeque<RxFrame>,
    /// Writes pushed since the last submission.
    queued: usize,
    /// Writes submitted and not yet completed.
    in_flight: usize,
    stats: PortStats,
}

impl FrameRing {
    /// Makes the ring. Nothing is read before it is started, so it may still change threads.
    pub(crate) fn new(
        file: BorrowedFd<'_>,
        name: &str,
        policy: WaitPolicy,
        read: ReadPath,
    ) -> Result<FrameRing, PortError> {
        let ops = Ops::new(file, read).map_err(probe::explain_setup)?;
        Ok(FrameRing {
            ops,
            owner: Owner::new(name, policy),
            reading: Reading::Stopped,
            frames: VecDeque::with_capacity(usize::from(RX_BUFFERS)),
            queued: 0,
            in_flight: 0,
            stats: PortStats::default(),
        })
    }

    /// Makes the calling thread the owner and arms the read; does nothing the second time.
    pub(crate) fn start(&mut self) -> Result<(), PortError> {
        if !self.owner.claim(self.ops.core())? {
            return Ok(());
        }
        self.arm()
    }

    /// Starts the read; a frame that is there already comes with it.
    fn arm(&mut self) -> Result<(), PortError> {
        self.ops.push_read();
        self.reading = Reading::Armed;
        self.submit()?;
        self.reap();
        Ok(())
    }

    pub(crate) fn stats(&self) -> PortStats {
        PortStats { enters: self.owner.enters, ..self.stats }
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
            self.fetch()?;
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
        let policy = *self.owner.policy();
        wait::wait_on(self, &policy, timeout).map(|(wake, _looked)| wake)
    }

    /// Brings announced frames into `frames`: takes completions, runs deferred work if the kernel
    /// flagged some, and arms the read again if it has ended: a multishot read once nothing is left of
    /// it, a single one until it finds no frame, so that the next one is announced.
    fn fetch(&mut self) -> Result<(), PortError> {
        self.start()?;
        self.reap();
        if self.frames.is_empty() && self.ops.task_work_pending() {
            self.enter(Ops::run_task_work)?;
            self.reap();
        }
        let frames_max = if self.ops.is_multishot() { 1 } else { SINGLE_READS_MAX };
        for _ in 0..frames_max {
            if self.reading != Reading::Stopped || self.frames.len() >= frames_max {
                break;
            }
            self.stats.rearms += 1;
            self.arm()?;
        }
        match self.reading {
            Reading::Failed(errno) if self.frames.is_empty() => Err(self.unreadable(errno)),
            Reading::Stopped | Reading::Armed | Reading::Failed(_) => Ok(()),
        }
    }

    /// What the failure of a read means.
    fn unreadable(&self, errno: i32) -> PortError {
        let name = self.owner.name().to_string();
        match errno {
            // A tap that was deleted (`tun_chr_read_iter`).
            libc::EBADFD => PortError::DescriptorDead { name },
            _ => PortError::Unreadable { name, source: io::Error::from_raw_os_error(errno) },
        }
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
                        Some(errno) => self.reading = Reading::Failed(errno),
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

    fn enter(&mut self, call: fn(&mut Ops) -> io::Result<()>) -> Result<(), PortError> {
        self.owner.enter(|| call(&mut self.ops))
    }
}

impl Waiter for FrameRing {
    fn look(&mut self) -> Result<bool, PortError> {
        self.fetch()?;
        Ok(!self.frames.is_empty())
    }

    fn announced(&self) -> bool {
        self.ops.work_pending()
    }

    fn block(&mut self, left: Option<Duration>) -> Result<Blocked, PortError> {
        self.owner.enters += 1;
        match self.ops.block(left, self.owner.mask()) {
            Ok(()) => Ok(Blocked::Ended),
            Err(e) => match e.raw_os_error() {
                Some(libc::ETIME) => Ok(Blocked::Ended),
                Some(libc::EINTR) => Ok(Blocked::Interrupted),
                _ => Err(self.owner.failed(e)),
            },
        }
    }
}

impl Drop for FrameRing {
    fn drop(&mut self) {
        if self.owner.is_here() {
            self.ops.release_file();
        }
    }
}
