//! Creates and replaces files. What somebody else put at an output's path is neither followed nor written into.

use super::lock::{FileLock, try_lock};
use super::{Access, FileError};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// How often [`create`] begins again after somebody else changed the path meanwhile.
const ATTEMPTS_MAX: u32 = 16;

/// What happens to an output that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is an error.
    Refuse,
    /// It is replaced by a new file.
    Replace,
}

/// Creates a file for writing and locks it until it is closed. A character device, such as `/dev/null`, is opened,
/// and so is a FIFO that has a reader.
///
/// An existing file is replaced by another one under its name. It keeps its contents for those who have it open, and
/// for its other names.
///
/// # Errors
///
/// - The path is a symbolic link, a folder, or a FIFO without a reader.
/// - The file exists and must not be replaced, or it belongs to another user, or another process has locked it.
/// - A system call failed.
pub fn create(path: &Path, existing: Existing, access: Access) -> Result<File, FileError> {
    for _ in 0..ATTEMPTS_MAX {
        match create_new(path, access) {
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result,
        }
        if existing == Existing::Refuse {
            return Err(FileError::Exists);
        }
        match replace(path, access) {
            Ok(None) | Err(FileError::Missing) => {}
            Ok(Some(file)) => return Ok(file),
            Err(error) => return Err(error),
        }
    }
    Err(FileError::InUse)
}

fn create_new(path: &Path, access: Access) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    // Never follows a symbolic link: `create_new` is O_EXCL.
    let options = options.write(true).create_new(true).mode(access.mode());
    let file = options.open(path).map_err(FileError::Io)?;
    // Another process can lock it first to replace it.
    if try_lock(&file, FileLock::Exclusive)? { Ok(file) } else { Err(FileError::InUse) }
}

/// Replaces an existing file, or opens an existing device. Returns `None` if another process replaced the file
/// meanwhile.
fn replace(path: &Path, access: Access) -> Result<Option<File>, FileError> {
    let old = open_existing(path)?;
    let metadata = old.metadata()?;
    if metadata.file_type().is_char_device() {
        return Ok(Some(old));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(FileError::OthersOutput { owner: metadata.uid() });
    }
    if metadata.file_type().is_fifo() {
        // Writing to it waits for its reader; only opening it did not.
        fcntl(&old, FcntlArg::F_SETFL(OFlag::empty())).map_err(io::Error::from)?;
        return Ok(Some(old));
    }
    if !metadata.is_file() {
        return Err(FileError::NotRegular);
    }
    if !try_lock(&old, FileLock::Exclusive)? {
        return Err(FileError::InUse);
    }
    // The one that had the lock may have replaced the file, and may write the new one.
    let at = std::fs::symlink_metadata(path)?;
    if (at.dev(), at.ino()) != (metadata.dev(), metadata.ino()) {
        return Ok(None);
    }
    let draft = Draft::create(path, access)?;
    if !try_lock(draft.temporary.as_file(), FileLock::Exclusive)? {
        return Err(FileError::InUse);
    }
    Ok(Some(draft.finish()?))
}

fn open_existing(path: &Path) -> Result<File, FileError> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ELOOP) => FileError::SymbolicLink,
            // A FIFO, or a socket.
            Some(libc::ENXIO) => FileError::NoReader,
            _ => error.into(),
        }
    })
}

