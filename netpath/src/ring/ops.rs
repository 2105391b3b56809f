//! The operations on an io_uring that a frame port needs, each with a safe face.
//!
//! Set-up: `SINGLE_ISSUER | DEFER_TASKRUN | TASKRUN_FLAG` (io_uring_setup(2)). With
//! `DEFER_TASKRUN` a completion is produced only inside our own `io_uring_enter`, so an arriving
//! frame never interrupts the thread. With `TASKRUN_FLAG` the kernel sets `IORING_SQ_TASKRUN` in
//! the shared ring while such work is pending (`io_req_local_work_add`), so looking for a frame is
//! a load. The ring starts disabled (`R_DISABLED`): the thread that enables it becomes the issuer,
//! so a ring can be made on one thread and used on another.
//!
//! The ring's own descriptor is *not* registered with `IORING_REGISTER_RING_FDS`: the index belongs
//! to one thread's table and keeps the ring alive until that thread ends, so a port dropped
//! elsewhere would leave the kernel reading into memory that is gone.
//!
//! Rules for the unsafe code in this file:
//! 1. `Ops` owns the ring and all memory that it ever tells the kernel about: `uring` is declared
//!    before `rx` and `tx`, so the ring is closed before they are unmapped. Closing makes the
//!    kernel cancel what is in flight instead of running it (`io_should_terminate_tw`).
//! 2. A slot is in flight from its push to the completion that carries its number, and is not
//!    written in between: `TxSlots` hands it out again only after `release`.
//! 3. There is one view of each queue at a time: `&mut self` methods use the crate's safe
//!    accessors; the two shared views of `work_pending` live for one expression, write nothing,
//!    and cannot meet others because `Ops` is not `Sync` (`not_sync`).
//! 4. Structures passed to `enter` are live locals in the layout of linux/io_uring.h.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fixed, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::buffers::{RX_BUFFERS, RxBuffers, RxFrame, TX_SLOTS, TxSlots};
use crate::sys::signal::SignalMask;

/// Entries of the submission queue: every slot, and the read.
const SQ_ENTRIES: u32 = 256;
/// Entries of the completion queue. Every buffer, every slot and the end of the read fit at once,
/// so it cannot overflow.
const CQ_ENTRIES: u32 = 512;
const _: () = assert!(SQ_ENTRIES > TX_SLOTS as u32);
const _: () = assert!(CQ_ENTRIES > RX_BUFFERS as u32 + TX_SLOTS as u32);

/// The one file that the ring works on, by its index in the ring's table.
const FILE: Fixed = Fixed(0);
/// The one group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// `user_data` of the multishot read; slot numbers are smaller.
const READ_TAG: u64 = 1 << 32;

/// What the kernel reports of an operation.
pub(super) enum Completion {
    /// The multishot read: perhaps with a frame, perhaps with an error, and `armed` says whether
    /// it goes on.
    Read { frame: Option<RxFrame>, error: Option<i32>, armed: bool },
    /// A write: bytes taken, or the negative error number.
    Write { result: i32 },
}

/// `struct io_uring_getevents_arg`. The crate's own type announces the mask with the C library's
/// size of 128 bytes, which the kernel refuses.
#[repr(C)]
struct GetEventsArg {
    mask: u64,
    mask_bytes: u32,
    min_wait_us: u32,
    time: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTime {
    seconds: i64,
    nanoseconds: i64,
}

/// A ring on one file, with its buffers.
pub(super) struct Ops {
    uring: IoUring,
    rx: RxBuffers,
    tx: TxSlots,
    not_sync: PhantomData<Cell<()>>,
}

/// Makes a ring with the flags described at the head of this file.
pub(super) fn build_ring(sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_r_disabled()
        .setup_submit_all()
        .setup_cqsize(cq_entries);
    builder.build(sq_entries)
}

impl Ops {
    /// Makes the ring, disabled, with `file` as its only file.
    pub(super) fn new(file: BorrowedFd<'_>) -> io::Result<Ops> {
        let uring = build_ring(SQ_ENTRIES, CQ_ENTRIES)?;
        let ops = Ops { uring, rx: RxBuffers::new()?, tx: TxSlots::new()?, not_sync: PhantomData };
        let submitter = ops.uring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        // SAFETY: the ring of buffers is RX_BUFFERS entries at this address and outlives the
        // io_uring (rule 1).
        unsafe {
            submitter.register_buf_ring_with_flags(
                ops.rx.ring_address(),
                RX_BUFFERS,
                BUFFER_GROUP,
                0,
            )?;
        }
        Ok(ops)
    }

