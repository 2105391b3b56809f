//! The pre-shared key of the two hosts.

use core::fmt;

use zeroize::Zeroize;

use crate::seal::KEY_BYTES;

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

/// A pre-shared key of 256 bits. It is wiped when dropped, and `Debug` does not show it.
pub struct PresharedKey([u8; KEY_BYTES]);

impl PresharedKey {
    /// Creates a key from random bytes. The caller wipes its own copy.
    ///
    /// # Errors
    ///
    /// [`KeyError::Zero`].
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Result<PresharedKey, KeyError> {
        if *bytes == [0; KEY_BYTES] { Err(KeyError::Zero) } else { Ok(PresharedKey(*bytes)) }
    }

    /// Parses a key of 64 hexadecimal digits. White space around them is ignored.
    ///
    /// # Errors
    ///
    /// When the text is anything else.
    pub fn from_hex(text: &str) -> Result<PresharedKey, KeyError> {
        let text = text.trim_ascii().as_bytes();
        if text.len() != 2 * KEY_BYTES {
            return Err(KeyError::Length { found: text.len() });
        }
        let mut key = PresharedKey([0; KEY_BYTES]);
        for (index, &digit) in text.iter().enumerate() {
            let value = (digit as char).to_digit(16);
            let value = value.ok_or(KeyError::NotHex { position: index + 1 })?;
            key.0[index / 2] = key.0[index / 2] << 4 | value as u8;
        }
        if key.0 == [0; KEY_BYTES] { Err(KeyError::Zero) } else { Ok(key) }
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl Drop for PresharedKey {
    fn drop(&mut self) {
        self.0.zeroize();
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
        assert_eq!(*key.bytes(), core::array::from_fn(|i| i as u8));
        assert_eq!(format!("{key:?}"), "PresharedKey(..)");
        assert_eq!(
            PresharedKey::from_bytes(key.bytes()).map(|k| *k.bytes()).ok(),
            Some(*key.bytes())
        );
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
