//! The frames of a handshake, and the tag that each of them ends in.
//!
//! All numbers are little-endian. Each payload follows the header of a sealed frame, and a tag follows it:
//!
//! ```text
//! Request     incarnation u64 | request u64
//! Challenge   challenge 16 bytes | request u64, up to CHALLENGED_MAX times
//! Initiation  challenge 16 bytes | first message of the key exchange
//! Response    second message of the key exchange
//! ```
//!
//! **The tag** is the first 16 bytes of BLAKE2s-256 (RFC 7693), keyed, over header and payload. Its key is
//! BLAKE2s-256, keyed with the pre-shared key, over the text `understudy handshake 1`. So whoever has no key is
//! refused at the cost of a hash, before any state is changed and before any key exchange begins.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use zeroize::Zeroizing;

use super::key::PresharedKey;
use super::noise::Security;
use super::{CHALLENGED_MAX, HANDSHAKE_FRAME_BYTES};
use crate::error::FieldError;
use crate::seal::{
    KEY_BYTES, Protection, SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SEAL_TAG_BYTES, SealHeader,
    SealKind,
};
use crate::secret::{is_keyed_hash, keyed_hash};
use crate::wire::Reader;

/// Length of a challenge in bytes.
pub(super) const CHALLENGE_BYTES: usize = 16;

/// Length of a request's payload in bytes.
const REQUEST_BYTES: usize = 2 * size_of::<u64>();

/// Longest payload of a challenge frame in bytes.
const CHALLENGE_PAYLOAD_MAX: usize = CHALLENGE_BYTES + CHALLENGED_MAX * size_of::<u64>();

/// Length of the longest challenge frame in bytes.
pub(super) const CHALLENGE_FRAME_BYTES_MAX: usize = CHALLENGE_PAYLOAD_MAX + SEAL_OVERHEAD_BYTES;

/// A random number that only an initiation made after it was drawn can carry.
pub(super) type Challenge = [u8; CHALLENGE_BYTES];

/// The key of a link, and what frames it protects. `Debug` does not show it.
pub(super) struct LinkKey {
    key: PresharedKey,
    protection: Protection,
}

impl LinkKey {
    /// Returns the keys of a link, the one that is tried first in front.
    pub(super) fn all(security: Security) -> Vec<LinkKey> {
        let protection = security.protection();
        let keys = match security {
            Security::Sealed(key) => vec![key],
            Security::Rotating { key, next } => vec![key, next],
            Security::Insecure => vec![PresharedKey::well_known()],
        };
        keys.into_iter().map(|key| LinkKey { key, protection }).collect()
    }

    /// Returns how frames are protected.
    pub(super) fn protection(&self) -> Protection {
        self.protection
    }

    /// Returns the key for the key exchange that answers `challenge`.
    pub(super) fn exchange_key(&self, challenge: &Challenge) -> Zeroizing<[u8; KEY_BYTES]> {
        self.key.exchange_key(challenge)
    }

    /// Returns whether a frame ends in the tag of what is before it.
    pub(super) fn is_authentic(&self, frame: &[u8]) -> bool {
        let covered = frame.len().checked_sub(SEAL_TAG_BYTES);
        let Some((covered, tag)) = covered.map(|covered| frame.split_at(covered)) else {
            return false;
        };
        is_keyed_hash(self.key.tag_key(), &[covered], tag)
    }

    /// Returns the frame around `payload`.
    ///
    /// # Panics
    ///
    /// When the payload is longer than a handshake frame's.
    pub(super) fn frame(&self, kind: SealKind, key_id: u32, payload: &[u8]) -> Frame {
        let covered = SEAL_HEADER_BYTES + payload.len();
        let mut frame = Frame { bytes: [0; HANDSHAKE_FRAME_BYTES], length: covered };
        let (protection, length) = (self.protection, payload.len() as u16);
        let header = SealHeader { kind, protection, length, key_id, sequence: 0 };
        frame.bytes[..SEAL_HEADER_BYTES].copy_from_slice(&header.encode());
        frame.bytes[SEAL_HEADER_BYTES..covered].copy_from_slice(payload);
        let mut tag = [0; KEY_BYTES];
        keyed_hash(self.key.tag_key(), &[frame.as_bytes()], &mut tag);
        frame.length += SEAL_TAG_BYTES;
        frame.bytes[covered..frame.length].copy_from_slice(&tag[..SEAL_TAG_BYTES]);
        frame
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(..)")
    }
}

/// A handshake frame of our own.
#[derive(Clone)]
pub(super) struct Frame {
    bytes: [u8; HANDSHAKE_FRAME_BYTES],
    length: usize,
}

impl Frame {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.length)
    }
}

/// Returns the payload of a handshake frame that is as long as its header says.
pub(super) fn payload(frame: &[u8]) -> &[u8] {
    &frame[SEAL_HEADER_BYTES..frame.len() - SEAL_TAG_BYTES]
}

/// Payload of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Incarnation of the sender.
    pub(super) incarnation: u64,
    /// Random number by which the answer names the request.
    pub(super) id: u64,
}

