//! [`WaitPolicy`]: how long a waiting port looks before it blocks.
//!
//! The policy decides latency, not the system call: a blocked thread needs tens of microseconds to
//! run again on a virtual host, a look a fraction of one. Looking without `sched_yield` is ruinous
//! when the other side shares the core, so a look window yields after its first microseconds.

use std::time::{Duration, Instant};

use crate::error::PortError;
use crate::port::Wake;

/// How a port waits: look, then look and yield, then block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitPolicy {
    /// How long to look before blocking; zero blocks at once.
    pub spin: Duration,
    /// After how much of `spin` each look is followed by `sched_yield`.
    pub yield_after: Duration,
    /// A signal that the owning thread keeps blocked and that is unblocked, atomically, only
    /// while the port blocks in the kernel. Without it a signal that arrives between the caller's
    /// last check and the system call is handled too early and the wait sleeps on (the race that
    /// `ppoll(2)` describes); with it, `wait` returns [`Interrupted`](crate::port::Wake) for it,
    /// after the look window at the latest.
    pub wake_signal: Option<i32>,
}

impl WaitPolicy {
    /// Blocks at once: the least CPU, the most latency.
    pub const BLOCK: WaitPolicy =
        WaitPolicy { spin: Duration::ZERO, yield_after: Duration::ZERO, wake_signal: None };
}

impl Default for WaitPolicy {
    /// 50 us of looking, yielding after 4: the window in which an answer from a neighbour on the
    /// same LAN arrives.
    fn default() -> Self {
        WaitPolicy {
            spin: Duration::from_micros(50),
            yield_after: Duration::from_micros(4),
            wake_signal: None,
        }
    }
}

/// Least time between two readings of the clock while looking. Such a reading, and the yield that
/// follows it, cost as much as many looks at shared memory: while they run, nobody looks.
const CLOCK_EVERY: Duration = Duration::from_nanos(1000);

/// Looks between two readings of the clock, at most.
const LOOKS_MAX: u32 = 64;

/// The look window of every port: looks until `seen` says yes or the window (cut short by `deadline`)
/// is over; whether it was seen. `now` is a fresh reading of the clock, and the last one afterwards.
/// Public so that what is compared with a port waits as it does.
pub fn spin(
    policy: &WaitPolicy,
    now: &mut Instant,
    deadline: Option<Instant>,
    mut seen: impl FnMut() -> bool,
) -> bool {
    let end = deadline.map_or(*now + policy.spin, |d| d.min(*now + policy.spin));
    let yield_from = *now + policy.yield_after;
    // A look can be a load or a system call: how many of them fill the time is found out.
    let mut looks = 1;
    while *now < end {
        for _ in 0..looks {
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
            looks = (looks * 2).min(LOOKS_MAX);
        }
    }
    false
}

/// How a port's blocking system call ended.
pub(crate) enum Blocked {
    /// Something happened, or the time is up.
    Ended,
    /// A signal came.
    Interrupted,
}

/// What differs between ports that wait.
pub(crate) trait Waiter {
    /// Fetches what was announced; whether there is a frame.
    fn look(&mut self) -> Result<bool, PortError>;

    /// Whether something was announced: loads only.
    fn announced(&self) -> bool;

    /// Blocks until something is announced, for `left` at most.
    fn block(&mut self, left: Option<Duration>) -> Result<Blocked, PortError>;
}

/// The wait of every port: look, look and yield, block. Beside how it ended, for how long it had looked
/// when it last read the clock before it saw a frame; nothing if it has blocked, or saw none.
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
        // A deadline too far for the clock to name is none.
        let deadline = *deadline.get_or_insert_with(|| timeout.and_then(|t| now.checked_add(t)));
        if spin(&policy, &mut now, deadline, || waiter.announced()) {
            looked = looked.map(|_| now - start);
            continue;
        }
        looked = None;
        // Only the first block has a look window before it.
        policy.spin = Duration::ZERO;
        let left = deadline.map(|d| d.saturating_duration_since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok((Wake::Timeout, None));
        }
        match waiter.block(left)? {
            // The next turn looks once more, then finds out whether the time is up.
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
    fn spin_without_a_window_does_not_look() {
        let mut now = Instant::now();
        assert!(!spin(&WaitPolicy::BLOCK, &mut now, None, || panic!("looked")));
    }

    #[test]
    fn spin_reads_the_clock_at_least_as_often_as_looks_are_slow() {
        let policy = WaitPolicy { spin: Duration::from_millis(2), ..WaitPolicy::default() };
        let mut looks = 0;
        let slow = || {
            looks += 1;
            std::thread::sleep(Duration::from_micros(100));
            false
        };
        assert!(!spin(&policy, &mut Instant::now(), None, slow));
        assert!((1..=20).contains(&looks), "{looks} looks of 100 us in 2 ms");
    }
}
