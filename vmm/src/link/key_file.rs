//! The pre-shared key on disk: 64 hex digits in a file that only its owner can read.

use crate::files::{FileError, input};
use crate::kvm::entropy;
use crate::kvm::secret_page::SecretPage;
use crate::limits::KEY_FILE_BYTES_MAX;
use logchan::handshake::{KeyError, PresharedKey, Security};
use logchan::seal::KEY_BYTES;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why a key file can't be used. No message contains any part of the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file does not exist.
    #[error("key file {0} does not exist: make it with 'understudy key {0}' and copy it to the other host", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file to create exists already.
    #[error("{} exists: a key is not overwritten, choose another name or remove it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Other users may read or change the file.
    #[error("key file {0} has mode {mode:04o}, so others can use it: 'chmod 600 {0}'", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error("key file {0} belongs to user {owner}: 'chown {user} {0}'", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner's user ID.
        owner: u32,
        /// This process's user ID.
        user: u32,
    },
    /// Not a regular file, not text, or far too long.
    #[error("{} is not a key file: it must contain 64 hex digits", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The text is not a key.
    #[error("key file {}: {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with the text.
        source: KeyError,
    },
    /// The next key is the key.
    #[error("{} and {} have the same key: make the next one with 'understudy key'", path.display(), next.display())]
    Same {
        /// The file of `--key`.
        path: PathBuf,
        /// The file of `--key-next`.
        next: PathBuf,
    },
    /// There is no memory that a key can be kept in.
    #[error("no memory for the key that is not swapped out: {source}: raise 'ulimit -l'")]
    Memory {
        /// The kernel's error.
        source: io::Error,
    },
    /// The file can't be read or written.
    #[error("key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Reads the key in `path`. It must be a regular file that belongs to this process's user or to root, and
/// that no other user may read or write. The key is kept in a [`SecretPage`].
///
/// # Errors
///
/// Returns an error if the file can't be read, its owner or mode is wrong, or its text is not a key.
pub fn read(path: &Path) -> Result<PresharedKey, KeyFileError> {
    let bytes = input::read_secret(path, KEY_FILE_BYTES_MAX);
    let path = || path.to_path_buf();
    let bytes = bytes.map_err(|error| match error {
        FileError::Missing => KeyFileError::Missing { path: path() },
        FileError::Mode { mode, .. } => KeyFileError::Mode { path: path(), mode },
        FileError::Owner { owner, user, .. } => KeyFileError::Owner { path: path(), owner, user },
        FileError::Io(source) => KeyFileError::Io { path: path(), source },
        // The last five are errors of outputs only.
        FileError::NotRegular
        | FileError::TooLong { .. }
        | FileError::Exists
        | FileError::OthersOutput { .. }
        | FileError::NoReader
        | FileError::SymbolicLink
        | FileError::InUse => KeyFileError::NotAKey { path: path() },
    })?;
    let text = std::str::from_utf8(&bytes);
    let text = text.map_err(|_| KeyFileError::NotAKey { path: path() })?;
    let memory = SecretPage::new().map_err(|source| KeyFileError::Memory { source })?;
    PresharedKey::from_hex_in(text, Box::new(memory))
        .map_err(|source| KeyFileError::Text { path: path(), source })
}

/// Reads the key in `path`, and the one in `next` if there is one: the hosts of a pair may have both while one key replaces
/// another.
///
/// # Errors
///
/// As [`read`], and if both files have one key.
pub fn security(path: &Path, next: Option<&Path>) -> Result<Security, KeyFileError> {
    let key = read(path)?;
    let Some(next_path) = next else { return Ok(Security::Sealed(key)) };
    let next = read(next_path)?;
    if next.is_same_as(&key) {
        return Err(KeyFileError::Same { path: path.into(), next: next_path.into() });
    }
    Ok(Security::Rotating { key, next })
}

/// Creates a key file with a new random key at `path`, with mode 0600.
///
/// # Errors
///
/// Returns an error if the file exists or can't be written.
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
        // A partly written file is not a key, and would make the next attempt fail.
        let _ = std::fs::remove_file(path);
        io(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn message(path: &Path) -> String {
        let text = read(path).unwrap_err().to_string();
        assert!(!text.contains('\n') && text.contains(path.to_str().unwrap()), "{text}");
        text
    }

    #[test]
    fn create_makes_private_key_that_reads_back_and_is_never_overwritten() {
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
    fn next_key_must_be_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        create(&first).unwrap();
        create(&second).unwrap();
        assert!(matches!(security(&first, None), Ok(Security::Sealed(_))));
        assert!(matches!(security(&first, Some(&second)), Ok(Security::Rotating { .. })));
        let same = security(&first, Some(&first));
        assert!(same.unwrap_err().to_string().contains("the same key"));
    }

    #[test]
    fn read_key_with_wrong_mode_is_refused() {
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
    fn read_invalid_file_error_names_file_but_not_its_contents() {
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
