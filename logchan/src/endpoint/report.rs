//! What an endpoint tells its owner.

use crate::channel::{Event, FrameVerdict};
use crate::handshake::{Mismatch, Peer};
use crate::ids::Term;
use crate::seal::OpenError;

/// What happened at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointEvent {
    /// A peer that fits was met: there is a channel, empty in both directions.
    Met {
        /// The peer.
        peer: Peer,
        /// The term of the channel.
        term: Term,
    },
    /// An authentic peer does not fit.
    Refused {
        /// The difference.
        mismatch: Mismatch,
        /// Whether the peer says so now; otherwise it may be a recording of what it said once.
        proven: bool,
    },
    /// Something happened in the channel.
    Channel(Event),
}

impl EndpointVerdict {
    /// Whether the peer of the channel was heard.
    pub const fn is_sign_of_life(self) -> bool {
        match self {
            Self::Channel(verdict) => verdict.is_sign_of_life(),
            Self::Handshake | Self::Dropped(_) => false,
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointVerdict {
    /// It was authentic, and this is what the channel made of it.
    Channel(FrameVerdict),
    /// Something for the handshake, good or not.
    Handshake,
    /// Not authentic, not of this session, or not for the first time. It is counted, and changed
    /// nothing.
    Dropped(OpenError),
}
