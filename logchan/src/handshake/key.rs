//! The pre-shared key of the two hosts.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use zeroize::Zeroizing;

use crate::seal::KEY_BYTES;
use crate::secret::keyed_hash;

/// Why a text is not a pre-shared key. No message shows any part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 64 characters.
    #[error(
        "a pre-shared key is 64 hex digits, not {found} characters: make one with 'openssl rand -hex 32'"
    )]
    Length {
        /// Length of the text in bytes, without white space at both ends.
        found: usize,
    },
    /// A character that is not a hexadecimal digit.
    #[error("character {position} of the pre-shared key is not a hex digit")]
    NotHex {
        /// Position of the character, from 1.
        position: usize,
    },
    /// All zeros, which is no secret.
    #[error("the pre-shared key is all zeros: make one with 'openssl rand -hex 32'")]
    Zero,
}

/// Bytes that a [`KeyMemory`] holds: the pre-shared key, and two keys that are derived from it.
pub const KEY_MEMORY_BYTES: usize = 3 * KEY_BYTES;

/// What the key of a handshake's tags is derived for. It changes with what a tag covers.
const TAG_PURPOSE: &[u8] = b"understudy handshake 1";

/// What the key of a witness's claims is derived for. It changes with what their tags cover.
const CLAIM_PURPOSE: &[u8] = b"understudy witness claim 1";

/// What the keys of key exchanges are derived for.
const EXCHANGE_PURPOSE: &[u8] = b"understudy key exchange 1";

/// Where the bytes of a key are kept. They are written once, never move, and are wiped when this is dropped.
///
/// A program implements it with memory that is neither swapped out nor dumped. [`PresharedKey::from_bytes`] and
/// [`PresharedKey::from_hex`] use the heap.
pub trait KeyMemory: Send + Sync {
    /// Returns the bytes.
    fn bytes(&self) -> &[u8; KEY_MEMORY_BYTES];

    /// Returns the bytes, to write them.
    fn bytes_mut(&mut self) -> &mut [u8; KEY_MEMORY_BYTES];
}

/// The heap as a [`KeyMemory`].
struct HeapMemory(Box<Zeroizing<[u8; KEY_MEMORY_BYTES]>>);

impl KeyMemory for HeapMemory {
    fn bytes(&self) -> &[u8; KEY_MEMORY_BYTES] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8; KEY_MEMORY_BYTES] {
        &mut self.0
    }
}

fn heap_memory() -> Box<dyn KeyMemory> {
    Box::new(HeapMemory(Box::new(Zeroizing::new([0; KEY_MEMORY_BYTES]))))
}

/// A pre-shared key of 256 bits. Its bytes are in one place, which all clones share, and are wiped when the last clone
/// is dropped. `Debug` does not show it.
///
/// The key itself is only used to derive others: one for the tags of handshakes and one for the claims at the witness,
/// which are beside it, and one for each key exchange, which says nothing about it. So it reaches no library that would
/// copy it.
#[derive(Clone)]
pub struct PresharedKey(Arc<Box<dyn KeyMemory>>);

impl PresharedKey {
    /// Creates a key from random bytes. The caller wipes its own copy.
    ///
    /// # Errors
    ///
    /// [`KeyError::Zero`].
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Result<PresharedKey, KeyError> {
        let mut memory = heap_memory();
        memory.bytes_mut()[..KEY_BYTES].copy_from_slice(bytes);
        PresharedKey::checked(memory)
    }

    /// Parses a key of 64 hexadecimal digits. White space around them is ignored.
    ///
    /// # Errors
    ///
    /// When the text is anything else.
    pub fn from_hex(text: &str) -> Result<PresharedKey, KeyError> {
        PresharedKey::from_hex_in(text, heap_memory())
    }

    /// Parses a key as [`from_hex`](Self::from_hex) does, and keeps it in `memory`. No other copy of it is made.
    ///
    /// # Errors
    ///
    /// When the text is anything else.
    pub fn from_hex_in(
        text: &str,
        mut memory: Box<dyn KeyMemory>,
    ) -> Result<PresharedKey, KeyError> {
        let text = text.trim_ascii().as_bytes();
        if text.len() != 2 * KEY_BYTES {
            return Err(KeyError::Length { found: text.len() });
        }
        let key = memory.bytes_mut();
        for (index, &digit) in text.iter().enumerate() {
            let value = (digit as char).to_digit(16);
            let value = value.ok_or(KeyError::NotHex { position: index + 1 })?;
            key[index / 2] = key[index / 2] << 4 | value as u8;
        }
        PresharedKey::checked(memory)
    }

    /// Derives the other keys in `memory`, in which the key is.
    fn checked(memory: Box<dyn KeyMemory>) -> Result<PresharedKey, KeyError> {
        if memory.bytes()[..KEY_BYTES] == [0; KEY_BYTES] {
            return Err(KeyError::Zero);
        }
        Ok(PresharedKey::derived(memory))
    }

