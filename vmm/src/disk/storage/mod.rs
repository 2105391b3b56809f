//! [`Storage`]: the contents of a disk, as calls that return when they are done. The thread of a disk calls them, one
//! after the other.

#[cfg(test)]
pub(super) mod fault;
pub(super) mod file;
pub(super) mod layered;
pub(super) mod overlay;
pub(super) mod qcow2;
mod qcow2_check;

use super::frozen::Changes;
use std::io;
use std::ops::Range;

/// The contents of a disk. Positions and lengths are in bytes and multiples of 512, and lie on the disk.
pub(super) trait Storage: Send {
    /// Returns the size of the disk.
    fn size(&self) -> u64;

    /// Reads at `offset`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the image has become shorter; another error of the host.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes at `offset`. The data are volatile until a [flush](Storage::flush).
    ///
    /// # Errors
    ///
    /// As of `read`. What is then in the range is undefined, sector by sector: old, new, or both mixed.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills a range with zeros, and gives its memory back to the host if `spare` says so.
    ///
    /// # Errors
    ///
    /// As of `write`.
    fn zero(&mut self, range: Range<u64>, spare: Spare) -> io::Result<()>;

    /// Makes everything stable that was written.
    ///
    /// # Errors
    ///
    /// An error of the host. Then anything that was written since the last flush can be lost.
    fn flush(&mut self) -> io::Result<()>;

    /// Returns the first range at or after `from` that may have other contents than zeros, or `None` if there is no
    /// further one. The answer is exact only as far as the image knows.
    ///
    /// # Errors
    ///
    /// An error of the host.
    fn next_data(&mut self, from: u64) -> io::Result<Option<Range<u64>>>;

    /// Returns what was written to an overlay, and `None` for any other contents, which were written in place.
    fn into_changes(self: Box<Self>) -> Option<Changes> {
        None
    }
}

/// What happens to the host's memory of a range that is filled with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    /// It stays, so that later writes find room (`VIRTIO_BLK_T_WRITE_ZEROES`).
    Keep,
    /// It is given back (`VIRTIO_BLK_T_DISCARD`).
    GiveBack,
}
