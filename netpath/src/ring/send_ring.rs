//! `SendRing`: frames out of a socket through an io_uring, without a completion for each.
//!
//! A `SEND` with `MSG_DONTWAIT` on a packet socket never waits: the frame is copied into the kernel's
//! own memory, or refused, while it is submitted (`packet_snd`; io_uring marks the request
//! `REQ_F_NOWAIT`, and such a request is neither queued nor polled for). So after the submission every
//! slot is ours again, and only refusals need to be told: `IOSQE_CQE_SKIP_SUCCESS`.
//!
//! Rules for the unsafe code in this file:
//! 1. `SendRing` owns the ring and the slots, which are all that it ever tells the kernel about:
//!    `core` is declared before `tx`, so the ring is closed before they are unmapped.
//! 2. A slot is not written between its push and the end of the submission.

use std::io;
use std::os::fd::BorrowedFd;

use io_uring::{opcode, squeue};

use super::buffers::{TX_SLOTS, TxSlots};
use super::core::{Core, FILE};
use super::owner::Owner;
use super::probe;
use crate::error::PortError;
use crate::sys::signal::SignalMask;
use crate::wait::WaitPolicy;

/// Entries of the submission queue: every slot.
const SQ_ENTRIES: u32 = TX_SLOTS as u32;
/// Entries of the completion queue: every slot refused, twice over.
const CQ_ENTRIES: u32 = 2 * SQ_ENTRIES;

/// What came of the frames handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Frames the kernel took.
    pub(crate) frames: u64,
    /// Bytes of those.
    pub(crate) bytes: u64,
    /// Frames the kernel refused.
    pub(crate) refused: u64,
    /// The last refusal's error number.
    pub(crate) error: Option<i32>,
}

/// The outgoing half of a port. `Send` until its first use; after that it works on that thread only.
pub(crate) struct SendRing {
    core: Core,
    tx: TxSlots,
    owner: Owner,
    /// Slots pushed since the last submission, and the length of the frame in each.
    queued: Vec<(u16, u16)>,
}

impl SendRing {
    /// Makes the ring.
    pub(crate) fn new(
        file: BorrowedFd<'_>,
        name: &str,
        policy: WaitPolicy,
    ) -> Result<SendRing, PortError> {
        let make = || {
            let core = Core::new(file, SQ_ENTRIES, CQ_ENTRIES)?;
            core.restrict(&[opcode::Send::CODE], squeue::Flags::SKIP_SUCCESS)?;
            Ok((core, TxSlots::new()?))
        };
        let (core, tx) = make().map_err(probe::explain_setup)?;
        if !core.can_skip_completions() {
            return Err(PortError::RingFeature {
                feature: "IORING_FEAT_CQE_SKIP",
                purpose: "sending frames without an answer for each",
                since: "5.17",
            });
        }
        let queued = Vec::with_capacity(usize::from(TX_SLOTS));
        Ok(SendRing { core, tx, owner: Owner::new(name, policy), queued })
    }

    /// Makes the calling thread the owner; does nothing the second time.
    pub(crate) fn start(&mut self) -> Result<(), PortError> {
        self.owner.claim(&self.core).map(drop)
    }

    pub(crate) fn policy(&self) -> WaitPolicy {
        *self.owner.policy()
    }

    pub(crate) fn mask(&self) -> Option<&SignalMask> {
        self.owner.mask()
    }

    /// `io_uring_enter` system calls so far.
    pub(crate) fn enters(&self) -> u64 {
        self.owner.enters
    }

    /// Frames queued and not yet handed over.
    pub(crate) fn queued(&self) -> usize {
        self.queued.len()
    }

    /// Queues a frame; false when every slot is taken and a [`flush`](Self::flush) is needed first.
    pub(crate) fn push(&mut self, frame: &[u8]) -> bool {
        let Some((slot, address)) = self.tx.fill(frame) else { return false };
        let send = opcode::Send::new(FILE, address, frame.len() as u32)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::FIXED_FILE | squeue::Flags::SKIP_SUCCESS)
            .user_data(slot.into());
        // SAFETY: `frame.len()` bytes at `address` are the slot's, which stays untouched until the
        // submission is over and mapped until the ring is closed (rules 1 and 2).
        unsafe { self.core.push(&send) };
        self.queued.push((slot, frame.len() as u16));
        true
    }

    /// Hands all queued frames to the kernel with one system call.
    pub(crate) fn flush(&mut self) -> Result<Sent, PortError> {
        self.start()?;
        let mut sent = Sent::default();
        if self.queued.is_empty() {
            return Ok(sent);
        }
        // SUBMIT_ALL: a refused frame does not stop those behind it. What is left nevertheless (no
        // memory for requests) is tried again, a bounded number of times.
        for _ in 0..=TX_SLOTS {
            self.owner.enter(|| self.core.submit_only())?;
            if self.core.unsubmitted() == 0 {
                break;
            }
        }
        if self.core.unsubmitted() > 0 {
            let source = io::Error::from_raw_os_error(libc::EAGAIN);
            return Err(PortError::System { doing: "io_uring_enter took no frame", source });
        }
        // A refusal is told by deferred work.
        for _ in 0..TX_SLOTS {
            self.reap(&mut sent);
            if !self.core.task_work_pending() {
                break;
            }
            self.owner.enter(|| self.core.run_task_work())?;
        }
        for &(slot, length) in &self.queued {
            sent.frames += 1;
            sent.bytes += u64::from(length);
            self.tx.release(slot);
        }
        self.queued.clear();
        sent.frames -= sent.refused;
        Ok(sent)
    }

    /// Takes the refusals off the completion queue.
    fn reap(&mut self, sent: &mut Sent) {
        while let Some(entry) = self.core.next_completion() {
            if entry.result() >= 0 {
                continue;
            }
            sent.refused += 1;
            sent.error = Some(-entry.result());
            let refused =
                self.queued.iter_mut().find(|(slot, _)| u64::from(*slot) == entry.user_data());
            if let Some((_, length)) = refused {
                // Its bytes are not counted as sent.
                *length = 0;
            }
        }
    }
}

impl Drop for SendRing {
    fn drop(&mut self) {
        if self.owner.is_here() {
            self.core.release_file();
        }
    }
}
