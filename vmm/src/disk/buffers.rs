//! Buffers for the data of requests, aligned as direct I/O needs them.

use crate::limits::{DISK_POOL_BYTES_MAX, DISK_REQUESTS_MAX};
use logchan::limits::DISK_BYTES_MAX;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// Buffers of all requests in flight can be kept: see `Pool`.
const _: () =
    assert!(DISK_REQUESTS_MAX * DISK_BYTES_MAX.next_power_of_two() <= DISK_POOL_BYTES_MAX);

/// Alignment of a buffer, bytes: that of the page, which is enough for every block device.
const ALIGN_BYTES: usize = 4096;

/// Memory of a buffer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; ALIGN_BYTES]);

/// An aligned buffer of a request.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pages: Vec<Page>,
    length: usize,
}

impl Buffer {
    /// Makes a buffer of `length` bytes, all zero.
    pub(super) fn new(length: usize) -> Buffer {
        Buffer { pages: pages(length.div_ceil(ALIGN_BYTES)), length }
    }

    /// Returns the contents.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.pages.as_bytes()[..self.length]
    }

    /// Returns the contents, to change them.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.pages.as_mut_bytes()[..self.length]
    }
}

fn pages(count: usize) -> Vec<Page> {
    vec![Page([0; ALIGN_BYTES]); count]
}

/// Buffers of one disk that are not in use.
///
/// They have a power of two pages each. A buffer is kept while all that are free have at most [`DISK_POOL_BYTES_MAX`]
/// bytes, as many as all requests in flight may have, so in the long run no request allocates memory.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Free buffers, by the binary logarithm of their pages.
    free: Vec<Vec<Vec<Page>>>,
    free_bytes: usize,
}

impl Pool {
    /// Returns a buffer of `length` bytes with any contents.
    pub(super) fn take(&mut self, length: usize) -> Buffer {
        if length == 0 {
            return Buffer::default();
        }
        let count = length.div_ceil(ALIGN_BYTES).next_power_of_two();
        let kept = self.free.get_mut(class(count)).and_then(Vec::pop);
        let pages = kept.map_or_else(
            || pages(count),
            |kept| {
                self.free_bytes -= kept.len() * ALIGN_BYTES;
                kept
            },
        );
        Buffer { pages, length }
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&mut self, buffer: Buffer) {
        let count = buffer.pages.len();
        let bytes = count * ALIGN_BYTES;
        if count == 0 || self.free_bytes + bytes > DISK_POOL_BYTES_MAX {
            return;
        }
        let class = class(count);
        if self.free.len() <= class {
            self.free.resize_with(class + 1, Vec::new);
        }
        self.free[class].push(buffer.pages);
        self.free_bytes += bytes;
    }
}

/// Returns the class of a buffer with `count` pages.
fn class(count: usize) -> usize {
    count.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_is_aligned_has_its_length_and_is_used_again() {
        let mut pool = Pool::default();
        for length in [1, 512, 4096, 4097, 65536, 100_000] {
            let mut buffer = pool.take(length);
            assert_eq!(buffer.bytes().len(), length);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(ALIGN_BYTES));
            buffer.bytes_mut().fill(7);
            let at = buffer.bytes().as_ptr();
            pool.give_back(buffer);
            let again = pool.take(length);
            assert_eq!((again.bytes().as_ptr(), again.bytes().len()), (at, length));
        }
        assert!(pool.take(0).bytes().is_empty());
    }

    #[test]
    fn pool_keeps_no_more_than_its_bound() {
        let mut pool = Pool::default();
        let many: Vec<_> = (0..100).map(|_| pool.take(DISK_POOL_BYTES_MAX / 16)).collect();
        for buffer in many {
            pool.give_back(buffer);
            assert!(pool.free_bytes <= DISK_POOL_BYTES_MAX);
        }
        assert_eq!(pool.free_bytes, DISK_POOL_BYTES_MAX);
    }
}
