//! Reads files with secrets. Such a file must belong to this process's user or to root, and no other user may read or
//! write it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Why a file with a secret can't be used. No message contains any part of the file.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// The file does not exist.
    #[error("does not exist")]
    Missing,
    /// Other users may read or change the file.
    #[error("has mode {mode:04o}, so others can use it: 'chmod 600' it")]
    Mode {
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error("belongs to user {owner}: 'chown {user}' it")]
    Owner {
        /// Its owner's user ID.
        owner: u32,
        /// This process's user ID.
        user: u32,
    },
    /// Not a regular file.
    #[error("is not a regular file")]
    NotRegular,
    /// The file is longer than any that is valid.
    #[error("is too long")]
    TooLong,
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads the file at `path`, which must have less than `bytes_max` bytes.
///
/// # Errors
///
/// The file can't be read, is not regular, is too long, or its owner or mode is wrong.
pub fn read(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    // Non-blocking: opening a FIFO must not wait for a writer. It is refused below.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = file.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => PrivateFileError::Missing,
        _ => PrivateFileError::Io(source),
    })?;
    // Checks the open file, not the path: the path could be replaced after the check.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(PrivateFileError::NotRegular);
    }
    let user = nix::unistd::geteuid().as_raw();
    let owner = metadata.uid();
    if owner != user && owner != 0 {
        return Err(PrivateFileError::Owner { owner, user });
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(PrivateFileError::Mode { mode: metadata.mode() & 0o7777 });
    }
    // Has its full size from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; bytes_max]);
    let length = read_up_to(&mut file, &mut bytes)?;
    if length == bytes_max {
        return Err(PrivateFileError::TooLong);
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Reads until the end of the file or until `bytes` is full, and returns the number of bytes.
fn read_up_to(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
