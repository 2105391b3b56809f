//! What became of a frame.

use crate::error::FrameError;

/// What [`handle_frame`](super::Channel::handle_frame) made of a frame. Each verdict is counted.
/// All but the first two change nothing but their counter, or raise the event they name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameVerdict {
    /// Taken: news of the peer, and what it carried was new or there was nothing to carry.
    Accepted,
    /// Taken as a sign of life and for what it acknowledges, but its payload was there already.
    PayloadRepeated,
    /// The same frame again. No sign of life: anything on the wire can repeat a frame.
    Duplicate,
    /// So old that whether it was there before is not known.
    TooOld,
    /// Its payload is beyond the window, or would open one gap too many: the peer has been told
    /// nothing and sends it again. What it acknowledges was taken.
    NotKept,
    /// Of an older term.
    StaleTerm,
    /// Of a newer term than ours: [`Event::PeerTermNewer`](super::Event::PeerTermNewer).
    NewerTerm,
    /// About another VM.
    WrongVm,
    /// Of another session.
    WrongSession,
    /// From an end with our own role: [`Event::PeerSameRole`](super::Event::PeerSameRole).
    SameRole,
    /// The channel is over.
    Closed,
    /// No frame, or none that the peer can have sent.
    Malformed(FrameError),
}

impl FrameVerdict {
    /// The number of [`index`](Self::index)es.
    pub const COUNT: usize = 12;

    /// The verdict's place in a table; what is malformed has one place.
    pub const fn index(self) -> usize {
        match self {
            Self::Accepted => 0,
            Self::PayloadRepeated => 1,
            Self::Duplicate => 2,
            Self::TooOld => 3,
            Self::NotKept => 4,
            Self::StaleTerm => 5,
            Self::NewerTerm => 6,
            Self::WrongVm => 7,
            Self::WrongSession => 8,
            Self::SameRole => 9,
            Self::Closed => 10,
            Self::Malformed(_) => 11,
        }
    }

    /// The names, by [`index`](Self::index).
    pub const NAMES: [&'static str; Self::COUNT] = [
        "accepted",
        "payload repeated",
        "duplicate",
        "too old",
        "not kept",
        "stale term",
        "newer term",
        "wrong VM",
        "wrong session",
        "same role",
        "closed",
        "malformed",
    ];

    /// Whether the peer was heard: it lives, and is the one we talk to.
    pub const fn is_sign_of_life(self) -> bool {
        match self {
            Self::Accepted | Self::PayloadRepeated | Self::NotKept => true,
            Self::Duplicate
            | Self::TooOld
            | Self::StaleTerm
            | Self::NewerTerm
            | Self::WrongVm
            | Self::WrongSession
            | Self::SameRole
            | Self::Closed
            | Self::Malformed(_) => false,
        }
    }
}
