//! Opens images.

use super::error::ImageError;
use super::lock::{ImageLock, lock};
use crate::limits::DISK_SIZE_BYTES_MAX;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of a sector: the unit of positions and sizes (Virtual I/O Device 1.3, 5.2.6).
pub(super) const SECTOR_BYTES: u64 = 512;

/// The first bytes of a qcow2 image.
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// What is done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is read and written; nobody else may use it.
    Write,
    /// It is only read, and others may read it.
    Read,
}

/// An open and locked image.
#[derive(Debug)]
pub(super) struct Image {
    /// The file, with `O_DIRECT` if [`cache`](Self::cache) says so.
    pub(super) file: File,
    /// Size of the file, bytes.
    pub(super) bytes: u64,
    /// Whether reads and writes pass the page cache.
    pub(super) cache: Cache,
}

/// Whether reads and writes pass the page cache of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    /// They do.
    Buffered,
    /// They go to the disk (`O_DIRECT`).
    Direct,
}

/// Opens and locks the image `path`, which is a regular file or a block device. A symbolic link is followed, because
/// the stable names of block devices are such links (`/dev/disk/by-id`), and the link's owner could as well replace a
/// file.
///
/// # Errors
///
/// It can't be opened, is of another kind, or is in use.
pub(super) fn open(path: &Path, usage: Use) -> Result<Image, ImageError> {
    let image = open_unlocked(path, usage)?;
    let kind = match usage {
        Use::Write => ImageLock::Exclusive,
        Use::Read => ImageLock::Shared,
    };
    match lock(&image.file, kind)? {
        Some(holder) => Err(ImageError::Busy(holder)),
        None => Ok(image),
    }
}

/// As [`open`], without a lock.
pub(super) fn open_unlocked(path: &Path, usage: Use) -> Result<Image, ImageError> {
    let file = open_file(path, usage, 0)?;
    // Of the open file, not of the path: the path could be replaced after the check.
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let file = match (kind.is_block_device(), kind.is_file(), usage) {
        (true, _, Use::Write) => {
            // Refused if it is mounted. The path may lead to another device by now.
            let exclusive = open_file(path, usage, libc::O_EXCL)?;
            let again = exclusive.metadata()?;
            if !again.file_type().is_block_device() || again.rdev() != metadata.rdev() {
                return Err(ImageError::WrongKind);
            }
            exclusive
        }
        (true, _, Use::Read) | (false, true, _) => file,
        (false, false, _) => return Err(ImageError::WrongKind),
    };
    // Without O_NONBLOCK: a ring would not wait for the disk.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).map_err(io::Error::from)?;
    let bytes = size(&file)?;
    Ok(Image { file, bytes, cache: Cache::Buffered })
}

fn open_file(path: &Path, usage: Use, flags: i32) -> Result<File, ImageError> {
    let mut options = OpenOptions::new();
    // Non-blocking: opening a FIFO must not wait for a writer. It is refused afterwards.
    options.read(true).write(usage == Use::Write).custom_flags(flags | libc::O_NONBLOCK);
    options.open(path).map_err(|error| open_error(error, usage))
}

fn open_error(error: io::Error, usage: Use) -> ImageError {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) if usage == Use::Write => {
            ImageError::NotWritable(error)
        }
        Some(libc::EBUSY) => ImageError::Mounted,
        // A folder, or a socket.
        Some(libc::EISDIR | libc::ENXIO) => ImageError::WrongKind,
        _ => error.into(),
    }
}

/// Returns the size of a regular file or of a block device, bytes.
pub(super) fn size(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Checks that a disk can have `bytes` bytes.
pub(super) fn check_disk_size(bytes: u64) -> Result<(), ImageError> {
    let is_valid = (SECTOR_BYTES..=DISK_SIZE_BYTES_MAX).contains(&bytes);
    match is_valid && bytes.is_multiple_of(SECTOR_BYTES) {
        true => Ok(()),
        false => Err(ImageError::Size { bytes }),
    }
}

impl Image {
    /// Checks that the size of the file is that of a disk.
    pub(super) fn check_size(&self) -> Result<(), ImageError> {
        check_disk_size(self.bytes)
    }

    /// Returns whether the first bytes are those of a qcow2 image.
    pub(super) fn looks_like_qcow2(&self) -> io::Result<bool> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut magic = [0; QCOW2_MAGIC.len()];
        Ok(self.bytes >= SECTOR_BYTES && {
            file.read_exact(&mut magic)?;
            magic == QCOW2_MAGIC
        })
    }

    /// Makes reads and writes pass the page cache, if the file system can do that for single sectors. It may not have
    /// it at all (tmpfs before Linux 6.6), or need larger blocks.
    pub(super) fn use_direct(&mut self) -> io::Result<()> {
        let set = |flags| fcntl(&self.file, FcntlArg::F_SETFL(flags)).map_err(io::Error::from);
        let tried = set(OFlag::O_DIRECT).and_then(|_| read_one_sector(&self.file));
        match tried {
            Ok(()) => self.cache = Cache::Direct,
            Err(error) => {
                tracing::debug!("a disk uses the page cache: no direct I/O of sectors ({error})");
                set(OFlag::empty())?;
            }
        }
        Ok(())
    }
}

/// A sector in memory that is aligned to it.
#[repr(align(512))]
struct Sector([u8; SECTOR_BYTES as usize]);

fn read_one_sector(mut file: &File) -> io::Result<()> {
    let mut sector = Box::new(Sector([0; SECTOR_BYTES as usize]));
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut sector.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn everything_but_a_file_or_a_block_device_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&fifo, Path::new("/dev/zero"), folder.path()] {
            for usage in [Use::Read, Use::Write] {
                let result = open(path, usage);
                assert!(matches!(result, Err(ImageError::WrongKind)), "{path:?}: {result:?}");
            }
        }
        let missing = folder.path().join("none");
        assert!(matches!(open(&missing, Use::Write), Err(ImageError::Missing)));
    }

    #[test]
    fn size_that_is_not_one_of_a_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        for (bytes, is_valid) in [(0, false), (511, false), (512, true), (1000, false)] {
            std::fs::write(&path, vec![0; bytes]).unwrap();
            let checked = open(&path, Use::Write).unwrap().check_size();
            assert_eq!(checked.is_ok(), is_valid, "{bytes}: {checked:?}");
        }
    }

    #[test]
    fn image_in_use_is_refused_and_a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link] = ["disk", "link"].map(|name| folder.path().join(name));
        std::fs::write(&path, [1; 512]).unwrap();
        symlink(&path, &link).unwrap();
        let writer = open(&link, Use::Write).unwrap();
        for usage in [Use::Read, Use::Write] {
            assert!(matches!(open(&path, usage), Err(ImageError::Busy(_))));
        }
        drop(writer);
        let readers = [open(&path, Use::Read).unwrap(), open(&link, Use::Read).unwrap()];
        assert!(matches!(open(&path, Use::Write), Err(ImageError::Busy(_))));
        drop(readers);
    }

    #[test]
    fn medium_that_is_read_only_is_named() {
        for code in [libc::EACCES, libc::EPERM, libc::EROFS] {
            let error = || io::Error::from_raw_os_error(code);
            let named = open_error(error(), Use::Write);
            assert!(matches!(named, ImageError::NotWritable(_)), "{named:?}");
            assert!(matches!(open_error(error(), Use::Read), ImageError::Io(_)));
        }
    }
}
