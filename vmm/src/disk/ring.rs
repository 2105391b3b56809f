//! [`Ring`]: an io_uring for one image, and the event that wakes the thread that waits for it.
//!
//! Set-up: `SINGLE_ISSUER | DEFER_TASKRUN` (io_uring_setup(2), Linux 6.1): completions are produced only inside our
//! own `io_uring_enter`, on the thread that waits for them. The ring starts disabled; the thread that enables it is
//! its issuer, so a ring can be made on one thread and used on another. From its start it takes only the operations
//! below, and only on its two files (`IORING_REGISTER_RESTRICTIONS`): a filter of system calls does not see what a
//! ring does.
//!
//! Rules for the unsafe code in this file, which is all of this module:
//! 1. An operation points to a buffer that is owned by the ring until its completion was taken ([`Ring::buffers`]), or
//!    to memory that lives as long as the process.
//! 2. A ring that is dropped while operations are in flight leaks their buffers: the kernel may still use them.

use super::buffers::Buffer;
use crate::limits::DISK_SLOTS_MAX;
use io_uring::register::Restriction;
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};

/// The image, by its index in the ring's table.
const IMAGE: Fixed = Fixed(0);
/// The event that wakes the thread.
const WAKE: Fixed = Fixed(1);

/// `user_data` of the read of the event. Others are slots.
const WAKE_DATA: u64 = u64::MAX;

/// The command with which the ring lets go of its files (linux/io_uring.h).
const IORING_UNREGISTER_FILES: u8 = 3;

/// Operations that the ring takes.
const OPERATIONS: [u8; 4] =
    [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE];

/// Bytes of [`ZEROS`].
pub(super) const ZEROS_BYTES: usize = 64 * 1024;

#[repr(align(4096))]
struct Zeros([u8; ZEROS_BYTES]);

/// What is written where the file system can't make zeros itself.
static ZEROS: Zeros = Zeros([0; ZEROS_BYTES]);

/// Wakes the thread of a ring, from another thread.
#[derive(Debug)]
pub(super) struct Waker {
    event: File,
}

impl Waker {
    /// Ends the wait of the thread, or its next one.
    pub(super) fn wake(&self) {
        // Fails only if the counter is full, and then the thread is awake.
        let _ = (&self.event).write(&1u64.to_ne_bytes());
    }
}

/// A ring with its files.
pub(super) struct Ring {
    uring: IoUring,
    image: File,
    event: File,
    /// What the counter of the event is read to. The ring reads it while `is_armed`.
    count: Box<u64>,
    is_armed: bool,
    /// The buffers of operations in flight, by slot.
    buffers: Vec<Option<Buffer>>,
}

/// What the kernel said about an operation: its slot, and the number of bytes or an error.
pub(super) type Answer = (usize, io::Result<usize>);

