//! Signals and waiting: [`TapPort`](netpath::TapPort) on a real tap and
//! [`PacketPort`](netpath::PacketPort) on a veth pair (both need root), and
//! [`NullPort`](netpath::NullPort).

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::lan::on_a_lan;
use crate::common::*;
use netpath::{FramePort, NullPort, ReadPath, ReceivePath, TapConfig, TapPort, WaitPolicy, Wake};

/// The signal that these tests send.
const KICK: i32 = libc::SIGUSR1;

extern "C" fn ignore_kick(_: libc::c_int) {}

/// Installs a handler that does nothing, so that the signal interrupts and does not kill. `SA_RESTART`
/// is set, because a wait must end even for handlers that restart system calls.
fn handle_kick() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: an all-zero sigaction is valid; the handler touches nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore_kick as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(KICK, &raw const action, std::ptr::null_mut()), 0);
        }
    });
}

/// Blocks the signal on this thread.
fn block_kick() {
    // SAFETY: `set` is initialised by sigemptyset before its use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, KICK);
        assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()), 0);
    }
}

/// Sends the signal to thread `target`, which is alive.
fn kick(target: libc::pthread_t) {
    // SAFETY: the target is alive.
    assert_eq!(unsafe { libc::pthread_kill(target, KICK) }, 0);
}

fn myself() -> libc::pthread_t {
    // SAFETY: takes nothing.
    unsafe { libc::pthread_self() }
}

fn signal_interrupts(port: &mut impl FramePort) {
    let is_over = AtomicBool::new(false);
    let target = myself();
    std::thread::scope(|scope| {
        // Repeatedly: a signal that arrives before the wait begins is lost.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(30));
                kick(target);
            }
        });
        let wakes = [None, Some(HANG_MAX)].map(|timeout| port.wait(timeout));
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(wakes.map(Result::unwrap), [Wake::Interrupted; 2]);
    });
}

/// A signal that is pending when the wait begins must end it.
fn pending_signal_is_not_lost(port: &mut impl FramePort) {
    block_kick();
    for _ in 0..100 {
        let target = myself();
        std::thread::spawn(move || kick(target)).join().unwrap();
        assert_eq!(port.wait(Some(HANG_MAX)).unwrap(), Wake::Interrupted);
        assert_eq!(port.wait(Some(Duration::from_micros(200))).unwrap(), Wake::Timeout);
    }
}

#[test]
fn tap_wait_interrupted_by_a_signal() {
    handle_kick();
    for read in [ReadPath::Auto, ReadPath::Single] {
        in_namespace(move || {
            make_tap();
            signal_interrupts(&mut open_tap_by(read));
        });
    }
}

#[test]
fn tap_wait_with_a_wake_signal_loses_none() {
    handle_kick();
    for read in [ReadPath::Auto, ReadPath::Single] {
        in_namespace(move || {
            make_tap();
            let wait = WaitPolicy { wake_signal: Some(KICK), ..WaitPolicy::default() };
            let config = TapConfig { wait, read, ..TapConfig::new("tap0") };
            let mut port = TapPort::open(&config).unwrap();
            pending_signal_is_not_lost(&mut port);
            signal_interrupts(&mut port);
        });
    }
}

#[test]
fn packet_wait_interrupted_by_a_signal_and_loses_none() {
    handle_kick();
    for path in [ReceivePath::Ring, ReceivePath::Calls] {
        on_a_lan(move |lan| {
            signal_interrupts(&mut lan.open_a(path, WaitPolicy::BLOCK));
            let wait = WaitPolicy { wake_signal: Some(KICK), ..WaitPolicy::default() };
            let mut port = lan.open_a(path, wait);
            pending_signal_is_not_lost(&mut port);
            signal_interrupts(&mut port);
        });
    }
}

#[test]
fn null_wait_interrupted_by_a_signal_and_loses_none() {
    handle_kick();
    // On a separate thread: the signal mask that the second half sets must not outlive the test.
    let thread = std::thread::spawn(|| {
        signal_interrupts(&mut NullPort::new());
        let mut port = NullPort::with_wake_signal(KICK);
        pending_signal_is_not_lost(&mut port);
        signal_interrupts(&mut port);
    });
    thread.join().unwrap();
}