    fn derived(mut memory: Box<dyn KeyMemory>) -> PresharedKey {
        let [key, tag_key, claim_key] = memory.bytes_mut().as_chunks_mut().0 else {
            unreachable!("the memory has room for three keys");
        };
        keyed_hash(key, &[TAG_PURPOSE], tag_key);
        keyed_hash(key, &[CLAIM_PURPOSE], claim_key);
        PresharedKey(Arc::new(memory))
    }

    /// Returns whether this is the same key as `other`. Only for two keys of one's own: the time that it takes depends on
    /// where they differ.
    pub fn is_same_as(&self, other: &PresharedKey) -> bool {
        self.claim_key() == other.claim_key()
    }

    /// Returns the key of an insecure link, which is known to everybody: zeros.
    pub(super) fn well_known() -> PresharedKey {
        PresharedKey::derived(heap_memory())
    }

    /// Returns the key of the tags of handshake frames.
    pub(super) fn tag_key(&self) -> &[u8; KEY_BYTES] {
        let [_, tag_key, _] = self.parts();
        tag_key
    }

    /// Returns the key of the tags of claims.
    pub(crate) fn claim_key(&self) -> &[u8; KEY_BYTES] {
        let [_, _, claim_key] = self.parts();
        claim_key
    }

    /// Returns the key for the key exchange that answers `challenge`: BLAKE2s-256, keyed with this key, over the text
    /// `understudy key exchange 1` and the challenge. Whoever gets hold of it later, from memory that the cryptographic
    /// library did not wipe, can take part in this exchange only, and no challenge is used twice.
    pub(super) fn exchange_key(&self, challenge: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        let [key, ..] = self.parts();
        let mut derived = Zeroizing::new([0; KEY_BYTES]);
        keyed_hash(key, &[EXCHANGE_PURPOSE, challenge], &mut derived);
        derived
    }

    /// Returns the key and those that are derived from it.
    ///
    /// # Panics
    ///
    /// The memory was wiped. A child process gets none of its parent's keys (`MADV_WIPEONFORK`), but an empty page: two
    /// hosts with this error would understand each other, and everybody else.
    fn parts(&self) -> [&[u8; KEY_BYTES]; 3] {
        let [key, tag_key, claim_key] = self.0.bytes().as_chunks().0 else {
            unreachable!("the memory has room for three keys");
        };
        // Not the key itself, which is zeros on an insecure link. A hash is not.
        assert_ne!(*tag_key, [0; KEY_BYTES], "a key is used in a process that does not have it");
        [key, tag_key, claim_key]
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

    #[test]
    fn key_from_hex_is_parsed_and_not_shown() {
        let key = PresharedKey::from_hex(&format!(" {HEX}\n")).unwrap();
        let bytes = core::array::from_fn(|i| i as u8);
        assert_eq!(key.0.bytes()[..KEY_BYTES], bytes);
        assert_eq!(format!("{key:?}"), "PresharedKey(..)");
        let same = PresharedKey::from_bytes(&bytes).unwrap();
        assert_eq!(same.0.bytes(), key.0.bytes());
        assert_eq!(same.exchange_key(b"c"), key.exchange_key(b"c"));
        assert_ne!(key.exchange_key(b"c"), key.exchange_key(b"d"));
    }

    /// Returns the key as it is in a child process of one that has read it.
    fn wiped() -> PresharedKey {
        PresharedKey(Arc::new(heap_memory()))
    }

    #[test]
    #[should_panic(expected = "does not have it")]
    fn wiped_key_authenticates_no_frame() {
        wiped().tag_key();
    }

    #[test]
    #[should_panic(expected = "does not have it")]
    fn wiped_key_authenticates_no_claim() {
        wiped().claim_key();
    }

    #[test]
    #[should_panic(expected = "does not have it")]
    fn wiped_key_exchanges_no_key() {
        wiped().exchange_key(b"c");
    }

    #[test]
    fn key_from_wrong_text_is_refused_without_showing_it() {
        let error = |text: &str| PresharedKey::from_hex(text).unwrap_err();
        assert_eq!(error(""), KeyError::Length { found: 0 });
        assert_eq!(error(&HEX[1..]), KeyError::Length { found: 63 });
        assert_eq!(error(&HEX.replace("0a", "0g")), KeyError::NotHex { position: 22 });
        assert_eq!(error(&HEX.replace("0a", "+a")), KeyError::NotHex { position: 21 });
        assert_eq!(error(&"0".repeat(64)), KeyError::Zero);
        assert_eq!(PresharedKey::from_bytes(&[0; 32]).unwrap_err(), KeyError::Zero);
    }
}
