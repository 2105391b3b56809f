//! The operations of a ring that reads frames from a file and writes frames to it, each with a safe
//! face.
//!
//! Rules for the unsafe code in this file:
//! 1. `Ops` owns the ring and all memory that it ever tells the kernel about: `core` is declared
//!    before `rx` and `tx`, so the ring is closed before they are unmapped. Closing makes the
//!    kernel cancel what is in flight instead of running it (`io_should_terminate_tw`).
//! 2. A slot is in flight from its push to the completion that carries its number, and is not
//!    written in between: `TxSlots` hands it out again only after `release`.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue};

use super::buffers::{BUFFER_BYTES, RX_BUFFERS, RxBuffers, RxFrame, TX_SLOTS, TxSlots};
use super::core::{Core, FILE};
use super::probe;
use crate::sys::signal::SignalMask;

/// Entries of the submission queue: every slot, and the read.
const SQ_ENTRIES: u32 = 256;
/// Entries of the completion queue. Every buffer, every slot and the end of the read fit at once,
/// so it cannot overflow.
const CQ_ENTRIES: u32 = 512;
const _: () = assert!(SQ_ENTRIES > TX_SLOTS as u32);
const _: () = assert!(CQ_ENTRIES > RX_BUFFERS as u32 + TX_SLOTS as u32);

/// The one group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// `user_data` of the read; slot numbers are smaller.
const READ_TAG: u64 = 1 << 32;

/// How a ring reads frames from its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadPath {
    /// By multishot reads where the kernel has them (Linux 6.7), by single ones if not.
    #[default]
    Auto,
    /// By reads that end with their first frame: a system call more for each frame.
    Single,
}

/// What the kernel reports of an operation.
pub(super) enum Completion {
    /// The read: perhaps with a frame, perhaps with an error, and `armed` says whether it goes on.
    Read { frame: Option<RxFrame>, error: Option<i32>, armed: bool },
    /// A write: bytes taken, or the negative error number.
    Write { result: i32 },
}

/// A ring on one file, with its buffers.
pub(super) struct Ops {
    core: Core,
    rx: RxBuffers,
    tx: TxSlots,
    /// One read gives many frames.
    is_multishot: bool,
}

impl Ops {
    /// Makes the ring, disabled, with `file` as its only file.
    pub(super) fn new(file: BorrowedFd<'_>, read: ReadPath) -> io::Result<Ops> {
        let core = Core::new(file, SQ_ENTRIES, CQ_ENTRIES)?;
        let is_multishot = match read {
            ReadPath::Auto => probe::has_multishot_read(&core.submitter()),
            ReadPath::Single => false,
        };
        let ops = Ops { core, rx: RxBuffers::new()?, tx: TxSlots::new()?, is_multishot };
        // SAFETY: the ring of buffers is RX_BUFFERS entries at this address and outlives the
        // io_uring (rule 1).
        unsafe {
            ops.core.submitter().register_buf_ring_with_flags(
                ops.rx.ring_address(),
                RX_BUFFERS,
                BUFFER_GROUP,
                0,
            )?;
        }
        let read = if is_multishot { opcode::ReadMulti::CODE } else { opcode::Read::CODE };
        ops.core.restrict(&[read, opcode::Write::CODE], squeue::Flags::BUFFER_SELECT)?;
        Ok(ops)
    }

    /// The ring, to be claimed by its owner.
    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// See [`Core::work_pending`].
    #[inline]
    pub(super) fn work_pending(&self) -> bool {
        self.core.work_pending()
    }

    /// See [`Core::task_work_pending`].
    #[inline]
    pub(super) fn task_work_pending(&mut self) -> bool {
        self.core.task_work_pending()
    }

    /// Whether a read goes on after a frame, as long as there are buffers.
    pub(super) fn is_multishot(&self) -> bool {
        self.is_multishot
    }

    /// Pushes the read (io_uring_prep_read_multishot(3), or io_uring_prep_read(3) with a buffer of the
    /// kernel's choice).
    pub(super) fn push_read(&mut self) {
        let read = if self.is_multishot {
            opcode::ReadMulti::new(FILE, 0, BUFFER_GROUP).build()
        } else {
            opcode::Read::new(FILE, ptr::null_mut(), BUFFER_BYTES as u32)
                .buf_group(BUFFER_GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        };
        // `ReadMulti::build` of io-uring 0.7.15 overwrites FIXED_FILE: set it after.
        let read = read.flags(squeue::Flags::FIXED_FILE).user_data(READ_TAG);
        // SAFETY: a read into provided buffers names no memory; those live long enough (rule 1).
        unsafe { self.core.push(&read) };
    }

    /// Copies `frame` into a free slot and pushes its write; false when no slot is free. The file takes
    /// or refuses the frame within the submission: a tap opened with `O_NONBLOCK` never asks to be tried
    /// again, because its socket has no limit (`tun_chr_open` sets `sk_sndbuf` to `INT_MAX`). `RWF_NOWAIT`
    /// would say the same, but taps refuse it before Linux 6.4.
    pub(super) fn push_write(&mut self, frame: &[u8]) -> bool {
        let Some((slot, address)) = self.tx.fill(frame) else { return false };
        let write =
            opcode::Write::new(FILE, address, frame.len() as u32).build().user_data(slot.into());
        // SAFETY: `frame.len()` bytes at `address` are the slot's, which stays untouched until
        // its completion and mapped until the ring is closed (rules 1 and 2).
        unsafe { self.core.push(&write) };
        true
    }

    /// See [`Core::submit`].
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.core.submit()
    }

    /// See [`Core::run_task_work`].
    pub(super) fn run_task_work(&mut self) -> io::Result<()> {
        self.core.run_task_work()
    }

    /// See [`Core::block`].
    pub(super) fn block(
        &mut self,
        timeout: Option<Duration>,
        mask: Option<&SignalMask>,
    ) -> io::Result<()> {
        self.core.block(timeout, mask)
    }

    /// Takes the next completion off the queue.
    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.core.next_completion()?;
        let result = entry.result();
        if entry.user_data() == READ_TAG {
            let buffer = cqueue::buffer_select(entry.flags());
            Some(Completion::Read {
                frame: buffer.map(|id| RxFrame::announced(id, result.max(0) as usize)),
                error: (result < 0).then_some(-result),
                armed: cqueue::more(entry.flags()),
            })
        } else {
            self.tx.release(entry.user_data() as u16);
            Some(Completion::Write { result })
        }
    }

    /// Copies the front of a received frame to `into`.
    pub(super) fn copy_out(&self, frame: &RxFrame, into: &mut [u8]) {
        self.rx.copy_out(frame, into);
    }

    /// Returns a frame's buffer to the kernel.
    pub(super) fn give_back(&mut self, frame: RxFrame) {
        self.rx.give_back(frame);
    }

    /// See [`Core::release_file`].
    pub(super) fn release_file(&mut self) {
        self.core.release_file();
    }
}

/// Registers and unregisters `buffers` with another ring, to see whether the kernel can.
pub(super) fn try_buffer_ring(ring: &IoUring, buffers: &RxBuffers) -> bool {
    let submitter = ring.submitter();
    // SAFETY: the ring of buffers is RX_BUFFERS entries at this address. It is unregistered below
    // before `buffers` can go, and no read uses it.
    let registered = unsafe {
        submitter.register_buf_ring_with_flags(buffers.ring_address(), RX_BUFFERS, BUFFER_GROUP, 0)
    };
    registered.is_ok() && submitter.unregister_buf_ring(BUFFER_GROUP).is_ok()
}