impl Ring {
    /// Makes a disabled ring for `image`, and what wakes its thread.
    ///
    /// # Errors
    ///
    /// The kernel has no io_uring of this kind, or does not let this process have it.
    pub(super) fn new(image: &File) -> io::Result<(Ring, Waker)> {
        // SAFETY: eventfd(2) takes plain integers, and the descriptor that it returns has no other owner.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from_raw_fd(fd)
        };
        let mut builder = IoUring::builder();
        builder.dontfork().setup_single_issuer().setup_defer_taskrun().setup_r_disabled();
        // Room for an operation of each slot, and the read of the event.
        let uring = builder.build(2 * DISK_SLOTS_MAX.next_power_of_two() as u32)?;
        let submitter = uring.submitter();
        submitter.register_files(&[image.as_raw_fd(), event.as_raw_fd()])?;
        let mut rules: Vec<_> = OPERATIONS.into_iter().map(Restriction::sqe_op).collect();
        rules.push(Restriction::sqe_flags_required(squeue::Flags::FIXED_FILE.bits()));
        rules.push(Restriction::sqe_flags_allowed(squeue::Flags::FIXED_FILE.bits()));
        rules.push(Restriction::register_op(IORING_UNREGISTER_FILES));
        submitter.register_restrictions(&mut rules)?;
        let waker = Waker { event: event.try_clone()? };
        let buffers = (0..DISK_SLOTS_MAX).map(|_| None).collect();
        let image = image.try_clone()?;
        let ring = Ring { uring, image, event, count: Box::new(0), is_armed: false, buffers };
        Ok((ring, waker))
    }

    /// Enables the ring; the calling thread becomes its issuer.
    ///
    /// # Errors
    ///
    /// The system call failed.
    pub(super) fn enable(&self) -> io::Result<()> {
        self.uring.submitter().register_enable_rings()
    }

    /// Returns the image.
    pub(super) fn image(&self) -> &File {
        &self.image
    }

    /// Begins to read the image at `offset` into `buffer`, from byte `done` of the buffer on.
    pub(super) fn read(&mut self, slot: usize, buffer: Buffer, (done, offset): (usize, u64)) {
        let rest = &mut self.keep(slot, buffer).bytes_mut()[done..];
        let (at, length) = (rest.as_mut_ptr(), rest.len() as u32);
        self.push(slot as u64, &opcode::Read::new(IMAGE, at, length).offset(offset).build());
    }

    /// Begins to write `buffer` to the image at `offset`, from byte `done` of the buffer on.
    pub(super) fn write(&mut self, slot: usize, buffer: Buffer, (done, offset): (usize, u64)) {
        let rest = &self.keep(slot, buffer).bytes()[done..];
        let (at, length) = (rest.as_ptr(), rest.len() as u32);
        self.push(slot as u64, &opcode::Write::new(IMAGE, at, length).offset(offset).build());
    }

    /// Begins to write zeros to the beginning of `range`, at most [`ZEROS_BYTES`].
    pub(super) fn write_zeros(&mut self, slot: usize, range: &Range<u64>) {
        let length = (range.end - range.start).min(ZEROS_BYTES as u64) as u32;
        let write = opcode::Write::new(IMAGE, ZEROS.0.as_ptr(), length).offset(range.start);
        self.push(slot as u64, &write.build());
    }

    /// Begins to make all completed writes stable, with what is needed to read them again.
    pub(super) fn sync(&mut self, slot: usize) {
        let sync = opcode::Fsync::new(IMAGE).flags(FsyncFlags::DATASYNC);
        self.push(slot as u64, &sync.build());
    }

    /// Begins an fallocate(2) of `range`.
    pub(super) fn allocate(&mut self, slot: usize, range: &Range<u64>, mode: i32) {
        let allocate = opcode::Fallocate::new(IMAGE, range.end - range.start);
        self.push(slot as u64, &allocate.offset(range.start).mode(mode).build());
    }

    /// Submits what was begun, and waits until there is an answer or the thread is woken.
    ///
    /// # Errors
    ///
    /// The system call failed.
    pub(super) fn submit_and_wait(&mut self) -> io::Result<()> {
        self.arm();
        self.enter(1)
    }

    /// Lets go of the image, so that its lock ends now. The kernel closes a ring some time after its process does.
    pub(super) fn release(&mut self) {
        if self.is_armed {
            // The read of the event ends.
            let _ = (&self.event).write(&1u64.to_ne_bytes());
            while self.is_armed && self.enter(1).is_ok() {
                assert!(self.next_answer().is_none(), "nothing else is in flight");
            }
        }
        let _ = self.uring.submitter().unregister_files();
    }

    /// Returns the next answer, and the buffer of its operation.
    pub(super) fn next_answer(&mut self) -> Option<(Answer, Option<Buffer>)> {
        loop {
            let completion = self.uring.completion().next()?;
            if completion.user_data() == WAKE_DATA {
                self.is_armed = false;
                continue;
            }
            let slot = completion.user_data() as usize;
            let result = match completion.result() {
                error @ ..0 => Err(io::Error::from_raw_os_error(-error)),
                count => Ok(count as usize),
            };
            return Some(((slot, result), self.buffers[slot].take()));
        }
    }

    fn enter(&mut self, wanted: usize) -> io::Result<()> {
        match self.uring.submit_and_wait(wanted) {
            Ok(_) => Ok(()),
            // A signal, or a completion queue that is full: its entries are taken next.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins the read of the event, if it is not in flight.
    fn arm(&mut self) {
        if !std::mem::replace(&mut self.is_armed, true) {
            let at = std::ptr::from_mut(&mut *self.count).cast::<u8>();
            let read = opcode::Read::new(WAKE, at, size_of::<u64>() as u32);
            self.push(WAKE_DATA, &read.build());
        }
    }

    fn keep(&mut self, slot: usize, buffer: Buffer) -> &mut Buffer {
        assert!(self.buffers[slot].is_none(), "a slot has one operation in flight");
        self.buffers[slot].insert(buffer)
    }

    fn push(&mut self, data: u64, operation: &squeue::Entry) {
        let operation = operation.clone().user_data(data);
        // SAFETY: it points to the heap memory of a buffer in `buffers`, to `count`, or to `ZEROS`, of which the
        // first two stay until the completion was taken, and are leaked otherwise (rules 1 and 2).
        let pushed = unsafe { self.uring.submission().push(&operation) };
        assert!(pushed.is_ok(), "the submission queue has room for an operation of each slot");
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Rule 2.
        self.buffers.iter_mut().filter_map(Option::take).for_each(std::mem::forget);
        if self.is_armed {
            std::mem::forget(std::mem::take(&mut self.count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::types::Fd;

    #[test]
    fn ring_takes_its_operations_on_its_files_and_nothing_else() {
        let file = tempfile::tempfile().unwrap();
        let (mut ring, _waker) = Ring::new(&file).unwrap();
        ring.enable().unwrap();
        let zeros = ZEROS.0.as_ptr();
        for refused in [
            opcode::Write::new(Fd(file.as_raw_fd()), zeros, 512).build(),
            opcode::Write::new(IMAGE, zeros, 512).build().flags(squeue::Flags::IO_LINK),
            opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/etc/passwd".as_ptr()).build(),
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
            opcode::Nop::new().build(),
        ] {
            ring.push(0, &refused);
            ring.enter(1).unwrap();
            let ((_, result), _) = ring.next_answer().unwrap();
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EACCES), "{refused:?}");
        }
        let registered = ring.uring.submitter().register_files(&[file.as_raw_fd()]);
        assert_eq!(registered.unwrap_err().raw_os_error(), Some(libc::EACCES));
        ring.write_zeros(3, &(0..512));
        ring.enter(1).unwrap();
        let ((slot, result), _) = ring.next_answer().unwrap();
        assert_eq!((slot, result.unwrap(), file.metadata().unwrap().len()), (3, 512, 512));
    }

    #[test]
    fn waiting_thread_is_woken() {
        let file = tempfile::tempfile().unwrap();
        let (mut ring, waker) = Ring::new(&file).unwrap();
        ring.enable().unwrap();
        for _ in 0..3 {
            waker.wake();
            ring.submit_and_wait().unwrap();
            assert!(ring.next_answer().is_none());
        }
        ring.release();
        assert!(!ring.is_armed);
    }
}
