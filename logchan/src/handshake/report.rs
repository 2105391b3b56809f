//! What a link tells its owner.

use super::identity::{Identity, Mismatch};
use crate::ids::SessionId;
use crate::seal::{OpenError, OpenStats};

/// The other end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it said about itself.
    pub identity: Identity,
    /// Drawn at random when it was made: another one is another process, with an empty memory.
    pub incarnation: u64,
    /// Names what the two incarnations share, for the channel between them: the same at both ends, and
    /// unchanged when a later handshake between the two replaces the keys.
    pub session: SessionId,
}

/// Something that the owner of a link should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A session began: frames can be sealed. If the peer's incarnation is not the one of the
    /// session before, whatever was agreed upon with that one is void.
    Established(Peer),
    /// An authentic peer does not fit.
    Refused {
        /// The difference.
        mismatch: Mismatch,
        /// Whether the peer says so now. If not, it may be a recording of what it said once, and is
        /// told of only while there is no session.
        proven: bool,
    },
}

/// What a frame was.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'f> {
    /// A frame of the channel, opened. It belongs to the peer of the current session.
    Data(&'f mut [u8]),
    /// Something for the link itself.
    Handshake,
    /// Nothing that may be used. It is counted.
    Dropped(OpenError),
}

/// There is no session to seal a frame in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no session with the peer")]
pub struct NotEstablished;

/// What a link counted. A plain copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames of sessions, opened and not.
    pub open: OpenStats,
    /// Handshake messages of somebody without the key, or damaged.
    pub forged_handshakes: u64,
    /// Our own initiations, sent back.
    pub reflected: u64,
    /// Initiations not answered because ours goes first.
    pub crossed: u64,
    /// Initiations and responses of another incarnation than the one that the link is bound to.
    pub strangers: u64,
    /// Initiations not answered because too many were.
    pub over_budget: u64,
    /// Responses to no attempt of ours.
    pub stale_responses: u64,
    /// Authentic peers that do not fit.
    pub refused: u64,
    /// Initiations sent, repetitions included.
    pub initiations: u64,
    /// Sessions established.
    pub sessions: u64,
}
