//! The layout of a vCPU digest: a hash of the whole state, and a sub-digest of each of its parts, so that the
//! report of a divergence names the parts that differ.
//!
//! ```text
//! bits 63-32  hash of the hashes of all parts
//! bits 31-24  exit
//! bits 23-16  events
//! bits 15-8   system registers
//! bits  7-0   general registers
//! ```
//!
//! A position at which two states differ in one part has equal digests with a probability of 2^-40. A
//! sub-digest that is equal although its part differs (2^-8) makes a report name one part too few; it hides
//! no divergence.

use alloc::string::String;
use xxhash_rust::xxh3::xxh3_64;

/// The number of parts.
pub const VCPU_PARTS: usize = 4;

/// Names of the parts, from the lowest bits up.
const NAMES: [&str; VCPU_PARTS] =
    ["the general registers", "the system registers", "the events", "the exit"];
const SUB_DIGEST_BITS: usize = 8;
const SUB_DIGEST: u64 = (1 << SUB_DIGEST_BITS) - 1;
const _: () = assert!(VCPU_PARTS * SUB_DIGEST_BITS == 32, "the other half is the hash of all");

/// Returns the vCPU digest of a state whose parts have these hashes: general registers, system registers,
/// events, exit.
pub fn vcpu_digest(parts: [u64; VCPU_PARTS]) -> u64 {
    let mut bytes = [0; VCPU_PARTS * 8];
    let mut digest = 0;
    for (index, part) in parts.into_iter().enumerate() {
        bytes[index * 8..][..8].copy_from_slice(&part.to_le_bytes());
        digest |= (part & SUB_DIGEST) << (index * SUB_DIGEST_BITS);
    }
    digest | xxh3_64(&bytes) & !u64::from(u32::MAX)
}

/// Returns the names of the parts in which two states with these digests differ, for a report; empty if the
/// sub-digests do not tell.
pub(crate) fn differing_parts(expected: u64, found: u64) -> String {
    let mut text = String::new();
    for (index, name) in NAMES.iter().enumerate() {
        if (expected ^ found) >> (index * SUB_DIGEST_BITS) & SUB_DIGEST != 0 {
            text.push_str(if text.is_empty() { "" } else { " and " });
            text.push_str(name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_in_one_part_is_named() {
        let state = [11, 22, 33, 44];
        for (index, name) in NAMES.iter().enumerate() {
            let mut other = state;
            other[index] += 1;
            let (expected, found) = (vcpu_digest(state), vcpu_digest(other));
            assert_eq!(differing_parts(expected, found), *name);
            assert_ne!(expected >> 32, found >> 32, "the hash of all covers {name}");
        }
        let found = vcpu_digest([11, 23, 33, 45]);
        let parts = differing_parts(vcpu_digest(state), found);
        assert_eq!(parts, "the system registers and the exit");
    }

    #[test]
    fn part_whose_sub_digest_collides_still_changes_the_digest() {
        let (expected, found) = (vcpu_digest([1, 2, 3, 4]), vcpu_digest([1, 2 | 1 << 8, 3, 4]));
        assert_ne!(expected, found);
        assert_eq!(differing_parts(expected, found), "");
    }
}
