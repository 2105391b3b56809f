//! The pre-shared key on disk: 64 hex digits in a file that nobody else can read.

use crate::kvm::entropy;
use logchan::handshake::{KeyError, PresharedKey};
use logchan::seal::KEY_BYTES;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A key file is two digits for each byte and perhaps a line feed; what is longer than this is none.
const FILE_BYTES_MAX: usize = 256;

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Why a file is not a usable key. No message shows any of the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// No such file.
    #[error("key file {0} does not exist: make it with 'understudy key {0}' and copy it to the other host", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// There is one already.
    #[error("{} exists: a key is not overwritten, choose another name or remove it", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// Others may read or change it.
    #[error("key file {0} has mode {mode:04o}, so others can use it: 'chmod 600 {0}'", path.display())]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else's.
    #[error("key file {0} belongs to user {owner}: 'chown {user} {0}'", path.display())]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Not a file, or far too long for one.
    #[error("{} is not a key file: it holds something else than 64 hex digits", path.display())]
    NotAKey {
        /// Which.
        path: PathBuf,
    },
    /// The text in it.
    #[error("key file {}: {source}", path.display())]
    Text {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// What the kernel said.
    #[error("key file {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// Reads the key in `path`: a regular file of this process's user (or of root), which nobody else may read or write.
pub fn read(path: &Path) -> Result<PresharedKey, KeyFileError> {
    let path = || path.to_path_buf();
    let io = |source| KeyFileError::Io { path: path(), source };
    // Non-blocking, so that a FIFO is refused and not waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path());
    let mut file = file.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing { path: path() },
        _ => io(source),
    })?;
    // Of the file that is open, not of the name, which may come to name another.
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAKey { path: path() });
    }
    let user = nix::unistd::geteuid().as_raw();
    let owner = metadata.uid();
    if owner != user && owner != 0 {
        return Err(KeyFileError::Owner { path: path(), owner, user });
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(KeyFileError::Mode { path: path(), mode: metadata.mode() & 0o7777 });
    }
    let mut bytes = Zeroizing::new([0; FILE_BYTES_MAX]);
    let length = read_up_to(&mut file, &mut bytes[..]).map_err(io)?;
    if length == FILE_BYTES_MAX {
        return Err(KeyFileError::NotAKey { path: path() });
    }
    let text = std::str::from_utf8(&bytes[..length]);
    let text = text.map_err(|_| KeyFileError::NotAKey { path: path() })?;
    PresharedKey::from_hex(text).map_err(|source| KeyFileError::Text { path: path(), source })
}

/// Makes a new key in `path`, with mode 0600.
pub fn create(path: &Path) -> Result<(), KeyFileError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_path_buf() },
        _ => KeyFileError::Io { path: path.to_path_buf(), source },
    };
    let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
    entropy::fill(&mut bytes[..]).map_err(io)?;
    let mut text = Zeroizing::new([b'\n'; 2 * KEY_BYTES + 1]);
    for (digits, byte) in text.chunks_exact_mut(2).zip(&bytes[..]) {
        let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
        (digits[0], digits[1]) = (digit(byte >> 4), digit(byte & 15));
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(&text[..]).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a key is none, and would be in the way of the next attempt.
        let _ = std::fs::remove_file(path);
        io(error)
    })
}

/// Reads until the end or until `bytes` is full.
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
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn message(path: &Path) -> String {
        let text = read(path).unwrap_err().to_string();
        assert!(!text.contains('\n') && text.contains(path.to_str().unwrap()), "{text}");
        text
    }

    #[test]
    fn made_key_is_private_read_back_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(message(&path).contains("understudy key"));
        create(&path).unwrap();
        read(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let first = fs::read(&path).unwrap();
        assert!(create(&path).unwrap_err().to_string().contains("not overwritten"));
        assert_eq!(fs::read(&path).unwrap(), first);
        let other = folder.path().join("other");
        create(&other).unwrap();
        assert_ne!(fs::read(&other).unwrap(), first);
    }

    #[test]
    fn key_that_others_can_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create(&path).unwrap();
        for (mode, good) in [(0o400, true), (0o640, false), (0o602, false), (0o601, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), good, "{mode:o}");
            if !good {
                assert!(message(&path).contains("chmod 600"));
            }
        }
    }

    #[test]
    fn files_that_hold_no_key_are_named_without_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let zeros = "0".repeat(64);
        let too_long = "ab".repeat(2000);
        for text in ["", "secret", &zeros, &too_long, "\u{fffd}"] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let message = message(&path);
            assert!(text.is_empty() || !message.contains(text), "{message}");
        }
        assert!(message(folder.path()).contains("not a key file"));
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(message(&fifo).contains("not a key file"));
    }
}
