//! Sealing and opening of frames, with one object for each direction of a session.

use alloc::boxed::Box;
use core::fmt;

use aegis::aegis128l::Aegis128L;
use xxhash_rust::xxh3::xxh3_64_with_seed;
use zeroize::Zeroizing;

use super::header::{HeaderError, Protection, SealHeader, SealKind};
use super::replay_window::ReplayWindow;
use super::{SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SEAL_TAG_BYTES};

/// Length in bytes of a pre-shared key, and of a session key as the handshake derives it.
pub const KEY_BYTES: usize = 32;

/// Length in bytes of the session key that the cipher takes. A prefix of the output of HKDF is as good a
/// key as the whole, and the curve of the handshake has a strength of 128 bits, too.
const CIPHER_KEY_BYTES: usize = 16;

/// Number of frames after which a session gets new keys.
///
/// The cipher does not require this: AEGIS with nonces that do not repeat has no limit that frames could
/// reach (draft-irtf-cfrg-aegis-aead, "Usage Guidelines"). The reason is forward secrecy. An attacker
/// who reads a host's memory can open what was sealed with the keys in it, so keys must not live
/// forever. At 50,000 frames a second, this number is reached after an hour and a half.
pub const REKEY_AFTER_FRAMES: u64 = 1 << 28;

/// Sequence number of the [`DeathNotice`]: the only one that no other frame uses, so the notice can be
/// sealed ahead of all of them.
const NOTICE_SEQUENCE: u64 = u64::MAX;

/// Length in bytes of a [`DeathNotice`]. It has no payload: its key says which session and which end.
pub const DEATH_NOTICE_BYTES: usize = SEAL_OVERHEAD_BYTES;

/// A sealed frame which says that the process that sealed it is gone, and that nothing which it had open
/// can send any more.
///
/// The process seals it while it lives, for each session, and gives it to whoever will see it die. The
/// holder needs no key, and can say nothing else with it. The same keys always give the same bytes, so it
/// may be sent any number of times; the peer accepts it once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DeathNotice([u8; DEATH_NOTICE_BYTES]);

impl DeathNotice {
    /// Returns the frame, without its Ethernet header.
    pub const fn as_bytes(&self) -> &[u8; DEATH_NOTICE_BYTES] {
        &self.0
    }
}

/// Does not show the frame: it must not appear in a log before the process is gone.
impl fmt::Debug for DeathNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeathNotice(..)")
    }
}

/// Bytes of the hash in the tag of an insecure frame.
const HASH_BYTES: usize = size_of::<u64>();

/// Why a frame was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes are not a sealed frame.
    #[error("{0}")]
    Malformed(HeaderError),
    /// A sealed frame where insecure ones are expected, or the reverse.
    #[error("the frame is not protected as on this endpoint (sealed or insecure)")]
    OtherProtection,
    /// A frame of a session that has ended, of another VM's session, or of none.
    #[error("frame of an unknown session, key {key_id:08x}")]
    StaleSession {
        /// ID of the keys, from the frame's header.
        key_id: u32,
    },
    /// The frame was received before, or is too old to know.
    #[error("frame {sequence} was received before, or is too old to know")]
    Replayed {
        /// The sequence number in the frame's header.
        sequence: u64,
    },
    /// A frame that is damaged, forged, or sealed with another key.
    #[error("frame {sequence} does not match its tag")]
    BadTag {
        /// The sequence number in the frame's header.
        sequence: u64,
    },
}

/// Number of frames opened, and of frames refused by [`OpenError`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenStats {
    /// Frames opened.
    pub opened: u64,
    /// [`OpenError::Malformed`].
    pub malformed: u64,
    /// [`OpenError::OtherProtection`].
    pub other_protection: u64,
    /// [`OpenError::StaleSession`].
    pub stale_session: u64,
    /// [`OpenError::Replayed`].
    pub replayed: u64,
    /// [`OpenError::BadTag`].
    pub bad_tag: u64,
}

impl OpenStats {
    /// Counts one frame.
    pub fn record<T>(&mut self, result: &Result<T, OpenError>) {
        *match result {
            Ok(_) => &mut self.opened,
            Err(OpenError::Malformed(_)) => &mut self.malformed,
            Err(OpenError::OtherProtection) => &mut self.other_protection,
            Err(OpenError::StaleSession { .. }) => &mut self.stale_session,
            Err(OpenError::Replayed { .. }) => &mut self.replayed,
            Err(OpenError::BadTag { .. }) => &mut self.bad_tag,
        } += 1;
    }
}

