//! A log in a file: written and read block by block.

use super::error::LogError;
use super::log_writer_thread::LogWriterThread;
use super::orders::Orders;
use super::recorder::LogDestination;
use crate::files::output::{self, Existing};
use crate::files::{Access, input};
use crate::kvm::clock::monotonic_ns;
use logchan::dump::Dump;
use logchan::entry::Entry;
use logchan::entry_codec;
use logchan::error::BlockError;
use logchan::ids::Lane;
use logchan::limits::{BLOCK_BYTES_MAX, LOG_HEADER_BYTES_MAX};
use logchan::log_block::{BlockWriter, next_block};
use logchan::log_header::LogHeader;
use logchan::sequence::SequenceChecker;
use replication::driver::Order;
use replication::log_writer::LogSink;
use replication::verifier::LogCursor;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// At a halt of the guest, collected entries are written if the last such write was at least this long
/// ago, nanoseconds. A recorder that is killed loses at most the entries of this time, or one block, and the
/// blocks that wait for the disk.
const FLUSH_NS: u64 = 5_000_000;

/// A log file that is being written, on a thread of its own.
///
/// The recording is complete or it fails: if the disk is slower than the guest makes entries, the guest waits
/// for it. A write error is returned by a later append, or by [`finish`](LogDestination::finish).
#[derive(Debug)]
pub struct LogFile {
    writer: LogWriterThread,
    block: BlockWriter,
    bytes: u64,
    flushed_ns: u64,
    limit: Option<LogLimit>,
}

/// Ends a recording when its log is long.
#[derive(Debug)]
struct LogLimit {
    bytes: u64,
    orders: Arc<Orders>,
}

impl LogFile {
    /// Creates the file and writes its header. The file is locked until this value is dropped, so that no other
    /// recording replaces it.
    ///
    /// # Errors
    ///
    /// The file cannot be created (see [`output::create`]) or written.
    pub fn create(
        path: &Path,
        header: &LogHeader,
        existing: Existing,
        access: Access,
    ) -> Result<LogFile, LogError> {
        // Encode before an older log is replaced.
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let mut file = output::create(path, existing, access)?;
        file.write_all(&bytes)?;
        Ok(LogFile {
            writer: LogWriterThread::start(file)?,
            block: BlockWriter::new(),
            bytes: bytes.len() as u64,
            flushed_ns: monotonic_ns(),
            limit: None,
        })
    }

    /// Stops the machine of `orders` when the file has `bytes`. The log ends as any other: with what was collected,
    /// a checkpoint that is being made, and an end entry.
    #[must_use]
    pub fn stopping_at(mut self, bytes: u64, orders: Arc<Orders>) -> LogFile {
        self.limit = Some(LogLimit { bytes, orders });
        self
    }

    /// Returns whether the machine was stopped because the file is long.
    pub fn is_full(&self) -> bool {
        self.limit.as_ref().is_some_and(|limit| self.bytes >= limit.bytes)
    }

    /// Returns the length in bytes that the file has when everything is written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let was_full = self.is_full();
        let block = self.block.take_block();
        if !block.is_empty() {
            self.writer.append(block)?;
            self.bytes += block.len() as u64;
        }
        if let Some(limit) = &self.limit
            && self.is_full()
            && !was_full
        {
            limit.orders.give(Order::Stop);
        }
        Ok(())
    }
}

impl LogSink for LogFile {
    type Error = LogError;

    /// Always true: a file has no bound.
    fn has_room(&self, _lane: Lane, _bytes: usize) -> bool {
        true
    }

    fn append(&mut self, entry: &Entry<'_>) -> Result<(), LogError> {
        if self.block.needs_flush() {
            self.flush()?;
        }
        self.block.push(entry);
        Ok(())
    }
}

