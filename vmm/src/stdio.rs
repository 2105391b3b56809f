//! Standard output and standard error. Each can be full, closed or without a reader at any time, and that
//! must not end a VM. Therefore nothing here panics, and nothing else in the program writes to either stream.
//!
//! | kind | stream | if it can't be written |
//! |---|---|---|
//! | message: progress and failures, for people | standard error | dropped and counted |
//! | record: an event of a running VM, for programs | standard output | dropped and counted |
//! | result: the output of a command | standard output | the command fails, unless the reader has closed the pipe |
//!
//! The macros of the standard library panic if a write fails. The lints `print_stdout` and `print_stderr`
//! forbid them. If a stream is closed when the process starts, the standard library opens `/dev/null` in its
//! place before `main`, so that no file of this program gets its descriptor number.
//!
//! In a process that runs a live VM, a reader that stalls (a pipe that nobody reads, a stopped terminal) must
//! not stop the VM. After [`start_writer_threads`], messages and records therefore go through a bounded queue
//! for each stream to a thread for each stream, and a full queue drops them. A message on standard error says
//! where and how many. [`flush`] writes the rest at the end of the process. Results do not go through the queue,
//! because the command waits for their reader.
//!
//! If standard error is the journal of systemd, each line of a message begins with its priority (sd-daemon(3)). The console
//! of a guest is a message, too: so a guest that writes such a prefix chooses no priority.
//!
//! In every other process nothing is buffered. If the descriptor is blocking, a write waits for a slow reader.

use crate::kvm::clock::monotonic_ns;
use crate::message_limit::MessageLimit;
use crate::write_queue::{Destination, FLUSH_MAX, WriteQueue};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Instant;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Messages and records that could not be written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Whether the last write to standard output was incomplete. Accessed only with the stream's lock held.
static STDOUT_CUT: AtomicBool = AtomicBool::new(false);

/// Whether the last write to standard error was incomplete. Accessed only with the stream's lock held.
static STDERR_CUT: AtomicBool = AtomicBool::new(false);

/// The `errno` of the first [`outln`](crate::outln) that failed; 0 if none did.
static RESULT_ERRNO: AtomicI32 = AtomicI32::new(0);

/// Whether messages that may repeat are limited.
static IS_LIMITED: AtomicBool = AtomicBool::new(false);

/// Whether standard error is the journal of systemd.
static IS_JOURNAL: AtomicBool = AtomicBool::new(false);

/// The limit of messages that may repeat.
static LIMIT: MessageLimit = MessageLimit::new();

/// The queues of the two streams, in a process that runs a live VM.
static QUEUES: OnceLock<Queues> = OnceLock::new();

struct Queues {
    output: WriteQueue,
    error: WriteQueue,
}

/// Starts a writer thread for each stream. From here on [`message`] and [`record`] never wait.
///
/// # Errors
///
/// A thread can't be started.
pub fn start_writer_threads() -> io::Result<()> {
    let output = WriteQueue::start("stdout", Stream::Output)?;
    let error = WriteQueue::start("stderr", Stream::Error)?;
    assert!(
        QUEUES.set(Queues { output, error }).is_ok(),
        "a process starts its writer threads once"
    );
    Ok(())
}

/// Writes what is queued. Gives up after [`FLUSH_MAX`], because a reader may have stalled.
pub fn flush() {
    if let Some(Queues { output, error }) = QUEUES.get() {
        let until = Instant::now() + FLUSH_MAX;
        output.flush(until);
        error.flush(until);
    }
}

/// Returns the number of messages and records that could not be written, including incomplete lines.
pub fn messages_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// How urgent a message is, by its number in syslog(3). The journal shows and filters messages by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Priority {
    /// A command has failed.
    Error = 3,
    /// An operator should look at it.
    Warning = 4,
    /// The ordinary course of things.
    Info = 6,
    /// For developers.
    Debug = 7,
}

/// Finds out whether standard error is the journal, as `JOURNAL_STREAM` says (systemd.exec(5)). To be called before the
/// sandbox forbids to look at files.
pub fn detect_journal() {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let ours = fstat(io::stderr()).map(|file| format!("{}:{}", file.st_dev, file.st_ino));
    IS_JOURNAL.store(named.is_some() && named == ours.ok(), Ordering::Relaxed);
}

/// Writes `text` and a line break to standard error.
pub fn message(text: impl Display) {
    message_at(Priority::Info, text);
}

/// Writes `text` as [`message`] does: an operator should look at it.
pub fn warning(text: impl Display) {
    message_at(Priority::Warning, text);
}

/// Writes `text` as [`message`] does: a command has failed.
pub fn failure(text: impl Display) {
    message_at(Priority::Error, text);
}

/// Writes `text` as [`message`] does.
pub fn message_at(priority: Priority, text: impl Display) {
    put_message(priority, format!("{text}\n").into_bytes());
}

fn put_message(priority: Priority, bytes: Vec<u8>) {
    Stream::Error.put(for_error(priority, bytes));
}

