//! [`FrameVerdict`]: what became of a received frame.

use crate::error::FrameError;

/// What [`handle_frame`](super::Channel::handle_frame) did with a frame. Each verdict is counted. All
/// but `Accepted`, `PayloadRepeated` and `NotKept` change nothing else, except that they raise the event
/// they name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameVerdict {
    /// Accepted: a sign of life, and its payload was new or it had none.
    Accepted,
    /// A sign of life, and its acknowledgements were used, but its payload had been received before.
    PayloadRepeated,
    /// A duplicate. It is no sign of life, because anything on the wire can repeat a frame.
    Duplicate,
    /// Too old to know whether it was received before.
    TooOld,
    /// A sign of life, and its acknowledgements were used, but its payload is beyond the window or would
    /// open one gap too many. It is not acknowledged, so the peer retransmits it.
    NotKept,
    /// A frame of an older term.
    StaleTerm,
    /// A frame of a newer term than ours. Raises [`Event::PeerTermNewer`](super::Event::PeerTermNewer).
    NewerTerm,
    /// A frame of another VM.
    WrongVm,
    /// A frame of another session.
    WrongSession,
    /// From an end with the role of this one. Raises
    /// [`Event::PeerSameRole`](super::Event::PeerSameRole).
    SameRole,
    /// The channel has ended.
    Closed,
    /// Not a frame, or not one that the peer can have sent.
    Malformed(FrameError),
}

impl FrameVerdict {
    /// Number of values of [`index`](Self::index).
    pub const COUNT: usize = 12;

    /// Returns the verdict's index in a table; all malformed frames share one.
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

    /// Names of the verdicts, by [`index`](Self::index).
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

    /// Returns whether the frame shows that the peer of this channel is alive.
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
