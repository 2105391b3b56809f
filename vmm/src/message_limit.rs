//! [`MessageLimit`]: how many messages may follow each other. What flaps ten times a second must not fill a journal.

use std::sync::atomic::{AtomicU64, Ordering};

/// Messages that may follow each other at once.
const BURST: u64 = 30;
/// In the long run, one message may be printed in this time, nanoseconds. With the line that says how many were left
/// out, that is a line per second.
const INTERVAL_NS: u64 = 2_000_000_000;

/// Decides which messages are printed. It takes no lock, because the vCPU thread uses it.
///
/// The algorithm is the generic cell rate algorithm (ITU-T I.371): each message moves a time on by the interval, and is
/// left out if that time is too far ahead of the clock.
#[derive(Debug, Default)]
pub(crate) struct MessageLimit {
    next_ns: AtomicU64,
    left_out: AtomicU64,
}

impl MessageLimit {
    /// Creates a limit that no message has used.
    pub(crate) const fn new() -> MessageLimit {
        MessageLimit { next_ns: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Returns whether a message may be printed at `now_ns`, and then how many were left out before it.
    pub(crate) fn admit(&self, now_ns: u64) -> Option<u64> {
        let moved = self.next_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next_ns| {
            let next_ns = next_ns.max(now_ns);
            (next_ns - now_ns <= (BURST - 1) * INTERVAL_NS).then_some(next_ns + INTERVAL_NS)
        });
        match moved {
            Ok(_) => Some(self.left_out.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_passes_then_one_in_each_interval_and_the_rest_is_counted() {
        let limit = MessageLimit::new();
        let start_ns = 5_000_000_000_000;
        for _ in 0..BURST {
            assert_eq!(limit.admit(start_ns), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limit.admit(start_ns + INTERVAL_NS - 1), None);
        }
        assert_eq!(limit.admit(start_ns + INTERVAL_NS), Some(7));
        assert_eq!(limit.admit(start_ns + INTERVAL_NS), None);
        // Ten in each interval, for sixty intervals.
        let printed = (20..620)
            .filter(|tenth| limit.admit(start_ns + tenth * INTERVAL_NS / 10).is_some())
            .count();
        assert!((58..=62).contains(&printed), "{printed}");
        // After a pause there may be as many as at the beginning.
        let later_ns = start_ns + 1000 * INTERVAL_NS;
        assert_eq!(
            (0..2 * BURST).filter(|_| limit.admit(later_ns).is_some()).count() as u64,
            BURST
        );
    }
}