/// Returns `bytes` as standard error gets them.
fn for_error(priority: Priority, bytes: Vec<u8>) -> Vec<u8> {
    match IS_JOURNAL.load(Ordering::Relaxed) {
        true => prefixed(priority, &bytes),
        false => bytes,
    }
}

/// Puts `priority` in front of each line, and ends the last one: a line of the journal has one priority.
fn prefixed(priority: Priority, bytes: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        lines.extend_from_slice(format!("<{}>", priority as u8).as_bytes());
        lines.extend_from_slice(line);
    }
    if !lines.is_empty() && !lines.ends_with(b"\n") {
        lines.push(b'\n');
    }
    lines
}

/// From here on, [`repeatable_message_at`] and the warnings of the log leave messages out if there are too many.
pub fn limit_messages() {
    IS_LIMITED.store(true, Ordering::Relaxed);
}

/// Writes `text` as [`message`] does, unless too many messages that may repeat came before it. How many were left out is
/// said before the next one.
pub fn repeatable_message_at(priority: Priority, text: impl Display) {
    if let Some(left_out) = admitted() {
        tell_left_out(left_out);
        message_at(priority, text);
    }
}

fn admitted() -> Option<u64> {
    match IS_LIMITED.load(Ordering::Relaxed) {
        true => LIMIT.admit(monotonic_ns()),
        false => Some(0),
    }
}

fn tell_left_out(count: u64) {
    if count > 0 {
        warning(format_args!(
            "understudy: {count} messages were left out here, because too many came: see 'understudy status'"
        ));
    }
}

/// Writes the record `text` and a line break to standard output.
pub fn record(text: impl Display) {
    Stream::Output.put(format!("{text}\n"));
}

