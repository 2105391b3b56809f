//! [`Keeper`]: the superblock of an image, as the thread of the disk keeps it.
//!
//! The thread writes the superblock itself, so it waits for that, and its requests do, too. That is seldom: when the role
//! of the host changes, and before the first change of an extent. An extent that may differ from the other host's must be
//! known as such before it differs, or a power cut would leave a difference that nobody knows of.

use super::error::ImageError;
use super::extents::Added;
use super::lock::{ImageLock, lock};
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
    /// Opens the superblock of the image of `options`, disk `index` of `vm` with `bytes` bytes, or makes it. Returns what it was;
    /// `None` if it was not there.
    pub(super) fn open(
        image: &File,
        options: &DiskOptions,
        (vm, index, bytes): (VmId, u8, u64),
    ) -> Result<(Keeper, Option<Superblock>), ImageError> {
        let path = place(image, options)?;
        let failed = |error| ImageError::Superblock { path: path.clone(), error };
        let mut open = OpenOptions::new();
        open.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let (file, superblock, found) = match open.open(&path) {
            Ok(file) => {
                if let Some(holder) = lock(&file, ImageLock::Exclusive)? {
                    return Err(failed(io::Error::other(format!("in use by {holder}"))));
                }
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
                let new = Superblock::new((vm, index), bytes);
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
            Added::New => self.store(),
            Added::Nothing => self.check(),
        }
    }

    /// Replaces the superblock.
    pub(super) fn keep(&mut self, superblock: Superblock) {
        self.superblock = superblock;
        if self.store().is_ok() {
            self.kept.stored.fetch_add(1, Ordering::Release);
        }
    }

    fn store(&mut self) -> io::Result<()> {
        let stored = self.file.store(&self.superblock);
        if let Err(error) = &stored
            && !self.kept.failed.swap(true, Ordering::AcqRel)
        {
            tracing::warn!(
                "a disk is not changed any more, because what is known about it can't be stored: {error}"
            );
        }
        stored
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_whose_superblock_cannot_be_stored_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let new = Superblock::new((VmId(1), 0), 1 << 30);
        drop(superblock::create(&path, &new).unwrap());
        let slots = std::fs::read(&path).unwrap();
        // Open for reading, so that every write fails.
        let file = File::open(&path).unwrap();
        let (file, superblock) = SuperblockFile::read(file, &slots).unwrap();
        let mut keeper = Keeper { file, superblock, kept: Arc::default() };
        keeper.check().unwrap();
        for range in [0..512, 0..512, 512..1024, 1 << 29..(1 << 29) + 512] {
            assert!(keeper.before_change(&range).is_err(), "{range:?}");
        }
        assert!(keeper.check().is_err() && keeper.kept.failed.load(Ordering::Relaxed));
        keeper.keep(new);
        assert_eq!(keeper.kept.stored.load(Ordering::Relaxed), 0);
    }
}
