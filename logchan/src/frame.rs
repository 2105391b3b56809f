//! Encoding and decoding of one frame of a channel. [Sealed](crate::seal), it is the payload of an
//! Ethernet frame. The seal covers every bit of it, so the frame has no checksum of its own.
//!
//! ```text
//!   0  magic "UCHN"          4
//!   4  version               1   FRAME_VERSION
//!   5  kind                  1   FrameKind; 0 is invalid
//!   6  role of the sender    1   Role; 0 is invalid
//!   7  flags                 1   bit 0: acknowledge at once; bits 1 and 2: what the sender lacks to run the
//!                                VM ([`Unfit`]); the others are zero
//!   8  payload length        2   explicit, because NICs pad short frames
//!  10  VM                    8
//!  18  session               8
//!  26  term                  8
//!  34  frame number          8   1, 2, 3, ...
//!  42  newest frame received 8   0: none yet
//!  50  frames before it      8   bit i: frame (newest - 1 - i) was received and kept
//!  58  acknowledgement delay 4   ns from the newest frame's arrival to this frame, saturated
//!  62  latency received      8   bytes of the peer's latency lane received without a gap
//!  70  latency window        4   bytes that the peer may send beyond those
//!  74  bulk received         8
//!  82  bulk window           4
//!  86  executed              8   how far the sender has executed, in units of its caller's choice
//!  94  offset                8   of the payload in its lane; zero without payload
//! 102  payload
//! ```
//!
//! Numbers are little-endian. The payload is a part of a lane: entries back to back, of which the first
//! and the last may be incomplete.
//!
//! There is deliberately no time stamp. The sender of a frame remembers when it sent it. The lease
//! depends on that time, and what the lease depends on is not taken from the peer.
//!
//! Rule: any change of this format moves [`FRAME_VERSION`]. Both ends run the same version; frames of
//! another version are counted and not answered.

use crate::error::{FieldError, FrameError};
use crate::health::Unfit;
use crate::ids::{FrameNumber, Lane, Role, SessionId, Term, VmId};
use crate::limits::{CHANNEL_FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::wire::Reader;

/// The first four bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"UCHN";

/// Version of the frame format.
pub const FRAME_VERSION: u8 = 2;

const FLAG_ACK_NOW: u8 = 1 << 0;
/// Position of the bits of [`Unfit`].
const UNFIT_SHIFT: u32 = 1;

/// The kind of a frame. The discriminant is its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A part of the latency lane.
    Latency = 1,
    /// A part of the bulk lane.
    Bulk = 2,
    /// The header only, with its acknowledgements. An `Ack` is not itself acknowledged.
    Ack = 3,
    /// The same, but asks for an acknowledgement.
    Heartbeat = 4,
    /// The sender leaves in good order.
    Bye = 5,
}

impl FrameKind {
    /// Every kind, by number: kind `n` is at `n - 1`.
    pub const ALL: [Self; 5] = [Self::Latency, Self::Bulk, Self::Ack, Self::Heartbeat, Self::Bye];

    /// Returns the kind's number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Returns the kind's index in [`ALL`](Self::ALL), for tables by kind.
    pub const fn index(self) -> usize {
        self.number() as usize - 1
    }

    /// Returns the lane whose bytes the kind carries.
    pub const fn lane(self) -> Option<Lane> {
        match self {
            Self::Latency => Some(Lane::Latency),
            Self::Bulk => Some(Lane::Bulk),
            Self::Ack | Self::Heartbeat | Self::Bye => None,
        }
    }

    /// Returns the kind that carries bytes of `lane`.
    pub const fn of_lane(lane: Lane) -> Self {
        match lane {
            Lane::Latency => Self::Latency,
            Lane::Bulk => Self::Bulk,
        }
    }

    /// Returns whether the receiver must acknowledge the frame.
    pub const fn wants_ack(self) -> bool {
        match self {
            Self::Latency | Self::Bulk | Self::Heartbeat | Self::Bye => true,
            Self::Ack => false,
        }
    }
}