impl LogDestination for LogFile {
    fn idle(&mut self) -> Result<(), LogError> {
        let now = monotonic_ns();
        // A guest that halts waits for a frame, and need not wait for the disk as well.
        if now.saturating_sub(self.flushed_ns) >= FLUSH_NS && self.writer.has_room() {
            self.flushed_ns = now;
            self.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), LogError> {
        self.flush()?;
        Ok(self.writer.finish()?)
    }
}

impl Drop for LogFile {
    /// Writes what was collected: a run that ends in an error leaves a log up to that error.
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// A log file that is being read. The order of its entries is checked while reading.
#[derive(Debug)]
pub struct LogReader {
    header: LogHeader,
    file: File,
    file_bytes: u64,
    /// Bytes of the file from `window_offset` on. They hold at least one whole block if there is one.
    window: Vec<u8>,
    window_offset: u64,
    /// The current block's payload in `window`, and the start of its unread part.
    payload: Range<usize>,
    unread: usize,
    /// Length of the entry that was decoded last, bytes.
    length: usize,
    sequence: u64,
    checker: SequenceChecker,
    /// The current entry has been checked. `peek` may be called several times for one entry, but the
    /// sequence checker must see it once.
    checked: bool,
    torn: bool,
    /// The payload of the previous block, for the list of entries that led to a divergence.
    previous: Vec<u8>,
}

impl LogReader {
    /// Opens a log and reads its header.
    ///
    /// # Errors
    ///
    /// The file cannot be read (see [`input::open_trusted`]), or its header is damaged.
    pub fn open(path: &Path, access: Access) -> Result<LogReader, LogError> {
        let mut file = input::open_trusted(path, access)?;
        let file_bytes = file.metadata()?.len();
        let mut window = Vec::with_capacity(BLOCK_BYTES_MAX);
        Read::by_ref(&mut file).take(LOG_HEADER_BYTES_MAX as u64).read_to_end(&mut window)?;
        let (header, length) = LogHeader::decode(&window)?;
        file.seek(SeekFrom::Start(length as u64))?;
        window.clear();
        Ok(LogReader {
            header,
            file,
            file_bytes,
            window,
            window_offset: length as u64,
            payload: 0..0,
            unread: 0,
            length: 0,
            sequence: 0,
            checker: SequenceChecker::new(),
            checked: false,
            torn: false,
            previous: Vec::new(),
        })
    }

    /// Returns the log's header: which machine was recorded.
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// Returns the length of the file in bytes when it was opened.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Returns the offset in the file of the entry that [`LogReader::peek`] returns.
    pub fn offset(&self) -> u64 {
        self.window_offset + self.unread as u64
    }

    /// Returns the next entry without consuming it, or `None` at the end of the log, whether the log is
    /// whole or torn.
    ///
    /// # Errors
    ///
    /// The file cannot be read, a block is damaged, or the entry is invalid or out of order.
    pub fn peek(&mut self) -> Result<Option<Entry<'_>>, LogError> {
        Ok(self.decode()?.map(|(entry, _length)| entry))
    }

    /// Returns the next entry and consumes it. The errors are those of [`LogReader::peek`].
    pub fn consume_entry(&mut self) -> Result<Option<Entry<'_>>, LogError> {
        let Some((_entry, length)) = self.decode()? else { return Ok(None) };
        let start = self.unread;
        self.unread += length;
        self.checked = false;
        // The entry is decoded again because the first one borrows from the buffer before the cursor
        // moved.
        let (entry, _length) = entry_codec::decode(&self.window[start..self.payload.end])
            .expect("the same bytes decoded above");
        Ok(Some(entry))
    }

    fn decode(&mut self) -> Result<Option<(Entry<'_>, usize)>, LogError> {
        if self.unread == self.payload.end && !self.load_block()? {
            return Ok(None);
        }
        let offset = self.window_offset + self.payload.start as u64;
        let (entry, length) = entry_codec::decode(&self.window[self.unread..self.payload.end])
            .map_err(|source| LogError::Entry { offset, source })?;
        if !self.checked {
            let result = self.checker.check(&entry);
            result.map_err(|source| LogError::Sequence { offset, source })?;
            self.checked = true;
        }
        self.length = length;
        Ok(Some((entry, length)))
    }