impl Request {
    pub(super) fn encode(self, key: &LinkKey) -> Frame {
        let mut payload = [0; REQUEST_BYTES];
        payload[..8].copy_from_slice(&self.incarnation.to_le_bytes());
        payload[8..].copy_from_slice(&self.id.to_le_bytes());
        key.frame(SealKind::Request, self.id as u32, &payload)
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Request, FieldError> {
        let mut reader = Reader::new(payload);
        let request =
            Request { incarnation: reader.u64("incarnation")?, id: reader.u64("request")? };
        reader.finish()?;
        Ok(request)
    }
}

/// Returns the frame with a challenge for `requests`.
pub(super) fn encode_challenge(key: &LinkKey, challenge: &Challenge, requests: &[u64]) -> Frame {
    let mut payload = [0; CHALLENGE_PAYLOAD_MAX];
    payload[..CHALLENGE_BYTES].copy_from_slice(challenge);
    let length = CHALLENGE_BYTES + size_of_val(requests);
    let places = payload[CHALLENGE_BYTES..].as_chunks_mut().0;
    for (place, request) in places.iter_mut().zip(requests) {
        *place = request.to_le_bytes();
    }
    let [a, b, c, d, ..] = *challenge;
    key.frame(SealKind::Challenge, u32::from_le_bytes([a, b, c, d]), &payload[..length])
}

/// Decodes the payload of a challenge frame. Returns the challenge, and whether it is for `request`.
pub(super) fn decode_challenge(
    payload: &[u8],
    request: u64,
) -> Result<(Challenge, bool), FieldError> {
    let mut reader = Reader::new(payload);
    let challenge = reader.array("challenge")?;
    let mut is_ours = false;
    while !reader.rest().is_empty() {
        is_ours |= reader.u64("request")? == request;
    }
    Ok((challenge, is_ours))
}

/// Splits the payload of an initiation into its challenge and the message of the key exchange.
pub(super) fn split_initiation(payload: &[u8]) -> Result<(Challenge, &[u8]), FieldError> {
    let mut reader = Reader::new(payload);
    let challenge = reader.array("challenge")?;
    Ok((challenge, reader.take_rest()))
}

const _: () = assert!(REQUEST_BYTES <= CHALLENGE_PAYLOAD_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> LinkKey {
        let key = PresharedKey::from_bytes(&[byte; 32]).unwrap();
        LinkKey::all(Security::Sealed(key)).remove(0)
    }

    /// The expected tag is from Python's `hashlib.blake2s`:
    /// `k = blake2s(b"understudy handshake 1", key=b"\7" * 32).digest()`, then
    /// `blake2s(header + struct.pack("<2Q", 1, 2), key=k).digest()[:16]`.
    #[test]
    fn request_golden_bytes() {
        let frame = Request { incarnation: 1, id: 2 }.encode(&key(7));
        let mut expected = alloc::vec![3, 6, 16, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([
            0xee, 0x95, 0x1b, 0xd8, 0xd3, 0xbc, 0x01, 0x4d, 0x54, 0x2f, 0x16, 0x65, 0xf0, 0x68,
            0x0d, 0xe8,
        ]);
        assert_eq!(frame.as_bytes(), expected);
    }

    #[test]
    fn tag_is_of_one_frame_and_one_key() {
        let frame = Request { incarnation: 1, id: 2 }.encode(&key(7));
        assert!(key(7).is_authentic(frame.as_bytes()));
        assert!(!key(8).is_authentic(frame.as_bytes()));
        for bit in 0..8 * frame.as_bytes().len() {
            let mut damaged = frame.as_bytes().to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!key(7).is_authentic(&damaged), "bit {bit}");
        }
        for length in 0..frame.as_bytes().len() {
            assert!(!key(7).is_authentic(&frame.as_bytes()[..length]), "{length} bytes");
        }
        assert_eq!(alloc::format!("{:?}", key(7)), "LinkKey(..)");
    }

    #[test]
    fn challenge_names_the_requests_that_it_is_for() {
        let requests: [u64; CHALLENGED_MAX] = core::array::from_fn(|i| 100 + i as u64);
        for count in [0, 1, CHALLENGED_MAX] {
            let frame = encode_challenge(&key(7), &[9; 16], &requests[..count]);
            assert!(key(7).is_authentic(frame.as_bytes()));
            let payload = payload(frame.as_bytes());
            for request in 99..=100 + CHALLENGED_MAX as u64 {
                let is_ours = requests[..count].contains(&request);
                assert_eq!(decode_challenge(payload, request), Ok(([9; 16], is_ours)));
            }
        }
        assert!(decode_challenge(&[0; 15], 0).is_err());
        assert!(decode_challenge(&[0; 17], 0).is_err());
    }

    #[test]
    fn request_of_another_length_is_refused() {
        assert!(Request::decode(&[0; 15]).is_err() && Request::decode(&[0; 17]).is_err());
        let request = Request { incarnation: 0, id: 0 };
        assert_eq!(Request::decode(&[0; 16]), Ok(request));
    }
}
