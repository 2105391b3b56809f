//! [`WriteQueue`]: a bounded queue of byte strings, which a thread of its own writes to a stream or a file. A
//! reader that stalls, or a disk that hangs, stops that thread and not the one that filled the queue.

use crate::kvm::kick;
use crate::limits::WRITES_WAITING_MAX;
use crate::sandbox::{self, Task};
use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender, TrySendError};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time to wait at the end of a process until a queue is written. A reader that is only busy needs
/// milliseconds; one that has stalled must not keep the process from ending.
pub const FLUSH_MAX: Duration = Duration::from_secs(1);

/// What a queue is written to. It is used on the queue's thread and may wait.
pub trait Destination: Send + 'static {
    /// Writes `bytes`, and handles the errors.
    fn write(&mut self, bytes: &[u8]);

    /// Reports that `count` byte strings are missing here, because the queue was full.
    fn report_lost(&mut self, count: u64);
}

enum Item {
    Bytes {
        bytes: Vec<u8>,
        /// Byte strings dropped since the one before.
        lost_before: u64,
    },
    /// Dropped by the thread when everything before it is written.
    Flush(#[expect(dead_code, reason = "its drop is the message")] Sender<()>),
}

/// A bounded queue and the thread that writes it. The thread ends when the queue was dropped and is written.
#[derive(Debug)]
pub struct WriteQueue {
    items: Sender<Item>,
    /// Byte strings dropped and not yet reported.
    lost: Arc<AtomicU64>,
}

impl WriteQueue {
    /// Starts a thread with the given name that writes to `destination`.
    ///
    /// # Errors
    ///
    /// The thread can't be started.
    pub fn start(name: &str, destination: impl Destination) -> io::Result<WriteQueue> {
        let (items, waiting) = channel::bounded(WRITES_WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let lost_here = Arc::clone(&lost);
        kick::spawn_unkicked(name, move || write_all(&waiting, destination, &lost_here))?;
        Ok(WriteQueue { items, lost })
    }

    /// Queues `bytes`. If the queue is full, drops them and returns false. Never waits.
    pub fn push(&self, bytes: Vec<u8>) -> bool {
        let lost_before = self.lost.swap(0, Ordering::Relaxed);
        match self.items.try_send(Item::Bytes { bytes, lost_before }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(lost_before + 1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Waits until everything that was queued before is written, but not longer than `until`. Returns the
    /// number of byte strings that are not written yet.
    pub fn flush(&self, until: Instant) -> usize {
        let (written, all_written) = channel::bounded(0);
        let queued = self.items.send_deadline(Item::Flush(written), until).is_ok();
        if queued && all_written.recv_deadline(until) == Err(RecvTimeoutError::Disconnected) {
            return 0;
        }
        // One more is being written, but a `Flush` in the queue is not one of them.
        self.items.len() + usize::from(!queued)
    }
}

/// Writes everything that arrives at `waiting`.
fn write_all(waiting: &Receiver<Item>, mut destination: impl Destination, lost: &AtomicU64) {
    sandbox::enter(Task::Writer);
    for item in waiting {
        if let Item::Bytes { bytes, lost_before } = &item {
            if *lost_before > 0 {
                destination.report_lost(*lost_before);
            }
            destination.write(bytes);
        }
        // If nothing follows for a long time, the report must not wait for it.
        if waiting.is_empty() {
            match lost.swap(0, Ordering::Relaxed) {
                0 => {}
                count => destination.report_lost(count),
            }
        }
        // A `Flush` ends here.
        drop(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A destination that waits for a permit before each write, until the sender of permits is dropped.
    struct Gated {
        permits: Receiver<()>,
        written: Arc<Mutex<Vec<String>>>,
    }

    impl Destination for Gated {
        fn write(&mut self, bytes: &[u8]) {
            let _ = self.permits.recv();
            self.written.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
        }

        fn report_lost(&mut self, count: u64) {
            self.written.lock().unwrap().push(format!("lost {count}"));
        }
    }

    type Written = Arc<Mutex<Vec<String>>>;

    fn gated() -> (WriteQueue, Sender<()>, Written) {
        let (permit, permits) = channel::unbounded();
        let written = Written::default();
        let destination = Gated { permits, written: Arc::clone(&written) };
        (WriteQueue::start("test", destination).unwrap(), permit, written)
    }

    fn push(queue: &WriteQueue, number: usize) -> bool {
        queue.push(number.to_string().into_bytes())
    }

    /// Queues one byte string and waits until the thread waits in `write`.
    fn stall(queue: &WriteQueue) {
        assert!(push(queue, 0));
        while !queue.items.is_empty() {
            std::thread::yield_now();
        }
    }

    /// Fills the queue of a stalled destination until one byte string is dropped. Returns its number.
    fn fill(queue: &WriteQueue) -> usize {
        stall(queue);
        let end = (1..).find(|&number| !push(queue, number)).unwrap();
        assert_eq!(end, WRITES_WAITING_MAX + 1);
        end
    }

    /// Generous: it passes only in a run that fails.
    fn long() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| number.to_string()).collect()
    }

    #[test]
    fn flushed_queue_is_written_whole_and_in_order() {
        let (queue, permit, written) = gated();
        drop(permit);
        let mut accepted = Vec::new();
        for number in 0..10 * WRITES_WAITING_MAX {
            if number % WRITES_WAITING_MAX == 0 {
                assert_eq!(queue.flush(long()), 0);
            }
            assert!(push(&queue, number));
            accepted.push(number.to_string());
        }
        assert_eq!(queue.flush(long()), 0);
        assert_eq!(*written.lock().unwrap(), accepted);
    }

    #[test]
    fn full_queue_drops_without_waiting_and_reports_at_the_gap() {
        let (queue, permit, written) = gated();
        let end = fill(&queue);
        assert!(!push(&queue, end + 1) && !push(&queue, end + 2));
        // Room for one more, before the queue is empty.
        permit.send(()).unwrap();
        while !push(&queue, 7777) {
            std::thread::yield_now();
        }
        drop(permit);
        assert_eq!(queue.flush(long()), 0);
        let written = written.lock().unwrap();
        let (before, after) = written.split_at(end);
        assert_eq!(before, numbers(0..end));
        let lost: usize = after[0].strip_prefix("lost ").unwrap().parse().unwrap();
        assert!(lost >= 3, "{lost}");
        assert_eq!(after[1..], ["7777"]);
    }

    #[test]
    fn loss_is_reported_when_nothing_follows() {
        let (queue, permit, written) = gated();
        let end = fill(&queue);
        drop(permit);
        assert_eq!(queue.flush(long()), 0);
        let expected = [numbers(0..end), vec!["lost 1".into()]].concat();
        assert_eq!(*written.lock().unwrap(), expected);
    }

    #[test]
    fn flush_of_a_stalled_destination_ends_and_says_what_is_left() {
        let soon = || Instant::now() + Duration::from_millis(20);
        let (queue, permit, written) = gated();
        stall(&queue);
        assert!(push(&queue, 1));
        assert_eq!(queue.flush(soon()), 2);
        assert!(written.lock().unwrap().is_empty());
        drop(permit);
        assert_eq!(queue.flush(long()), 0);
        let (queue, _permit, _) = gated();
        let end = fill(&queue);
        assert_eq!(queue.flush(soon()), end);
    }
}
