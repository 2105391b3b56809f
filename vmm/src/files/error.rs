//! [`FileError`]: what is wrong with a file.

use std::io;

/// Why a file can't be used. The caller adds its path. No message contains any part of the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file does not exist.
    #[error("does not exist")]
    Missing,
    /// The file exists and must not be replaced.
    #[error("exists already")]
    Exists,
    /// Other users may read or change the file.
    #[error("has mode {mode:04o}, so others can use it: 'chmod 600' it{}", hint(*.has_flag))]
    Mode {
        /// Its permission bits.
        mode: u32,
        /// Whether `--shared-files` accepts it.
        has_flag: bool,
    },
    /// The file belongs to another user.
    #[error("belongs to user {owner}: 'chown {user}' it{}", hint(*.has_flag))]
    Owner {
        /// Its owner's user ID.
        owner: u32,
        /// This process's user ID.
        user: u32,
        /// Whether `--shared-files` accepts it.
        has_flag: bool,
    },
    /// An output that exists belongs to another user, who may have it open.
    #[error("belongs to user {owner}: remove it, or name another file")]
    OthersOutput {
        /// Its owner's user ID.
        owner: u32,
    },
    /// Not a regular file.
    #[error("is not a regular file")]
    NotRegular,
    /// An output is a FIFO or a socket that no process reads.
    #[error("no process reads it")]
    NoReader,
    /// An output is a symbolic link, which somebody else may have made.
    #[error("is a symbolic link: name the file itself")]
    SymbolicLink,
    /// The file is longer than any that is valid.
    #[error("is too long: at most {bytes_max} bytes are supported")]
    TooLong {
        /// Longest supported file, bytes.
        bytes_max: u64,
    },
    /// Another process writes the file, or reads it while this one wants to write it.
    #[error("in use by another process")]
    InUse,
    /// A system call failed.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> FileError {
        match error.kind() {
            io::ErrorKind::NotFound => FileError::Missing,
            _ => FileError::Io(error),
        }
    }
}

fn hint(has_flag: bool) -> &'static str {
    if has_flag { ", or trust it with --shared-files" } else { "" }
}
