//! The deadline of a pending input: how long a guest that makes no exit may delay it.
//!
//! A one-shot timer kicks the vCPU. It is armed before a region is entered, unless it is already armed,
//! and stays armed across exits. So it costs one timer call per `after` of guest time, and not one per
//! exit. If it fires in the region that it was armed for, the guest has made no exit for `after`; a
//! pending input then ends the region in a checkpoint. If it fires in a later region, it is armed again.
//! An input therefore waits for at most twice the deadline.
//!
//! Such a stop takes time in which the guest does not run: some 0.1 ms on most hosts, more than 1 ms under
//! nested or emulated virtualization. There, a guest with a timer that is always due would be stopped
//! again and again and do nothing else. So the deadline is at least four times as long as a stop.

use crate::kvm::KvmError;
use crate::kvm::clock::monotonic_ns;
use crate::kvm::kick::KickTimer;
use std::time::Duration;

/// How many times longer than a stop the guest may run before the next one. With 4, stops take at most a
/// fifth of the time. On most hosts the deadline is longer than four stops, and this changes nothing.
const GUEST_SHARE: u64 = 4;

/// The longest deadline that follows from slow stops, nanoseconds. An input must not wait for ever because
/// the host was suspended during each of the last stops.
const LONGEST_NS: u64 = 100_000_000;

/// The deadline timer of one vCPU thread. It belongs to that thread.
#[derive(Debug)]
pub(super) struct Deadline {
    timer: KickTimer,
    after: AdaptiveDelay,
    /// Host monotonic time at which a stop began that has not ended, nanoseconds.
    stopped_ns: Option<u64>,
    armed: Option<Armed>,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    /// Host monotonic time, nanoseconds.
    at_ns: u64,
    /// Number of positions that were reached before it was armed.
    position: u64,
}

impl Deadline {
    /// Creates the timer for the calling thread.
    pub(super) fn new(after: Duration) -> Result<Deadline, KvmError> {
        let after = AdaptiveDelay::new(after);
        Ok(Deadline { timer: KickTimer::new()?, after, stopped_ns: None, armed: None })
    }

    /// Arms the timer if necessary. Call it before the region after `position` is entered.
    pub(super) fn entering(
        &mut self,
        position: u64,
        now_ns: impl FnOnce() -> u64,
    ) -> Result<(), KvmError> {
        if let Some(stopped_ns) = self.stopped_ns.take() {
            let at_ns = now_ns();
            self.after.stop_took(at_ns.saturating_sub(stopped_ns));
            // Else the guest would have less than the deadline until the next stop: the timer ran during
            // this one.
            return self.arm(position, at_ns);
        }
        if self.armed.is_none() {
            self.arm(position, now_ns())?;
        }
        Ok(())
    }

    /// Arms the timer. The clock reading `at_ns` is from before, so a kick of this timer never seems early, no
    /// matter how long this thread is delayed in between.
    fn arm(&mut self, position: u64, at_ns: u64) -> Result<(), KvmError> {
        self.timer.arm(self.after.get())?;
        self.armed = Some(Armed { at_ns, position });
        Ok(())
    }

    /// Returns whether the region after `position`, in which the vCPU was kicked, has lasted `after`. If
    /// the deadline has passed, the timer is armed again.
    pub(super) fn passed(&mut self, position: u64) -> Result<bool, KvmError> {
        let Some(armed) = self.armed else { return Ok(false) };
        let now_ns = monotonic_ns();
        let waited = now_ns.saturating_sub(armed.at_ns);
        if u128::from(waited) < self.after.get().as_nanos() {
            return Ok(false);
        }
        self.arm(position, now_ns)?;
        Ok(armed.position == position)
    }

    /// The region in which the deadline passed ends: the guest is stopped until the next entry.
    pub(super) fn stopping(&mut self) {
        self.stopped_ns = Some(monotonic_ns());
    }

    /// Disarms the timer, because the guest waits. There is no kick until the next entry.
    pub(super) fn idle(&mut self) -> Result<(), KvmError> {
        self.stopped_ns = None;
        if self.armed.take().is_some() {
            self.timer.disarm()?;
        }
        Ok(())
    }
}

/// A delay that is longer than configured if the last stops took long.
#[derive(Debug)]
struct AdaptiveDelay {
    configured: Duration,
    /// How long the last stops took, nanoseconds. The shortest counts, so a stop in which the host ran
    /// something else does not.
    stops_ns: [u64; 8],
    next: usize,
}

impl AdaptiveDelay {
    fn new(configured: Duration) -> AdaptiveDelay {
        AdaptiveDelay { configured, stops_ns: [0; 8], next: 0 }
    }

    fn get(&self) -> Duration {
        let shortest = self.stops_ns.iter().copied().min().unwrap_or(0);
        let longer = shortest.saturating_mul(GUEST_SHARE).min(LONGEST_NS);
        self.configured.max(Duration::from_nanos(longer))
    }

    fn stop_took(&mut self, ns: u64) {
        self.stops_ns[self.next] = ns;
        self.next = (self.next + 1) % self.stops_ns.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Duration = Duration::from_millis(1);

    fn after_stops(stops_us: &[u64]) -> Duration {
        let mut delay = AdaptiveDelay::new(CONFIGURED);
        for us in stops_us {
            delay.stop_took(us * 1000);
        }
        delay.get()
    }

    #[test]
    fn fast_stops_leave_the_deadline_as_configured() {
        assert_eq!(after_stops(&[]), CONFIGURED);
        assert_eq!(after_stops(&[100; 20]), CONFIGURED);
        assert_eq!(after_stops(&[250; 20]), CONFIGURED);
    }

    #[test]
    fn slow_stops_leave_the_guest_its_share() {
        assert_eq!(after_stops(&[3000; 8]), Duration::from_millis(12));
        assert_eq!(
            after_stops(&[5000, 9000, 3000, 4000, 7000, 6000, 8000, 5000]),
            Duration::from_millis(12)
        );
    }

    #[test]
    fn single_slow_stops_do_not_count() {
        assert_eq!(after_stops(&[3000; 7]), CONFIGURED, "there was no eighth stop yet");
        assert_eq!(after_stops(&[[50_000; 7].as_slice(), &[100]].concat()), CONFIGURED);
    }

    #[test]
    fn deadline_becomes_shorter_again_and_has_a_limit() {
        assert_eq!(after_stops(&[[3000; 8], [100; 8]].concat()), CONFIGURED);
        assert_eq!(after_stops(&[60_000_000; 8]), Duration::from_nanos(LONGEST_NS));
    }
}
