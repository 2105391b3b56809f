//! [`WaitPolicy`]: how long a waiting port polls before it blocks.
//!
//! The policy determines the latency, not the choice of system call: a blocked thread needs tens of
//! microseconds to run again on a virtual host, a poll takes a fraction of one. Polling without
//! `sched_yield` is ruinous when the other side shares the core, so the poll window yields after its
//! first microseconds.

use std::time::{Duration, Instant};

use crate::error::PortError;
use crate::port::Wake;

/// How a port waits: it polls, then polls and yields, then blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitPolicy {
    /// How long to poll before blocking; zero blocks immediately.
    pub spin: Duration,
    /// After how much of `spin` each poll is followed by `sched_yield`.
    pub yield_after: Duration,
    /// A signal that the owning thread keeps blocked. It is unblocked, atomically, only while the port
    /// blocks in the kernel. Without it, a signal that arrives between the caller's last check and the
    /// system call is handled too early and the wait continues (the race that `ppoll(2)` describes).
    /// With it, `wait` returns [`Interrupted`](crate::port::Wake) for the signal, after the poll window
    /// at the latest.
    pub wake_signal: Option<i32>,
}

impl WaitPolicy {
    /// Blocks immediately: the lowest CPU use, the highest latency.
    pub const BLOCK: WaitPolicy =
        WaitPolicy { spin: Duration::ZERO, yield_after: Duration::ZERO, wake_signal: None };
}

impl Default for WaitPolicy {
    /// Polls for 50 us, yielding after 4: the window in which an answer from a neighbour on the same
    /// LAN arrives.
    fn default() -> Self {
        WaitPolicy {
            spin: Duration::from_micros(50),
            yield_after: Duration::from_micros(4),
            wake_signal: None,
        }
    }
}

/// Minimum time between two clock readings while polling. A reading, and the yield that follows it, cost
/// as much as many polls of shared memory, and no poll happens meanwhile.
const CLOCK_EVERY: Duration = Duration::from_nanos(1000);

/// Maximum number of polls between two clock readings.
const POLLS_MAX: u32 = 64;

/// The poll window of every port: polls until `seen` returns true or the window, limited by `deadline`, is
/// over. Returns whether `seen` returned true. `now` must be a fresh clock reading, and is replaced by the
/// last one. Public so that measurements can compare a port with another receiver that waits alike.
pub fn spin(
    policy: &WaitPolicy,
    now: &mut Instant,
    deadline: Option<Instant>,
    mut seen: impl FnMut() -> bool,
) -> bool {
    let end = deadline.map_or(*now + policy.spin, |d| d.min(*now + policy.spin));
    let yield_from = *now + policy.yield_after;
    // A poll can be a load or a system call, so the number of polls that fill the time is found by doubling.
    let mut polls = 1;
    while *now < end {
        for _ in 0..polls {
            if seen() {
                return true;
            }
            std::hint::spin_loop();
        }
        if *now >= yield_from {
            std::thread::yield_now();
        }
        let before = std::mem::replace(now, Instant::now());
        if *now - before < CLOCK_EVERY {
            polls = (polls * 2).min(POLLS_MAX);
        }
    }
    false
}

/// How a port's blocking system call ended.
pub(crate) enum Blocked {
    /// An event was announced, or the time limit passed.
    Ended,
    /// A signal arrived.
    Interrupted,
}

/// The operations in which waiting ports differ.
pub(crate) trait Waiter {
    /// Fetches what was announced, and returns whether there is a frame.
    fn look(&mut self) -> Result<bool, PortError>;

    /// Whether something was announced.
    fn announced(&self) -> bool;

    /// Blocks until something is announced, for at most `left`.
    fn block(&mut self, left: Option<Duration>) -> Result<Blocked, PortError>;
}

/// The wait of every port: polls, polls and yields, then blocks. Returns how it ended, and the time from
/// its beginning to the last clock reading before it saw a frame (`None` if it blocked or saw no frame).
pub(crate) fn wait_on(
    waiter: &mut impl Waiter,
    policy: &WaitPolicy,
    timeout: Option<Duration>,
) -> Result<(Wake, Option<Duration>), PortError> {
    let mut policy = *policy;
    let mut deadline = None;
    let mut looked = Some(Duration::ZERO);
    let mut start = None;
    loop {
        if waiter.look()? {
            return Ok((Wake::Frame, looked));
        }
        let mut now = Instant::now();
        let start = *start.get_or_insert(now);
        // A deadline that the clock cannot represent counts as none.
        let deadline = *deadline.get_or_insert_with(|| timeout.and_then(|t| now.checked_add(t)));
        if spin(&policy, &mut now, deadline, || waiter.announced()) {
            looked = looked.map(|_| now - start);
            continue;
        }
        looked = None;
        // Only the first block is preceded by a poll window.
        policy.spin = Duration::ZERO;
        let left = deadline.map(|d| d.saturating_duration_since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok((Wake::Timeout, None));
        }
        match waiter.block(left)? {
            // The next iteration polls once more, then checks whether the time is up.
            Blocked::Ended => {}
            Blocked::Interrupted => return Ok((Wake::Interrupted, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spin_stops_at_the_window_and_at_the_deadline() {
        let policy = WaitPolicy { spin: Duration::from_millis(5), ..WaitPolicy::default() };
        let start = Instant::now();
        let mut now = start;
        assert!(!spin(&policy, &mut now, None, || false));
        assert!(now - start >= policy.spin);

        let long = WaitPolicy { spin: Duration::from_secs(60), ..WaitPolicy::default() };
        let deadline = now + Duration::from_millis(1);
        assert!(!spin(&long, &mut now, Some(deadline), || false));
        assert!(now >= deadline);
    }

    #[test]
    fn spin_without_a_window_does_not_poll() {
        let mut now = Instant::now();
        assert!(!spin(&WaitPolicy::BLOCK, &mut now, None, || panic!("polled")));
    }

    #[test]
    fn spin_with_slow_polls_still_ends_on_time() {
        let policy = WaitPolicy { spin: Duration::from_millis(2), ..WaitPolicy::default() };
        let mut polls = 0;
        let slow = || {
            polls += 1;
            std::thread::sleep(Duration::from_micros(100));
            false
        };
        assert!(!spin(&policy, &mut Instant::now(), None, slow));
        assert!((1..=20).contains(&polls), "{polls} polls of 100 us in 2 ms");
    }
}
