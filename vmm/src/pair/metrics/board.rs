//! [`MetricsBoard`].

use super::sample::Sample;
use crate::link::now;
use logchan::time::Duration as Span;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A sample of this age is not asked for again: clients that ask together share one.
const AGE_MAX: Span = Span::from_millis(100);

/// Longest wait for a sample. `vcpu0` publishes every 100 ms; after this the last sample is served, with its age.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Where the metrics thread asks `vcpu0` for a sample, and finds it.
#[derive(Debug, Default)]
pub struct MetricsBoard {
    is_wanted: AtomicBool,
    sample: Mutex<Option<Sample>>,
    filled: Condvar,
}

impl MetricsBoard {
    /// Passes on the sample that `make` makes, if one is wanted. Never waits: the calling thread is `vcpu0`. While the
    /// other thread reads the sample before, nothing happens.
    pub(super) fn publish(&self, make: impl FnOnce() -> Sample) {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut place) = self.sample.try_lock() else { return };
        *place = Some(make());
        self.is_wanted.store(false, Ordering::Relaxed);
        drop(place);
        self.filled.notify_one();
    }

    /// Returns a sample that is at most 100 ms old. If `vcpu0` makes none, returns the last one; `None` if there was none.
    pub fn latest(&self) -> Option<Sample> {
        let asked = now();
        let is_old = |place: &mut Option<Sample>| {
            place.as_ref().is_none_or(|sample| asked.since(sample.taken_at) > AGE_MAX)
        };
        let mut place = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        if is_old(&mut place) {
            self.is_wanted.store(true, Ordering::Relaxed);
            let waited = self.filled.wait_timeout_while(place, WAIT_MAX, is_old);
            place = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        place.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::sample;
    use super::*;

    #[test]
    fn sample_is_made_only_when_it_is_wanted_and_is_shared_while_it_is_new() {
        let board = MetricsBoard::default();
        board.publish(|| panic!("nobody wants one"));
        assert!(board.latest().is_none(), "nobody makes one");
        board.publish(|| Sample { term: 7, ..sample(now()) });
        board.publish(|| panic!("there is one"));
        assert_eq!(board.latest().map(|sample| sample.term), Some(7));
    }

    #[test]
    fn client_waits_for_a_sample_and_gets_an_old_one_if_there_is_no_other() {
        let board = MetricsBoard::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !board.is_wanted.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                while board.is_wanted.load(Ordering::Relaxed) {
                    let old = logchan::time::Time::from_nanos(1);
                    board.publish(|| Sample { term: 8, ..sample(old) });
                }
            });
            assert_eq!(board.latest().map(|sample| sample.term), Some(8));
        });
    }

    #[test]
    fn thread_that_publishes_does_not_wait_for_one_that_reads() {
        let board = MetricsBoard::default();
        board.is_wanted.store(true, Ordering::Relaxed);
        let place = board.sample.lock().unwrap();
        board.publish(|| panic!("the place is in use"));
        drop(place);
        assert!(board.is_wanted.load(Ordering::Relaxed), "it is still wanted");
    }
}
