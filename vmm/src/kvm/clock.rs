//! Time on a thread that may not execute RDTSC.
//!
//! Where KVM runs CPL3 natively without VMX or SVM, guest RDTSC traps only if the *host thread* is
//! forbidden to execute it too: `prctl(PR_SET_TSC, PR_TSC_SIGSEGV)`. The vDSO's `clock_gettime`
//! executes RDTSC, so on that thread every `Instant::now()` of any library would be a SIGSEGV.
//! This module therefore replaces `clock_gettime` for the whole process by the system call.

use super::error::KvmError;
use libc::{c_int, clockid_t, timespec};

/// Replaces libc's: the system call, never the vDSO.
///
/// # Safety
///
/// As clock_gettime(2): `time` must be valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the arguments are passed through as the caller gave them; the kernel validates
    // the pointer and reports EFAULT.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}

fn read(clock: clockid_t) -> u64 {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a local variable, valid for writing.
    let result = unsafe { clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "clock_gettime({clock}) failed: these clocks always exist");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The host's monotonic clock, nanoseconds.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// The host's monotonic clock with the time that the host was suspended, nanoseconds.
pub fn boottime_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

/// The host's wall clock, nanoseconds since 1970-01-01T00:00Z.
pub fn realtime_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// Sleeps for `time`, or until a signal.
pub fn sleep(time: std::time::Duration) {
    let request = timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(time.subsec_nanos() as i32),
    };
    // SAFETY: `request` is a valid local; a null remainder is allowed. EINTR is as good as the end.
    unsafe { libc::nanosleep(&raw const request, std::ptr::null_mut()) };
}

/// From here on RDTSC is a fault on this thread, in the guest too where CR4.TSD alone would not do.
pub fn trap_tsc_on_this_thread() -> Result<(), KvmError> {
    // SAFETY: changes only how RDTSC behaves on the calling thread; all time on it comes through
    // `clock_gettime` above.
    let result = unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV) };
    if result == 0 {
        Ok(())
    } else {
        let source = std::io::Error::last_os_error();
        Err(KvmError::Os { call: "prctl(PR_SET_TSC)", source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instant_now_with_tsc_trapped_survives() {
        std::thread::spawn(|| {
            trap_tsc_on_this_thread().unwrap();
            let start = std::time::Instant::now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert!(start.elapsed().as_micros() >= 1000);
            assert!(monotonic_ns() > 0);
        })
        .join()
        .unwrap();
    }
}
