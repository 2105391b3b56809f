//! The scheduling priority of this process.

use std::io;

/// Lets the calling thread run before all threads of normal priority (SCHED_FIFO with the lowest real-time
/// priority). Only for a thread that always sleeps again at once.
///
/// # Errors
///
/// If this process may not have real-time priority (`CAP_SYS_NICE`, `RLIMIT_RTPRIO`).
pub fn run_before_others() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: `parameters` is live, and of the type that the call takes; the kernel does not keep the pointer.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
