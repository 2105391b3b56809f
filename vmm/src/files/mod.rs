//! Files that a user names. An input may be anything and come from anybody. An output has what the guest has in its
//! memory or receives, and must not end up in a file of somebody else.
//!
//! - [`input`]: opens and reads files
//! - [`output`]: creates and replaces files
//! - `lock`: keeps two processes from the same file
//! - [`FileError`]: what is wrong with a file

mod error;
pub mod input;
pub(crate) mod lock;
pub mod output;

pub use error::FileError;

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Who may use the files that contain the memory or the inputs of a guest: snapshots, logs, captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only their owner, which is this process's user or, for inputs, root.
    Owner,
    /// Whoever the umask and the mode of an existing file allow (`--shared-files`).
    Shared,
}

impl Access {
    /// Returns the access that the flag `--shared-files` chooses.
    pub fn from_flag(shared_files: bool) -> Access {
        if shared_files { Access::Shared } else { Access::Owner }
    }

    /// Returns the permission bits of a file that is created, before the umask.
    fn mode(self) -> u32 {
        match self {
            Access::Owner => 0o600,
            Access::Shared => 0o666,
        }
    }
}
