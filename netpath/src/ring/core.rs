//! An io_uring on one file, as every port here uses it: made on one thread, owned by another, looked
//! at without a system call.
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
//! 1. There is one view of each queue at a time: `&mut self` methods use the crate's safe
//!    accessors; the two shared views of `work_pending` live for one expression, write nothing,
//!    and cannot meet others because `Core` is not `Sync` (`not_sync`).
//! 2. Structures passed to `enter` are live locals in the layout of linux/io_uring.h.
//! 3. What the operations in the queue point to is the business of [`Core::push`]'s callers.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fixed, Timespec};
use io_uring::{EnterFlags, IoUring, Submitter, cqueue, squeue};

use crate::sys::signal::SignalMask;

/// The one file that the ring works on, by its index in the ring's table.
pub(super) const FILE: Fixed = Fixed(0);

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

/// The ring itself. Who owns one also owns the memory that its operations name, and drops the ring
/// first.
pub(super) struct Core {
    uring: IoUring,
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

impl Core {
    /// Makes the ring, disabled, with `file` as its only file.
    pub(super) fn new(file: BorrowedFd<'_>, sq_entries: u32, cq_entries: u32) -> io::Result<Core> {
        let uring = build_ring(sq_entries, cq_entries)?;
        uring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Core { uring, not_sync: PhantomData })
    }

    /// For registrations.
    pub(super) fn submitter(&self) -> Submitter<'_> {
        self.uring.submitter()
    }

    /// Whether a successful operation can be told to leave no completion.
    pub(super) fn can_skip_completions(&self) -> bool {
        self.uring.params().is_feature_skip_cqe_on_success()
    }

    /// Enables the ring; the calling thread becomes its issuer.
    pub(super) fn enable(&self) -> io::Result<()> {
        self.uring.submitter().register_enable_rings()
    }

    /// Whether a completion is there or would be after [`run_task_work`](Self::run_task_work):
    /// loads of shared memory only.
    #[inline]
    pub(super) fn work_pending(&self) -> bool {
        // SAFETY: the only views at this time (rule 1). `ManuallyDrop` keeps them from storing
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

    /// Pushes an operation on [`FILE`].
    ///
    /// # Safety
    ///
    /// What the operation points to must stay mapped until the ring is closed, and belong to the
    /// kernel until the operation is complete.
    pub(super) unsafe fn push(&mut self, operation: &squeue::Entry) {
        // SAFETY: the caller's promise (rule 3).
        let pushed = unsafe { self.uring.submission().push(operation) };
        assert!(pushed.is_ok(), "the submission queue has room for everything a port ever pushes");
    }

    /// Submits what was pushed and runs deferred work, without blocking. GETEVENTS is there always:
    /// an operation that the file takes completes within the submission, but one that it refuses
    /// is reported by deferred work.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        let count = self.unsubmitted() as u32;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument structure; the operations are as rule 3 says.
        unsafe { self.uring.submitter().enter::<GetEventsArg>(count, 0, flags, None) }.map(drop)
    }

    /// Submits what was pushed and does nothing else: what it leaves to deferred work, it flags.
    pub(super) fn submit_only(&mut self) -> io::Result<()> {
        let count = self.unsubmitted() as u32;
        // SAFETY: no argument structure; the operations are as rule 3 says.
        unsafe { self.uring.submitter().enter::<GetEventsArg>(count, 0, 0, None) }.map(drop)
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
        // SAFETY: `arg` and what it points to are live locals of the kernel's layout (rule 2).
        unsafe { self.uring.submitter().enter(0, 1, flags.bits(), Some(&arg)) }.map(drop)
    }

    /// Takes the next completion off the queue.
    pub(super) fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.uring.completion().next()
    }

    /// Cancels everything in flight and lets go of the file, so that closing the ring does not keep
    /// the file open for longer. Only the issuer can; failure costs nothing but that delay.
    pub(super) fn release_file(&mut self) {
        let limit = Timespec::from(Duration::from_millis(20));
        let submitter = self.uring.submitter();
        let _ = submitter.register_sync_cancel(Some(limit), CancelBuilder::any());
        // A cancelled operation ends, and drops its reference, in deferred work.
        let _ = self.run_task_work();
        let _ = self.uring.submitter().unregister_files();
    }
}
