//! What an endpoint reports to its owner.

use crate::channel::{Event, FrameVerdict};
use crate::handshake::{Mismatch, Peer, Proof};
use crate::ids::Term;
use crate::seal::OpenError;

/// An event of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointEvent {
    /// There is a session with a compatible peer, and a channel that is empty in both directions.
    Met {
        /// The peer.
        peer: Peer,
        /// The term of the channel.
        term: Term,
    },
    /// An authentic peer is incompatible.
    Refused {
        /// The difference.
        mismatch: Mismatch,
        /// Whether the peer is proven to say so now. If not, the message may be a recording.
        proven: bool,
    },
    /// An event of the channel.
    Channel(Event),
}

impl EndpointVerdict {
    /// Returns whether the frame shows that the peer of the channel is alive.
    pub const fn is_sign_of_life(self) -> bool {
        match self {
            Self::Channel(verdict) => verdict.is_sign_of_life(),
            Self::Handshake(_) | Self::PeerGone | Self::Dropped(_) => false,
        }
    }

    /// Returns what the frame proves about its sender.
    pub const fn proof(self) -> Proof {
        match self {
            Self::Channel(verdict) if verdict.is_sign_of_life() => Proof::Presence,
            // A frame of the session that is not new may be a recording, and nobody is where a death notice
            // comes from.
            Self::Channel(_) | Self::PeerGone => Proof::Key,
            Self::Handshake(proof) => proof,
            Self::Dropped(_) => Proof::Nothing,
        }
    }
}

/// What became of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointVerdict {
    /// The frame was authentic, and the channel handled it with this verdict.
    Channel(FrameVerdict),
    /// A message of the handshake, valid or not, and what it proves about its sender.
    Handshake(Proof),
    /// The death notice of the peer: the channel has ended, unless it had before.
    PeerGone,
    /// The frame is not authentic, not of this session, or was received before. It is counted and has no
    /// other effect.
    Dropped(OpenError),
}
