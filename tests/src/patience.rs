//! Timeouts of tests. A timeout only ends a test that hangs; no test asserts an absolute speed. All
//! timeouts, and the silence timeouts of hosts that are not killed, are derived from how fast the
//! reference guest answers on this host.

use crate::program::understudy;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use testbed::pace::{Measured, Pace};
use testbed::{Guest, Namespace, TestbedError};
use vmm::outln;

/// How many times as long as its timeout a wait lasts at most, on a busy host.
const EXTENSION: u32 = 3;

/// Polling interval.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Returns the pace of the reference guest on this host, measured once per process.
///
/// # Panics
///
/// If no VM can run on this host.
pub fn pace() -> Pace {
    static PACE: OnceLock<Pace> = OnceLock::new();
    let measure = || {
        let namespace = Namespace::with_tap("pace")?;
        let guest = Guest::Reference;
        let namespaces = [&namespace, &namespace];
        let measured =
            Measured::on(&understudy(), (&guest, &["run"]), namespaces, &AtomicBool::new(false))?;
        Pace::new(&guest, measured, None)
    };
    *PACE.get_or_init(|| {
        let pace = measure().unwrap_or_else(|error: TestbedError| panic!("{error}"));
        outln!("{}", pace.describe());
        pace
    })
}

/// Returns the timeout for events that must happen.
pub fn patience() -> Duration {
    pace().patience()
}

/// Returns the factor by which silence timeouts are longer than on a host of usual speed.
pub fn factor() -> u64 {
    pace().silence_ms() / Guest::Reference.silence_ms()
}

/// A polling loop's timeout. The pace was measured before, and the host may have become busier since: time for which
/// tasks waited for a processor does not count, up to three times the timeout.
#[derive(Debug)]
pub struct Waiting {
    begin: Instant,
    stalled_before: Duration,
}

impl Default for Waiting {
    /// Starts the timeout now.
    fn default() -> Waiting {
        Waiting { begin: Instant::now(), stalled_before: stalled() }
    }
}

/// Returns for how long tasks of this host have waited for a processor since it booted (Linux,
/// Documentation/accounting/psi.rst); zero if the kernel does not say.
fn stalled() -> Duration {
    let pressure = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = pressure.lines().find(|line| line.starts_with("some"));
    let total = total.and_then(|line| line.rsplit_once("total=")?.1.parse().ok());
    Duration::from_micros(total.unwrap_or_default())
}

impl Waiting {
    /// Returns whether the timeout has expired.
    pub fn is_over(&self) -> bool {
        let (elapsed, patience) = (self.begin.elapsed(), patience());
        elapsed >= patience
            && (elapsed >= patience * EXTENSION
                || elapsed.saturating_sub(stalled().saturating_sub(self.stalled_before))
                    >= patience)
    }

    /// Sleeps until the next poll.
    ///
    /// # Panics
    ///
    /// If the timeout has expired. `what` describes the awaited event.
    pub fn pause(&self, what: impl FnOnce() -> String) {
        assert!(!self.is_over(), "timed out waiting for {}", what());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Polls until `done` returns true.
///
/// # Panics
///
/// If the timeout expires.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = Waiting::default();
    while !done() {
        waiting.pause(|| what.into());
    }
}
