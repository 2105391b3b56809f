//! Opens and reads files. All functions refuse everything but regular files: a FIFO would wait for a writer, and a
//! device may have no end.

use super::{Access, FileError, OTHERS};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Opens a regular file, whoever owns it.
///
/// # Errors
///
/// The file can't be opened or is not regular.
pub fn open(path: &Path) -> Result<File, FileError> {
    // Non-blocking: opening a FIFO must not wait for a writer. It is refused below.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // Checks the open file, not the path: the path could be replaced after the check.
    if !file.metadata()?.is_file() {
        return Err(FileError::NotRegular);
    }
    Ok(file)
}

/// Opens a regular file from which a machine starts. Unless `access` is [`Access::Shared`], it must belong to this
/// process's user or to root, and no other user may read or change it.
///
/// # Errors
///
/// The file can't be opened, is not regular, or its owner or mode is wrong.
pub fn open_trusted(path: &Path, access: Access) -> Result<File, FileError> {
    let file = open(path)?;
    if access == Access::Owner {
        check_trust(&file.metadata()?, true)?;
    }
    Ok(file)
}

/// Reads a regular file of at most `bytes_max` bytes, whoever owns it.
///
/// # Errors
///
/// The file can't be read, is not regular or is too long. No more than `bytes_max + 1` bytes of it are read.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let file = open(path)?;
    let length = file.metadata()?.len().min(bytes_max);
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(FileError::TooLong { bytes_max });
    }
    Ok(bytes)
}

/// Reads a regular file with a secret, of less than `bytes_max` bytes. It must belong to this process's user or to
/// root, and no other user may read or change it.
///
/// # Errors
///
/// The file can't be read, is not regular, is too long, or its owner or mode is wrong.
pub fn read_secret(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let mut file = open(path)?;
    check_trust(&file.metadata()?, false)?;
    // Has its full size from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; bytes_max]);
    let length = read_up_to(&mut file, &mut bytes)?;
    if length == bytes_max {
        return Err(FileError::TooLong { bytes_max: bytes_max as u64 - 1 });
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn check_trust(metadata: &Metadata, has_flag: bool) -> Result<(), FileError> {
    let user = nix::unistd::geteuid().as_raw();
    let owner = metadata.uid();
    if owner != user && owner != 0 {
        return Err(FileError::Owner { owner, user, has_flag });
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(FileError::Mode { mode: metadata.mode() & 0o7777, has_flag });
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

    fn file(folder: &tempfile::TempDir, mode: u32) -> std::path::PathBuf {
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn everything_but_a_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&fifo, Path::new("/dev/zero"), folder.path()] {
            let results = [
                open(path).map(drop),
                open_trusted(path, Access::Shared).map(drop),
                read(path, 10).map(drop),
                read_secret(path, 10).map(drop),
            ];
            for result in results {
                assert!(matches!(result, Err(FileError::NotRegular)), "{path:?}: {result:?}");
            }
        }
        assert!(matches!(open(&folder.path().join("none")), Err(FileError::Missing)));
    }

    #[test]
    fn file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, 0o600);
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(matches!(read(&path, 4), Err(FileError::TooLong { bytes_max: 4 })));
        assert_eq!(read_secret(&path, 6).unwrap().as_slice(), b"12345");
        assert!(matches!(read_secret(&path, 5), Err(FileError::TooLong { bytes_max: 4 })));
    }

    #[test]
    fn file_that_others_can_use_is_trusted_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o601] {
            let path = file(&folder, mode);
            let refused = open_trusted(&path, Access::Owner);
            assert!(matches!(refused, Err(FileError::Mode { mode: found, .. }) if found == mode));
            assert!(matches!(read_secret(&path, 10), Err(FileError::Mode { .. })), "{mode:o}");
            open_trusted(&path, Access::Shared).unwrap();
        }
        open_trusted(&file(&folder, 0o400), Access::Owner).unwrap();
    }

    #[test]
    fn file_of_another_user_is_trusted_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, 0o600);
        if chown(&path, Some(65534), None).is_err() {
            assert!(!nix::unistd::geteuid().is_root());
            return;
        }
        let refused = open_trusted(&path, Access::Owner);
        assert!(matches!(refused, Err(FileError::Owner { owner: 65534, .. })), "{refused:?}");
        assert!(matches!(read_secret(&path, 10), Err(FileError::Owner { .. })));
        open_trusted(&path, Access::Shared).unwrap();
    }
}
