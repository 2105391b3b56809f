//! A timer that stays armed when a wait ends early (timerfd_create(2)).
//!
//! A wait with its own time limit arms a kernel timer before it blocks, and cancels it when it wakes up.
//! If that timer is the next one of its core, both operations write to the core's timer hardware. On a
//! virtual host each write is an exit to the hypervisor that costs some microseconds, and the second one
//! delays the reader of a frame that has arrived. This timer is instead left armed, and set again before
//! the next wait, while the peer is at work.
//!
//! Rules for the unsafe code in this file:
//! 1. Every pointer handed to the kernel points to a live local of the type that the call is documented
//!    to take, or is null where the manual page allows it; the kernel keeps none beyond the call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

/// A descriptor that becomes readable when its time has passed, and stays readable until it is set again.
pub(crate) struct Timer {
    fd: OwnedFd,
    is_set: bool,
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Timer {
    /// Creates a timer that is not set.
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

    /// Sets the timer to expire `after` from now, or never. Replaces the earlier setting.
    pub(crate) fn set(&mut self, after: Option<Duration>) -> io::Result<()> {
        if after.is_none() && !self.is_set {
            return Ok(());
        }
        self.is_set = after.is_some();
        // A value of zero disarms the timer (timerfd_settime(2)).
        let after = after.map_or(Duration::ZERO, |after| after.max(Duration::from_nanos(1)));
        let time = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                // A duration beyond time_t is replaced by the longest one, which is as good as no limit.
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
    fn expires(timer: &Timer, limit: Duration) -> bool {
        poll_readable([timer.file()], Some(limit), None).unwrap()[0] != 0
    }

    #[test]
    fn timer_expires_and_stays_readable_until_set_again() {
        let ms = Duration::from_millis;
        let mut timer = Timer::new().unwrap();
        timer.set(None).unwrap();
        assert!(!expires(&timer, ms(1)));
        timer.set(Some(Duration::ZERO)).unwrap();
        assert!(expires(&timer, ms(5000)) && expires(&timer, ms(0)));
        timer.set(Some(Duration::MAX)).unwrap();
        assert!(!expires(&timer, ms(1)));
        timer.set(Some(ms(1))).unwrap();
        assert!(expires(&timer, ms(5000)));
        timer.set(None).unwrap();
        assert!(!expires(&timer, ms(3)));
    }
}
