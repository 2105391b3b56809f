//! Standard output and standard error. Each can be full, closed or without a reader at any time, and that
//! must not end a VM: nothing here panics, and nothing else in the program writes to either stream.
//!
//! | what | stream | when it can't be written |
//! |---|---|---|
//! | message: what happens, for people | standard error | dropped and counted |
//! | record: what happens while a VM runs, for programs | standard output | dropped and counted |
//! | result: what a command was asked for | standard output | the command fails, unless its reader has gone |
//!
//! The macros of the standard library panic when a write fails; the lints `print_stdout` and `print_stderr`
//! keep them out. A stream that is closed when the process starts is `/dev/null` from then on: the standard
//! library opens it before `main`, so that no file of ours gets its number.
//!
//! Nothing is buffered here. A write waits for a reader that is slow, as long as the descriptor is blocking.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// Messages and records that could not be written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The last write to standard output ended within its bytes. Read and written with the stream's lock held.
static STDOUT_CUT: AtomicBool = AtomicBool::new(false);

/// The same of standard error.
static STDERR_CUT: AtomicBool = AtomicBool::new(false);

/// The `errno` of the first line of [`outln`](crate::outln) that could not be written; 0 without one.
static RESULT_ERRNO: AtomicI32 = AtomicI32::new(0);

/// Messages and records of this process that could not be written, a torn line included.
pub fn messages_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Writes `text` and a line break to standard error.
pub fn message(text: impl Display) {
    write_message(format!("{text}\n").as_bytes());
}

/// Writes `text` and a line break to standard output, where programs read what happens.
pub fn record(text: impl Display) {
    let line = format!("{text}\n");
    let stdout = io::stdout().lock();
    count_dropped(write_line(&stdout, &STDOUT_CUT, line.as_bytes(), OnFull::Fail));
}

/// Writes `text` to standard output.
///
/// # Errors
///
/// What the kernel says. That nobody reads any more is no error.
pub fn result(text: &str) -> io::Result<()> {
    match Results.write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line of a result to standard output, from the arguments of `format!`. For programs that print
/// many: they end with [`stdio::finish`](finish), which knows whether all were written.
#[macro_export]
macro_rules! outln {
    ($($argument:tt)*) => { $crate::stdio::result_line(format_args!($($argument)*)) };
}

/// What [`outln`](crate::outln) does.
pub fn result_line(text: impl Display) {
    if let Err(error) = result(&format!("{text}\n")) {
        let errno = error.raw_os_error().unwrap_or(Errno::EIO as i32);
        let _ = RESULT_ERRNO.compare_exchange(0, errno, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The end of `program`, which did what it should: a failure if a line of [`outln`](crate::outln) could not
/// be written.
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

/// Standard error for those who want a [`Write`]. It never fails: what can't be written is dropped and
/// counted, each call of `write` as one message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Messages;

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_message(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output for those who want a [`Write`]. It fails as the kernel says, also with `BrokenPipe`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Results;

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_line(&io::stdout().lock(), &STDOUT_CUT, bytes, OnFull::Wait)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_message(bytes: &[u8]) {
    let stderr = io::stderr().lock();
    count_dropped(write_line(&stderr, &STDERR_CUT, bytes, OnFull::Fail));
}

fn count_dropped(result: Result<(), Errno>) {
    if result.is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// What to do when a descriptor that does not block takes nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFull {
    Fail,
    Wait,
}

/// Writes all of `bytes`, on a new line if what was written before it is not whole (`cut`).
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

/// Writes all of `bytes`, or says how many were written before what failed.
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

    /// A pipe that takes nothing more and does not block.
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
    fn line_after_a_cut_line_begins_anew() {
        let (mut reader, writer, filled) = full_pipe();
        let cut = AtomicBool::new(false);
        // Pipes take a write in whole pages: with one page free a longer line is cut.
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
    fn result_waits_for_room_in_a_pipe_that_does_not_block() {
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
