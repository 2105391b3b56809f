//! [`EventQueue`]: the events to come.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Events ordered by time. Events of the same time keep the order in which they were added.
#[derive(Debug)]
pub struct EventQueue<E> {
    heap: BinaryHeap<Entry<E>>,
    added: u64,
    now: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: u64,
    order: u64,
    event: E,
}

impl<E> Entry<E> {
    /// The heap returns the greatest first, so both parts are reversed.
    fn rank(&self) -> (std::cmp::Reverse<u64>, std::cmp::Reverse<u64>) {
        (std::cmp::Reverse(self.at), std::cmp::Reverse(self.order))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), added: 0, now: 0 }
    }
}

impl<E> EventQueue<E> {
    /// The time of the event that was popped last.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Adds an event.
    ///
    /// # Panics
    ///
    /// If `at` is in the past.
    pub fn push(&mut self, at: u64, event: E) {
        assert!(at >= self.now, "an event {} ns ago", self.now - at);
        self.heap.push(Entry { at, order: self.added, event });
        self.added += 1;
    }

    /// The time of the next event.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Advances the time to `at` without an event.
    ///
    /// # Panics
    ///
    /// If `at` is in the past, or an event comes before it.
    pub fn advance(&mut self, at: u64) {
        assert!(at >= self.now, "time goes back by {} ns", self.now - at);
        assert!(self.next_at().is_none_or(|next| next >= at), "an event is skipped");
        self.now = at;
    }

    /// Removes the next event and advances the time to it.
    pub fn pop(&mut self) -> Option<E> {
        let entry = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_pop_by_time_then_by_insertion_order() {
        let mut queue = EventQueue::default();
        for (at, event) in [(30, 'd'), (10, 'a'), (20, 'b'), (20, 'c')] {
            queue.push(at, event);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!((order.as_str(), queue.now()), ("abcd", 30));
    }
}
