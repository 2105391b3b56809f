//! A log in a file: written block by block as it grows, read block by block.

use super::error::LogError;
use super::recorder::LogSink;
use crate::kvm::clock::monotonic_ns;
use logchan::dump::Dump;
use logchan::entry::Entry;
use logchan::entry_codec;
use logchan::error::BlockError;
use logchan::limits::{BLOCK_BYTES_MAX, LOG_HEADER_BYTES_MAX};
use logchan::log_block::{BlockWriter, next_block};
use logchan::log_header::LogHeader;
use logchan::sequence::SequenceChecker;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

/// Entries collected for this long are written at the guest's next halt, nanoseconds. What a
/// killed recorder can lose is this, or one block.
const FLUSH_NS: u64 = 5_000_000;

/// A log that is being written.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    block: BlockWriter,
    bytes: u64,
    flushed_ns: u64,
}

impl LogFile {
    /// Creates the file and writes its header; an existing one is an error unless `overwrite`.
    pub fn create(path: &Path, header: &LogHeader, overwrite: bool) -> Result<LogFile, LogError> {
        // Before an older log is given up.
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let mut options = OpenOptions::new();
        options.write(true);
        if overwrite {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        let mut file = options.open(path)?;
        file.write_all(&bytes)?;
        Ok(LogFile {
            file,
            block: BlockWriter::new(),
            bytes: bytes.len() as u64,
            flushed_ns: monotonic_ns(),
        })
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let block = self.block.take_block();
        self.file.write_all(block)?;
        self.bytes += block.len() as u64;
        Ok(())
    }
}

impl LogSink for LogFile {
    fn append(&mut self, entry: &Entry<'_>) -> Result<(), LogError> {
        if self.block.needs_flush() {
            self.flush()?;
        }
        self.block.push(entry);
        Ok(())
    }

    fn idle(&mut self) -> Result<(), LogError> {
        let now = monotonic_ns();
        if now.saturating_sub(self.flushed_ns) >= FLUSH_NS {
            self.flushed_ns = now;
            self.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), LogError> {
        self.flush()
    }
}

impl Drop for LogFile {
    /// A run that ends in an error has still been recorded up to it.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// A log that is being read, its order checked on the way.
#[derive(Debug)]
pub struct LogReader {
    header: LogHeader,
    file: File,
    file_bytes: u64,
    /// Bytes of the file from `window_offset` on, at least one whole block if there is one.
    window: Vec<u8>,
    window_offset: u64,
    /// The current block's payload in `window`, and what of it is unread.
    payload: Range<usize>,
    unread: usize,
    sequence: u64,
    checker: SequenceChecker,
    /// The current entry was checked: `peek` may be called any number of times.
    checked: bool,
    torn: bool,
    /// The payload of the block before, for the entries that led up to a divergence.
    previous: Vec<u8>,
}

impl LogReader {
    /// Opens a log and reads its header.
    pub fn open(path: &Path) -> Result<LogReader, LogError> {
        let mut file = File::open(path)?;
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
            sequence: 0,
            checker: SequenceChecker::new(),
            checked: false,
            torn: false,
            previous: Vec::new(),
        })
    }

    /// What was recorded.
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// Bytes in the file when it was opened.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Offset in the file of the entry that [`LogReader::peek`] gives.
    pub fn offset(&self) -> u64 {
        self.window_offset + self.unread as u64
    }

    /// The log stops in the middle of a block.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// The next entry; `None` where the log stops, be it whole or torn.
    pub fn peek(&mut self) -> Result<Option<Entry<'_>>, LogError> {
        Ok(self.decode()?.map(|(entry, _length)| entry))
    }

    /// Takes the next entry.
    pub fn consume(&mut self) -> Result<Option<Entry<'_>>, LogError> {
        let Some((_entry, length)) = self.decode()? else { return Ok(None) };
        let start = self.unread;
        self.unread += length;
        self.checked = false;
        // Decoded again to tie the entry to the buffer after the cursor has moved.
        let (entry, _length) = entry_codec::decode(&self.window[start..self.payload.end])
            .expect("it decoded a moment ago");
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
        Ok(Some((entry, length)))
    }

    /// Makes the next block the current one; false at the end of the log.
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

    /// The last `count` entries up to and including the one [`LogReader::peek`] gives, as lines.
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
