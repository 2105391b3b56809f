//! The digest of a disk's contents: the same for two images with the same contents, whatever their holes and formats.

use super::buffers::Buffer;
use super::storage::Storage;
use std::io;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a piece. The digest is that of the pieces' digests, so that a hole costs no reading and no hashing.
const PIECE_BYTES: u64 = 1 << 20;

/// Returns the xxh3-64 of the size, and of the xxh3-64 of each MiB.
///
/// # Errors
///
/// An error of the host.
pub(super) fn of(storage: &mut dyn Storage) -> io::Result<u64> {
    let size = storage.size();
    let mut buffer = Buffer::new(PIECE_BYTES as usize);
    let zeros = xxh3_64(buffer.bytes());
    let mut digest = Xxh3::new();
    digest.update(&size.to_le_bytes());
    let mut data = storage.next_data(0)?;
    for start in (0..size).step_by(PIECE_BYTES as usize) {
        let end = size.min(start + PIECE_BYTES);
        while data.as_ref().is_some_and(|data| data.end <= start) {
            data = storage.next_data(start)?;
        }
        let has_data = data.as_ref().is_some_and(|data| data.start < end);
        let is_whole = end - start == PIECE_BYTES;
        let piece = if has_data || !is_whole {
            let bytes = &mut buffer.bytes_mut()[..(end - start) as usize];
            storage.read(start, bytes)?;
            xxh3_64(bytes)
        } else {
            zeros
        };
        digest.update(&piece.to_le_bytes());
    }
    Ok(digest.digest())
}
