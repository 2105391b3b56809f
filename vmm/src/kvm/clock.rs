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
use std::sync::Once;
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

fn read(clock: clockid_t) -> timespec {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a local variable, valid for writing.
    let result = unsafe { clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "clock_gettime({clock}) failed: these clocks always exist");
    time
}

/// A clock's reading that is no number of nanoseconds in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutOfRange {
    /// Before the clock's origin.
    Before,
    /// More than 584 years after it.
    After,
}

impl OutOfRange {
    /// The number of nanoseconds that is nearest to the reading.
    fn nearest_ns(self) -> u64 {
        match self {
            Self::Before => 0,
            Self::After => u64::MAX,
        }
    }
}

/// Nanoseconds from a clock's origin to `time`.
fn nanoseconds(time: timespec) -> Result<u64, OutOfRange> {
    let seconds = u64::try_from(time.tv_sec).map_err(|_negative| OutOfRange::Before)?;
    // 0..1_000_000_000 on every side of the origin (timespec(3type)).
    let rest = time.tv_nsec as u64;
    let ns = seconds.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(rest));
    ns.ok_or(OutOfRange::After)
}

/// The same of a clock that counts from the host's start. The kernel counts its nanoseconds in 63 bits;
/// with no more of them a sum with a length of time never overflows.
fn nanoseconds_of_uptime(time: timespec) -> u64 {
    nanoseconds(time).unwrap_or_else(OutOfRange::nearest_ns).min(i64::MAX as u64)
}

/// The host's monotonic clock, nanoseconds.
pub fn monotonic_ns() -> u64 {
    nanoseconds_of_uptime(read(libc::CLOCK_MONOTONIC))
}

/// The host's monotonic clock with the time that the host was suspended, nanoseconds.
pub fn boottime_ns() -> u64 {
    nanoseconds_of_uptime(read(libc::CLOCK_BOOTTIME))
}

/// The host's wall clock, nanoseconds since 1970-01-01T00:00Z. One before 1970 reads as 1970, one after
/// July 2554 as the last moment that fits; a process warns of that once.
pub fn realtime_ns() -> u64 {
    static WARNED: Once = Once::new();
    nanoseconds(read(libc::CLOCK_REALTIME)).unwrap_or_else(|out_of_range| {
        WARNED.call_once(|| {
            let what = match out_of_range {
                OutOfRange::Before => "before 1970: 1970-01-01 is taken for it",
                OutOfRange::After => "after July 2554: 2554-07-21 is taken for it",
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

    fn at(tv_sec: i64, tv_nsec: i64) -> timespec {
        timespec { tv_sec, tv_nsec }
    }

    #[test]
    fn reading_within_range_is_its_nanoseconds() {
        assert_eq!(nanoseconds(at(0, 0)), Ok(0));
        assert_eq!(nanoseconds(at(0, 999_999_999)), Ok(999_999_999));
        assert_eq!(nanoseconds(at(1_795_453_689, 500_000_000)), Ok(1_795_453_689_500_000_000));
        // 2^31 s, in 2038, and 2^32 s, in 2106, are numbers like any other.
        assert_eq!(nanoseconds(at(1 << 31, 1)), Ok((1 << 31) * 1_000_000_000 + 1));
        assert_eq!(nanoseconds(at(1 << 32, 1)), Ok((1 << 32) * 1_000_000_000 + 1));
        assert_eq!(nanoseconds(at(18_446_744_073, 709_551_615)), Ok(u64::MAX));
    }

    #[test]
    fn reading_out_of_range_is_the_nearest_one_within() {
        // A moment before 1970 is a negative number of seconds and a positive rest.
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
