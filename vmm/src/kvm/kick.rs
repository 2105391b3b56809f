//! Kicks: signals that make a vCPU leave the guest. A kick is not lost between the last check of user space's
//! flags and the guest entry.
//!
//! The signal handler sets `immediate_exit` in the run page of the vCPU that its thread runs, so a signal before `KVM_RUN` makes the call return at once, and a signal during the call
//! interrupts the guest. Kicks may be spurious: a kick means only that the run loop must check its flags
//! again.

use super::error::KvmError;
use crate::mem::layout::PAGE;
use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, SigmaskHow, Signal,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::{Pid, getpid, gettid};
use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use std::time::Duration;

/// The kick signal. It is documented, because tests send it from outside.
pub const KICK_SIGNAL: Signal = Signal::SIGUSR1;

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs, or null.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}

extern "C" fn on_kick(_signal: libc::c_int) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: non-null only while an `Aim` of this thread exists, whose mapping contains the byte.
        unsafe { flag.write_volatile(1) };
    }
}

/// Installs the signal handler of the process. SA_RESTART is not set, because a kick must also end a blocked
/// wait.
///
/// # Errors
///
/// If sigaction(2) fails.
pub fn install() -> Result<(), KvmError> {
    let action = SigAction::new(SigHandler::Handler(on_kick), SaFlags::empty(), SigSet::empty());
    // SAFETY: `on_kick` is async-signal-safe: it reads a thread-local without destructor and
    // writes one byte.
    unsafe { nix::sys::signal::sigaction(KICK_SIGNAL, &action) }
        .map(|_previous| ())
        .map_err(KvmError::os("sigaction"))
}

/// Starts a thread that receives no kicks, not even one that is sent to the process.
///
/// # Errors
///
/// If the thread can't be started.
pub fn spawn_unkicked<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let mut kicks = SigSet::empty();
    kicks.add(KICK_SIGNAL);
    // A new thread inherits the signal mask.
    let mask = kicks.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let thread = std::thread::Builder::new().name(name.into()).spawn(body);
    mask.thread_set_mask()?;
    thread
}

/// Guard: while it exists, kicks of this thread wait, except while the thread is in a system call that lets signals in,
/// such as ppoll(2) with a mask.
#[derive(Debug)]
pub struct Held {
    before: SigSet,
}

impl Held {
    /// Makes kicks of the calling thread wait.
    ///
    /// # Errors
    ///
    /// If the signal mask can't be set.
    pub fn on_this_thread() -> Result<Held, KvmError> {
        let mut kicks = SigSet::empty();
        kicks.add(KICK_SIGNAL);
        let before = kicks
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(KvmError::os("pthread_sigmask"))?;
        Ok(Held { before })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It succeeded with the same arguments before.
        let _ = self.before.thread_set_mask();
    }
}

/// Guard: while it exists, kicks of this thread reach the vCPU that it was created for.
///
/// It has a mapping of the run page of its own, so it does not depend on the life of the vCPU. It cannot be
/// sent to another thread (a pointer is not `Send`), so it clears the flag of the thread that set it.
#[derive(Debug)]
pub(crate) struct Aim {
    run_page: *mut c_void,
}

impl Aim {
    /// Makes kicks of this thread set `immediate_exit` of `vcpu`.
    ///
    /// # Errors
    ///
    /// If mmap(2) fails.
    pub(super) fn new(vcpu: &VcpuFd) -> Result<Aim, KvmError> {
        const { assert!(offset_of!(kvm_run, immediate_exit) < PAGE as usize) };
        assert!(IMMEDIATE_EXIT.get().is_null(), "a thread runs at most one vCPU");
        let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, vcpu.as_raw_fd());
        // SAFETY: a new mapping at an address that the kernel chooses.
        let run_page = unsafe {
            libc::mmap(std::ptr::null_mut(), PAGE as usize, access, libc::MAP_SHARED, fd, 0)
        };
        if run_page == libc::MAP_FAILED {
            let source = std::io::Error::last_os_error();
            return Err(KvmError::Os { call: "mmap of the vCPU", source });
        }
        let flag = run_page.cast::<u8>().wrapping_add(offset_of!(kvm_run, immediate_exit));
        IMMEDIATE_EXIT.set(flag);
        Ok(Aim { run_page })
    }
}

impl Drop for Aim {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(std::ptr::null_mut());
        // SAFETY: `new` made this mapping, and the handler, which alone used it, no longer has its address.
        unsafe { libc::munmap(self.run_page, PAGE as usize) };
    }
}

/// Kicks one thread. Can be sent to other threads.
#[derive(Clone, Copy, Debug)]
pub struct Kicker {
    process: Pid,
    thread: Pid,
}

impl Kicker {
    /// Returns a kicker of the calling thread.
    pub fn of_this_thread() -> Kicker {
        Kicker { process: getpid(), thread: gettid() }
    }

    /// Kicks the thread. Does nothing if the thread has ended.
    pub fn kick(&self) {
        // SAFETY: tgkill(2) takes plain integers; for a thread that has ended it returns ESRCH.
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                self.process.as_raw(),
                self.thread.as_raw(),
                KICK_SIGNAL as libc::c_int,
            );
        }
    }
}

/// A one-shot timer that kicks the thread on which it was created.
#[derive(Debug)]
pub struct KickTimer {
    timer: Timer,
}

impl KickTimer {
    /// Creates a disarmed timer for the calling thread.
    ///
    /// # Errors
    ///
    /// If timer_create(2) fails.
    pub fn new() -> Result<KickTimer, KvmError> {
        let notify = SigevNotify::SigevThreadId {
            signal: KICK_SIGNAL,
            thread_id: gettid().as_raw(),
            si_value: 0,
        };
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))
            .map_err(KvmError::os("timer_create"))?;
        Ok(KickTimer { timer })
    }

    /// Arms the timer to kick once after the time `after`.
    ///
    /// # Errors
    ///
    /// If timer_settime(2) fails.
    pub fn arm(&mut self, after: Duration) -> Result<(), KvmError> {
        let after = after.max(Duration::from_nanos(1));
        self.timer
            .set(Expiration::OneShot(TimeSpec::from_duration(after)), TimerSetTimeFlags::empty())
            .map_err(KvmError::os("timer_settime"))
    }

    /// Disarms the timer.
    ///
    /// # Errors
    ///
    /// If timer_settime(2) fails.
    pub fn disarm(&mut self) -> Result<(), KvmError> {
        self.timer
            .set(
                Expiration::OneShot(TimeSpec::from_duration(Duration::ZERO)),
                TimerSetTimeFlags::empty(),
            )
            .map_err(KvmError::os("timer_settime"))
    }
}
