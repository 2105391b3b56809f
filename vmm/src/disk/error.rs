//! [`DiskError`]: why a disk can't be used.

use super::boot::Refusal;
use super::lock::Holder;
use crate::limits::DISK_SIZE_BYTES_MAX;
use logchan::limits::DISKS_MAX;
use std::io;
use std::path::PathBuf;

const _: () = assert!(DISK_SIZE_BYTES_MAX == 16 << 40, "the message says so");

/// Why a disk can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct DiskError {
    /// The image.
    pub path: PathBuf,
    /// What is wrong with it.
    pub source: ImageError,
}

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There are more disks than the machine has slots for.
    #[error("a machine has at most {DISKS_MAX} disks")]
    TooMany,
    /// Options of a superblock, which it does not have.
    #[error("mode=shared, state= and accept are for a disk of a pair: leave them out")]
    OfAPair,
    /// It is not there.
    #[error("does not exist")]
    Missing,
    /// Neither a regular file nor a block device.
    #[error("is neither a regular file nor a block device")]
    WrongKind,
    /// Only reading is possible.
    #[error("can't be written ({0}): add readonly, or change its permissions")]
    NotWritable(io::Error),
    /// Its size is not one of a disk.
    #[error("has {bytes} bytes: a disk has a multiple of 512, at least that, and at most 16 TiB")]
    Size {
        /// Its size.
        bytes: u64,
    },
    /// Another open file has a lock on it.
    #[error("in use by {0}")]
    Busy(Holder),
    /// The kernel uses the block device, for example because it is mounted.
    #[error("in use: it is mounted, or part of another block device")]
    Mounted,
    /// The format was not named and the contents are those of another one.
    #[error("has the header of a qcow2 image: add format=qcow2, or format=raw if it is none")]
    LooksLikeQcow2,
    /// The image is not a valid qcow2 image, or one that is not supported.
    #[error("is not a qcow2 image that can be used: {what}")]
    Qcow2 {
        /// What is wrong.
        what: String,
    },
    /// The tables of the qcow2 image contradict each other. It may not be written.
    #[error("is damaged: {what}: see 'qemu-img check -r all FILE'")]
    Damaged {
        /// What is wrong, and where.
        what: String,
    },
    /// A file that the image refers to.
    #[error("its backing file {name}: {error}")]
    Backing {
        /// Its name in the image.
        name: String,
        /// What is wrong with it.
        error: Box<ImageError>,
    },
    /// The file for the private copy of what the guest writes.
    #[error("no file for what the guest writes can be made in {}: {error}", folder.display())]
    Overlay {
        /// Where.
        folder: PathBuf,
        /// Error of the system call.
        error: io::Error,
    },
    /// A block device whose superblock has no place.
    #[error(
        "is a block device: add state=FILE, where FILE keeps what is known about this disk and stays when this \
         host starts again"
    )]
    NoState,
    /// Both hosts use it, and its file system has no direct I/O.
    #[error(
        "its file system has no direct I/O of sectors, which mode=shared needs: with the page cache, what this host has \
         written would be lost with it"
    )]
    SharedCache,
    /// The file of its superblock can't be used.
    #[error("{}, which keeps what is known about it: {error}", path.display())]
    Superblock {
        /// The file.
        path: PathBuf,
        /// Error of the system call.
        error: io::Error,
    },
    /// The superblock says nothing.
    #[error(
        "{}, which keeps what is known about it, is {bad}: remove it. Then this host can be the backup, or add \
         accept to --disk if this image is the newest one of the VM",
        path.display()
    )]
    BadSuperblock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        bad: String,
    },
    /// The VM may not boot from it.
    #[error("{0}")]
    MayNotBoot(Refusal),
    /// The other host's disk may not be copied to it.
    #[error("{0}")]
    MayNotReceive(Refusal),
    /// A thread for its I/O can't be started.
    #[error("no thread for its I/O: {0}")]
    Thread(io::Error),
    /// A system call failed.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for ImageError {
    fn from(error: io::Error) -> ImageError {
        match error.kind() {
            io::ErrorKind::NotFound => ImageError::Missing,
            _ => ImageError::Io(error),
        }
    }
}
