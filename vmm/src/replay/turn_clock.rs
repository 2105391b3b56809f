//! [`TurnClock`]: one reading of the host's clock for each turn of the loop.

use crate::kvm::clock::monotonic_ns;

/// The host's monotonic clock, read once from one entry of the guest to the next.
///
/// Where RDTSC faults on the vCPU thread, each reading is a system call, and a turn has up to five uses for one. A turn
/// takes a few microseconds unless it waits, and whoever waits calls [`forget`](Self::forget).
#[derive(Debug, Default)]
pub(super) struct TurnClock {
    read_ns: Option<u64>,
}

impl TurnClock {
    /// Returns the first reading of this turn in nanoseconds.
    pub(super) fn now(&mut self) -> u64 {
        *self.read_ns.get_or_insert_with(monotonic_ns)
    }

    /// Notes that time passes: the guest runs, or the thread waits.
    pub(super) fn forget(&mut self) {
        self.read_ns = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn reading_stays_until_it_is_forgotten() {
        let mut clock = TurnClock::default();
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(clock.now(), first);
        clock.forget();
        assert!(clock.now() >= first + 1_000_000);
    }
}