    /// Enables the ring; the calling thread becomes its issuer.
    pub(super) fn enable(&self) -> io::Result<()> {
        self.uring.submitter().register_enable_rings()
    }

    /// Whether a completion is there or would be after [`run_task_work`](Self::run_task_work):
    /// loads of shared memory only.
    #[inline]
    pub(super) fn work_pending(&self) -> bool {
        // SAFETY: the only views at this time (rule 3). `ManuallyDrop` keeps them from storing
        // the head and tail back, which they have not moved.
        unsafe {
            !ManuallyDrop::new(self.uring.completion_shared()).is_empty()
                || ManuallyDrop::new(self.uring.submission_shared()).taskrun()
        }
    }

    /// Whether deferred work waits for an `enter`.
    #[inline]
    pub(super) fn task_work_pending(&mut self) -> bool {
        self.uring.submission().taskrun()
    }

    /// Number of operations pushed but not submitted.
    pub(super) fn unsubmitted(&mut self) -> usize {
        self.uring.submission().len()
    }

    /// Pushes the multishot read (io_uring_prep_read_multishot(3)).
    pub(super) fn push_read(&mut self) {
        // `ReadMulti::build` of io-uring 0.7.15 overwrites FIXED_FILE: set it after.
        let read = opcode::ReadMulti::new(FILE, 0, BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::FIXED_FILE)
            .user_data(READ_TAG);
        // SAFETY: a read into provided buffers names no memory; those live long enough (rule 1).
        let pushed = unsafe { self.uring.submission().push(&read) };
        assert!(pushed.is_ok(), "the queue has room for every slot and the read");
    }

    /// Copies `frame` into a free slot and pushes its write; false when no slot is free.
    /// `RWF_NOWAIT` makes a file that cannot take the frame answer at once instead of later.
    pub(super) fn push_write(&mut self, frame: &[u8]) -> bool {
        let Some((slot, address)) = self.tx.fill(frame) else { return false };
        let write = opcode::Write::new(FILE, address, frame.len() as u32)
            .rw_flags(libc::RWF_NOWAIT)
            .build()
            .user_data(slot.into());
        // SAFETY: `frame.len()` bytes at `address` are the slot's, which stays untouched until
        // its completion and mapped until the ring is closed (rules 1 and 2).
        let pushed = unsafe { self.uring.submission().push(&write) };
        assert!(pushed.is_ok(), "the queue has room for every slot and the read");
        true
    }

    /// Submits what was pushed and runs deferred work, without blocking. GETEVENTS is there always:
    /// a write that the tap takes completes within the submission, but one that it refuses is
    /// reported by deferred work.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        let count = self.unsubmitted() as u32;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument structure; the queued operations obey rules 1 and 2.
        unsafe { self.uring.submitter().enter::<GetEventsArg>(count, 0, flags, None) }.map(drop)
    }

    /// Runs deferred work without submitting or blocking.
    pub(super) fn run_task_work(&mut self) -> io::Result<()> {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument structure.
        unsafe { self.uring.submitter().enter::<GetEventsArg>(0, 0, flags, None) }.map(drop)
    }

    /// Blocks until there is a completion; ETIME after `timeout`, EINTR for a signal. Submits
    /// nothing: a submission's count would hide both answers.
    pub(super) fn block(
        &mut self,
        timeout: Option<Duration>,
        mask: Option<&SignalMask>,
    ) -> io::Result<()> {
        let time = timeout.map(|t| KernelTime {
            seconds: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: t.subsec_nanos().into(),
        });
        let arg = GetEventsArg {
            mask: mask.map_or(0, |m| std::ptr::from_ref(m.kernel_bits()) as u64),
            mask_bytes: mask.map_or(0, |_| size_of::<u64>() as u32),
            min_wait_us: 0,
            time: time.as_ref().map_or(0, |t| std::ptr::from_ref(t) as u64),
        };
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: `arg` and what it points to are live locals of the kernel's layout (rule 4).
        unsafe { self.uring.submitter().enter(0, 1, flags.bits(), Some(&arg)) }.map(drop)
    }

    /// Takes the next completion off the queue.
    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.uring.completion().next()?;
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

    /// Cancels everything in flight and lets go of the file, so that closing the ring does not keep
    /// the file open for longer. Only the issuer can; failure costs nothing but that delay.
    pub(super) fn release_file(&mut self) {
        let limit = Timespec::from(Duration::from_millis(20));
        let submitter = self.uring.submitter();
        let _ = submitter.register_sync_cancel(Some(limit), CancelBuilder::any());
        // The cancelled read ends, and drops its reference, in deferred work.
        let _ = self.run_task_work();
        let _ = self.uring.submitter().unregister_files();
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
