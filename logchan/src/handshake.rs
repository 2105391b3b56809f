//! [`SecureLink`]: from a shared secret to a session, and from one session to the next.
//!
//! ```text
//!  initiator                              responder
//!  start                                  (any state; a live session goes on)
//!    |  -- Initiation(e, identity) -->      authentic? fits? -> answer, keep the new session pending
//!    |  <-- Response(e, identity) ---
//!  established                              |
//!    |  -- Confirm, or any frame ---->      established: the pending session is the current one
//! ```
//!
//! An initiation can be a recording, so it changes nothing but the list of pending sessions. A response
//! answers the ephemeral key of our own attempt and the first frame of a pending session answers the one
//! of our response, so both prove a living peer with the key.
//!
//! - **Both may start.** Either end answers at any time. If both have attempts under way, the end with
//!   the greater incarnation does not answer but repeats its own initiation, which the other answers.
//! - **Loss.** Only the initiator has a timer: it repeats the same initiation. The responder answers a
//!   repeated one with the same response. A lost confirmation is made good by the next frame.
//! - **Restart.** An endpoint draws a random incarnation when it is made. A peer with a new incarnation
//!   has forgotten everything: the session of the old one is dropped.
//! - **Rekeying.** A new handshake with the same incarnation replaces the keys without a gap: what was
//!   sealed with those before is still opened. A link begins one by itself when its keys have sealed
//!   [`REKEY_AFTER_FRAMES`](crate::seal::REKEY_AFTER_FRAMES) frames and the peer is heard.
//!
//! - **No way back.** A pending session is taken up only if none was since it was answered. A frame that
//!   was held back shows that the peer had its keys, not that it still has them; so it is opened, and
//!   nothing is sealed with them. Of a peer that has become another incarnation, nothing is opened.
//! - **One peer at a time.** While something is built upon a session ([`SecureLink::bind`]), a peer with
//!   another incarnation gets no answer; it goes on asking. When what was built is over, a link
//!   [renews](SecureLink::renew) itself: it is another incarnation, too, and whatever was sealed before
//!   is void.
//!
//! The order of use: [`handle_frame`](SecureLink::handle_frame) for each frame,
//! [`handle_timeout`](SecureLink::handle_timeout), [`poll_event`](SecureLink::poll_event) until `None`
//! before the frame's payload is used, [`poll_transmit`](SecureLink::poll_transmit) until `None`,
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
pub use report::{LinkEvent, LinkStats, NotEstablished, Peer, Received};

use crate::seal::SEAL_HEADER_BYTES;
use crate::time::Duration;
use identity::IDENTITY_BYTES;
use noise::MESSAGE_OVERHEAD_BYTES;

/// Bytes of a handshake's message.
const MESSAGE_BYTES: usize = IDENTITY_BYTES + MESSAGE_OVERHEAD_BYTES;

/// Bytes that [`SecureLink::poll_transmit`] writes at most.
pub const HANDSHAKE_FRAME_BYTES: usize = SEAL_HEADER_BYTES + MESSAGE_BYTES;

/// Time after which an initiation is first repeated: many round trips on any LAN, and short
/// against the time that a VM needs to boot.
pub const RETRY_FIRST: Duration = Duration::from_millis(20);

/// Time between repetitions in the end; it doubles up to here.
pub const RETRY_MAX: Duration = Duration::from_millis(1000);

/// Sessions that wait for their initiator's first frame. So many more than [`ANSWER_BURST`] that
/// whoever plays back all the recordings that are answered does not displace a true one for 400 ms:
/// a peer that is not heard for so long is dead anyway.
pub const PENDING_MAX: usize = 16;

/// Time that a session may be pending. Longer than an initiator's retry time, after which it asks
/// again anyway.
pub const PENDING_MAX_TIME: Duration = Duration::from_millis(3000);

/// Answers that may be given at once. Each costs two operations on Curve25519, some 100 us, and
/// whoever has recorded initiations can ask for them.
pub const ANSWER_BURST: u32 = 8;

/// Time after which one more answer may be given: 2 parts in 1000 of a core at most.
pub const ANSWER_EACH: Duration = Duration::from_millis(50);

const _: () = assert!(RETRY_FIRST.as_nanos() < RETRY_MAX.as_nanos());
const _: () = assert!(RETRY_MAX.as_nanos() < PENDING_MAX_TIME.as_nanos());
const _: () = assert!(PENDING_MAX > ANSWER_BURST as usize);
