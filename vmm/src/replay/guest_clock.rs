//! The guest's clock on a live host. It runs at the host's speed from any start value, or slower while a
//! guest is being prepared.

use crate::kvm::clock::monotonic_ns;
use std::num::NonZeroU32;
use std::time::Duration;

/// Guest time as a function of host time. It never goes back.
#[derive(Clone, Copy, Debug)]
pub struct GuestClock {
    /// Guest time at host time `epoch_ns`.
    start_ns: u64,
    /// Host monotonic time.
    epoch_ns: u64,
    /// Host nanoseconds per guest nanosecond; more than one for a slowed clock.
    slowdown: NonZeroU32,
    /// The value returned last.
    last_ns: u64,
}

impl GuestClock {
    /// Returns a clock that shows `start_ns` now and runs at the host's speed.
    pub fn starting_at(start_ns: u64) -> GuestClock {
        GuestClock::slowed(start_ns, NonZeroU32::MIN)
    }

    /// Returns a clock that shows `start_ns` now and runs `slowdown` times slower than the host's.
    ///
    /// Times in which the guest only waits for its timer are skipped. This is for hosts on which a timer
    /// interrupt of the guest takes milliseconds: at full speed a guest would spend its start-up on timer
    /// interrupts.
    pub fn slowed(start_ns: u64, slowdown: NonZeroU32) -> GuestClock {
        GuestClock { start_ns, epoch_ns: monotonic_ns(), slowdown, last_ns: start_ns }
    }

    /// Returns guest time at host time `host_ns`.
    pub(super) fn read(&mut self, host_ns: u64) -> u64 {
        let elapsed = host_ns.saturating_sub(self.epoch_ns) / u64::from(self.slowdown.get());
        self.last_ns = self.last_ns.max(self.start_ns.saturating_add(elapsed));
        self.last_ns
    }

    /// Returns how long the host must wait, from `host_ns` on, until guest time is `due_ns`.
    pub(super) fn host_wait_until(&mut self, due_ns: u64, host_ns: u64) -> Duration {
        let guest = due_ns.saturating_sub(self.read(host_ns));
        Duration::from_nanos(guest.saturating_mul(u64::from(self.slowdown.get())))
    }

    /// Whether the clock runs slower than the host's.
    pub(super) fn is_slowed(&self) -> bool {
        self.slowdown > NonZeroU32::MIN
    }

    /// Advances a slowed clock to `timer_ns` at once, because the guest waits for nothing else. Returns
    /// whether it did.
    pub(super) fn skip_idle_to(&mut self, timer_ns: Option<u64>) -> bool {
        let Some(due_ns) = timer_ns.filter(|_| self.is_slowed()) else {
            return false;
        };
        let ahead = due_ns.saturating_sub(self.read(monotonic_ns()));
        self.start_ns = self.start_ns.saturating_add(ahead);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_runs_at_host_speed_from_the_start_value_and_never_goes_back() {
        let mut clock = GuestClock::starting_at(1000);
        let host = clock.epoch_ns;
        assert_eq!(clock.read(host + 5), 1005);
        assert_eq!(clock.read(host + 3), 1005);
        assert_eq!(clock.host_wait_until(1010, host + 5), Duration::from_nanos(5));
        assert!(!clock.skip_idle_to(Some(2000)));
    }

    #[test]
    fn slowed_clock_runs_slower_and_skips_idle_time() {
        let mut clock = GuestClock::slowed(0, NonZeroU32::new(8).unwrap());
        let host = clock.epoch_ns;
        assert_eq!(clock.read(host + 80), 10);
        assert_eq!(clock.host_wait_until(20, host + 80), Duration::from_nanos(80));
        assert!(clock.skip_idle_to(Some(1 << 50)));
        assert!(clock.read(monotonic_ns()) >= 1 << 50);
        assert!(!clock.skip_idle_to(None));
    }
}
