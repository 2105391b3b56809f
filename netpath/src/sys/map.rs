//! [`Mapping`]: memory at a fixed address that the kernel may write to.
//!
//! Rules for the unsafe code in this file:
//! 1. A `Mapping` is the only owner of its pages from `mmap` to `munmap`; `base..base + length` is
//!    mapped readable and writable for exactly that long, and never moves.
//! 2. This file creates no Rust reference to the pages, because the kernel writes to them at times that
//!    the compiler cannot know. Bytes are copied in and out. A user of [`Mapping::at`] that creates a
//!    reference must argue from a protocol with the kernel that gives it those bytes for that time.
//! 3. Copies are made only for ranges that were checked to be inside the mapping. The caller ensures that
//!    the kernel does not use the range at that time (a violation gives torn bytes, which are plain `u8`
//!    and valid with any value).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};

/// Page-aligned memory: anonymous (zeroed, populated when touched) or mapped from a file.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: by rule 1 the pages belong to this value alone, whatever thread holds it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` anonymous bytes (more than zero).
    pub(crate) fn new(length: usize) -> io::Result<Mapping> {
        Mapping::map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// Maps the first `length` bytes (more than zero) of `file`, shared with it and populated at once.
    pub(crate) fn of_file(file: BorrowedFd<'_>, length: usize) -> io::Result<Mapping> {
        Mapping::map(length, libc::MAP_SHARED | libc::MAP_POPULATE, file.as_raw_fd())
    }

    fn map(length: usize, flags: libc::c_int, fd: RawFd) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that anything
        // else owns.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Mapping { base, length })
    }

    /// The first byte; valid until the mapping is dropped.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The address of byte `offset`.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.length);
        // SAFETY: inside the mapping by the check above (rule 1).
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Copies bytes out.
    ///
    /// # Panics
    ///
    /// If the range is not inside the mapping.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset.checked_add(into.len()).is_some_and(|end| end <= self.length));
        // SAFETY: the source is inside the mapping by the check above (rule 1), `into` is a Rust
        // slice and so cannot overlap pages to which no references exist (rule 2).
        unsafe {
            ptr::copy_nonoverlapping(self.as_ptr().add(offset), into.as_mut_ptr(), into.len());
        }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    ///
    /// If the range is not inside the mapping.
    pub(crate) fn write(&mut self, offset: usize, from: &[u8]) {
        assert!(offset.checked_add(from.len()).is_some_and(|end| end <= self.length));
        // SAFETY: as in `read`, with the direction reversed; `&mut self` excludes other copies.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), self.as_ptr().add(offset), from.len());
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one mapped in `map`, and nothing refers to it (rules 1 and 2).
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert_eq!(result, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_bytes_are_read_back() {
        let mut map = Mapping::new(8192).unwrap();
        map.write(8190, &[1, 2]);
        let mut out = [9; 3];
        map.read(8189, &mut out);
        assert_eq!(out, [0, 1, 2]);
        assert_eq!(map.as_ptr() as usize % 4096, 0);
    }

    #[test]
    #[should_panic]
    fn range_beyond_the_end_panics() {
        Mapping::new(4096).unwrap().read(4095, &mut [0; 2]);
    }
}
