//! The header of a sealed frame, which is not encrypted.

use super::{SEAL_HEADER_BYTES, SEAL_TAG_BYTES};

/// Version of the layout of a sealed frame that this build writes and reads.
pub const VERSION: u8 = 3;

/// Bit of the kind byte that marks insecure frames.
const INSECURE: u8 = 0x80;

/// Kind of a sealed frame. The numbers are part of the format; 0 is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SealKind {
    /// The initiator's message of the key exchange, with the responder's challenge.
    Initiation = 1,
    /// The responder's message of the key exchange.
    Response = 2,
    /// Empty payload. Shows the responder that the initiator has the session's keys.
    Confirm = 3,
    /// A frame of the channel.
    Data = 4,
    /// Empty payload. The process that had the session's keys is gone: see [`DeathNotice`].
    ///
    /// [`DeathNotice`]: super::DeathNotice
    DeathNotice = 5,
    /// Asks for a challenge, which begins a handshake.
    Request = 6,
    /// The challenge that an initiation must carry, for the requests that it lists.
    Challenge = 7,
}

impl SealKind {
    fn from_number(number: u8) -> Option<SealKind> {
        const ALL: [SealKind; 7] = [
            SealKind::Initiation,
            SealKind::Response,
            SealKind::Confirm,
            SealKind::Data,
            SealKind::DeathNotice,
            SealKind::Request,
            SealKind::Challenge,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Whether frames are encrypted and authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Encrypted and authenticated.
    Sealed,
    /// Neither, for measurements and for inspecting the wire. Anyone on the LAN can join.
    Insecure,
}

/// Why bytes are not a sealed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes end before the header or the frame does.
    #[error("sealed frame cut off: {have} of at least {need} bytes")]
    Truncated {
        /// Bytes available.
        have: usize,
        /// Bytes needed, at least.
        need: usize,
    },
    /// Another version of the layout.
    #[error("sealed frame of version {found}, this build reads version {VERSION}")]
    OtherVersion {
        /// The frame's version.
        found: u8,
    },
    /// An unknown kind.
    #[error("sealed frame of unknown kind {found:#04x}")]
    UnknownKind {
        /// The kind byte.
        found: u8,
    },
}

/// Fields of the header. None of them can be trusted before the frame is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealHeader {
    /// Kind of the frame.
    pub kind: SealKind,
    /// Whether the frame is encrypted.
    pub protection: Protection,
    /// Length of the payload in bytes.
    pub length: u16,
    /// In `Confirm`, `Data` and `DeathNotice`: identifies the session's keys. In `Initiation` and
    /// `Response`: identifies the attempt, chosen by the initiator, so that it can match a response to
    /// its initiation. In `Request` and `Challenge`: the first bytes of the number that it carries.
    pub key_id: u32,
    /// Sequence number of the frame among those sealed with its key; 0 in a handshake, and the largest
    /// number in a `DeathNotice`.
    pub sequence: u64,
}

impl SealHeader {
    /// Encodes the header.
    pub fn encode(&self) -> [u8; SEAL_HEADER_BYTES] {
        let mut bytes = [0; SEAL_HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[1] = self.kind as u8
            | match self.protection {
                Protection::Sealed => 0,
                Protection::Insecure => INSECURE,
            };
        bytes[2..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.key_id.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// Decodes the header of a frame and checks that the frame is at least as long as the header says.
    /// Bytes behind the frame are padding.
    ///
    /// # Errors
    ///
    /// When the bytes are not a frame of this version.
    pub fn decode(frame: &[u8]) -> Result<SealHeader, HeaderError> {
        let truncated = |need| HeaderError::Truncated { have: frame.len(), need };
        let bytes: &[u8; SEAL_HEADER_BYTES] =
            frame.first_chunk().ok_or(truncated(SEAL_HEADER_BYTES))?;
        let [version, kind_byte, l0, l1, s0, s1, s2, s3, sequence @ ..] = *bytes;
        if version != VERSION {
            return Err(HeaderError::OtherVersion { found: version });
        }
        let kind = SealKind::from_number(kind_byte & !INSECURE)
            .ok_or(HeaderError::UnknownKind { found: kind_byte })?;
        let protection =
            if kind_byte & INSECURE == 0 { Protection::Sealed } else { Protection::Insecure };
        let header = SealHeader {
            kind,
            protection,
            length: u16::from_le_bytes([l0, l1]),
            key_id: u32::from_le_bytes([s0, s1, s2, s3]),
            sequence: u64::from_le_bytes(sequence),
        };
        let need = header.frame_bytes();
        if frame.len() < need { Err(truncated(need)) } else { Ok(header) }
    }

    /// Returns the length of the whole frame in bytes, without padding.
    pub fn frame_bytes(&self) -> usize {
        SEAL_HEADER_BYTES + usize::from(self.length) + SEAL_TAG_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SealHeader = SealHeader {
        kind: SealKind::Data,
        protection: Protection::Insecure,
        length: 0x0102,
        key_id: 0x0304_0506,
        sequence: 0x0708_090a_0b0c_0d0e,
    };

    #[test]
    fn header_golden_bytes() {
        let expected = [3, 0x84, 2, 1, 6, 5, 4, 3, 14, 13, 12, 11, 10, 9, 8, 7];
        assert_eq!(HEADER.encode(), expected);
    }

    #[test]
    fn header_round_trips_and_padding_is_ignored() {
        let mut frame = [0; 400];
        frame[..SEAL_HEADER_BYTES].copy_from_slice(&HEADER.encode());
        assert_eq!(SealHeader::decode(&frame), Ok(HEADER));
        let need = HEADER.frame_bytes();
        assert_eq!(need, 16 + 258 + 16);
        assert_eq!(SealHeader::decode(&frame[..need]), Ok(HEADER));
        let cut = SealHeader::decode(&frame[..need - 1]);
        assert_eq!(cut, Err(HeaderError::Truncated { have: need - 1, need }));
    }

    #[test]
    fn header_of_another_version_or_unknown_kind_is_refused() {
        let mut frame = [0; 400];
        frame[..SEAL_HEADER_BYTES].copy_from_slice(&HEADER.encode());
        for kind in [0, 8, 0x7f, 0x80, 0x88] {
            frame[1] = kind;
            assert_eq!(SealHeader::decode(&frame), Err(HeaderError::UnknownKind { found: kind }));
        }
        frame[0] = 2;
        assert_eq!(SealHeader::decode(&frame), Err(HeaderError::OtherVersion { found: 2 }));
    }
}
