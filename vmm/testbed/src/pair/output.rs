//! What a process of a pair prints: its event log, and messages for people.

use super::event::PairRecord;
use super::member::MemberOutput;
use super::network::Host;
use crate::clock::boottime_ns;
use crate::{TestbedError, VmProcess};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Number of lines kept of what a process prints besides its event log.
const TEXT_LINES_MAX: usize = 100;

/// Sizes of the writes that fill a pipe: the small one takes the room that the large one leaves.
const FILLINGS: [usize; 2] = [4096, 1];

/// The threads that read a process's output. They end with the process.
#[derive(Debug)]
pub(super) struct Output {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

/// What the readers share with the owner of the process.
#[derive(Debug)]
struct Shared {
    host: Host,
    /// Lines that are not records, the newest last.
    text: Mutex<VecDeque<String>>,
    /// Takes every line.
    log: Option<File>,
    /// The readers read nothing.
    is_stalled: Mutex<bool>,
    resumed: Condvar,
}

impl Output {
    /// Starts to read the pipes of `process`, which runs on `host`. Sends its records to `send`, and writes
    /// every line to the file `log` if there is one.
    ///
    /// # Errors
    ///
    /// If the file can't be created.
    pub(super) fn read(
        process: &mut VmProcess,
        host: Host,
        log: Option<&Path>,
        send: impl Fn(MemberOutput) + Send + 'static,
    ) -> Result<Output, TestbedError> {
        let open = |path: &Path| {
            let opened = OpenOptions::new().append(true).create(true).open(path);
            opened.map_err(TestbedError::client(format!("opening {}", path.display())))
        };
        let shared = Arc::new(Shared {
            host,
            text: Mutex::default(),
            log: log.map(open).transpose()?,
            is_stalled: Mutex::new(false),
            resumed: Condvar::new(),
        });
        let (stdout, stderr) = process.take_pipes();
        let mut readers = Vec::new();
        if let Some(stdout) = stdout {
            let shared = Arc::clone(&shared);
            readers.push(std::thread::spawn(move || {
                shared.read_lines(stdout, |line| match serde_json::from_str::<PairRecord>(&line) {
                    Ok(record) => send(MemberOutput::Record { record, line }),
                    Err(_) => shared.keep(line),
                });
                send(MemberOutput::End);
            }));
        }
        if let Some(stderr) = stderr {
            let shared = Arc::clone(&shared);
            let read = move || shared.read_lines(stderr, |line| shared.keep(line));
            readers.push(std::thread::spawn(read));
        }
        Ok(Output { shared, readers })
    }

    /// Returns the last hundred lines that are not records, the oldest first.
    pub(super) fn text_lines(&self) -> Vec<String> {
        self.shared.text().iter().cloned().collect()
    }

    /// Returns the last line that is not a record.
    pub(super) fn last_text(&self) -> Option<String> {
        self.shared.text().back().cloned()
    }

    /// Reads nothing more until [`resume`](Self::resume), and fills the pipes of the process, whose id is
    /// `pid`, so that it can write nothing more.
    ///
    /// # Errors
    ///
    /// If a pipe can't be filled.
    pub(super) fn stall(&self, pid: u32) -> Result<(), TestbedError> {
        *self.shared.is_stalled() = true;
        for descriptor in [1, 2] {
            let path = format!("/proc/{pid}/fd/{descriptor}");
            fill(Path::new(&path)).map_err(TestbedError::client(format!("filling {path}")))?;
        }
        Ok(())
    }

    /// Ends what [`stall`](Self::stall) began.
    pub(super) fn resume(&self) {
        *self.shared.is_stalled() = false;
        self.shared.resumed.notify_all();
    }

    /// Waits until all output is read. The process must have ended.
    pub(super) fn finish(&mut self) {
        self.resume();
        for reader in self.readers.drain(..) {
            // The reader ends because its pipe has no writer any more. A panic was reported already.
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn text(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.text.lock().expect("no thread panics while it holds the lock")
    }

    fn is_stalled(&self) -> MutexGuard<'_, bool> {
        self.is_stalled.lock().expect("no thread panics while it holds the lock")
    }

    fn wait_while_stalled(&self) {
        let stalled = self.is_stalled();
        let resumed = self.resumed.wait_while(stalled, |is_stalled| *is_stalled);
        drop(resumed.expect("no thread panics while it holds the lock"));
    }

    /// Calls `take` with every line until the end of the pipe. Blank lines are those of [`fill`].
    fn read_lines(&self, pipe: impl Read, mut take: impl FnMut(String)) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while let Ok(1..) = pipe.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            line.clear();
            if !text.is_empty() {
                self.log(&text);
                take(text);
            }
            self.wait_while_stalled();
        }
    }

    fn log(&self, line: &str) {
        if let Some(mut log) = self.log.as_ref() {
            // The log is an aid after a failure; nothing depends on it.
            let _ = log.write_all(format!("{} {line}\n", boottime_ns()).as_bytes());
        }
    }

    fn keep(&self, line: String) {
        tracing::info!("{}: {line}", self.host);
        let mut text = self.text();
        if text.len() == TEXT_LINES_MAX {
            text.pop_front();
        }
        text.push_back(line);
    }
}

/// Fills the pipe at `path` with line breaks.
fn fill(path: &Path) -> std::io::Result<()> {
    let mut pipe = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    for bytes in FILLINGS {
        loop {
            match pipe.write(&vec![b'\n'; bytes]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
