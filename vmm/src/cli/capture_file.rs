//! [`CaptureFile`]: the file of `--pcap`, written on a thread of its own.

use crate::files::output::{self, Existing};
use crate::files::{Access, FileError};
use crate::write_queue::{Destination, FLUSH_MAX, WriteQueue};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A capture file. It takes one record of the capture with each `write`, which neither waits nor fails. What
/// can't be written is counted and reported when this is dropped.
pub(super) struct CaptureFile {
    queue: WriteQueue,
    path: PathBuf,
    /// Number of writes: the header of the file and each frame.
    writes: u64,
    /// Writes that were dropped.
    lost: Arc<AtomicU64>,
}

/// The file, on the queue's thread.
struct Writer {
    /// `None` after a write error: the file ends with a part of a record, after which nothing can follow.
    file: Option<File>,
    lost: Arc<AtomicU64>,
    has_warned: bool,
}

impl CaptureFile {
    /// Creates the file, or replaces it.
    ///
    /// # Errors
    ///
    /// If that fails, or the thread can't be started.
    pub(super) fn create(path: &Path, access: Access) -> Result<CaptureFile, FileError> {
        let file = Some(output::create(path, Existing::Replace, access)?);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { file, lost: Arc::clone(&lost), has_warned: false };
        let queue = WriteQueue::start("pcap", writer)?;
        Ok(CaptureFile { queue, path: path.to_owned(), writes: 0, lost })
    }
}

impl Write for CaptureFile {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        if !self.queue.push(record.to_vec()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for CaptureFile {
    fn drop(&mut self) {
        let unwritten = self.queue.flush(Instant::now() + FLUSH_MAX) as u64;
        // If the header, which is written first, is lost, so is every frame.
        let frames = self.writes.saturating_sub(1);
        let lost = (self.lost.load(Ordering::Relaxed) + unwritten).min(frames);
        if lost > 0 {
            let path = self.path.display();
            tracing::warn!(
                "--pcap: {lost} of {frames} frames are missing in {path}: its disk was too slow or full"
            );
        }
    }
}

impl Writer {
    fn warn_once(&mut self, why: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!("--pcap: frames are missing in the file: {why}");
        }
    }
}

impl Destination for Writer {
    fn write(&mut self, record: &[u8]) {
        let Some(file) = &mut self.file else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Err(error) = file.write_all(record) {
            self.file = None;
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.warn_once(&format!("{error}: the capture ends here"));
        }
    }

    /// `CaptureFile` has counted them.
    fn report_lost(&mut self, _count: u64) {
        self.warn_once("its disk is too slow");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_error_loses_frames_and_is_no_error_of_the_port() {
        let mut capture = CaptureFile::create(Path::new("/dev/full"), Access::Owner).unwrap();
        for record in [&[0; 24][..], &[0; 76], &[0; 76]] {
            capture.write_all(record).unwrap();
        }
        assert_eq!(capture.queue.flush(Instant::now() + FLUSH_MAX * 600), 0);
        assert_eq!((capture.writes, capture.lost.load(Ordering::Relaxed)), (3, 3));
    }
}
