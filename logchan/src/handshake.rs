//! [`SecureLink`]: establishes sessions from a pre-shared key, and replaces their keys.
//!
//! ```text
//!  initiator                              responder
//!  start                                  (any state; a live session goes on)
//!    |  -- Initiation(e, identity) -->      authentic and compatible? -> answer; new session is pending
//!    |  <-- Response(e, identity) ---
//!  established                              |
//!    |  -- Confirm, or any frame ---->      established: the pending session becomes the current one
//! ```
//!
//! An initiation can be a recording, so it changes nothing but the list of pending sessions. A response
//! answers the ephemeral key of our own attempt, and the first frame of a pending session answers the
//! ephemeral key of our response. So each of the two proves that a peer with the key is there now.
//!
//! - **Both may start.** Either end answers at any time. If both have attempts in progress, the end with
//!   the greater incarnation does not answer but retransmits its own initiation, which the other end
//!   answers.
//! - **Loss.** Only the initiator has a timer: it retransmits the same initiation. The responder answers
//!   a retransmitted initiation with the same response. If a confirmation is lost, the next frame takes
//!   its place.
//! - **Restart.** An endpoint draws a random incarnation when it is created. A peer with a new
//!   incarnation has no memory of earlier sessions, so the session of the old incarnation is dropped.
//! - **Rekeying.** A new handshake with the same incarnation replaces the keys without a gap: frames
//!   sealed with the previous keys are still opened. A link starts such a handshake by itself when its
//!   keys have sealed [`REKEY_AFTER_FRAMES`](crate::seal::REKEY_AFTER_FRAMES) frames and frames of the
//!   peer arrive.
//! - **No way back.** A pending session becomes current only if no other session did since it was
//!   answered. A frame that was held back shows that the peer had its keys once, not that it still has
//!   them. Such a frame is opened, but nothing is sealed with its keys. If the peer has become another
//!   incarnation, the frame is not opened.
//! - **One peer at a time.** While a channel is bound to a session ([`SecureLink::bind`]), a peer with
//!   another incarnation gets no answer; it goes on asking. When the channel has ended, the link
//!   [renews](SecureLink::renew) itself: it becomes another incarnation, too, and everything sealed
//!   before is invalid.
//! - **Death notice.** With each session's keys, the link also seals a
//!   [`DeathNotice`](crate::seal::DeathNotice) for whoever sees this process die
//!   ([`SecureLink::poll_death_notice`]). A peer takes it only while it has a session with this incarnation.
//!   An incarnation never comes back, so a notice that was recorded is never false later.
//! - **Cost of a flood.** The rate limit ([`ANSWER_BURST`], [`ANSWER_EACH`]) bounds the work for
//!   authentic initiations, which may be recordings. Forged messages are counted but not rate-limited,
//!   and their cost falls on the thread that owns the link. A forged initiation costs an allocation,
//!   random bytes for an ephemeral key, and the BLAKE2s hashes up to the tag that fails. A forged
//!   response to our own attempt also costs one operation on Curve25519.
//!
//! The order of calls: [`handle_frame`](SecureLink::handle_frame) for each frame,
//! [`handle_timeout`](SecureLink::handle_timeout), [`poll_event`](SecureLink::poll_event) until `None`
//! and before the frame's payload is used, [`poll_transmit`](SecureLink::poll_transmit) until `None`,
//! [`poll_timeout`](SecureLink::poll_timeout).

mod identity;
mod key;
mod link;
mod noise;
mod pending;
mod report;

pub use identity::{Identity, Mismatch, PROTOCOL_VERSION};
pub use key::{KeyError, PresharedKey};
pub use link::SecureLink;
pub use noise::{Entropy, Security};
pub use report::{LinkEvent, LinkStats, NotEstablished, Peer, Proof, Received};

use crate::seal::SEAL_HEADER_BYTES;
use crate::time::Duration;
use identity::IDENTITY_BYTES;
use noise::MESSAGE_OVERHEAD_BYTES;

/// Length of a handshake message in bytes.
const MESSAGE_BYTES: usize = IDENTITY_BYTES + MESSAGE_OVERHEAD_BYTES;

/// Length in bytes of the longest frame that [`SecureLink::poll_transmit`] writes.
pub const HANDSHAKE_FRAME_BYTES: usize = SEAL_HEADER_BYTES + MESSAGE_BYTES;

/// Time after which an initiation is first retransmitted: many round trips on any LAN, and short against
/// the time that a VM needs to boot.
pub const RETRY_FIRST: Duration = Duration::from_millis(20);

/// Longest time between retransmissions. The time doubles up to this.
pub const RETRY_MAX: Duration = Duration::from_millis(1000);

/// Most sessions that wait for their initiator's first frame. It exceeds [`ANSWER_BURST`] by so much
/// that an attacker who replays recorded initiations as fast as they are answered does not displace a
/// genuine pending session for 400 ms. A peer that is silent for so long is declared dead anyway.
pub const PENDING_MAX: usize = 16;

/// Longest time that a session may be pending. It is longer than an initiator's retransmission time,
/// after which the initiator asks again anyway.
pub const PENDING_MAX_TIME: Duration = Duration::from_millis(3000);

/// Most responses in one burst. Each costs two operations on Curve25519, some 100 us, and an attacker
/// can cause them with recorded initiations.
pub const ANSWER_BURST: u32 = 8;

/// Time after which one more response may be given. This bounds responses to 2 parts in 1000 of a core.
pub const ANSWER_EACH: Duration = Duration::from_millis(50);

const _: () = assert!(RETRY_FIRST.as_nanos() < RETRY_MAX.as_nanos());
const _: () = assert!(RETRY_MAX.as_nanos() < PENDING_MAX_TIME.as_nanos());
const _: () = assert!(PENDING_MAX > ANSWER_BURST as usize);