/// A temporary file of a random name beside the final path, which it gets when it is complete.
///
/// It is created before there is anything to write, so that an unwritable path is reported at once. It is removed
/// when it is dropped unfinished.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl Draft {
    /// Creates the temporary file.
    ///
    /// # Errors
    ///
    /// `path` is a directory, or the file can't be created.
    pub fn create(path: &Path, access: Access) -> Result<Draft, FileError> {
        if path.is_dir() {
            return Err(FileError::Io(io::ErrorKind::IsADirectory.into()));
        }
        let mut prefix = OsString::from(".");
        prefix.push(path.file_name().unwrap_or_default());
        prefix.push(".");
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        // For the words of the kernel: `tempfile` keeps only the kind of an error.
        std::fs::metadata(folder).map_err(FileError::Io)?;
        let temporary = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            .permissions(Permissions::from_mode(access.mode()))
            .tempfile_in(folder)
            // Without the path that `tempfile` adds: the user did not name the temporary file.
            .map_err(|error| FileError::Io(error.kind().into()))?;
        Ok(Draft { path: path.to_owned(), temporary })
    }

    /// Returns the file, to write it.
    pub fn file(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Renames the file to its final path. What was there is replaced, also a symbolic link.
    ///
    /// # Errors
    ///
    /// It can't be renamed.
    pub fn finish(self) -> Result<File, FileError> {
        self.temporary.persist(&self.path).map_err(|error| error.error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::{chown, symlink};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    fn names(folder: &tempfile::TempDir) -> Vec<OsString> {
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    }

    fn replaced(path: &Path) -> Result<File, FileError> {
        create(path, Existing::Replace, Access::Owner)
    }

    #[test]
    fn output_is_for_its_owner_alone_unless_it_is_to_be_shared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        drop(create(&path, Existing::Refuse, Access::Owner).unwrap());
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let again = create(&path, Existing::Refuse, Access::Owner);
        assert!(matches!(again, Err(FileError::Exists)), "{again:?}");
        drop(replaced(&path).unwrap());
        assert_eq!(mode(&path), 0o600);

        drop(create(&path, Existing::Replace, Access::Shared).unwrap());
        let by_umask = folder.path().join("by umask");
        std::fs::write(&by_umask, "").unwrap();
        assert_eq!(mode(&path), mode(&by_umask));
    }

    #[test]
    fn replaced_file_keeps_its_contents_for_its_other_names_and_readers() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["file", "other"].map(|name| folder.path().join(name));
        std::fs::write(&path, "precious").unwrap();
        std::fs::hard_link(&path, &other).unwrap();
        replaced(&path).unwrap().write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
        assert_eq!(names(&folder), ["file", "other"], "no temporary file is left");
    }

    #[test]
    fn planted_links_fifos_and_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [victim, link, fifo] = ["victim", "link", "fifo"].map(|name| folder.path().join(name));
        std::fs::write(&victim, "precious").unwrap();
        symlink(&victim, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(replaced(&link), Err(FileError::SymbolicLink)));
        assert!(matches!(create(&link, Existing::Refuse, Access::Owner), Err(FileError::Exists)));
        assert!(matches!(replaced(&fifo), Err(FileError::NoReader)));
        assert!(replaced(folder.path()).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert_eq!(names(&folder), ["fifo", "link", "victim"]);
        replaced(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn fifo_with_a_reader_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut options = OpenOptions::new();
        let mut reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
        replaced(&fifo).unwrap().write_all(b"record").unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "record");
    }

    #[test]
    fn file_of_another_user_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "theirs").unwrap();
        if chown(&path, Some(65534), None).is_err() {
            assert!(!nix::unistd::geteuid().is_root());
            return;
        }
        let refused = replaced(&path);
        assert!(matches!(refused, Err(FileError::OthersOutput { owner: 65534 })), "{refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
    }

    #[test]
    fn output_is_locked_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for existing in [Existing::Refuse, Existing::Replace] {
            let first = create(&path, existing, Access::Owner).unwrap();
            assert!(matches!(replaced(&path), Err(FileError::InUse)));
            drop(first);
        }
        drop(replaced(&path).unwrap());
    }

    #[test]
    fn draft_gets_its_path_when_it_is_complete_and_leaves_nothing_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let [path, victim] = ["file", "victim"].map(|name| folder.path().join(name));
        std::fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        drop(Draft::create(&path, Access::Owner).unwrap());
        assert_eq!(names(&folder), ["file", "victim"]);

        let mut draft = Draft::create(&path, Access::Owner).unwrap();
        draft.file().write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious", "not there yet");
        draft.finish().unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o600));
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert_eq!(names(&folder), ["file", "victim"]);
    }

    #[test]
    fn draft_checks_its_path_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none").join("file");
        let kind = |path: &Path| match Draft::create(path, Access::Owner) {
            Err(FileError::Io(error)) => error.kind(),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(&missing), io::ErrorKind::NotFound);
        assert_eq!(kind(folder.path()), io::ErrorKind::IsADirectory);
    }
}
