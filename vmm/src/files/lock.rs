//! Advisory locks (flock(2)) on files that a VM uses for as long as it runs: its log, its snapshot.
//!
//! A lock ends when the file is closed, however the process ends. It keeps other runs of this program from the
//! file, and every other program that asks for a lock, such as flock(1). It does not keep `cp` from it.

use nix::errno::Errno;
use std::fs::{File, TryLockError};
use std::io;

/// Who else may have a lock on the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileLock {
    /// Nobody: the file is being written.
    Exclusive,
    /// Others that read the file.
    Shared,
}

/// Locks a file until it and its duplicates are closed. Returns false if another process, or another open file
/// of this one, has a lock that excludes this one.
///
/// A file that is not a regular one is not locked, because `/dev/null` may have many users. Neither is a file on
/// a file system without locks; a warning says so.
///
/// # Errors
///
/// A system call failed.
pub(crate) fn try_lock(file: &File, lock: FileLock) -> io::Result<bool> {
    if !file.metadata()?.is_file() {
        return Ok(true);
    }
    let result = match lock {
        FileLock::Exclusive => file.try_lock(),
        FileLock::Shared => file.try_lock_shared(),
    };
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if has_no_locks(&error) => {
            tracing::warn!("a file is used without a lock: its file system has none ({error})");
            Ok(true)
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn has_no_locks(error: &io::Error) -> bool {
    let without = [Errno::ENOLCK, Errno::EOPNOTSUPP, Errno::ENOSYS];
    error.raw_os_error().is_some_and(|code| without.contains(&Errno::from_raw(code)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use FileLock::{Exclusive, Shared};

    #[test]
    fn lock_excludes_what_it_says_until_the_file_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let open = || File::open(&path).unwrap();
        let lock = |file: &File, lock| try_lock(file, lock).unwrap();
        let readers = [open(), open()];
        assert!(lock(&readers[0], Shared) && lock(&readers[1], Shared));
        assert!(!lock(&open(), Exclusive));
        let duplicate = readers[0].try_clone().unwrap();
        drop(readers);
        assert!(!lock(&open(), Exclusive), "the duplicate still has it");
        drop(duplicate);
        let writer = open();
        assert!(lock(&writer, Exclusive));
        assert!(!lock(&open(), Shared) && !lock(&open(), Exclusive));
    }

    #[test]
    fn device_has_any_number_of_writers() {
        let null = || File::options().write(true).open("/dev/null").unwrap();
        let (a, b) = (null(), null());
        assert!(try_lock(&a, Exclusive).unwrap() && try_lock(&b, Exclusive).unwrap());
    }
}
