//! [`Fifo`].

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A named pipe with a reader that reads nothing. Dropping it closes the reading end.
#[derive(Debug)]
pub struct Fifo {
    path: PathBuf,
    // Opening a pipe for writing blocks until it has a reader.
    _reader: File,
}

impl Fifo {
    /// Creates it.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn new(path: PathBuf) -> Fifo {
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe can be made");
        let mut options = OpenOptions::new();
        let reader = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path);
        Fifo { path, _reader: reader.expect("the pipe opens") }
    }

    /// Returns its path.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("paths of tests are UTF-8")
    }

    /// Fills it, so that every writer has to wait.
    ///
    /// # Panics
    ///
    /// If the pipe can't be written.
    pub fn fill(&self) {
        let mut options = OpenOptions::new();
        let writer = options.write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&self.path);
        let mut writer = writer.expect("the pipe has a reader");
        let error = (0..).find_map(|_| writer.write(&[0; 4096]).err());
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    }
}
