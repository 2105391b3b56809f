//! Descriptors of processes and threads, with which another process sees them end.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Flag of pidfd_open(2) since Linux 6.9: the number is that of a thread.
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;

/// Opens a pidfd (pidfd_open(2)) of this process. It is readable once every thread of the process has ended,
/// and refers to this process for ever, whoever gets its number later.
///
/// # Errors
///
/// If the kernel refuses, for lack of descriptors.
pub fn of_this_process() -> io::Result<OwnedFd> {
    // The numbers of processes are positive.
    open(std::process::id().cast_signed(), 0)
}

/// Opens a pidfd of the thread with the number `thread`, of any process. It is readable once the thread has ended.
///
/// # Errors
///
/// If there is no such thread, the kernel is older than Linux 6.9, or there is no descriptor left.
pub fn of_thread(thread: i32) -> io::Result<OwnedFd> {
    open(thread, PIDFD_THREAD)
}

/// Returns the number of the calling thread.
pub fn this_thread() -> i32 {
    nix::unistd::gettid().as_raw()
}

fn open(number: i32, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, number, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    use std::sync::mpsc;

    fn is_readable(file: &OwnedFd, timeout: PollTimeout) -> bool {
        let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, timeout).unwrap() == 1
    }

    #[test]
    fn thread_has_ended_when_its_pidfd_is_readable() {
        let ((number, is_told), (end, may_end)) = (mpsc::channel(), mpsc::channel::<()>());
        let thread = std::thread::spawn(move || {
            number.send(this_thread()).unwrap();
            let _ = may_end.recv();
        });
        let file = match of_thread(is_told.recv().unwrap()) {
            // Before Linux 6.9.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
            file => file.unwrap(),
        };
        assert!(!is_readable(&file, PollTimeout::ZERO));
        drop(end);
        assert!(is_readable(&file, PollTimeout::NONE));
        thread.join().unwrap();
        assert!(!is_readable(&of_this_process().unwrap(), PollTimeout::ZERO));
    }
}
