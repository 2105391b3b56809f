//! Signal masks for waiting, and an interruptible sleep.
//!
//! Rules for the unsafe code in this file:
//! 1. Every pointer handed to the kernel points to a local variable of the right C type, or is null
//!    where the manual page allows it, and the kernel keeps none of them beyond the call.
//! 2. `sigset_t` values are initialised by `sigemptyset` or by the kernel before they are read.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

/// A signal mask in two forms: the C library's, and the kernel's 64 bits.
#[derive(Clone, Copy)]
pub(crate) struct SignalMask {
    set: libc::sigset_t,
    bits: u64,
}

impl SignalMask {
    /// The calling thread's mask with `signal` removed.
    pub(crate) fn current_without(signal: i32) -> io::Result<SignalMask> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: with a null new set the call only writes the current mask to `set` (rule 1).
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), set.as_mut_ptr()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: the call above succeeded, so the set is initialised (rule 2).
        let mut set = unsafe { set.assume_init() };
        // SAFETY: `set` is an initialised local; a number that is no signal gives EINVAL.
        if unsafe { libc::sigdelset(&raw mut set, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut bits = 0u64;
        for number in 1..=64 {
            // SAFETY: `set` is an initialised local (rule 2); a bad number gives -1.
            if unsafe { libc::sigismember(&raw const set, number) } == 1 {
                bits |= 1 << (number - 1);
            }
        }
        Ok(SignalMask { set, bits })
    }

    /// The kernel's form: bit n-1 is signal n (`sigset_t` of the system call interface, 8 bytes).
    pub(crate) fn kernel_bits(&self) -> &u64 {
        &self.bits
    }
}

/// Waits up to `duration` (`None`: without limit) with signal mask `mask` until one of `files` is readable,
/// by `ppoll(2)`. Returns the events of each file; all are 0 if the time passed. A signal ends the wait
/// with `ErrorKind::Interrupted`.
pub(crate) fn poll_readable<const N: usize>(
    files: [BorrowedFd<'_>; N],
    duration: Option<Duration>,
    mask: Option<&SignalMask>,
) -> io::Result<[libc::c_short; N]> {
    poll_any(files.map(Some), duration, mask)
}

/// As [`poll_readable`]; the events of a missing file are always 0.
pub(crate) fn poll_any<const N: usize>(
    files: [Option<BorrowedFd<'_>>; N],
    duration: Option<Duration>,
    mask: Option<&SignalMask>,
) -> io::Result<[libc::c_short; N]> {
    let time = duration.map(|d| libc::timespec {
        // A duration beyond time_t is replaced by the longest one, which is as good as no limit.
        tv_sec: libc::time_t::try_from(d.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: d.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mask = mask.map_or(ptr::null(), |m| ptr::from_ref(&m.set));
    let mut polls = files.map(|file| {
        // A negative descriptor is skipped (poll(2)).
        let fd = file.map_or(-1, |file| file.as_raw_fd());
        libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
    });
    // SAFETY: N live `pollfd`s; `time` and `mask` are null or point to live values (rule 1).
    match unsafe { libc::ppoll(polls.as_mut_ptr(), N as libc::nfds_t, time, mask) } {
        0.. => Ok(polls.map(|poll| poll.revents)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sleeps for `duration` (`None`: without limit) with signal mask `mask`. A signal ends the sleep with
/// `ErrorKind::Interrupted`.
pub(crate) fn sleep(duration: Option<Duration>, mask: Option<&SignalMask>) -> io::Result<()> {
    poll_readable([], duration, mask).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_without_a_signal_lacks_its_bit() {
        let mask = SignalMask::current_without(libc::SIGUSR1).unwrap();
        assert_eq!(mask.kernel_bits() & (1 << (libc::SIGUSR1 - 1)), 0);
        assert!(SignalMask::current_without(1000).is_err());
    }

    #[test]
    fn sleep_ends() {
        sleep(Some(Duration::from_millis(1)), None).unwrap();
    }
}