/// Writes `text` to standard output, after everything that is queued.
///
/// # Errors
///
/// The error of the system call. A reader that has closed the pipe is not an error.
pub fn result(text: &str) -> io::Result<()> {
    flush();
    match Results.write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line of a result to standard output. Takes the arguments of `format!`. A program that uses it
/// ends with [`stdio::finish`](finish), which reports whether all lines were written.
#[macro_export]
macro_rules! outln {
    ($($argument:tt)*) => { $crate::stdio::result_line(format_args!($($argument)*)) };
}

/// Implements [`outln`](crate::outln): writes a line and remembers the first failure.
pub fn result_line(text: impl Display) {
    if let Err(error) = result(&format!("{text}\n")) {
        let errno = error.raw_os_error().unwrap_or(Errno::EIO as i32);
        let _ = RESULT_ERRNO.compare_exchange(0, errno, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Returns the exit code of `program`, whose work succeeded: a failure if a line of [`outln`](crate::outln)
/// could not be written, which is reported on standard error.
pub fn finish(program: &str) -> ExitCode {
    match RESULT_ERRNO.load(Ordering::Relaxed) {
        0 => ExitCode::SUCCESS,
        errno => {
            let error = io::Error::from_raw_os_error(errno);
            message(format_args!("{program}: can't write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Standard error as a [`Write`]. It never fails: what can't be queued or written is dropped and counted, each
/// call of `write` as one message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Messages;

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        put_message(Priority::Info, bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the lines of the log, [`tracing`]'s, to standard error. Warnings may repeat, see [`limit_messages`]; what the
/// user asked for, as the frames of `--trace-frames`, is not limited.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogLines;

/// Standard error for one line of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogLine {
    priority: Priority,
    is_repeatable: bool,
}

impl MakeWriter<'_> for LogLines {
    type Writer = LogLine;

    fn make_writer(&self) -> LogLine {
        LogLine { priority: Priority::Info, is_repeatable: false }
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> LogLine {
        let priority = match *metadata.level() {
            Level::ERROR => Priority::Error,
            Level::WARN => Priority::Warning,
            Level::INFO => Priority::Info,
            Level::DEBUG | Level::TRACE => Priority::Debug,
        };
        LogLine { priority, is_repeatable: *metadata.level() <= Level::WARN }
    }
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left_out = if self.is_repeatable { admitted() } else { Some(0) };
        if let Some(left_out) = left_out {
            tell_left_out(left_out);
            put_message(self.priority, bytes.to_vec());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output as a [`Write`]. It returns the errors of the system call, including `BrokenPipe`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Results;

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Stream::Output.write_line(bytes, OnFull::Wait)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Stream {
    Output,
    Error,
}

impl Stream {
    /// Queues `bytes`, or writes them if the stream has no queue. What can't be queued or written is counted.
    fn put(self, bytes: impl AsRef<[u8]> + Into<Vec<u8>>) {
        let is_done = match (QUEUES.get(), self) {
            (None, _) => self.write_line(bytes.as_ref(), OnFull::Fail).is_ok(),
            (Some(queues), Stream::Output) => queues.output.push(bytes.into()),
            (Some(queues), Stream::Error) => queues.error.push(bytes.into()),
        };
        count_unless(is_done);
    }

    fn write_line(self, bytes: &[u8], on_full: OnFull) -> Result<(), Errno> {
        match self {
            Stream::Output => write_line(&io::stdout().lock(), &STDOUT_CUT, bytes, on_full),
            Stream::Error => write_line(&io::stderr().lock(), &STDERR_CUT, bytes, on_full),
        }
    }
}

/// The streams' use on their writer threads.
impl Destination for Stream {
    fn write(&mut self, bytes: &[u8]) {
        count_unless(self.write_line(bytes, OnFull::Wait).is_ok());
    }

    fn report_lost(&mut self, count: u64) {
        match self {
            Stream::Output => warning(format_args!(
                "understudy: {count} lines for standard output were lost: it was not read in time"
            )),
            Stream::Error => {
                let text = "lines were lost here: standard error was not read in time";
                let line = format!("understudy: {count} {text}\n").into_bytes();
                self.write(&for_error(Priority::Warning, line));
            }
        }
    }
}

fn count_unless(is_written: bool) {
    if !is_written {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// What to do when a non-blocking descriptor is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFull {
    Fail,
    Wait,
}

/// Writes all of `bytes`. Begins a new line first if the write before was incomplete (`cut`).
fn write_line(
    stream: &impl AsFd,
    cut: &AtomicBool,
    bytes: &[u8],
    on_full: OnFull,
) -> Result<(), Errno> {
    if cut.load(Ordering::Relaxed) {
        write_bytes(stream, b"\n", on_full).map_err(|(_written, errno)| errno)?;
        cut.store(false, Ordering::Relaxed);
    }
    write_bytes(stream, bytes, on_full).map_err(|(written, errno)| {
        cut.store(written > 0, Ordering::Relaxed);
        errno
    })
}

/// Writes all of `bytes`. The error has the number of bytes that were written before the failure.
fn write_bytes(stream: &impl AsFd, bytes: &[u8], on_full: OnFull) -> Result<(), (usize, Errno)> {
    let mut written = 0;
    while written < bytes.len() {
        match nix::unistd::write(stream, &bytes[written..]) {
            Ok(0) => return Err((written, Errno::EIO)),
            Ok(count) => written += count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if on_full == OnFull::Wait => {
                let mut wanted = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut wanted, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err((written, errno)),
                }
            }
            Err(errno) => return Err((written, errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::fs::OpenOptions;
    use std::io::{PipeReader, PipeWriter, Read, pipe};

    /// Returns a full, non-blocking pipe and the number of bytes in it.
    fn full_pipe() -> (PipeReader, PipeWriter, usize) {
        let (reader, mut writer) = pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut filled = 0;
        while let Ok(count) = writer.write(&[b'.'; 4096]) {
            filled += count;
        }
        (reader, writer, filled)
    }

    #[test]
    fn write_to_a_full_device_is_an_error() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(write_bytes(&full, b"text\n", OnFull::Wait), Err((0, Errno::ENOSPC)));
    }

    #[test]
    fn write_without_a_reader_is_an_error() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(write_bytes(&writer, b"text\n", OnFull::Fail), Err((0, Errno::EPIPE)));
    }

    #[test]
    fn line_after_an_incomplete_line_starts_on_a_new_line() {
        let (mut reader, writer, filled) = full_pipe();
        let cut = AtomicBool::new(false);
        // Pipes store writes in whole pages: with one page free, a longer line is written incompletely.
        reader.read_exact(&mut [0; 4096]).unwrap();
        let long = [b'x'; 8192];
        assert_eq!(write_line(&writer, &cut, &long, OnFull::Fail), Err(Errno::EAGAIN));
        assert_eq!(write_line(&writer, &cut, b"lost\n", OnFull::Fail), Err(Errno::EAGAIN));
        let mut read = vec![0; filled];
        reader.read_exact(&mut read).unwrap();
        assert!(read.ends_with(&[b'x'; 4096]));
        assert_eq!(write_line(&writer, &cut, b"one\n", OnFull::Fail), Ok(()));
        assert_eq!(write_line(&writer, &cut, b"two\n", OnFull::Fail), Ok(()));
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "\none\ntwo\n");
    }

    #[test]
    fn each_line_for_the_journal_has_one_priority_whatever_it_contains() {
        let lines = |bytes: &[u8]| String::from_utf8(prefixed(Priority::Info, bytes)).unwrap();
        assert_eq!(lines(b"one\n"), "<6>one\n");
        assert_eq!(lines(b"<0>one\ntwo"), "<6><0>one\n<6>two\n");
        assert_eq!(lines(b""), "");
        assert_eq!(prefixed(Priority::Warning, b"x\n"), b"<4>x\n");
    }

    #[test]
    fn result_waits_for_room_in_a_non_blocking_pipe() {
        let (mut reader, writer, filled) = full_pipe();
        let reading = std::thread::spawn(move || {
            let mut read = vec![0; filled + 5];
            reader.read_exact(&mut read).unwrap();
            read
        });
        assert_eq!(write_bytes(&writer, b"text\n", OnFull::Wait), Ok(()));
        assert!(reading.join().unwrap().ends_with(b"text\n"));
    }
}
