//! Seal of a frame: encryption, authentication, and protection against replay.
//!
//! Layout behind the Ethernet header, all numbers little-endian:
//!
//! ```text
//!  0        1        2          4            8             16                     16+n     32+n
//!  +--------+--------+----------+------------+-------------+----------------------+--------+----
//!  |version | kind   | n: u16   | key id u32 | sequence u64| n bytes: the         | tag    | padding,
//!  |   3    | | 0x80 |          |            |             | channel's whole frame| 16     | ignored
//!  +--------+--------+----------+------------+-------------+----------------------+--------+----
//!  |<------------- associated data --------------------->|<----- encrypted ---->|
//! ```
//!
//! The header is not encrypted, because the receiver needs it to open the rest; the tag covers it. The
//! length is explicit because NICs pad short frames to 60 bytes (IEEE 802.3 clause 3.2.8).
//!
//! **Cipher.** AEGIS-128L (draft-irtf-cfrg-aegis-aead) with tags of 128 bits. The nonce is eight zero
//! bytes and the sequence number, big-endian. Each direction of each session has a key of its own, so no
//! nonce is used twice with a key. Each round trip has four of these operations, which is why the cipher
//! is not GCM; decision 5 has the figures.
//!
//! **Replay.** The receiver accepts a sequence number once, and none that is more than [`WINDOW_FRAMES`]
//! behind the highest (RFC 6479).
//!
//! **Handshake.** The payload of a handshake frame is not encrypted as a whole, and its tag is another one:
//! `handshake/message.rs`.
//!
//! **Death notice.** One frame of each direction is sealed ahead: see [`DeathNotice`]. It has no payload,
//! and the sequence number 2^64 - 1, which no other frame uses, so its nonce is its own and the window
//! does not apply to it. The receiver accepts it once.
//!
//! **Insecure.** With [`Protection::Insecure`] the payload is not encrypted, and the tag is a 64-bit
//! XXH3 of everything before it, then zeros. It detects damage, not forgery. Bit 7 of the kind marks
//! such a frame, and an endpoint accepts only frames with its own protection.
//!
//! [`VERSION`] moves with any change of this, except for a new kind of frame within a session: the
//! handshake compares [`PROTOCOL_VERSION`](crate::handshake::PROTOCOL_VERSION) first, and two builds that
//! can still read each other's handshake can say how they differ.

mod cipher;
mod header;
mod replay_window;

pub use cipher::{
    DEATH_NOTICE_BYTES, DeathNotice, KEY_BYTES, OpenError, OpenStats, Opener, REKEY_AFTER_FRAMES,
    Sealer,
};
pub use header::{HeaderError, Protection, SealHeader, SealKind, VERSION};
pub use replay_window::{Replay, ReplayWindow, WINDOW_FRAMES};

/// Bytes before the payload.
pub const SEAL_HEADER_BYTES: usize = 16;

/// Bytes of the tag behind the payload.
pub const SEAL_TAG_BYTES: usize = 16;

/// Bytes that sealing adds to a frame of the channel.
pub const SEAL_OVERHEAD_BYTES: usize = SEAL_HEADER_BYTES + SEAL_TAG_BYTES;