    /// Makes the next block the current one. Returns false at the end of the log.
    fn load_block(&mut self) -> Result<bool, LogError> {
        if self.torn {
            return Ok(false);
        }
        if !self.payload.is_empty() {
            self.previous.clear();
            self.previous.extend_from_slice(&self.window[self.payload.clone()]);
        }
        self.window.drain(..self.payload.end);
        self.window_offset += self.payload.end as u64;
        (self.payload, self.unread) = (0..0, 0);
        let wanted = BLOCK_BYTES_MAX - self.window.len();
        Read::by_ref(&mut self.file).take(wanted as u64).read_to_end(&mut self.window)?;
        match next_block(&self.window, self.sequence) {
            Ok(None) => Ok(false),
            Ok(Some(block)) => {
                let end = block.encoded_length();
                self.payload = end - block.payload.len()..end;
                self.unread = self.payload.start;
                self.sequence += 1;
                Ok(true)
            }
            Err(BlockError::Torn { .. }) => {
                self.torn = true;
                Ok(false)
            }
            Err(source) => Err(LogError::Block { offset: self.window_offset, source }),
        }
    }

    /// Returns the last `count` entries up to and including the one that [`LogReader::peek`] returns, one
    /// line each.
    pub fn recent(&self, count: usize) -> Vec<String> {
        let next = match entry_codec::decode(&self.window[self.unread..self.payload.end]) {
            Ok((_entry, length)) => self.unread + length,
            Err(_end_or_damage) => self.unread,
        };
        let mut lines = Vec::new();
        for mut bytes in [&self.previous[..], &self.window[self.payload.start..next]] {
            while let Ok((entry, length)) = entry_codec::decode(bytes) {
                lines.push(Dump(&entry).to_string());
                bytes = &bytes[length..];
            }
        }
        lines.split_off(lines.len().saturating_sub(count))
    }
}

/// Entries in the report of a divergence.
const RECENT_ENTRIES: usize = 24;

impl LogCursor for LogReader {
    type Error = LogError;

    fn front(&mut self) -> Result<Option<Entry<'_>>, LogError> {
        self.peek()
    }

    fn consume(&mut self) {
        self.unread += std::mem::take(&mut self.length);
        self.checked = false;
    }

    fn position(&self) -> u64 {
        self.offset()
    }

    fn recent(&self) -> Vec<String> {
        LogReader::recent(self, RECENT_ENTRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> LogHeader {
        LogHeader {
            recorded_at_unix_s: 1,
            memory_bytes: 64 << 20,
            vcpus: 1,
            machine_schema: 1,
            nic_mac: [2, 0, 0, 0, 0, 1],
            guest_digest: 1,
            cpu_digest: 1,
            host_profile: logchan::host_profile::HostProfile::UNKNOWN,
            disks: Vec::new(),
            guest_name: String::from("guest"),
            cpu_name: String::from("CPU"),
        }
    }

    #[test]
    fn second_recording_on_a_file_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ulog");
        let mut log = LogFile::create(&path, &header(), Existing::Refuse, Access::Owner).unwrap();
        log.append(&Entry::Frame(&[7; 60])).unwrap();
        log.flush().unwrap();
        let second = LogFile::create(&path, &header(), Existing::Replace, Access::Owner);
        assert!(
            matches!(second, Err(LogError::File(crate::files::FileError::InUse))),
            "{second:?}"
        );
        log.append(&Entry::Frame(&[8; 60])).unwrap();
        log.finish().unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written.len() as u64, log.bytes());
        drop(log);
        // Nobody writes it any more. What was longer than the new log is cut off.
        drop(LogFile::create(&path, &header(), Existing::Replace, Access::Owner).unwrap());
        let again = std::fs::read(&path).unwrap();
        assert!(again.len() < written.len() && written.starts_with(&again));
    }

    #[test]
    fn file_has_the_bytes_of_a_direct_write_however_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let frame = [7; 1500];
        let entries = || (60..1060).map(|length| Entry::Frame(&frame[..length]));
        let mut direct = Vec::new();
        header().encode(&mut direct);
        let mut block = BlockWriter::new();
        for entry in entries() {
            if block.needs_flush() {
                direct.extend_from_slice(block.take_block());
            }
            block.push(&entry);
        }
        direct.extend_from_slice(block.take_block());
        for finishes in [true, false] {
            let path = folder.path().join("x.ulog");
            let mut log =
                LogFile::create(&path, &header(), Existing::Replace, Access::Owner).unwrap();
            for entry in entries() {
                log.append(&entry).unwrap();
            }
            if finishes {
                log.finish().unwrap();
                assert_eq!(log.bytes(), direct.len() as u64);
            }
            drop(log);
            assert!(std::fs::read(&path).unwrap() == direct, "finishes: {finishes}");
        }
    }
}
