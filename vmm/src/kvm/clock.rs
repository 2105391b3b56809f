//! Reading clocks on a thread on which RDTSC is trapped.
//!
//! Where KVM runs CPL3 natively without VMX or SVM, guest RDTSC traps only if RDTSC is disabled for the *host
//! thread*, too: `prctl(PR_SET_TSC, PR_TSC_SIGSEGV)`. The vDSO's `clock_gettime` executes RDTSC, so every
//! `Instant::now()` of any library would raise SIGSEGV on that thread. A program that runs a VM therefore
//! replaces `clock_gettime` for its whole process by [`replace_clock_gettime!`](crate::replace_clock_gettime):
//! the replacement makes the system call on such a thread, and calls libc's function on every other thread.
//! [`trap_tsc_on_this_thread`] checks that the program does.

use super::error::KvmError;
use libc::{c_int, clockid_t, timespec};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What is known about RDTSC on this thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tsc {
    /// Not queried yet.
    Unknown,
    /// RDTSC faults.
    Trapped,
    /// RDTSC executes.
    Free,
}

thread_local! {
    // Constant and without a destructor, so it can be used in a signal handler and while a thread ends.
    static TSC: Cell<Tsc> = const { Cell::new(Tsc::Unknown) };
}

/// Queries the kernel, because a thread inherits the setting from the thread that started it.
fn query() -> Tsc {
    let mut answer: c_int = 0;
    // SAFETY: the kernel writes the answer to a local variable.
    let result = unsafe { libc::prctl(libc::PR_GET_TSC, &raw mut answer) };
    match (result, answer) {
        (0, libc::PR_TSC_ENABLE) => Tsc::Free,
        _ => Tsc::Trapped,
    }
}

type ClockGettime = unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int;

/// libc's `clock_gettime`, or [`system_call`] if libc has none. Null before the first look-up.
static LIBC: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Returns libc's `clock_gettime`, or [`system_call`] if libc has none.
fn libc_function() -> ClockGettime {
    let mut address = LIBC.load(Ordering::Relaxed);
    if address.is_null() {
        // SAFETY: the name is a C string. The next symbol after ours, which hides it, is libc's.
        address = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr()) };
        if address.is_null() {
            address = system_call as ClockGettime as *mut c_void;
        }
        LIBC.store(address, Ordering::Relaxed);
    }
    // SAFETY: only addresses of functions with this signature are stored.
    unsafe { std::mem::transmute::<*mut c_void, ClockGettime>(address) }
}

/// Makes the system call clock_gettime(2).
///
/// # Safety
///
/// As clock_gettime(2): `time` must be valid for writing.
unsafe extern "C" fn system_call(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the arguments are passed through as the caller gave them; the kernel validates
    // the pointer and reports EFAULT.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}

/// Replaces libc's `clock_gettime` by [`clock_gettime`] in the program at whose root it is invoked. Other
/// programs that link this library keep libc's function.
#[macro_export]
macro_rules! replace_clock_gettime {
    () => {
        /// Replaces libc's function.
        ///
        /// # Safety
        ///
        /// As clock_gettime(2): `time` must be valid for writing.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn clock_gettime(
            clock: ::libc::clockid_t,
            time: *mut ::libc::timespec,
        ) -> ::libc::c_int {
            // SAFETY: as the caller promises.
            unsafe { $crate::kvm::clock::clock_gettime(clock, time) }
        }
    };
}

/// Reads a clock, on a thread on which RDTSC faults without the vDSO.
///
/// # Safety
///
/// As clock_gettime(2): `time` must be valid for writing.
pub unsafe fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let tsc = TSC.with(|known| {
        if known.get() == Tsc::Unknown {
            known.set(query());
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

fn read(clock: clockid_t) -> timespec {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a local variable, valid for writing.
    let result = unsafe { clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "clock_gettime({clock}) failed: these clocks always exist");
    time
}

/// A clock value that can't be represented as nanoseconds in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutOfRange {
    /// Before the clock's origin.
    Before,
    /// More than 584 years after it.
    After,
}

impl OutOfRange {
    /// Returns the nearest number of nanoseconds.
    fn nearest_ns(self) -> u64 {
        match self {
            Self::Before => 0,
            Self::After => u64::MAX,
        }
    }
}

/// Converts `time` to nanoseconds since the clock's origin.
fn nanoseconds(time: timespec) -> Result<u64, OutOfRange> {
    let seconds = u64::try_from(time.tv_sec).map_err(|_negative| OutOfRange::Before)?;
    // 0..1_000_000_000 before and after the origin (timespec(3type)).
    let rest = time.tv_nsec as u64;
    let ns = seconds.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(rest));
    ns.ok_or(OutOfRange::After)
}

/// Converts the value of a clock that counts from the host's boot. The kernel counts its nanoseconds in 63
/// bits; the result is limited to that, so that adding a duration does not overflow.
fn nanoseconds_of_uptime(time: timespec) -> u64 {
    nanoseconds(time).unwrap_or_else(OutOfRange::nearest_ns).min(i64::MAX as u64)
}

/// Returns the host's monotonic clock in nanoseconds.
pub fn monotonic_ns() -> u64 {
    nanoseconds_of_uptime(read(libc::CLOCK_MONOTONIC))
}

/// Returns the host's monotonic clock, including time in which the host was suspended, in nanoseconds.
pub fn boottime_ns() -> u64 {
    nanoseconds_of_uptime(read(libc::CLOCK_BOOTTIME))
}

/// Returns the host's wall clock in nanoseconds since 1970-01-01T00:00Z. A time before 1970 is returned as
/// 1970, a time after July 2554 as the latest time that fits; a process logs one warning about it.
pub fn realtime_ns() -> u64 {
    static WARNED: Once = Once::new();
    nanoseconds(read(libc::CLOCK_REALTIME)).unwrap_or_else(|out_of_range| {
        WARNED.call_once(|| {
            let what = match out_of_range {
                OutOfRange::Before => "before 1970: using 1970-01-01",
                OutOfRange::After => "after July 2554: using 2554-07-21",
            };
            tracing::warn!("the wall clock of this host is {what}; set it (timedatectl set-time)");
        });
        out_of_range.nearest_ns()
    })
}

/// Sleeps for `time`, or until a signal.
pub fn sleep(time: std::time::Duration) {
    let request = timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(time.subsec_nanos() as i32),
    };
    // SAFETY: `request` is a valid local; a null remainder is allowed. EINTR ends the sleep like its end.
    unsafe { libc::nanosleep(&raw const request, std::ptr::null_mut()) };
}

