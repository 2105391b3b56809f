//! What the two ends name things by. Every name is a number of its own type: a term cannot be
//! mistaken for a position.

use core::fmt;

/// The VM that a channel is about. One pair of hosts may run many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub u64);

/// One life of a channel, agreed on when its two ends meet. A frame that a previous life left on
/// the wire has another number, also when the term is the same: a replacement backup attaches
/// without a new term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Counts who may speak for the VM: it grows by one at every go-live and never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// Names a witness: drawn at random when the witness is set up, so two hosts that were given different
/// witnesses notice it when they meet. 0: no witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WitnessId(pub u64);

/// Names one life of one process towards the witness: drawn at random when the process starts, and
/// written into every claim that it makes. 0: no claimant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claimant(pub u64);

/// A position in one lane of a channel: the number of bytes of log before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSeq(pub u64);

/// Counts the frames that one end sent in a session. The first frame has number 1, and no two
/// transmissions share one, not even of the same bytes of log: a nonce can be made of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNumber(pub u64);

impl FrameNumber {
    /// No frame: what an acknowledgement names before anything arrived.
    pub const NONE: Self = Self(0);

    /// The frame after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! displays_as_its_number {
    ($($name:ident)*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        })*
    };
}

displays_as_its_number!(VmId SessionId Term LogSeq FrameNumber);

macro_rules! displays_as_hex {
    ($($name:ident)*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        })*
    };
}

displays_as_hex!(WitnessId Claimant);

/// Which end of the channel this is. The discriminant is its number on the wire; 0 is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Runs the VM and makes the log; holds the lease.
    Primary = 1,
    /// Follows the log.
    Backup = 2,
}

impl Role {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The role with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Primary),
            2 => Some(Self::Backup),
            _ => None,
        }
    }
}

/// One of the two streams of bytes that a channel carries in each direction. Each is delivered
/// whole and in order; between them there is no order, so that one never waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The log: entries that an output may be waiting for.
    Latency,
    /// Pages and whatever else is large: sent when the latency lane has nothing to send.
    Bulk,
}

impl Lane {
    /// Both, the more urgent one first.
    pub const ALL: [Self; 2] = [Self::Latency, Self::Bulk];

    /// The lane's place in [`ALL`](Self::ALL), for tables by lane.
    pub const fn index(self) -> usize {
        match self {
            Self::Latency => 0,
            Self::Bulk => 1,
        }
    }
}
