//! What a link reports to its owner.

use super::identity::{Identity, Mismatch};
use crate::ids::SessionId;
use crate::seal::{OpenError, OpenStats};

/// The other end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Identity of the peer, as it stated it.
    pub identity: Identity,
    /// Random number drawn when the peer's link was created or renewed. Another number means another
    /// process or a renewed endpoint, which has no memory of earlier sessions.
    pub incarnation: u64,
    /// Session for the channel between the two incarnations: the same at both ends, and unchanged when a
    /// later handshake between the two replaces the keys.
    pub session: SessionId,
}

/// An event of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A session was established, so frames can be sealed. If the peer's incarnation is not that of the
    /// session before, everything agreed upon in that session is invalid.
    Established(Peer),
    /// An authentic peer is incompatible.
    Refused {
        /// The difference.
        mismatch: Mismatch,
        /// Whether the peer is proven to say so now. If not, the message may be a recording; it is then
        /// reported only while there is no session.
        proven: bool,
    },
}

/// What a frame proves about its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: it is damaged, from a sender without the key, or late.
    Nothing,
    /// The sender has the key, or a recording of someone who has it.
    Key,
    /// The sender has the key and takes part now.
    Presence,
}

/// What a received frame was.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'f> {
    /// A frame of the channel, opened. It is from the peer of the current session.
    Data(&'f mut [u8]),
    /// A message of the handshake, and what it proves about its sender.
    Handshake(Proof),
    /// The death notice of the peer of the current session.
    PeerGone,
    /// Dropped and counted.
    Dropped(OpenError),
}

/// There is no session to seal a frame in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no session with the peer")]
pub struct NotEstablished;

/// Counters of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames of sessions, opened and not opened.
    pub open: OpenStats,
    /// Handshake messages that are damaged, or from a sender without the key.
    pub forged_handshakes: u64,
    /// Our own requests, sent back to us.
    pub reflected: u64,
    /// Requests and initiations not answered because our own attempt has precedence.
    pub crossed: u64,
    /// Handshake messages from another incarnation than the one that the link is bound to.
    pub strangers: u64,
    /// Initiations with another challenge than the current one: late, sent again, or forged.
    pub stale_initiations: u64,
    /// Initiations not answered because of the rate limit.
    pub over_budget: u64,
    /// Challenges and responses that answer no attempt of ours.
    pub stale_responses: u64,
    /// Authentic peers that are incompatible.
    pub refused: u64,
    /// Requests sent, repetitions included.
    pub requests: u64,
    /// Challenges sent.
    pub challenges: u64,
    /// Initiations sent.
    pub initiations: u64,
    /// Sessions established.
    pub sessions: u64,
}
