//! The folder of a witness: its files are read as hostile input, because whoever can write to the folder can
//! put anything there, while claims are made.

use crate::limits::WITNESS_FILE_BYTES_MAX;
use logchan::ids::Claimant;
use nix::errno::Errno;
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Every open of a file has these flags. With them, no open waits (a FIFO has no writer) and none leaves the
/// folder (a symbolic link). The standard library adds `O_CLOEXEC`.
const OPEN_FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// Mode bits.
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Why a file in the folder can't be read or made.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// A system call failed.
    #[error("can't be read or made: {0}")]
    Io(#[from] io::Error),
    /// Another kind of file is in its place.
    #[error("is {0} instead of a regular file: find out who made it, and remove it")]
    NotRegular(&'static str),
    /// The file is longer than any that this program writes.
    #[error(
        "has {0} bytes, at most {WITNESS_FILE_BYTES_MAX} are valid: find out who made it, and remove it"
    )]
    TooLong(u64),
    /// link(2) does not work here.
    #[error(
        "can't be made: this storage makes no hard links ({0}): use storage that does, for example NFS"
    )]
    NoHardLinks(io::Error),
    /// link(2) replaces a file, so that two hosts could win one term.
    #[error(
        "can't be made: on this storage, a hard link replaces a file of the same name: use storage on which it fails, for example NFS"
    )]
    NotExclusive,
}

/// Reads the file `name`; `None` if it does not exist.
///
/// # Errors
///
/// It is not a regular file, is too long, or can't be read.
pub(super) fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, FileFault> {
    let path = folder.join(name);
    let opened = OpenOptions::new().read(true).custom_flags(OPEN_FLAGS).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Of a socket and a symbolic link, the open itself fails.
        Err(error) => match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() => return Err(not_regular(&metadata)),
            Ok(_) | Err(_) => return Err(error.into()),
        },
    };
    // Checks the open file, not the path: the path can be replaced at any time.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_regular(&metadata));
    }
    let mut content = Vec::new();
    file.take(WITNESS_FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    // The file may have grown since its metadata were read.
    match metadata.len().max(content.len() as u64) {
        0..=WITNESS_FILE_BYTES_MAX => Ok(Some(content)),
        bytes => Err(FileFault::TooLong(bytes)),
    }
}

fn not_regular(metadata: &Metadata) -> FileFault {
    let kind = metadata.file_type();
    FileFault::NotRegular(if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    })
}

/// Creates the file `name` with `content` unless it exists, by way of the temporary file `draft`, which no
/// other process uses.
///
/// # Errors
///
/// The file does not exist afterwards, or may not survive a power failure.
pub(super) fn publish(
    folder: &Path,
    name: &str,
    draft: &str,
    content: &str,
) -> Result<(), FileFault> {
    prepare(folder, draft, content)?;
    link_draft(folder, draft, name)?;
    sync(folder)?;
    remove(folder, draft);
    Ok(())
}

/// Creates the temporary file `draft` with `content`, which survives a power failure if the file is linked and the
/// folder is synced later.
///
/// # Errors
///
/// A system call fails.
pub(super) fn prepare(folder: &Path, draft: &str, content: &str) -> Result<(), FileFault> {
    Ok(write_new(folder, draft, content)?.sync_all()?)
}

/// Gives the temporary file `draft` the name `name`, unless there is a file of that name.
///
/// # Errors
///
/// There is no file of that name afterwards.
pub(super) fn link_draft(folder: &Path, draft: &str, name: &str) -> Result<(), FileFault> {
    let Err(fault) = link(folder, draft, name) else { return Ok(()) };
    // An error is not reliable: a server's reply may get lost, and the call be repeated. So the file that is
    // there afterwards decides.
    match read(folder, name)? {
        Some(_) => Ok(()),
        None => Err(fault),
    }
}

/// Makes the names of the folder's files survive a power failure.
///
/// # Errors
///
/// A system call fails.
pub(super) fn sync(folder: &Path) -> Result<(), FileFault> {
    let flags = libc::O_DIRECTORY | libc::O_NONBLOCK;
    Ok(OpenOptions::new().read(true).custom_flags(flags).open(folder)?.sync_all()?)
}

/// Removes a temporary file, which does no harm if it stays.
pub(super) fn remove(folder: &Path, draft: &str) {
    let _ = fs::remove_file(folder.join(draft));
}

