//! Locks on images: open file description locks (`F_OFD_SETLK`, fcntl(2)) of the whole file, which QEMU uses, too. A
//! lock ends when the open file is closed, however the process ends.
//!
//! The kernel does not say who holds such a lock (`F_OFD_GETLK` and `/proc/locks` have -1 for the process). The open
//! files of all processes do (`/proc/PID/fdinfo`, proc(5)), as far as this process may look at them.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

/// Who else may have the image open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageLock {
    /// Nobody: the guest writes to it.
    Exclusive,
    /// Others that read it.
    Shared,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process.
    Process {
        /// Its process ID.
        pid: u32,
        /// Its name, at most 15 bytes (comm(5)).
        name: String,
    },
    /// One that this process may not look at.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Holder::Unknown => f.write_str("another process (root can see which: lslocks)"),
        }
    }
}

/// How long a lock is waited for whose holder can't be found: most likely it was killed, and the kernel has still to close
/// its files. A ring with requests in flight takes a moment.
const UNKNOWN_HOLDER_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Locks `file`. Returns the holder of a lock that excludes this one; one that can't be found was waited for.
///
/// # Errors
///
/// As those of [`try_lock`].
pub(super) fn lock(file: &File, lock: ImageLock) -> io::Result<Option<Holder>> {
    let start = Instant::now();
    loop {
        match try_lock(file, lock)? {
            Some(Holder::Unknown) if start.elapsed() < UNKNOWN_HOLDER_WAIT => {
                thread::sleep(LOCK_RETRY);
            }
            held => return Ok(held),
        }
    }
}

/// Locks `file` at once. Returns the holder of a lock that excludes this one.
///
/// A file on a file system without locks is not locked; a warning says so.
///
/// # Errors
///
/// A system call failed.
fn try_lock(file: &File, lock: ImageLock) -> io::Result<Option<Holder>> {
    let kind = match lock {
        ImageLock::Exclusive => libc::F_WRLCK,
        ImageLock::Shared => libc::F_RDLCK,
    };
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(None),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(Some(holder(file)?)),
        Err(errno @ (Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS)) => {
            tracing::warn!("a disk is used without a lock: its file system has none ({errno})");
            Ok(None)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Looks for a process that has a lock on `file`.
fn holder(file: &File) -> io::Result<Holder> {
    let metadata = file.metadata()?;
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    // The name of the file in a line such as "lock:\t1: OFDLCK ADVISORY WRITE -1 fe:00:1234 0 EOF".
    let name = format!(" {major:02x}:{minor:02x}:{} ", metadata.ino());
    let processes = fs::read_dir("/proc")?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        if has_lock(pid, &name) {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name = comm.trim_end().chars().filter(|c| !c.is_control()).collect();
            return Ok(Holder::Process { pid, name });
        }
    }
    Ok(Holder::Unknown)
}

fn has_lock(pid: u32, name: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
    let texts = files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
    texts
        .into_iter()
        .any(|text| text.lines().any(|line| line.starts_with("lock:") && line.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::pass_fd;
    use ImageLock::{Exclusive, Shared};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn lock_excludes_what_it_says_and_its_holder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, [0; 512]).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let lock = |file: &File, lock| try_lock(file, lock).unwrap();
        let readers = [open(), open()];
        assert_eq!((lock(&readers[0], Shared), lock(&readers[1], Shared)), (None, None));
        let Some(Holder::Process { pid, .. }) = lock(&open(), Exclusive) else { panic!() };
        assert_eq!(pid, std::process::id());
        // A child that another test starts has the files, too, until it executes its program.
        let locks_at_last = |file: &File| {
            (0..1000).any(|_| {
                let is_free = lock(file, Exclusive).is_none();
                if !is_free {
                    std::thread::sleep(Duration::from_millis(10));
                }
                is_free
            })
        };
        drop(readers);
        let writer = open();
        assert!(locks_at_last(&writer));
        assert!(lock(&open(), Shared).is_some() && lock(&open(), Exclusive).is_some());
        drop(writer);
        assert!(locks_at_last(&open()));
    }

    /// What a killed process leaves: an open file that no process has. Here it is on its way through a socket.
    #[test]
    fn lock_of_a_process_that_is_gone_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, [0; 512]).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let left = open();
        assert_eq!(try_lock(&left, Exclusive).unwrap(), None);
        pass_fd::send(ours.as_fd(), &[0], &[left.as_fd()]).unwrap();
        drop(left);
        let file = open();
        assert_eq!(try_lock(&file, Exclusive).unwrap(), Some(Holder::Unknown));
        let waits = thread::spawn(move || super::lock(&file, Exclusive));
        thread::sleep(5 * LOCK_RETRY);
        assert!(!waits.is_finished());
        drop((ours, theirs));
        assert_eq!(waits.join().unwrap().unwrap(), None);
    }
}
