//! Hashes that are keyed with a secret, and removal of what a computation with secrets leaves on the stack.

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, Mac};
use zeroize::zeroize_stack;

use crate::seal::KEY_BYTES;

/// Bytes of the stack that are wiped after a hash. Its state is copied a few times, and has some 250 bytes.
const HASH_STACK_BYTES: usize = 4 << 10;

/// Bytes of the stack that are wiped after a step of a key exchange: its state has some 2 KiB, and is copied while it is
/// made. The operations on the curve take most of this.
const EXCHANGE_STACK_BYTES: usize = 32 << 10;

/// Writes BLAKE2s-256 (RFC 7693), keyed, over the parts to `out`. No copy of the key or of the result stays on the stack.
pub(crate) fn keyed_hash(key: &[u8; KEY_BYTES], parts: &[&[u8]], out: &mut [u8; KEY_BYTES]) {
    hash_out_of_line(key, parts, out);
    zeroize_stack::<HASH_STACK_BYTES>();
}

/// Returns whether `tag`, which may be truncated, is the keyed hash of the parts. The time that it takes does not depend
/// on where they differ. No copy of the key stays on the stack.
pub(crate) fn is_keyed_hash(key: &[u8; KEY_BYTES], parts: &[&[u8]], tag: &[u8]) -> bool {
    let is_equal = compare_out_of_line(key, parts, tag);
    zeroize_stack::<HASH_STACK_BYTES>();
    is_equal
}

/// Runs a step of a key exchange, and wipes the part of the stack that it used.
pub(crate) fn wiping_stack<T>(step: impl FnOnce() -> T) -> T {
    let result = run_out_of_line(step);
    zeroize_stack::<EXCHANGE_STACK_BYTES>();
    result
}

// Not inlined: the frames of these functions and of the wiping function must begin at one place.

#[inline(never)]
fn hash_out_of_line(key: &[u8; KEY_BYTES], parts: &[&[u8]], out: &mut [u8; KEY_BYTES]) {
    mac(key, parts).finalize_into(out.into());
}

#[inline(never)]
fn compare_out_of_line(key: &[u8; KEY_BYTES], parts: &[&[u8]], tag: &[u8]) -> bool {
    mac(key, parts).verify_truncated_left(tag).is_ok()
}

#[inline(never)]
fn run_out_of_line<T>(step: impl FnOnce() -> T) -> T {
    step()
}

fn mac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> Blake2sMac256 {
    let mut mac = Blake2sMac256::new_from_slice(key).expect("BLAKE2s takes a key of 32 bytes");
    parts.iter().for_each(|part| mac.update(part));
    mac
}