/// Whether a call to libc's `clock_gettime` arrives at [`clock_gettime`], which leaves its mark in [`TSC`].
fn is_replaced() -> bool {
    TSC.set(Tsc::Unknown);
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a local variable, valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    TSC.get() != Tsc::Unknown
}

/// Makes RDTSC fault on this thread, and thereby in guest code that the thread runs, where CR4.TSD alone does
/// not trap it.
///
/// # Errors
///
/// If `prctl` fails.
///
/// # Panics
///
/// If the program does not invoke [`replace_clock_gettime!`](crate::replace_clock_gettime): the next reading of
/// a clock on this thread would end the process.
pub fn trap_tsc_on_this_thread() -> Result<(), KvmError> {
    assert!(is_replaced(), "a program that runs a VM invokes vmm::replace_clock_gettime!");
    // Set before the system call, because a signal handler may read a clock in between.
    TSC.set(Tsc::Trapped);
    // SAFETY: changes only how RDTSC behaves on the calling thread; all time on it comes through
    // `clock_gettime` above, as was checked, which does not execute RDTSC on this thread.
    let result = unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV) };
    if result == 0 {
        Ok(())
    } else {
        let source = std::io::Error::last_os_error();
        TSC.set(Tsc::Unknown);
        Err(KvmError::Os { call: "prctl(PR_SET_TSC)", source })
    }
}

/// Reverts [`trap_tsc_on_this_thread`], to demonstrate the effect of a missing trap.
///
/// # Errors
///
/// If `prctl` fails.
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

    crate::replace_clock_gettime!();

    #[test]
    fn clocks_work_where_rdtsc_faults_and_on_threads_that_inherit_it() {
        let check = || {
            let start = std::time::Instant::now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert!(start.elapsed().as_micros() >= 1000);
            assert!(monotonic_ns() > 0);
            TSC.get()
        };
        let trapped = move || {
            let before = check();
            trap_tsc_on_this_thread().unwrap();
            let after = check();
            let child = std::thread::spawn(check).join().unwrap();
            [before, after, child]
        };
        let seen = std::thread::spawn(trapped).join().unwrap();
        assert!(seen == [Tsc::Free, Tsc::Trapped, Tsc::Trapped]);
        assert!(check() == Tsc::Free);
    }

    fn at(tv_sec: i64, tv_nsec: i64) -> timespec {
        timespec { tv_sec, tv_nsec }
    }

    #[test]
    fn time_within_range_is_converted_exactly() {
        assert_eq!(nanoseconds(at(0, 0)), Ok(0));
        assert_eq!(nanoseconds(at(0, 999_999_999)), Ok(999_999_999));
        assert_eq!(nanoseconds(at(1_795_453_689, 500_000_000)), Ok(1_795_453_689_500_000_000));
        // 2^31 s (2038) and 2^32 s (2106) are not special.
        assert_eq!(nanoseconds(at(1 << 31, 1)), Ok((1 << 31) * 1_000_000_000 + 1));
        assert_eq!(nanoseconds(at(1 << 32, 1)), Ok((1 << 32) * 1_000_000_000 + 1));
        assert_eq!(nanoseconds(at(18_446_744_073, 709_551_615)), Ok(u64::MAX));
    }

    #[test]
    fn time_out_of_range_is_the_nearest_within() {
        // A time before 1970 has negative seconds and positive nanoseconds.
        for before in [at(-1, 999_999_999), at(-315_619_200, 0), at(i64::MIN, 0)] {
            assert_eq!(nanoseconds(before), Err(OutOfRange::Before), "{}", before.tv_sec);
            assert_eq!(nanoseconds_of_uptime(before), 0);
        }
        for after in [at(18_446_744_073, 709_551_616), at(19_880_899_200, 0), at(i64::MAX, 0)] {
            assert_eq!(nanoseconds(after), Err(OutOfRange::After), "{}", after.tv_sec);
            assert_eq!(nanoseconds_of_uptime(after), i64::MAX as u64);
        }
        assert_eq!(OutOfRange::Before.nearest_ns(), 0);
        assert_eq!(OutOfRange::After.nearest_ns(), u64::MAX);
    }

    #[test]
    fn libc_and_system_call_return_the_same_time() {
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
