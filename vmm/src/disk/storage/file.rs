//! [`FileStorage`]: a raw image, with a system call for each request.

use super::{Spare, Storage};
use crate::disk::faults::truncated;
use crate::disk::image::{self, Image};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek64};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Zeros that are written where the file system can't make them.
const ZEROS: &[u8] = &[0; 64 * 1024];

/// How the memory of a range is given back. The range reads as zeros afterwards.
pub(in crate::disk) const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

/// How a range is filled with zeros that keep their memory.
pub(in crate::disk) const ZERO: FallocateFlags =
    FallocateFlags::FALLOC_FL_ZERO_RANGE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

/// A raw image.
#[derive(Debug)]
pub(in crate::disk) struct FileStorage {
    file: File,
    bytes: u64,
}

impl FileStorage {
    /// The contents of `image` as they are.
    pub(in crate::disk) fn new(image: Image) -> FileStorage {
        FileStorage { file: image.file, bytes: image.bytes }
    }

    /// A new file without contents.
    pub(in crate::disk) fn empty(file: File, bytes: u64) -> FileStorage {
        FileStorage { file, bytes }
    }

    /// A write behind the end would make a file long again that had become shorter.
    fn check_size(&self) -> io::Result<()> {
        if image::size(&self.file)? < self.bytes { Err(truncated()) } else { Ok(()) }
    }
}

impl Storage for FileStorage {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => truncated(),
            _ => error,
        })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_size()?;
        self.file.write_all_at(bytes, offset)
    }

    fn zero(&mut self, range: Range<u64>, spare: Spare) -> io::Result<()> {
        self.check_size()?;
        let flags = match spare {
            Spare::Keep => ZERO,
            Spare::GiveBack => PUNCH,
        };
        let length = range.end - range.start;
        match fallocate(&self.file, flags, range.start as i64, length as i64) {
            Ok(()) => return Ok(()),
            Err(errno) if lacks_fallocate(errno) => {}
            Err(errno) => return Err(errno.into()),
        }
        for start in range.clone().step_by(ZEROS.len()) {
            let length = (range.end - start).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..length as usize], start)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check_size()?;
        self.file.sync_data()
    }

    fn next_data(&mut self, from: u64) -> io::Result<Option<Range<u64>>> {
        if from >= self.bytes {
            return Ok(None);
        }
        let start = match lseek64(&self.file, from as i64, Whence::SeekData) {
            Ok(start) => start as u64,
            // Nothing but holes.
            Err(Errno::ENXIO) => return Ok(None),
            // A block device, or a file system that does not know.
            Err(_) => return Ok(Some(from..self.bytes)),
        };
        let end = lseek64(&self.file, start as i64, Whence::SeekHole).map_err(io::Error::from)?;
        Ok((start < self.bytes).then_some(start..self.bytes.min(end as u64)))
    }
}

/// Returns whether fallocate(2) failed because this file has no such operation.
pub(in crate::disk) fn lacks_fallocate(errno: Errno) -> bool {
    matches!(errno, Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::ENODEV)
}