enum Cipher {
    Sealed {
        /// Boxed, so that a session that moves leaves no copy behind.
        key: Box<Zeroizing<[u8; CIPHER_KEY_BYTES]>>,
    },
    /// The hash is seeded with a word of the key. The two directions have different keys, so a frame
    /// that is sent back to its sender is not accepted as one of the peer's.
    Insecure { seed: u64 },
}

impl Cipher {
    fn new(protection: Protection, key: &[u8; KEY_BYTES]) -> Cipher {
        match protection {
            Protection::Sealed => {
                let mut taken = Box::new(Zeroizing::new([0; CIPHER_KEY_BYTES]));
                taken.copy_from_slice(&key[..CIPHER_KEY_BYTES]);
                Cipher::Sealed { key: taken }
            }
            Protection::Insecure => {
                let [word, ..] = key.as_chunks().0 else { unreachable!("a key has four words") };
                Cipher::Insecure { seed: u64::from_le_bytes(*word) }
            }
        }
    }

    fn protection(&self) -> Protection {
        match self {
            Cipher::Sealed { .. } => Protection::Sealed,
            Cipher::Insecure { .. } => Protection::Insecure,
        }
    }
}

/// Returns the cipher for frame `sequence`.
fn aegis(key: &[u8; CIPHER_KEY_BYTES], sequence: u64) -> Aegis128L<SEAL_TAG_BYTES> {
    let mut nonce = [0; 16];
    nonce[8..].copy_from_slice(&sequence.to_be_bytes());
    Aegis128L::new(key, &nonce)
}

/// Returns the tag of an insecure frame, computed over everything before it.
fn insecure_tag(seed: u64, covered: &[u8]) -> [u8; SEAL_TAG_BYTES] {
    let mut tag = [0; SEAL_TAG_BYTES];
    tag[..HASH_BYTES].copy_from_slice(&xxh3_64_with_seed(covered, seed).to_le_bytes());
    tag
}

/// Seals the frames of one direction of a session.
pub struct Sealer {
    cipher: Cipher,
    key_id: u32,
    next: u64,
}

impl Sealer {
    /// Creates a sealer that starts with frame 0. No other sealer may have used `key`. With
    /// [`Protection::Insecure`] the key protects nothing and only distinguishes the two directions.
    pub fn new(protection: Protection, key: &[u8; KEY_BYTES], key_id: u32) -> Sealer {
        Sealer { cipher: Cipher::new(protection, key), key_id, next: 0 }
    }

    /// Returns the number of frames sealed so far, which is the sequence number of the next one.
    pub fn frames(&self) -> u64 {
        self.next
    }

    /// Seals the payload in `frame[SEAL_HEADER_BYTES..len - SEAL_TAG_BYTES]` in place and writes header
    /// and tag around it. Returns the frame's sequence number. Allocates nothing.
    ///
    /// # Panics
    ///
    /// When `frame` has no room for header and tag, when its payload is longer than 65,535 bytes, or
    /// when the session has used up its 2^64 - 1 sequence numbers.
    pub fn seal(&mut self, frame: &mut [u8]) -> u64 {
        self.seal_kind(SealKind::Data, frame)
    }

    pub(crate) fn seal_kind(&mut self, kind: SealKind, frame: &mut [u8]) -> u64 {
        let length = frame.len().checked_sub(SEAL_OVERHEAD_BYTES);
        let length = length.and_then(|length| u16::try_from(length).ok());
        let length = length.expect("a frame to seal has room for header and tag");
        let sequence = self.next;
        assert!(sequence < NOTICE_SEQUENCE, "key {:08x} is out of nonces", self.key_id);
        self.next += 1;
        self.seal_as(kind, sequence, length, frame);
        sequence
    }

    /// Returns the notice that the owner of this sealer is gone. No frame that is sealed before or after
    /// it changes it.
    pub fn death_notice(&self) -> DeathNotice {
        let mut frame = [0; DEATH_NOTICE_BYTES];
        self.seal_as(SealKind::DeathNotice, NOTICE_SEQUENCE, 0, &mut frame);
        DeathNotice(frame)
    }