/// Checks that files and hard links can be made, and that a hard link does not replace a file. Returns the
/// metadata of a file that was made. `claimant` is a name that no other process uses. The files are removed.
///
/// # Errors
///
/// They can't be made, or a link replaces a file.
pub(crate) fn probe(folder: &Path, claimant: Claimant) -> Result<Metadata, FileFault> {
    let [draft, linked] = ["probe", "probe-link"].map(|name| draft_name(claimant, name));
    let result = write_new(folder, &draft, "").and_then(|file| {
        link(folder, &draft, &linked)?;
        require_exists(link(folder, &draft, &linked))?;
        Ok(file.metadata()?)
    });
    for name in [draft, linked] {
        remove(folder, &name);
    }
    result
}

/// Checks the `result` of making a link whose name exists.
fn require_exists(result: Result<(), FileFault>) -> Result<(), FileFault> {
    match result {
        Ok(()) => Err(FileFault::NotExclusive),
        Err(FileFault::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Returns the name of a temporary file of the process with this name.
pub(super) fn draft_name(claimant: Claimant, name: &str) -> String {
    format!(".{claimant}.{name}")
}

/// Writes a new file. What is at its path is removed first: an attempt that failed may have left it, or
/// somebody who foresaw the name.
fn write_new(folder: &Path, name: &str, content: &str) -> Result<File, FileFault> {
    let path = folder.join(name);
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o644).custom_flags(OPEN_FLAGS);
    let mut file = options.open(&path)?;
    file.write_all(content.as_bytes())?;
    Ok(file)
}

fn link(folder: &Path, from: &str, to: &str) -> Result<(), FileFault> {
    fs::hard_link(folder.join(from), folder.join(to)).map_err(|error| {
        let errno = error.raw_os_error().map(Errno::from_raw);
        match errno {
            Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK | Errno::ENOSYS) => {
                FileFault::NoHardLinks(error)
            }
            Some(_) | None => FileFault::Io(error),
        }
    })
}

/// Who else than root and this user can change the files of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    Private,
    /// Others can add files, or some others can remove them: its owner or its group.
    Shared {
        /// The folder's mode bits.
        mode: u32,
        /// The folder's owner.
        owner: u32,
    },
    /// Every user can remove its files.
    Open {
        /// The folder's mode bits.
        mode: u32,
    },
}

impl Access {
    /// Returns who can change the files of the folder with this metadata, except root and this user.
    pub(crate) fn of(metadata: &Metadata) -> Access {
        let user = nix::unistd::geteuid().as_raw();
        Access::from_mode(metadata.mode() & 0o7777, metadata.uid(), user)
    }

    fn from_mode(mode: u32, owner: u32, user: u32) -> Access {
        if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
            return Access::Open { mode };
        }
        match mode & (OTHERS_WRITE | GROUP_WRITES) == 0 && (owner == 0 || owner == user) {
            true => Access::Private,
            false => Access::Shared { mode, owner },
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::Private => f.write_str("only root and this user can change its files"),
            Access::Shared { mode, owner } => write!(
                f,
                "it has mode {mode:04o} and owner {owner}: others who can write to it can stop the VM, or \
                 run it twice by removing claims"
            ),
            Access::Open { mode } => write!(
                f,
                "it has mode {mode:04o}: every user could stop the VM, or run it twice by removing claims"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_leaves_no_file_and_needs_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(probe(folder.path(), Claimant(1)).unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(matches!(probe(&folder.path().join("gone"), Claimant(1)), Err(FileFault::Io(_))));
    }

    #[test]
    fn second_link_must_fail_because_the_name_exists() {
        let io = |kind: io::ErrorKind| Err(FileFault::Io(io::Error::from(kind)));
        assert!(require_exists(io(io::ErrorKind::AlreadyExists)).is_ok());
        assert!(matches!(require_exists(Ok(())), Err(FileFault::NotExclusive)));
        let other = require_exists(io(io::ErrorKind::TimedOut));
        assert!(
            matches!(other, Err(FileFault::Io(error)) if error.kind() == io::ErrorKind::TimedOut)
        );
    }

    #[test]
    fn access_of_each_mode_and_owner() {
        let access = |mode, owner| Access::from_mode(mode, owner, 1000);
        for (mode, owner) in [(0o755, 0), (0o700, 1000), (0o1755, 1000)] {
            assert_eq!(access(mode, owner), Access::Private, "{mode:o} {owner}");
        }
        for (mode, owner) in [(0o755, 1001), (0o770, 0), (0o2775, 1000), (0o1777, 0)] {
            assert_eq!(access(mode, owner), Access::Shared { mode, owner }, "{mode:o} {owner}");
        }
        for mode in [0o777, 0o702, 0o2777] {
            assert_eq!(access(mode, 0), Access::Open { mode }, "{mode:o}");
        }
    }
}
