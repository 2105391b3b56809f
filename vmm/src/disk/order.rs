//! [`Order`]: which requests may run at the same time.
//!
//! Two requests that overlap, one of which changes the disk, run in the order of their numbers. A flush runs when all
//! changes with lower numbers are complete. Everything else runs as soon as it arrives.

use super::request::modifies;
use replication::boundary::DiskOperation;
use std::collections::VecDeque;
use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
}

#[derive(Debug)]
struct Entry {
    slot: usize,
    operation: DiskOperation,
    range: Range<u64>,
    state: State,
}

/// The requests of a disk that are not complete, in the order of their numbers. It knows them by the slots where their
/// owner keeps them.
#[derive(Debug, Default)]
pub(super) struct Order {
    entries: VecDeque<Entry>,
}

impl Order {
    /// Adds a request whose number is higher than that of every earlier one.
    pub(super) fn push(&mut self, slot: usize, operation: DiskOperation, range: Range<u64>) {
        self.entries.push_back(Entry { slot, operation, range, state: State::Waiting });
    }

    /// Returns the first request that may run now, which then counts as running.
    pub(super) fn start_next(&mut self) -> Option<usize> {
        let is_ready = |&index: &usize| {
            let entry = &self.entries[index];
            entry.state == State::Waiting
                && !self.entries.range(..index).any(|earlier| must_precede(earlier, entry))
        };
        let index = (0..self.entries.len()).find(is_ready)?;
        let entry = &mut self.entries[index];
        entry.state = State::Running;
        Some(entry.slot)
    }

    /// Removes the request in `slot`, which is complete.
    pub(super) fn complete(&mut self, slot: usize) {
        let index = self.entries.iter().position(|entry| entry.slot == slot);
        let entry = index.and_then(|index| self.entries.remove(index));
        let was_running = entry.is_some_and(|entry| entry.state == State::Running);
        assert!(was_running, "only a request that runs completes");
    }

    /// Returns the number of requests.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Returns whether `later` must not run before `earlier` is complete.
fn must_precede(earlier: &Entry, later: &Entry) -> bool {
    let overlap = earlier.range.start < later.range.end && later.range.start < earlier.range.end;
    match (earlier.operation, later.operation) {
        (earlier, DiskOperation::Flush) => modifies(earlier),
        (earlier, later) => overlap && (modifies(earlier) || modifies(later)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DiskOperation::{Discard, Flush, Read, Write, WriteZeroes};

    /// Pushes requests and returns the order with the slots that may run at once.
    fn started(requests: &[(DiskOperation, Range<u64>)]) -> (Order, Vec<usize>) {
        let mut order = Order::default();
        for (slot, (operation, range)) in requests.iter().enumerate() {
            order.push(slot, *operation, range.clone());
        }
        let slots = start_all(&mut order);
        (order, slots)
    }

    fn start_all(order: &mut Order) -> Vec<usize> {
        std::iter::from_fn(|| order.start_next()).collect()
    }

    #[test]
    fn overlapping_changes_run_in_the_order_of_their_numbers() {
        for change in [Write, Discard, WriteZeroes] {
            let requests = [(change, 0..10), (Read, 9..20), (change, 10..20), (Read, 0..9)];
            let (mut order, slots) = started(&requests);
            assert_eq!(slots, [0], "{change:?}");
            order.complete(0);
            assert_eq!(start_all(&mut order), [1, 3]);
            order.complete(3);
            assert_eq!(order.start_next(), None);
            order.complete(1);
            assert_eq!(order.start_next(), Some(2));
        }
    }

    #[test]
    fn reads_and_disjoint_changes_run_together() {
        let requests = [(Read, 0..10), (Read, 0..10), (Write, 10..20), (Write, 20..30)];
        assert_eq!(started(&requests).1, [0, 1, 2, 3]);
    }

    #[test]
    fn flush_waits_for_the_changes_before_it_and_delays_none_after_it() {
        let requests =
            [(Write, 0..10), (Read, 20..30), (Flush, 0..0), (Write, 10..20), (Flush, 0..0)];
        let (mut order, slots) = started(&requests);
        assert_eq!(slots, [0, 1, 3]);
        order.complete(0);
        assert_eq!(start_all(&mut order), [2]);
        order.complete(3);
        assert_eq!(start_all(&mut order), [4]);
        order.complete(4);
        order.complete(2);
        order.complete(1);
        assert_eq!(order.len(), 0);
    }

    #[test]
    fn waiting_change_delays_what_overlaps_it() {
        let requests = [(Write, 0..10), (Write, 5..15), (Read, 12..20)];
        let (mut order, slots) = started(&requests);
        assert_eq!(slots, [0], "the read must see the second write");
        order.complete(0);
        assert_eq!(start_all(&mut order), [1]);
    }
}
