//! Time on a thread that may not execute RDTSC.
//!
//! Where KVM runs CPL3 natively without VMX or SVM, guest RDTSC traps only if the *host thread* is
//! forbidden to execute it too: `prctl(PR_SET_TSC, PR_TSC_SIGSEGV)`. The vDSO's `clock_gettime`
//! executes RDTSC, so on that thread every `Instant::now()` of any library would be a SIGSEGV.
//! This module therefore replaces `clock_gettime` for the whole process: by the system call on such a
//! thread, by what libc does on any other.

use super::error::KvmError;
use libc::{c_int, clockid_t, timespec};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What this thread knows of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tsc {
    /// It has not asked.
    Unknown,
    /// RDTSC is a fault.
    Trapped,
    /// RDTSC is an instruction.
    Free,
}

thread_local! {
    // Without a destructor and known to the compiler: good in a signal handler and at a thread's end.
    static TSC: Cell<Tsc> = const { Cell::new(Tsc::Unknown) };
}

/// Asks the kernel: a thread inherits this from the one that started it.
fn ask() -> Tsc {
    let mut answer: c_int = 0;
    // SAFETY: the kernel writes the answer to a local variable.
    let result = unsafe { libc::prctl(libc::PR_GET_TSC, &raw mut answer) };
    match (result, answer) {
        (0, libc::PR_TSC_ENABLE) => Tsc::Free,
        _ => Tsc::Trapped,
    }
}

type ClockGettime = unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int;

/// libc's function; our own where there is none, null before anybody looked.
static LIBC: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// libc's `clock_gettime`, or one that makes the system call.
fn libc_function() -> ClockGettime {
    let mut address = LIBC.load(Ordering::Relaxed);
    if address.is_null() {
        // SAFETY: the name is a C string. The next one after ours, which hides it, is libc's.
        address = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr()) };
        if address.is_null() {
            address = system_call as ClockGettime as *mut c_void;
        }
        LIBC.store(address, Ordering::Relaxed);
    }
    // SAFETY: whoever stored the address had it of a function with this signature.
    unsafe { std::mem::transmute::<*mut c_void, ClockGettime>(address) }
}

/// # Safety
///
/// As clock_gettime(2): `time` must be valid for writing.
unsafe extern "C" fn system_call(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the arguments are passed through as the caller gave them; the kernel validates
    // the pointer and reports EFAULT.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}

/// Replaces libc's: never the vDSO on a thread that may not execute RDTSC.
///
/// # Safety
///
/// As clock_gettime(2): `time` must be valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let tsc = TSC.with(|known| {
        if known.get() == Tsc::Unknown {
            known.set(ask());
        }
        known.get()
    });
    match tsc {
        // SAFETY: as the caller promises.
        Tsc::Free => unsafe { libc_function()(clock, time) },
        // SAFETY: as the caller promises.
        Tsc::Trapped | Tsc::Unknown => unsafe { system_call(clock, time) },
    }
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
    // Before it is so: a signal handler may want to know the time.
    TSC.set(Tsc::Trapped);
    // SAFETY: changes only how RDTSC behaves on the calling thread; all time on it comes through
    // `clock_gettime` above, which knows.
    let result = unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV) };
    if result == 0 {
        Ok(())
    } else {
        let source = std::io::Error::last_os_error();
        TSC.set(Tsc::Unknown);
        Err(KvmError::Os { call: "prctl(PR_SET_TSC)", source })
    }
}

/// Takes back [`trap_tsc_on_this_thread`]: for showing what happens without it.
pub fn free_tsc_on_this_thread() -> Result<(), KvmError> {
    // SAFETY: changes only how RDTSC behaves on the calling thread.
    let result = unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_ENABLE) };
    if result != 0 {
        let source = std::io::Error::last_os_error();
        return Err(KvmError::Os { call: "prctl(PR_SET_TSC)", source });
    }
    TSC.set(Tsc::Unknown);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_where_rdtsc_is_a_fault_and_where_that_is_inherited() {
        let look = || {
            let start = std::time::Instant::now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert!(start.elapsed().as_micros() >= 1000);
            assert!(monotonic_ns() > 0);
            TSC.get()
        };
        let trapped = move || {
            let before = look();
            trap_tsc_on_this_thread().unwrap();
            let after = look();
            let child = std::thread::spawn(look).join().unwrap();
            [before, after, child]
        };
        let seen = std::thread::spawn(trapped).join().unwrap();
        assert!(seen == [Tsc::Free, Tsc::Trapped, Tsc::Trapped]);
        assert!(look() == Tsc::Free);
    }

    #[test]
    fn libc_and_the_system_call_tell_the_same_time() {
        let ns = |function: ClockGettime| {
            let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: `time` is a local variable.
            assert_eq!(unsafe { function(libc::CLOCK_BOOTTIME, &raw mut time) }, 0);
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        };
        assert!(libc_function() as usize != system_call as *const () as usize, "libc has none");
        for _ in 0..1000 {
            let times = [ns(system_call), ns(libc_function()), ns(system_call)];
            assert!(times.is_sorted(), "{times:?}");
        }
    }
}