/// Which frames of the peer were received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameAck {
    /// The highest frame number received.
    pub newest: FrameNumber,
    /// Bit `i`: frame `newest - 1 - i` was received, too.
    pub before: u64,
    /// Acknowledgement delay: nanoseconds from the newest frame's arrival to this frame. `u32::MAX`
    /// means at least that long.
    pub held_ns: u32,
}

impl FrameAck {
    /// Returns whether frame `number` is reported as received.
    pub const fn covers(&self, number: FrameNumber) -> bool {
        if number.0 >= self.newest.0 {
            return number.0 == self.newest.0;
        }
        let bit = self.newest.0 - 1 - number.0;
        bit < u64::BITS as u64 && self.before >> bit & 1 != 0
    }
}

/// How much of one of the peer's lanes was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneAck {
    /// Bytes received in order and without a gap.
    pub received: u64,
    /// Bytes that the peer may send beyond those.
    pub window: u32,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Kind of the frame.
    pub kind: FrameKind,
    /// Role of the sender.
    pub role: Role,
    /// The receiver must acknowledge at once, because the sender waits for it.
    pub ack_now: bool,
    /// What the sender's host lacks to run the VM.
    pub unfit: Unfit,
    /// The VM that the channel serves.
    pub vm: VmId,
    /// The session that the frame belongs to.
    pub session: SessionId,
    /// The sender's term.
    pub term: Term,
    /// Number of this frame.
    pub number: FrameNumber,
    /// Which of the peer's frames were received.
    pub ack: FrameAck,
    /// How much of the peer's lanes was received, by [`Lane::index`].
    pub lanes: [LaneAck; Lane::ALL.len()],
    /// How far the sender has executed.
    pub executed: u64,
    /// Offset of the payload in its lane.
    pub offset: u64,
}

impl FrameHeader {
    /// Encodes the header into the first [`FRAME_HEADER_BYTES`] bytes of `frame`. The payload is the
    /// rest of `frame`.
    ///
    /// # Panics
    ///
    /// When `frame` has no room for a header, is longer than [`CHANNEL_FRAME_BYTES_MAX`], or has a
    /// payload although its kind has none, or none although its kind has one.
    pub fn encode(&self, frame: &mut [u8]) {
        let length =
            frame.len().checked_sub(FRAME_HEADER_BYTES).expect("a frame has room for its header");
        assert!(frame.len() <= CHANNEL_FRAME_BYTES_MAX, "a frame of {} bytes", frame.len());
        assert_eq!(self.kind.lane().is_some(), length > 0, "{:?} of {length} bytes", self.kind);
        assert!(self.kind.lane().is_some() || self.offset == 0, "an offset without a payload");

        let head = frame.first_chunk_mut().expect("checked above");
        let mut put = Fields { head, at: 0 };
        put.field(FRAME_MAGIC);
        put.field([FRAME_VERSION, self.kind.number(), self.role.number()]);
        let ack_now = if self.ack_now { FLAG_ACK_NOW } else { 0 };
        put.field([ack_now | self.unfit.bits() << UNFIT_SHIFT]);
        put.field((length as u16).to_le_bytes());
        put.field(self.vm.0.to_le_bytes());
        put.field(self.session.0.to_le_bytes());
        put.field(self.term.0.to_le_bytes());
        put.field(self.number.0.to_le_bytes());
        put.field(self.ack.newest.0.to_le_bytes());
        put.field(self.ack.before.to_le_bytes());
        put.field(self.ack.held_ns.to_le_bytes());
        for lane in self.lanes {
            put.field(lane.received.to_le_bytes());
            put.field(lane.window.to_le_bytes());
        }
        put.field(self.executed.to_le_bytes());
        put.field(self.offset.to_le_bytes());
        assert_eq!(put.at, FRAME_HEADER_BYTES);
    }

