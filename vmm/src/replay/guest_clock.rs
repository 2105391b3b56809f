//! The guest's clock on a live host: as fast as the host's, from any value on; or slower, while a
//! guest is prepared.

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
    /// Host nanoseconds that a guest nanosecond takes; more than one is a slowed clock.
    slowness: NonZeroU32,
    /// The value last given out.
    last_ns: u64,
}

impl GuestClock {
    /// A clock at the host's speed that shows `start_ns` now.
    pub fn starting_at(start_ns: u64) -> GuestClock {
        GuestClock::slowed(start_ns, NonZeroU32::MIN)
    }

    /// A clock that shows `start_ns` now and is `slowness` times slower than the host's; times in which
    /// the guest only waits for its timer are skipped. On a host where a guest's every timer interrupt
    /// takes milliseconds, a start-up spends itself on interrupts otherwise.
    pub fn slowed(start_ns: u64, slowness: NonZeroU32) -> GuestClock {
        GuestClock { start_ns, epoch_ns: monotonic_ns(), slowness, last_ns: start_ns }
    }

    /// Guest time at host time `host_ns`.
    pub(super) fn read(&mut self, host_ns: u64) -> u64 {
        let elapsed = host_ns.saturating_sub(self.epoch_ns) / u64::from(self.slowness.get());
        self.last_ns = self.last_ns.max(self.start_ns.saturating_add(elapsed));
        self.last_ns
    }

    /// How long the host has to wait at `host_ns` until the guest's clock shows `due_ns`.
    pub(super) fn until(&mut self, due_ns: u64, host_ns: u64) -> Duration {
        let guest = due_ns.saturating_sub(self.read(host_ns));
        Duration::from_nanos(guest.saturating_mul(u64::from(self.slowness.get())))
    }

    /// Whether it goes slower than the host's.
    pub(super) fn is_slowed(&self) -> bool {
        self.slowness > NonZeroU32::MIN
    }

    /// The guest waits for `timer_ns` alone: a slowed clock moves on to it at once.
    pub(super) fn skips_to(&mut self, timer_ns: Option<u64>) -> bool {
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
    fn read_is_the_hosts_speed_from_the_start_value_and_never_back() {
        let mut clock = GuestClock::starting_at(1000);
        let host = clock.epoch_ns;
        assert_eq!(clock.read(host + 5), 1005);
        assert_eq!(clock.read(host + 3), 1005);
        assert_eq!(clock.until(1010, host + 5), Duration::from_nanos(5));
        assert!(!clock.skips_to(Some(2000)));
    }

    #[test]
    fn slowed_clock_is_slow_and_skips_idle_time() {
        let mut clock = GuestClock::slowed(0, NonZeroU32::new(8).unwrap());
        let host = clock.epoch_ns;
        assert_eq!(clock.read(host + 80), 10);
        assert_eq!(clock.until(20, host + 80), Duration::from_nanos(80));
        assert!(clock.skips_to(Some(1 << 50)));
        assert!(clock.read(monotonic_ns()) >= 1 << 50);
        assert!(!clock.skips_to(None));
    }
}