    /// Seals the `length` bytes of payload in `frame` in place. Two frames with one `sequence` must be equal.
    fn seal_as(&self, kind: SealKind, sequence: u64, length: u16, frame: &mut [u8]) {
        let protection = self.cipher.protection();
        let header = SealHeader { kind, protection, length, key_id: self.key_id, sequence };
        let (covered, tag) = frame.split_at_mut(SEAL_HEADER_BYTES + usize::from(length));
        covered[..SEAL_HEADER_BYTES].copy_from_slice(&header.encode());
        let computed = match &self.cipher {
            Cipher::Sealed { key } => {
                let (head, payload) = covered.split_at_mut(SEAL_HEADER_BYTES);
                aegis(key, sequence).encrypt_in_place(payload, head)
            }
            Cipher::Insecure { seed } => insecure_tag(*seed, covered),
        };
        tag.copy_from_slice(&computed);
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(key {:08x}, next {})", self.key_id, self.next)
    }
}

/// Opens the frames of one direction of a session.
pub struct Opener {
    cipher: Cipher,
    key_id: u32,
    window: ReplayWindow,
    /// The death notice was opened. It is outside the window, which it would close.
    has_notice: bool,
}

impl Opener {
    /// Creates the counterpart of [`Sealer::new`].
    pub fn new(protection: Protection, key: &[u8; KEY_BYTES], key_id: u32) -> Opener {
        let cipher = Cipher::new(protection, key);
        Opener { cipher, key_id, window: ReplayWindow::new(), has_notice: false }
    }

    /// Forgets which frames were received: a planted bug.
    pub(crate) fn forget_seen(&mut self) {
        self.window = ReplayWindow::new();
    }

    /// Opens a frame in place and returns its kind and payload. Padding behind the frame is ignored.
    /// Allocates nothing.
    ///
    /// # Errors
    ///
    /// When the frame is not of this session, is not intact, or was received before. The opener is then
    /// unchanged. The frame is unchanged too, except that its payload may be wiped if the tag is wrong.
    pub fn open<'f>(&mut self, frame: &'f mut [u8]) -> Result<(SealKind, &'f mut [u8]), OpenError> {
        let header = SealHeader::decode(frame).map_err(OpenError::Malformed)?;
        let SealHeader { kind, protection, length, key_id, sequence } = header;
        if protection != self.cipher.protection() {
            return Err(OpenError::OtherProtection);
        }
        match kind {
            SealKind::Confirm | SealKind::Data | SealKind::DeathNotice if key_id == self.key_id => {
            }
            // A handshake message belongs to no session.
            SealKind::Request
            | SealKind::Challenge
            | SealKind::Initiation
            | SealKind::Response
            | SealKind::Confirm
            | SealKind::Data
            | SealKind::DeathNotice => return Err(OpenError::StaleSession { key_id }),
        }
        let is_notice = kind == SealKind::DeathNotice;
        // Only a notice has the last number, and it has no other.
        if is_notice != (sequence == NOTICE_SEQUENCE) {
            return Err(OpenError::BadTag { sequence });
        }
        let is_replayed =
            if is_notice { self.has_notice } else { self.window.check(sequence).is_err() };
        if is_replayed {
            return Err(OpenError::Replayed { sequence });
        }

        let (covered, rest) = frame.split_at_mut(SEAL_HEADER_BYTES + usize::from(length));
        let tag: &[u8; SEAL_TAG_BYTES] =
            rest.first_chunk().expect("decode checked the frame's length");
        let is_intact = match &self.cipher {
            Cipher::Sealed { key } => {
                let (head, payload) = covered.split_at_mut(SEAL_HEADER_BYTES);
                aegis(key, sequence).decrypt_in_place(payload, tag, head).is_ok()
            }
            Cipher::Insecure { seed } => *tag == insecure_tag(*seed, covered),
        };
        if !is_intact {
            return Err(OpenError::BadTag { sequence });
        }
        if is_notice {
            self.has_notice = true;
        } else {
            self.window.accept(sequence);
        }
        Ok((kind, &mut covered[SEAL_HEADER_BYTES..]))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener(key {:08x})", self.key_id)
    }
}
