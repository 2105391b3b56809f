//! [`SecureLink`]: establishes sessions from a pre-shared key, and replaces their keys.
//!
//! ```text
//!  initiator                                  responder
//!  start                                      (any state; a live session goes on)
//!    |  -- Request(incarnation, id) ------->    authentic? -> the next challenge is for it, too
//!    |  <- Challenge(c, ids of requests) ---
//!    |  -- Initiation(c, e, identity) ----->    authentic, and c is the current challenge? -> c is used up
//!    |                                          compatible? -> answer; new session is pending
//!    |  <-- Response(e, identity) ----------
//!  established                                  |
//!    |  -- Confirm, or any frame --------->     established: the pending session becomes the current one
//! ```
//!
//! **Who may cause work.** Anybody on the LAN can record these frames, send them again, and make up others, at any
//! rate. Each of the first four ends in a tag under a key that follows from the pre-shared key, so what is made up is
//! refused at the cost of a hash. What is sent again causes no key exchange either:
//!
//! - The responder has one challenge, a random number. An initiation that carries it was made by somebody with the key
//!   after it was drawn. It is replaced by the first one that does, so the same bytes are never worked on again.
//! - The initiator takes a challenge only if it names its request, and draws another request then. So each request that
//!   it sends causes one key exchange at most.
//! - Requests can be recordings. All requests of [`CHALLENGE_EACH`] get one challenge frame, which names up to
//!   [`CHALLENGED_MAX`] of them. So they cost a hash each, and a frame in each interval, and no rate of recordings uses
//!   up what a living peer needs: `RequestList` has the details.
//!
//! So the peer alone, at the pace of its own requests, decides how many key exchanges there are.
//!
//! An initiation may have waited on the wire since its challenge was drawn, so it changes nothing but the list of
//! pending sessions. A response answers the ephemeral key of our own attempt, and the first frame of a pending session
//! answers the ephemeral key of our response. So each of the two proves that a peer with the key is there now.
//!
//! - **Both may start.** Either end answers at any time. If both have attempts in progress, the end with
//!   the greater incarnation does not answer requests but repeats its own, which the other end
//!   answers. The same holds for initiations if both have sent one.
//! - **Loss.** Only the initiator has a timer: it asks again, and gets the current challenge. A request of the peer
//!   makes it ask sooner, but not before [`RETRY_FIRST`] has passed. If a confirmation is lost, the next frame takes
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
//! - **Two keys.** While one pre-shared key replaces another, an end may have both. It sends each request with each of its
//!   keys, and answers a frame with the key that the frame was made with. So two ends meet if they have one key in common,
//!   whichever of them starts.
//! - **Death notice.** With each session's keys, the link also seals a
//!   [`DeathNotice`](crate::seal::DeathNotice) for whoever sees this process die
//!   ([`SecureLink::poll_death_notice`]). A peer takes it only while it has a session with this incarnation.
//!   An incarnation never comes back, so a notice that was recorded is never false later.
//! - **Cost of a flood.** The thread that owns the link pays for every frame: for one that is refused, a hash or a
//!   decryption at most. `docs/logging-channel.md` has the figures, and decision 20 the reasons.
//!
//! The order of calls: [`handle_frame`](SecureLink::handle_frame) for each frame,
//! [`handle_timeout`](SecureLink::handle_timeout), [`poll_event`](SecureLink::poll_event) until `None`
//! and before the frame's payload is used, [`poll_transmit`](SecureLink::poll_transmit) until `None`,
//! [`poll_timeout`](SecureLink::poll_timeout).

mod identity;
mod key;
mod link;
mod message;
mod noise;
mod pending;
mod report;
mod requests;

pub use identity::{CpuModelId, Identity, Mismatch, PROTOCOL_VERSION};
pub use key::{KEY_MEMORY_BYTES, KeyError, KeyMemory, PresharedKey};
pub use link::SecureLink;
pub use noise::{Entropy, Security};
pub use report::{LinkEvent, LinkStats, NotEstablished, Peer, Proof, Received};

use crate::limits::SEALED_FRAME_BYTES_MIN;
use crate::seal::SEAL_OVERHEAD_BYTES;
use crate::time::Duration;
use identity::IDENTITY_BYTES;
use message::{CHALLENGE_BYTES, CHALLENGE_FRAME_BYTES_MAX};
use noise::MESSAGE_OVERHEAD_BYTES;

/// Length of a message of the key exchange in bytes.
const MESSAGE_BYTES: usize = IDENTITY_BYTES + MESSAGE_OVERHEAD_BYTES;

/// Length of an initiation in bytes.
const INITIATION_FRAME_BYTES: usize = CHALLENGE_BYTES + MESSAGE_BYTES + SEAL_OVERHEAD_BYTES;

/// Length in bytes of the longest frame that [`SecureLink::poll_transmit`] writes.
pub const HANDSHAKE_FRAME_BYTES: usize = if CHALLENGE_FRAME_BYTES_MAX > INITIATION_FRAME_BYTES {
    CHALLENGE_FRAME_BYTES_MAX
} else {
    INITIATION_FRAME_BYTES
};

/// Time after which a request is first repeated: many round trips on any LAN, and short against
/// the time that a VM needs to boot.
pub const RETRY_FIRST: Duration = Duration::from_millis(20);

/// Longest time between repetitions of a request. The time doubles up to this.
pub const RETRY_MAX: Duration = Duration::from_millis(1000);

/// Shortest time between two challenge frames. It bounds what requests cost to 500 frames a second, some 2 parts in
/// 1000 of a core, and delays an answer by less than the peer's [`RETRY_FIRST`].
pub const CHALLENGE_EACH: Duration = Duration::from_millis(2);

/// Most requests that one challenge is for. If an attacker replays recorded requests at 100,000 a second, 200 come
/// between two challenges. Then a living peer's request is in the next challenge with a probability of one in 8, and
/// the peer asks every [`RETRY_FIRST`], because it gets these recordings, too.
pub const CHALLENGED_MAX: usize = 24;

/// Most sessions that wait for their initiator's first frame. A peer makes one for each response that is lost.
pub const PENDING_MAX: usize = 16;

/// Longest time that a session may be pending. It is longer than an initiator's time between requests,
/// after which the initiator asks again anyway.
pub const PENDING_MAX_TIME: Duration = Duration::from_millis(3000);

/// Most responses in one burst. Each costs two operations on Curve25519, some 100 us. Only a living peer can cause them,
/// and one that works does not need more.
pub const ANSWER_BURST: u32 = 8;

/// Time after which one more response may be given. This bounds responses to 2 parts in 1000 of a core, also for a peer
/// that does not work.
pub const ANSWER_EACH: Duration = Duration::from_millis(50);

const _: () = assert!(RETRY_FIRST.as_nanos() < RETRY_MAX.as_nanos());
const _: () = assert!(RETRY_MAX.as_nanos() < PENDING_MAX_TIME.as_nanos());
const _: () = assert!(CHALLENGE_EACH.as_nanos() < RETRY_FIRST.as_nanos());
const _: () = assert!(PENDING_MAX > ANSWER_BURST as usize);
// Handshake frames fit every MTU.
const _: () = assert!(HANDSHAKE_FRAME_BYTES <= SEALED_FRAME_BYTES_MIN);
