//! The commit position: up to where the backup holds the log, both lanes considered.

use alloc::collections::VecDeque;

use crate::limits::BULK_BARRIERS_MAX;

/// What follows `at` in the latency lane requires the bulk lane up to `bulk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Barrier {
    at: u64,
    bulk: u64,
}

/// The commit position, and the barriers that it must not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    position: u64,
    /// Barriers not reached yet, both numbers strictly increasing.
    barriers: VecDeque<Barrier>,
}

impl Commit {
    pub(super) fn new() -> Self {
        Self { position: 0, barriers: VecDeque::with_capacity(BULK_BARRIERS_MAX) }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Adds a barrier: nothing from `at` on is committed before the bulk lane is acknowledged up to
    /// `bulk`. Neither number may be less than in an earlier call.
    pub(super) fn require(&mut self, at: u64, bulk: u64) {
        let is_full = self.barriers.len() == BULK_BARRIERS_MAX;
        match self.barriers.back_mut() {
            Some(last) if last.bulk == bulk => {}
            // The barriers are merged if there are too many, so some bytes wait for more bulk than they
            // need. The last barrier is not reached yet, so nothing behind it was committed.
            Some(last) if last.at == at || is_full => last.bulk = bulk,
            Some(_) | None => self.barriers.push_back(Barrier { at, bulk }),
        }
    }

    /// Advances to what the lanes acknowledged. Returns whether the commit position grew.
    pub(super) fn advance(&mut self, latency: u64, bulk: u64) -> bool {
        while self.barriers.front().is_some_and(|barrier| barrier.bulk <= bulk) {
            self.barriers.pop_front();
        }
        let bound = self.barriers.front().map_or(latency, |barrier| latency.min(barrier.at));
        let advanced = bound > self.position;
        self.position = self.position.max(bound);
        advanced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_stops_at_the_first_barrier_not_reached() {
        let mut commit = Commit::new();
        commit.require(100, 1000);
        commit.require(200, 2000);
        assert!(commit.advance(300, 0));
        assert_eq!(commit.position(), 100);
        assert!(!commit.advance(300, 999));
        assert!(commit.advance(300, 1000));
        assert_eq!(commit.position(), 200);
        assert!(commit.advance(300, 2000));
        assert_eq!(commit.position(), 300);
    }

    #[test]
    fn commit_with_too_many_barriers_waits_for_more_bulk_never_for_less() {
        let mut commit = Commit::new();
        for number in 1..=3 * BULK_BARRIERS_MAX as u64 {
            commit.require(10 * number, 100 * number);
        }
        commit.advance(u64::MAX, 100 * 10);
        assert_eq!(commit.position(), 110);
        commit.advance(u64::MAX, 300 * BULK_BARRIERS_MAX as u64 - 1);
        assert_eq!(commit.position(), 10 * BULK_BARRIERS_MAX as u64);
        commit.advance(u64::MAX, 300 * BULK_BARRIERS_MAX as u64);
        assert_eq!(commit.position(), u64::MAX);
    }
}
