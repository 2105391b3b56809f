//! [`Keeper`]: the superblock of an image, as the thread of the disk keeps it.
//!
//! The thread writes the superblock itself, so it waits for that, and its requests do, too. That is seldom: when the role
//! of the host changes, and before the first change of an extent. An extent that may differ from the other host's must be
//! known as such before it differs, or a power cut would leave a difference that nobody knows of.

use super::error::ImageError;
use super::extents::Added;
use super::options::DiskOptions;
use super::superblock::{self, BadSuperblock, FILE_BYTES, Superblock, SuperblockFile};
use logchan::ids::VmId;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the vCPU thread learns of the superblocks that it has asked for.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// How many were stored.
    pub(super) stored: AtomicU64,
    /// One could not be stored: what the file has is not known, and the disk is not changed any more.
    pub(super) failed: AtomicBool,
}

/// The superblock and its file.
#[derive(Debug)]
pub(super) struct Keeper {
    file: SuperblockFile<File>,
    superblock: Superblock,
    kept: Arc<Kept>,
}

impl Keeper {
    /// Opens the superblock of the image of `options`, a disk of `vm` with `bytes` bytes, or makes it. Returns what it was;
    /// `None` if it was not there.
    pub(super) fn open(
        image: &File,
        options: &DiskOptions,
        (vm, bytes): (VmId, u64),
    ) -> Result<(Keeper, Option<Superblock>), ImageError> {
        let path = place(image, options)?;
        let failed = |error| ImageError::Superblock { path: path.clone(), error };
        let mut open = OpenOptions::new();
        open.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let (file, superblock, found) = match open.open(&path) {
            Ok(file) => {
                let mut slots = vec![0; FILE_BYTES];
                let is_read = match file.read_exact_at(&mut slots, 0) {
                    Ok(()) => true,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                    Err(error) => return Err(failed(error)),
                };
                let bad = |bad| ImageError::BadSuperblock { path: path.clone(), bad };
                if !is_read {
                    return Err(bad(BadSuperblock::Damaged.to_string()));
                }
                let (file, found) =
                    SuperblockFile::read(file, &slots).map_err(|error| bad(error.to_string()))?;
                (file, found.clone(), Some(found))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let new = Superblock::new(vm, bytes);
                (superblock::create(&path, &new).map_err(failed)?, new, None)
            }
            Err(error) => return Err(failed(error)),
        };
        Ok((Keeper { file, superblock, kept: Arc::default() }, found))
    }

    /// Returns what the vCPU thread looks at.
    pub(super) fn kept(&self) -> Arc<Kept> {
        Arc::clone(&self.kept)
    }

    /// A change of `range` is about to begin.
    ///
    /// # Errors
    ///
    /// It must not: nobody would know of it.
    pub(super) fn before_change(&mut self, range: &Range<u64>) -> io::Result<()> {
        match self.superblock.extents.add_bytes(range, self.superblock.bytes) {
            Added::New => self.file.store(&self.superblock),
            Added::Nothing => self.check(),
        }
    }

    /// Replaces the superblock.
    pub(super) fn keep(&mut self, superblock: Superblock) {
        self.superblock = superblock;
        match self.file.store(&self.superblock) {
            Ok(()) => {
                self.kept.stored.fetch_add(1, Ordering::Release);
            }
            Err(error) => {
                tracing::warn!("what is known about a disk can't be stored: {error}");
                self.kept.failed.store(true, Ordering::Release);
            }
        }
    }

    /// Returns an error if the disk may not be changed any more.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.kept.failed.load(Ordering::Relaxed) {
            true => Err(io::Error::other("what is known about the disk could not be stored")),
            false => Ok(()),
        }
    }
}

/// Returns the path of the superblock.
fn place(image: &File, options: &DiskOptions) -> Result<PathBuf, ImageError> {
    if let Some(path) = &options.state {
        return Ok(path.clone());
    }
    if image.metadata()?.file_type().is_block_device() {
        return Err(ImageError::NoState);
    }
    // The same file for every name of the image.
    Ok(superblock::path_of(&options.path.canonicalize()?))
}
