//! Child processes that go on with the program of this one.

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid, fork};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Exit status of a child whose body has failed, or has panicked.
const FAILED: libc::c_int = 1;
const PANICKED: libc::c_int = 101;

/// Starts a child process that runs `body` and ends, with exit status 0 if that succeeds. It has a copy of everything
/// that this process has.
///
/// # Errors
///
/// This process has more than one thread, or the kernel refuses.
pub fn start_child(body: impl FnOnce() -> io::Result<()>) -> io::Result<Pid> {
    // A lock that another thread held would be held in the child for ever.
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("only a process with one thread can start a child"));
    }
    // SAFETY: this process has no other thread, as was checked just now, and no other thread can start one. So all its
    // memory is in the state in which this thread has left it, and the child may do everything that this process may.
    match unsafe { fork() }.map_err(|errno: Errno| io::Error::from(errno))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(Ok(())) => 0,
                Ok(Err(_)) => FAILED,
                Err(_) => PANICKED,
            };
            // SAFETY: takes no pointers. It runs nothing of what was registered for the end of the parent.
            unsafe { libc::_exit(code) }
        }
    }
}
