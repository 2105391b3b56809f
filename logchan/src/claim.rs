//! [`Claim`] and [`ClaimKey`]: what a claim at the witness states, and its authentication.
//!
//! Whoever can write to the witness's storage can write a claim. The tag shows that a host of the pair made
//! it. The tag is BLAKE2s-256 (RFC 7693), keyed, over these numbers, all little-endian:
//!
//! ```text
//! witness u64 | vm u64 | term u64 | claimant u64
//! ```
//!
//! Its key is BLAKE2s-256, keyed with the pre-shared key, over the text `understudy witness claim 1`. So the tags
//! say nothing about the keys of the channel.

use crate::handshake::{PresharedKey, Security};
use crate::ids::{Claimant, Term, VmId, WitnessId};
use crate::secret::{is_keyed_hash, keyed_hash};
use core::fmt;

/// Length of a tag in bytes.
pub const CLAIM_TAG_BYTES: usize = 32;

/// What a claim states: `claimant` owns `term` of `vm`, granted by `witness`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The witness.
    pub witness: WitnessId,
    /// The VM.
    pub vm: VmId,
    /// The term.
    pub term: Term,
    /// Its owner.
    pub claimant: Claimant,
}

/// Key under which the hosts of a pair authenticate their claims, or two while one replaces the other. Each is beside the
/// pre-shared key that it is derived from, and `Debug` does not show it.
///
/// A host with two keys gives its claims a tag of each, so that a host with either of them can read them.
pub struct ClaimKey {
    key: PresharedKey,
    next: Option<PresharedKey>,
}

impl ClaimKey {
    /// Returns the key that is derived from the pre-shared key of the pair.
    pub fn derive(key: &PresharedKey) -> ClaimKey {
        ClaimKey { key: key.clone(), next: None }
    }

    /// Returns the keys of `security`, if it has any.
    pub fn of(security: &Security) -> Option<ClaimKey> {
        match security {
            Security::Sealed(key) => Some(ClaimKey::derive(key)),
            Security::Rotating { key, next } => {
                Some(ClaimKey { key: key.clone(), next: Some(next.clone()) })
            }
            Security::Insecure => None,
        }
    }

    /// Returns the tags of `claim`: one of each key.
    pub fn tags(&self, claim: &Claim) -> impl Iterator<Item = [u8; CLAIM_TAG_BYTES]> {
        let covered = covered(claim);
        self.keys().map(move |key| {
            let mut tag = [0; CLAIM_TAG_BYTES];
            keyed_hash(key.claim_key(), &[&covered], &mut tag);
            tag
        })
    }

    /// Returns whether `tag` is a tag of `claim`. The time that it takes does not depend on where they
    /// differ.
    pub fn is_authentic(&self, claim: &Claim, tag: &[u8; CLAIM_TAG_BYTES]) -> bool {
        self.keys().any(|key| is_keyed_hash(key.claim_key(), &[&covered(claim)], tag))
    }

    fn keys(&self) -> impl Iterator<Item = &PresharedKey> {
        core::iter::once(&self.key).chain(&self.next)
    }
}

/// Returns what the tag of `claim` covers.
fn covered(claim: &Claim) -> [u8; 32] {
    let words = [claim.witness.0, claim.vm.0, claim.term.0, claim.claimant.0];
    let mut bytes = [0; 32];
    for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    bytes
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim =
        Claim { witness: WitnessId(1), vm: VmId(2), term: Term(3), claimant: Claimant(4) };

    fn key(byte: u8) -> ClaimKey {
        ClaimKey::derive(&PresharedKey::from_bytes(&[byte; 32]).unwrap())
    }

    /// The expected value is from Python's `hashlib.blake2s`:
    /// `k = blake2s(b"understudy witness claim 1", key=b"\7" * 32).digest()`, then
    /// `blake2s(struct.pack("<4Q", 1, 2, 3, 4), key=k)`.
    #[test]
    fn tag_golden_bytes() {
        let expected = [
            0x58, 0x94, 0x3d, 0x22, 0x7d, 0xe1, 0xf3, 0xee, 0x56, 0x27, 0x8d, 0x34, 0x33, 0x07,
            0xef, 0x5c, 0x52, 0x81, 0x25, 0xbd, 0xb5, 0x1d, 0x5e, 0xe2, 0x22, 0x78, 0x9e, 0x5a,
            0x12, 0xe0, 0x62, 0xa1,
        ];
        assert!(key(7).tags(&CLAIM).eq([expected]));
    }

    #[test]
    fn tag_is_of_one_claim_and_one_key() {
        let tag = key(7).tags(&CLAIM).next().unwrap();
        assert!(key(7).is_authentic(&CLAIM, &tag));
        assert!(!key(8).is_authentic(&CLAIM, &tag));
        for other in [
            Claim { witness: WitnessId(9), ..CLAIM },
            Claim { vm: VmId(9), ..CLAIM },
            Claim { term: Term(9), ..CLAIM },
            Claim { claimant: Claimant(9), ..CLAIM },
        ] {
            assert!(!key(7).is_authentic(&other, &tag), "{other:?}");
        }
        let mut damaged = tag;
        damaged[31] ^= 1;
        assert!(!key(7).is_authentic(&CLAIM, &damaged));
        assert_eq!(alloc::format!("{:?}", key(7)), "ClaimKey(..)");
    }

    #[test]
    fn claim_of_two_keys_is_authentic_with_either() {
        let [old, new] = [7, 8].map(|byte| PresharedKey::from_bytes(&[byte; 32]).unwrap());
        let both = ClaimKey::of(&Security::Rotating { key: old, next: new }).unwrap();
        let tags: alloc::vec::Vec<_> = both.tags(&CLAIM).collect();
        assert!(key(7).is_authentic(&CLAIM, &tags[0]) && key(8).is_authentic(&CLAIM, &tags[1]));
        for one in [7, 8] {
            let tag = key(one).tags(&CLAIM).next().unwrap();
            assert!(both.is_authentic(&CLAIM, &tag));
        }
        assert!(!both.is_authentic(&CLAIM, &key(9).tags(&CLAIM).next().unwrap()));
    }
}
