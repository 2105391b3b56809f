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
//! From its start the ring takes only the operations of its port, and only on its one file
//! (`IORING_REGISTER_RESTRICTIONS`). A filter of system calls does not see what a ring does: without
//! this, whoever controls the process could open files and connect sockets through it.
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

use io_uring::register::Restriction;
use io_uring::types::{CancelBuilder, Fixed, Timespec};
use io_uring::{EnterFlags, IoUring, Submitter, cqueue, squeue};

use crate::sys::signal::SignalMask;

/// The one file that the ring works on, by its index in the ring's table.
pub(super) const FILE: Fixed = Fixed(0);

/// Commands that a ring still takes when it was started (linux/io_uring.h): its release needs them. The
/// crate keeps the numbers to itself.
const IORING_UNREGISTER_FILES: u8 = 3;
const IORING_REGISTER_SYNC_CANCEL: u8 = 24;

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

    /// Makes the ring refuse all operations but `opcodes`, and those on another file than
    /// [`FILE`], from when it is enabled. `flags` are those that an operation may have besides
    /// `FIXED_FILE`. For good, and only once.
    pub(super) fn restrict(&self, opcodes: &[u8], flags: squeue::Flags) -> io::Result<()> {
        let mut rules: Vec<_> = opcodes.iter().copied().map(Restriction::sqe_op).collect();
        rules.push(Restriction::sqe_flags_required(squeue::Flags::FIXED_FILE.bits()));
        rules.push(Restriction::sqe_flags_allowed(flags.bits()));
        rules.push(Restriction::register_op(IORING_UNREGISTER_FILES));
        rules.push(Restriction::register_op(IORING_REGISTER_SYNC_CANCEL));
        self.uring.submitter().register_restrictions(&mut rules)
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

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode;
    use std::fs::File;
    use std::os::fd::AsFd;

    fn result_of(core: &mut Core, operation: &squeue::Entry) -> i32 {
        // SAFETY: the operations below point to constants.
        unsafe { core.push(operation) };
        core.submit().unwrap();
        core.next_completion().expect("it completes while it is submitted").result()
    }

    #[test]
    fn restricted_ring_takes_its_operations_on_its_file_and_nothing_else() {
        let null = File::options().write(true).open("/dev/null").unwrap();
        let mut core = Core::new(null.as_fd(), 4, 8).unwrap();
        core.restrict(&[opcode::Write::CODE], squeue::Flags::SKIP_SUCCESS).unwrap();
        core.enable().unwrap();
        let bytes = b"frame".as_ptr();
        assert_eq!(result_of(&mut core, &opcode::Write::new(FILE, bytes, 5).build()), 5);

        let other_file = io_uring::types::Fd(null.as_raw_fd());
        let path = c"/etc/passwd".as_ptr();
        let here = io_uring::types::Fd(libc::AT_FDCWD);
        for refused in [
            opcode::Write::new(other_file, bytes, 5).build(),
            opcode::Write::new(FILE, bytes, 5).build().flags(squeue::Flags::IO_LINK),
            opcode::OpenAt::new(here, path).build(),
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
            opcode::Nop::new().build(),
        ] {
            assert_eq!(result_of(&mut core, &refused), -libc::EACCES, "{refused:?}");
        }
        let registered = core.submitter().register_files(&[null.as_raw_fd()]);
        assert_eq!(registered.unwrap_err().raw_os_error(), Some(libc::EACCES));
        assert!(core.restrict(&[opcode::OpenAt::CODE], squeue::Flags::empty()).is_err());
        core.release_file();
        assert!(core.submitter().unregister_files().is_err(), "it was released");
    }
}
