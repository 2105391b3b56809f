//! How long a test waits. Limits only end one that hangs: no test asserts how fast anything is. All of them, and the
//! silence timeouts of hosts that nobody kills, follow from how fast the reference guest answers on this host.

use crate::program::understudy;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use vmm::demo::DemoError;
use vmm::demo::guest::Guest;
use vmm::demo::lan::Namespace;
use vmm::demo::pace::{Measured, Pace};
use vmm::demo::standalone::{HOST_CIDR, TAP};
use vmm::outln;

/// From one look at what is waited for to the next.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The pace of the reference guest on this host, which is measured once in a process.
///
/// # Panics
///
/// When no VM runs here.
pub fn pace() -> Pace {
    static PACE: OnceLock<Pace> = OnceLock::new();
    let measure = || {
        let namespace = Namespace::new("pace")?;
        namespace.add_tap(TAP, Some(HOST_CIDR))?;
        let guest = Guest::Reference;
        let namespaces = [&namespace, &namespace];
        let measured = Measured::on(&understudy(), &guest, namespaces, &AtomicBool::new(false))?;
        Pace::new(&guest, measured, None)
    };
    *PACE.get_or_init(|| {
        let pace = measure().unwrap_or_else(|error: DemoError| panic!("{error}"));
        outln!("{}", pace.describe());
        pace
    })
}

/// How long what must happen is waited for.
pub fn patience() -> Duration {
    pace().patience()
}

/// How many times longer than on a usual host something may be silent without being dead.
pub fn factor() -> u64 {
    pace().silence_ms() / Guest::Reference.silence_ms()
}

/// Somebody who waits.
#[derive(Debug)]
pub struct Waiting {
    until: Instant,
}

impl Default for Waiting {
    /// From now on.
    fn default() -> Waiting {
        Waiting { until: Instant::now() + patience() }
    }
}

impl Waiting {
    /// Lets some time pass until the next look.
    ///
    /// # Panics
    ///
    /// When it was waited long enough: with "waited in vain for" and what `what` says.
    pub fn goes_on(&self, what: impl FnOnce() -> String) {
        assert!(Instant::now() < self.until, "waited in vain for {}", what());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `done`.
///
/// # Panics
///
/// When it was waited long enough.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = Waiting::default();
    while !done() {
        waiting.goes_on(|| what.into());
    }
}
