//! [`LogWriterThread`]: writes the blocks of a log file on a thread of its own.

use crate::kvm::kick;
use crate::limits::LOG_BLOCKS_WAITING_MAX;
use crate::sandbox::{self, Task};
use crossbeam::channel::{self, Receiver, Sender};
use logchan::limits::BLOCK_BYTES_MAX;
use std::io::{self, Write};
use std::thread::JoinHandle;

/// A thread that appends blocks to a file, and the bounded queue to it.
///
/// A recording is complete or it fails. Therefore no block is ever dropped: when the queue is full,
/// [`append`](Self::append) waits, and a disk that is too slow slows the guest down.
///
/// The buffers of the queue are allocated once. They go around: `append` fills an empty one, the thread writes
/// it and returns it.
#[derive(Debug)]
pub(super) struct LogWriterThread {
    /// `None` after [`finish`](Self::finish) or an error.
    blocks: Option<Sender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    /// `None` when its result was returned. The thread ends at the first error, or after `finish`.
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl LogWriterThread {
    /// Starts a thread that writes to `file`.
    ///
    /// # Errors
    ///
    /// The thread can't be started.
    pub(super) fn start(mut file: impl Write + Send + 'static) -> io::Result<LogWriterThread> {
        let (blocks, waiting) = channel::bounded::<Vec<u8>>(LOG_BLOCKS_WAITING_MAX);
        let (written, empty) = channel::bounded(LOG_BLOCKS_WAITING_MAX);
        for _ in 0..LOG_BLOCKS_WAITING_MAX {
            written.send(Vec::with_capacity(BLOCK_BYTES_MAX)).expect("the receiver is here");
        }
        let write = move || {
            sandbox::enter(Task::Writer);
            for mut block in waiting {
                file.write_all(&block)?;
                block.clear();
                // Fails when the recorder has finished and needs no buffer any more.
                let _ = written.send(block);
            }
            Ok(())
        };
        let thread = kick::spawn_unkicked("log", write)?;
        Ok(LogWriterThread { blocks: Some(blocks), empty, thread: Some(thread) })
    }

    /// Queues `block`. Waits while the queue is full.
    ///
    /// # Errors
    ///
    /// A write of an earlier block has failed.
    pub(super) fn append(&mut self, block: &[u8]) -> io::Result<()> {
        let Some(blocks) = &self.blocks else { return Err(self.failure()) };
        let Ok(mut buffer) = self.empty.recv() else { return Err(self.failure()) };
        buffer.extend_from_slice(block);
        blocks.send(buffer).map_err(|_disconnected| self.failure())
    }

    /// Returns whether [`append`](Self::append) would not wait.
    pub(super) fn has_room(&self) -> bool {
        !self.empty.is_empty()
    }

    /// Waits until all blocks are written. No block may follow.
    ///
    /// # Errors
    ///
    /// A write has failed, and no call has returned its error yet.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.blocks = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }

    /// Returns why the thread has ended.
    fn failure(&mut self) -> io::Error {
        let ended = || io::Error::other("no block can follow an error or the end of the log");
        self.finish().err().unwrap_or_else(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// A file that waits for a permit before each write, until the sender of permits is dropped, and that is
    /// full after `room` writes.
    #[derive(Clone)]
    struct Gated {
        permits: Receiver<()>,
        room: usize,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.permits.recv();
            self.room = self.room.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated(room: usize) -> (Gated, Sender<()>) {
        let (permit, permits) = channel::unbounded();
        (Gated { permits, room, written: Arc::default() }, permit)
    }

    fn block(number: usize) -> Vec<u8> {
        vec![number as u8; number * 1000 + 1]
    }

    const COUNT: usize = 5 * LOG_BLOCKS_WAITING_MAX;

    #[test]
    fn append_waits_only_while_the_queue_is_full_and_loses_nothing() {
        let (file, permit) = gated(usize::MAX);
        let mut thread = LogWriterThread::start(file.clone()).unwrap();
        // Without a permit nothing is written, and yet these return.
        for number in 0..LOG_BLOCKS_WAITING_MAX {
            assert!(thread.has_room());
            thread.append(&block(number)).unwrap();
        }
        assert!(!thread.has_room() && file.written.lock().unwrap().is_empty());
        let (appended, count) = channel::unbounded();
        let appender = std::thread::spawn(move || {
            for number in LOG_BLOCKS_WAITING_MAX..COUNT {
                thread.append(&block(number)).unwrap();
                appended.send(()).unwrap();
            }
            thread
        });
        assert!(count.recv_timeout(Duration::from_millis(20)).is_err());
        permit.send(()).unwrap();
        count.recv().unwrap();
        assert!(count.recv_timeout(Duration::from_millis(20)).is_err());
        drop(permit);
        appender.join().unwrap().finish().unwrap();
        let direct = (0..COUNT).map(block).collect::<Vec<_>>().concat();
        assert!(*file.written.lock().unwrap() == direct);
    }

    #[test]
    fn write_error_is_returned_once_by_a_later_append() {
        let (file, permit) = gated(2);
        drop(permit);
        let mut thread = LogWriterThread::start(file.clone()).unwrap();
        let error = (0..COUNT).find_map(|number| thread.append(&block(number)).err());
        // At the latest when every buffer was used.
        assert_eq!(error.unwrap().kind(), io::ErrorKind::StorageFull);
        assert_eq!(*file.written.lock().unwrap(), [block(0), block(1)].concat());
        assert!(thread.finish().is_ok() && thread.append(&block(0)).is_err());
    }

    #[test]
    fn write_error_of_the_last_block_is_returned_by_finish() {
        let (file, permit) = gated(0);
        let mut thread = LogWriterThread::start(file).unwrap();
        thread.append(&block(0)).unwrap();
        drop(permit);
        assert_eq!(thread.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
