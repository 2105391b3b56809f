//! [`LoopbackPort`]: two ports connected in memory, for tests of users of a [`FramePort`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::port::{FramePort, PortError, Wake, assert_receive_buffer, length_fits};

/// Maximum number of frames in a direction. Further frames are dropped, as in the queue of a real link.
pub const QUEUE_FRAMES_MAX: usize = 1024;

/// One direction of the link.
#[derive(Default)]
struct Line {
    queue: Mutex<VecDeque<Vec<u8>>>,
    /// Length of `queue`, so that `has_frame` takes no lock.
    length: AtomicUsize,
    arrived: Condvar,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        // The queue holds only complete frames even if a test thread panicked, so poisoning is harmless.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of an in-memory link. The other end receives the frames that this end flushes, in order.
/// Frames beyond [`QUEUE_FRAMES_MAX`] are dropped and counted. Signals do not interrupt a wait.
pub struct LoopbackPort {
    incoming: Arc<Line>,
    outgoing: Arc<Line>,
    queued: Vec<Vec<u8>>,
    dropped: u64,
}

/// Creates the two ends of a link.
pub fn pair() -> (LoopbackPort, LoopbackPort) {
    let (a, b) = (Arc::new(Line::default()), Arc::new(Line::default()));
    let end = |incoming: &Arc<Line>, outgoing: &Arc<Line>| LoopbackPort {
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        queued: Vec::new(),
        dropped: 0,
    };
    (end(&a, &b), end(&b, &a))
}

impl LoopbackPort {
    /// Frames sent by this end that were dropped because of their length or a full queue.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl FramePort for LoopbackPort {
    fn has_frame(&self) -> bool {
        self.incoming.length.load(Ordering::Acquire) > 0
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        assert_receive_buffer(buffer);
        let mut queue = self.incoming.lock();
        let Some(frame) = queue.pop_front() else { return Ok(None) };
        self.incoming.length.store(queue.len(), Ordering::Release);
        buffer[..frame.len()].copy_from_slice(&frame);
        Ok(Some(frame.len()))
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        if length_fits(frame.len()) {
            self.queued.push(frame.to_vec());
        } else {
            self.dropped += 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        let mut queue = self.outgoing.lock();
        for frame in self.queued.drain(..) {
            if queue.len() < QUEUE_FRAMES_MAX {
                queue.push_back(frame);
            } else {
                self.dropped += 1;
            }
        }
        self.outgoing.length.store(queue.len(), Ordering::Release);
        self.outgoing.arrived.notify_one();
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        let deadline = timeout.map(|t| Instant::now() + t);
        let mut queue = self.incoming.lock();
        while queue.is_empty() {
            queue = match deadline {
                None => self.incoming.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(Wake::Timeout);
                    }
                    let waited = self.incoming.arrived.wait_timeout(queue, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Ok(Wake::Frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::FRAME_MAX;

    #[test]
    fn frames_arrive_in_order_after_flush() {
        let (mut a, mut b) = pair();
        let mut buffer = [0; FRAME_MAX];
        a.send(&[1; 60]).unwrap();
        a.send(&[2; 14]).unwrap();
        assert!(!b.has_frame());
        a.flush().unwrap();
        assert!(b.has_frame());
        assert_eq!(b.receive(&mut buffer).unwrap(), Some(60));
        assert_eq!(b.receive(&mut buffer).unwrap(), Some(14));
        assert_eq!(buffer[..14], [2; 14]);
        assert_eq!(b.receive(&mut buffer).unwrap(), None);
        assert!(!a.has_frame());
    }

    #[test]
    fn bad_lengths_and_overflow_are_counted() {
        let (mut a, _b) = pair();
        a.send(&[0; 13]).unwrap();
        a.send(&[0; FRAME_MAX + 1]).unwrap();
        for _ in 0..=QUEUE_FRAMES_MAX {
            a.send(&[0; 14]).unwrap();
        }
        a.flush().unwrap();
        assert_eq!(a.dropped(), 3);
    }

    #[test]
    fn wait_ends_for_a_frame_from_another_thread_and_at_its_timeout() {
        let (mut a, mut b) = pair();
        assert_eq!(b.wait(Some(Duration::from_millis(1))).unwrap(), Wake::Timeout);
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            a.send(&[7; 20]).unwrap();
            a.flush().unwrap();
        });
        assert_eq!(b.wait(None).unwrap(), Wake::Frame);
        sender.join().unwrap();
    }
}
