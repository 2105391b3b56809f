//! Frames that nobody else can read, change, invent or repeat.
//!
//! What travels behind the Ethernet header, all numbers little-endian:
//!
//! ```text
//!  0        1        2          4            8             16                     16+n     32+n
//!  +--------+--------+----------+------------+-------------+----------------------+--------+----
//!  |version | kind   | n: u16   | key id u32 | sequence u64| n bytes: the         | tag    | padding,
//!  |   1    | | 0x80 |          |            |             | channel's whole frame| 16     | ignored
//!  +--------+--------+----------+------------+-------------+----------------------+--------+----
//!  |<------------- associated data --------------------->|<----- encrypted ---->|
//! ```
//!
//! The header stays in the clear, because the receiver needs it to open the rest; the tag covers it.
//! The length is explicit because NICs pad short frames to 60 bytes (IEEE 802.3 clause 3.2.8).
//!
//! **Cipher.** AEGIS-128L (draft-irtf-cfrg-aegis-aead) with tags of 128 bits. The nonce is eight zero
//! bytes and the sequence number, big-endian; each direction of each session has a key of its own, so no
//! nonce meets a key twice. Four such operations are in each round trip, which is why it is not GCM:
//! decision 5 has the figures.
//!
//! **Replay.** The receiver accepts a sequence number once, and none that is more than
//! [`WINDOW_FRAMES`] behind the highest (RFC 6479).
//!
//! **Insecure.** With [`Protection::Insecure`] the payload is in the clear and the tag is a 64-bit XXH3
//! of all before it, then zeros: it finds damage, not intent. Bit 7 of the kind says so, and an endpoint
//! accepts its own protection only.
//!
//! [`VERSION`] moves when any of this does.

mod cipher;
mod header;
mod replay_window;

pub use cipher::{KEY_BYTES, OpenError, OpenStats, Opener, REKEY_AFTER_FRAMES, Sealer};
pub use header::{HeaderError, Protection, SealHeader, SealKind, VERSION};
pub use replay_window::{Replay, ReplayWindow, WINDOW_FRAMES};

/// Bytes before the payload.
pub const SEAL_HEADER_BYTES: usize = 16;

/// Bytes behind the payload.
pub const SEAL_TAG_BYTES: usize = 16;

/// Bytes that sealing adds to a frame of the channel.
pub const SEAL_OVERHEAD_BYTES: usize = SEAL_HEADER_BYTES + SEAL_TAG_BYTES;