    /// Decodes a frame into its header and payload. Bytes behind the payload are padding.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with the frame.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        match bytes.first_chunk::<FRAME_HEADER_BYTES>() {
            Some(head) => Self::decode_head(head, bytes),
            None => Self::decode_head(bytes, bytes),
        }
    }

    /// Decodes a frame whose header is in `head`. Inlined into both callers, because for a whole header
    /// the length is known at compile time.
    #[inline(always)]
    fn decode_head<'b>(head: &[u8], bytes: &'b [u8]) -> Result<(Self, &'b [u8]), FrameError> {
        let mut reader = Reader::new(head);
        if reader.array("magic")? != FRAME_MAGIC {
            return Err(FrameError::NotAFrame);
        }
        let version = reader.u8("version")?;
        if version != FRAME_VERSION {
            return Err(FrameError::OtherVersion(version));
        }
        let kind = reader.u8("kind")?;
        let role = reader.u8("role")?;
        let flags = reader.u8("flags")?;
        let length = usize::from(reader.u16("payload length")?);
        let frame = bytes.get(..FRAME_HEADER_BYTES + length).ok_or(FrameError::Truncated)?;

        let kind = FrameKind::from_number(kind).ok_or(FrameError::UnknownKind(kind))?;
        let role = Role::from_number(role).ok_or(FrameError::UnknownRole(role))?;
        let unfit =
            Unfit::from_bits(flags >> UNFIT_SHIFT).ok_or(FrameError::UnknownFlags(flags))?;
        let header = Self {
            kind,
            role,
            ack_now: flags & FLAG_ACK_NOW != 0,
            unfit,
            vm: VmId(reader.u64("VM")?),
            session: SessionId(reader.u64("session")?),
            term: Term(reader.u64("term")?),
            number: FrameNumber(reader.u64("frame number")?),
            ack: FrameAck {
                newest: FrameNumber(reader.u64("newest frame received")?),
                before: reader.u64("frames before it")?,
                held_ns: reader.u32("acknowledgement delay")?,
            },
            lanes: [read_lane(&mut reader)?, read_lane(&mut reader)?],
            executed: reader.u64("executed")?,
            offset: reader.u64("offset")?,
        };
        header.check(length)?;
        Ok((header, &frame[FRAME_HEADER_BYTES..]))
    }

    /// Checks the header's fields against each other.
    fn check(&self, length: usize) -> Result<(), FrameError> {
        let carries = self.kind.lane().is_some();
        if carries != (length > 0) || (!carries && self.offset != 0) {
            return Err(FrameError::PayloadOfKind(self.kind));
        }
        let overflows = |start: u64, length: u64| start.checked_add(length).is_none();
        let lanes_overflow = self.lanes.iter().any(|l| overflows(l.received, l.window.into()));
        // The last number is reserved, so that there always is a next one.
        if lanes_overflow || overflows(self.offset, length as u64) || self.number.0 == u64::MAX {
            return Err(FrameError::Overflow);
        }
        if self.number == FrameNumber::NONE {
            return Err(FrameError::NoNumber);
        }
        Ok(())
    }
}

impl From<FieldError> for FrameError {
    /// No single field of a header can be invalid here, but the bytes may end before any of them.
    fn from(_: FieldError) -> Self {
        Self::Truncated
    }
}

fn read_lane(reader: &mut Reader<'_>) -> Result<LaneAck, FieldError> {
    Ok(LaneAck { received: reader.u64("received")?, window: reader.u32("window")? })
}

/// Writes one field after the other. It works on an array and is inlined, so that each offset is known
/// at compile time.
struct Fields<'a> {
    head: &'a mut [u8; FRAME_HEADER_BYTES],
    at: usize,
}

impl Fields<'_> {
    #[inline(always)]
    fn field<const N: usize>(&mut self, bytes: [u8; N]) {
        self.head[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }
}
