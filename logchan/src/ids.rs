//! Identifiers that both ends use. Each is a type of its own, so that a term cannot be mistaken for a
//! position.

use core::fmt;

/// Identifies the VM that a channel serves. One pair of hosts may run many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub u64);

/// Identifies one session of a channel; the two ends agree on it in the handshake. Frames of a previous
/// session that are still on the wire carry another session, even if the term is the same: a replacement
/// backup attaches without a new term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The term: which host may speak for the VM. It grows by one at every go-live and never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// Identifies a witness. It is drawn at random when the witness is first used, so two hosts that were
/// given different witnesses notice it in the handshake. 0: no witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WitnessId(pub u64);

/// Identifies one run of one process towards the witness. It is drawn at random when the process starts,
/// and written into every claim that the process makes. 0: no claimant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claimant(pub u64);

/// A position in one lane of a channel: the number of bytes in the lane before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSeq(pub u64);

/// Number of a frame among those that one end sent in a session. The first frame has number 1. Every
/// transmission has a number of its own, also a retransmission of the same bytes, so a nonce can be
/// derived from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNumber(pub u64);

impl FrameNumber {
    /// No frame: what an acknowledgement carries before any frame arrived.
    pub const NONE: Self = Self(0);

    /// Returns the number of the next frame.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! display_as_decimal {
    ($($name:ident)*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        })*
    };
}

display_as_decimal!(VmId SessionId Term LogSeq FrameNumber);

macro_rules! display_as_hex {
    ($($name:ident)*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        })*
    };
}

display_as_hex!(WitnessId Claimant);

/// The role of one end of the channel. The discriminant is the role's number on the wire; 0 is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Runs the VM, writes the log, and holds the lease.
    Primary = 1,
    /// Executes the log.
    Backup = 2,
}

impl Role {
    /// Returns the role's number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the role with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Primary),
            2 => Some(Self::Backup),
            _ => None,
        }
    }
}

/// One of the two byte streams that a channel carries in each direction. Each is delivered whole and in
/// order. There is no order between the two, so neither waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The log: entries that a held output may be waiting for.
    Latency,
    /// Pages and other large data, sent when the latency lane has nothing to send.
    Bulk,
}

impl Lane {
    /// Both lanes, the more urgent one first.
    pub const ALL: [Self; 2] = [Self::Latency, Self::Bulk];

    /// Returns the lane's index in [`ALL`](Self::ALL), for tables by lane.
    pub const fn index(self) -> usize {
        match self {
            Self::Latency => 0,
            Self::Bulk => 1,
        }
    }
}
