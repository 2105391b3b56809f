//! [`Terminal`]: the operator's terminal, which takes messages and console output slowly, or not at all. A host
//! writes to it through a bounded queue, from a thread of its own.

use crate::sim::MS;

/// Most time for which the queue holds messages.
const QUEUE_NS_MAX: u64 = 20 * MS;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terminal {
    busy_until: u64,
    /// Nothing is taken before this time.
    pub(super) blocked_until: u64,
}

impl Terminal {
    /// Queues a message whose output takes `takes_ns`. Returns when it has been taken, or `None` if the queue is
    /// full and the message is dropped.
    pub(super) fn queue(&mut self, now: u64, takes_ns: u64) -> Option<u64> {
        let taken_at = self.next_at(now) + takes_ns;
        (taken_at <= now + QUEUE_NS_MAX).then(|| {
            self.busy_until = taken_at;
            taken_at
        })
    }

    /// Returns when a message is taken whose writer waits for it.
    pub(super) fn write(&mut self, now: u64, takes_ns: u64) -> u64 {
        self.busy_until = self.next_at(now) + takes_ns;
        self.busy_until
    }

    fn next_at(&self, now: u64) -> u64 {
        now.max(self.busy_until).max(self.blocked_until)
    }

    /// It takes messages again.
    pub(super) fn heal(&mut self, now: u64) {
        *self = Self { busy_until: self.busy_until.min(now), blocked_until: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_terminal_drops_messages_and_a_writer_waits() {
        let mut terminal = Terminal::default();
        assert_eq!(terminal.queue(0, 10), Some(10));
        terminal.blocked_until = 100 * MS;
        assert_eq!(terminal.queue(20, 10), None);
        assert_eq!(terminal.write(20, 10), 100 * MS + 10);
    }
}
