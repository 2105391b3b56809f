//! How often a guest's timer may interrupt it.
//!
//! A guest whose timer interrupts take longer than the timer's period gets nothing else done: whenever one ends, the next
//! one is due. Where each exit costs 0.3 ms, as on a host that is itself emulated, a tick of Linux took 25 to 50 ms when a
//! checkpoint had write-protected the guest's memory before it, and its period is 4 ms. So the next timer interrupt of a
//! guest that has other work comes not before the guest has had as much time for that work as the last one took. What the
//! guest's clock shows is not changed by this.

use replication::boundary::TimerInterrupts;

/// A timer interrupt that takes less than this, in nanoseconds, is not slow: it leaves time for other work, or the guest has
/// asked for interrupts at a rate that no pace would make bearable.
const SLOW_NS: u64 = 1_000_000;

/// The longest time for which a timer interrupt counts as being served, and the longest pause after it, in nanoseconds. A
/// guest that never ends the service of an interrupt, or that masks it for good, gets its timer all the same.
const LONGEST_NS: u64 = 100_000_000;

/// Decides whether the timer of one guest may interrupt it. All times are those of the host's monotonic clock.
#[derive(Debug, Default)]
pub(super) struct TimerPace {
    /// When a timer fired whose interrupt is not in service yet.
    fired_ns: Option<u64>,
    serving: Option<Serving>,
    /// No timer fires before.
    free_ns: u64,
}

/// An interrupt of a timer that the guest is serving.
#[derive(Clone, Copy, Debug)]
struct Serving {
    since_ns: u64,
    timers: u8,
}

impl TimerPace {
    /// Notes how far the guest is with its timers' interrupts. Call it at every position. The clock is read only where a
    /// service ends.
    pub(super) fn observe(&mut self, timers: TimerInterrupts, now_ns: impl FnOnce() -> u64) {
        let TimerInterrupts { in_service, masked } = timers;
        if let Some(serving) = &mut self.serving {
            serving.timers |= in_service;
            // Linux ends the service of an interrupt (EOI) before it handles it, and masks it meanwhile.
            if serving.timers & (in_service | masked) == 0 {
                let took_ns = now_ns().saturating_sub(serving.since_ns);
                self.served(took_ns);
            }
        } else if in_service != 0
            && let Some(since_ns) = self.fired_ns.take()
        {
            self.serving = Some(Serving { since_ns, timers: in_service });
        }
    }

    /// Returns whether a timer that is due may fire at `now_ns`.
    pub(super) fn allows(&mut self, now_ns: u64) -> bool {
        if let Some(Serving { since_ns, .. }) = self.serving {
            let took_ns = now_ns.saturating_sub(since_ns);
            if took_ns < LONGEST_NS {
                return false;
            }
            self.served(took_ns);
        }
        now_ns >= self.free_ns
    }

    /// Notes that a timer fires at `now_ns`.
    pub(super) fn fires(&mut self, now_ns: u64) {
        self.fired_ns = Some(now_ns);
    }

    /// Notes that the guest waits: it has no other work.
    pub(super) fn idle(&mut self) {
        *self = TimerPace::default();
    }

    /// Ends the service of an interrupt that took `took_ns`.
    fn served(&mut self, took_ns: u64) {
        let ended_ns =
            self.serving.take().map_or(0, |serving| serving.since_ns.saturating_add(took_ns));
        if took_ns >= SLOW_NS {
            self.free_ns = ended_ns.saturating_add(took_ns.min(LONGEST_NS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const NONE: TimerInterrupts = TimerInterrupts { in_service: 0, masked: 0 };
    const IN_SERVICE: TimerInterrupts = TimerInterrupts { in_service: 1, masked: 1 };
    const MASKED: TimerInterrupts = TimerInterrupts { in_service: 0, masked: 1 };

    /// Lets a guest run for `end_ns`, whose timer is due every `period_ns`, whose handler takes `handler_ns` in two halves
    /// as Linux's does, and whose other work has an exit every 0.1 ms. Returns how many timer interrupts it had, and for
    /// how long it did its other work.
    fn run(end_ns: u64, period_ns: u64, handler_ns: u64) -> (u64, u64) {
        let mut pace = TimerPace::default();
        let (mut now_ns, mut due_ns) = (0, period_ns);
        let (mut interrupts, mut work_ns) = (0, 0);
        while now_ns < end_ns {
            pace.observe(NONE, || now_ns);
            if now_ns >= due_ns && pace.allows(now_ns) {
                pace.fires(now_ns);
                interrupts += 1;
                for state in [IN_SERVICE, MASKED] {
                    pace.observe(state, || now_ns);
                    now_ns += handler_ns / 2;
                    assert!(
                        !pace.allows(now_ns),
                        "an interrupt inside of the handler of another one"
                    );
                }
                // The timer goes on while its interrupt is being handled.
                due_ns = (now_ns / period_ns + 1) * period_ns;
            } else {
                now_ns += MS / 10;
                work_ns += MS / 10;
            }
        }
        (interrupts, work_ns)
    }

    #[test]
    fn guest_with_a_slow_handler_gets_half_of_its_time_for_other_work() {
        let (interrupts, work_ns) = run(1000 * MS, 4 * MS, 20 * MS);
        assert!(work_ns >= 450 * MS, "{work_ns} ns of work");
        assert!(interrupts >= 20, "{interrupts} interrupts");
    }

    #[test]
    fn timer_with_a_quick_handler_is_not_delayed() {
        assert_eq!(run(1000 * MS, 4 * MS, MS / 5).0, 249);
        // Also if its period is shorter than the least that counts as slow.
        let (interrupts, _) = run(100 * MS, MS / 2, MS / 5);
        assert!(interrupts >= 160, "{interrupts} interrupts");
    }

    #[test]
    fn timer_whose_service_does_not_end_fires_again_in_time() {
        let mut pace = TimerPace::default();
        pace.fires(0);
        pace.observe(IN_SERVICE, || 0);
        pace.observe(MASKED, || 0);
        assert!(!pace.allows(LONGEST_NS - 1));
        assert!(!pace.allows(LONGEST_NS), "as long a pause follows");
        assert!(!pace.allows(2 * LONGEST_NS - 1));
        assert!(pace.allows(2 * LONGEST_NS));
        // Masked for good, and its interrupt is not in service: there is nothing to wait for.
        pace.fires(2 * LONGEST_NS);
        pace.observe(MASKED, || 2 * LONGEST_NS);
        assert!(pace.allows(2 * LONGEST_NS));
    }

    #[test]
    fn guest_that_waits_gets_its_timer_at_once() {
        let mut pace = TimerPace::default();
        pace.fires(0);
        pace.observe(IN_SERVICE, || 0);
        pace.observe(NONE, || 20 * MS);
        assert!(!pace.allows(39 * MS));
        pace.idle();
        assert!(pace.allows(20 * MS));
    }
}
