//! A timer that stays armed (timerfd_create(2)), for waits that end before their time.
//!
//! A wait with a time limit of its own arms a timer of the kernel before it blocks, and takes it back
//! when it is woken. If that timer is the next one of its core, both are writes to the core's timer
//! hardware, which a virtual machine pays for with an exit to its host: some microseconds, the second
//! time between the arrival of a frame and its reader. This timer is set anew before the next wait
//! instead, while the peer is at work.
//!
//! Rules for the unsafe code in this file:
//! 1. Every pointer handed to the kernel points to a live local of the type that the call is documented
//!    to take, or is null where the manual page allows it; the kernel keeps none beyond the call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

/// Readable once its time is over, until it is set again.
pub(crate) struct Timer {
    fd: OwnedFd,
    is_set: bool,
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Timer {
    /// A timer that is not set.
    pub(crate) fn new() -> io::Result<Timer> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        check(fd)?;
        // SAFETY: the descriptor was made just now and nothing else owns it.
        Ok(Timer { fd: unsafe { OwnedFd::from_raw_fd(fd) }, is_set: false })
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Lets it run out `after` from now, or never; what it was set to before is void.
    pub(crate) fn set(&mut self, after: Option<Duration>) -> io::Result<()> {
        if after.is_none() && !self.is_set {
            return Ok(());
        }
        self.is_set = after.is_some();
        // To the kernel, no time at all is never.
        let after = after.map_or(Duration::ZERO, |after| after.max(Duration::from_nanos(1)));
        let time = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                // Longer than time_t can say is as good as the longest it can.
                tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: after.subsec_nanos().into(),
            },
        };
        // SAFETY: `time` is a live local; the old value is not asked for (rule 1).
        check(unsafe {
            libc::timerfd_settime(self.fd.as_raw_fd(), 0, &raw const time, ptr::null_mut())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signal::poll_readable;

    /// Whether the timer is readable within `limit`.
    fn runs_out(timer: &Timer, limit: Duration) -> bool {
        poll_readable([timer.file()], Some(limit), None).unwrap()[0] != 0
    }

    #[test]
    fn timer_runs_out_once_set_and_stays_so_until_set_again() {
        let ms = Duration::from_millis;
        let mut timer = Timer::new().unwrap();
        timer.set(None).unwrap();
        assert!(!runs_out(&timer, ms(1)));
        timer.set(Some(Duration::ZERO)).unwrap();
        assert!(runs_out(&timer, ms(5000)) && runs_out(&timer, ms(0)));
        timer.set(Some(Duration::MAX)).unwrap();
        assert!(!runs_out(&timer, ms(1)));
        timer.set(Some(ms(1))).unwrap();
        assert!(runs_out(&timer, ms(5000)));
        timer.set(None).unwrap();
        assert!(!runs_out(&timer, ms(3)));
    }
}
