//! What can be wrong with bytes that claim to be a log, or with the order of its entries.
//!
//! The caller decides what each means: a torn block at the end of a file is a recorder that was
//! killed; the same bytes in a frame from a peer are a reason to count and drop it.

use crate::entry_kind::EntryKind;
use crate::frame::FrameKind;

/// What is wrong with one field of an entry's body or of a header. `field` is its name as in
/// [`crate::entry::Entry`] or [`crate::log_header::LogHeader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The bytes end before the field does.
    #[error("the bytes end inside `{field}`")]
    Ends {
        /// The field.
        field: &'static str,
    },
    /// The last field ends before the bytes do.
    #[error("{count} bytes follow the last field")]
    Trailing {
        /// Bytes left over.
        count: usize,
    },
    /// A LEB128 number with needless zero groups.
    #[error("`{field}` is not in its shortest form")]
    NotShortest {
        /// The field.
        field: &'static str,
    },
    /// A LEB128 number of more bits than its type has.
    #[error("`{field}` does not fit {bits} bits")]
    TooWide {
        /// The field.
        field: &'static str,
        /// Bits of its type.
        bits: u32,
    },
    /// A number, or the length of a byte string, outside of its bounds.
    #[error("`{field}` is {value}, not in {min}..={max}")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The least it may be.
        min: u64,
        /// The most it may be.
        max: u64,
    },
    /// Memory that is not a whole number of pages.
    #[error("`{field}` is {value}, not a multiple of {unit}")]
    NotAMultiple {
        /// The field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it must be a multiple of.
        unit: u64,
    },
    /// Bits without a meaning are set.
    #[error("`{field}` has unknown bits {bits:#x}")]
    UnknownBits {
        /// The field.
        field: &'static str,
        /// The bits without a meaning.
        bits: u32,
    },
    /// A name that is not UTF-8, or has control characters (it is printed to terminals).
    #[error("`{field}` is not printable UTF-8")]
    NotText {
        /// The field.
        field: &'static str,
    },
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the entry does; with more of them it may be one.
    #[error("the bytes end before the entry does")]
    Truncated,
    /// Kind 0, which no entry has: the bytes were never written.
    #[error("entry kind 0")]
    InvalidKind,
    /// A kind that this build does not know.
    #[error("unknown entry kind {0}")]
    UnknownKind(u8),
    /// The length of the body is no number, or too large.
    #[error("{kind}: {error}")]
    Length {
        /// The entry's kind.
        kind: EntryKind,
        /// What is wrong with the length.
        error: FieldError,
    },
    /// The body is not one of this kind.
    #[error("{kind}: {error}")]
    Body {
        /// The entry's kind.
        kind: EntryKind,
        /// What is wrong with the body.
        error: FieldError,
    },
}

/// Why bytes are not the header of a log of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Something else, not a log.
    #[error("not a log: the file does not begin with USTDYLOG")]
    NotALog,
    /// A log, but of another format.
    #[error("log format version {found}, this build reads version {expected}")]
    OtherVersion {
        /// The log's version.
        found: u16,
        /// [`crate::log_header::LOG_VERSION`].
        expected: u16,
    },
    /// The file ends inside its header.
    #[error("the log header is cut off: {have} of at least {need} bytes")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there must be at least.
        need: usize,
    },
    /// The CRC does not match.
    #[error("the log header is corrupt: CRC {stored:08x} stored, {computed:08x} computed")]
    Corrupt {
        /// The CRC in the header.
        stored: u32,
        /// The CRC of the header's bytes.
        computed: u32,
    },
    /// A field is outside of its bounds.
    #[error("log header: {0}")]
    Field(FieldError),
}

/// Why bytes are not the next block of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes end inside the block: what a killed recorder leaves at the end of its file.
    #[error("torn block: {have} of at least {need} bytes")]
    Torn {
        /// Bytes there are.
        have: usize,
        /// Bytes there must be at least.
        need: usize,
    },
    /// No block begins here.
    #[error("corrupt block: it begins with {found:08x}, not with the block marker")]
    Marker {
        /// What stands in the marker's place.
        found: u32,
    },
    /// A payload length that no block has.
    #[error("corrupt block: {0}")]
    Length(FieldError),
    /// The CRC does not match.
    #[error("corrupt block: CRC {stored:08x} stored, {computed:08x} computed")]
    Crc {
        /// The CRC in the block's header.
        stored: u32,
        /// The CRC of the block's bytes.
        computed: u32,
    },
    /// A whole block, but not the next one: blocks are missing, doubled or exchanged.
    #[error("block {found} stands where block {expected} belongs")]
    Sequence {
        /// Its sequence number.
        found: u64,
        /// The number of the next block.
        expected: u64,
    },
}

/// Why an entry may not follow those before it. See [`crate::sequence`] for what may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The first entry is not the beginning of a full checkpoint.
    #[error("the log begins with {found}, not with a full checkpoint")]
    NoFullCheckpoint {
        /// The first entry's kind.
        found: EntryKind,
    },
    /// The entry does not belong into a checkpoint.
    #[error("{found} inside a checkpoint with {pages_left} pages to come")]
    InsideCheckpoint {
        /// The entry's kind.
        found: EntryKind,
        /// `Page` entries still to come.
        pages_left: u32,
    },
    /// The entry belongs into a checkpoint, and none is under way.
    #[error("{found} outside of a checkpoint")]
    OutsideCheckpoint {
        /// The entry's kind.
        found: EntryKind,
    },
    /// More pages than the checkpoint announced.
    #[error("page {number:#x} after the checkpoint's last page")]
    SurplusPage {
        /// Its page number.
        number: u64,
    },
    /// The checkpoint ends before its last page.
    #[error("the checkpoint ends with {pages_left} pages to come")]
    MissingPages {
        /// `Page` entries that are missing.
        pages_left: u32,
    },
    /// A checkpoint's page numbers do not increase.
    #[error("page {number:#x} after page {previous:#x}")]
    PageOrder {
        /// The page before.
        previous: u64,
        /// This page.
        number: u64,
    },
    /// The interrupt is the last thing at a position; only a position may follow.
    #[error("{found} after the interrupt of the same position")]
    AfterInterrupt {
        /// The entry's kind.
        found: EntryKind,
    },
    /// The recording had ended.
    #[error("{found} after the end")]
    AfterEnd {
        /// The entry's kind.
        found: EntryKind,
    },
    /// `End` states another number than the log has.
    #[error("the end states {stated} {what}, the log has {counted}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// The number in `End`.
        stated: u64,
        /// The number in the log.
        counted: u64,
    },
}

/// Why bytes are not a frame of a channel, or not one that its peer can have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else on the same wire.
    #[error("not a frame of a channel: it does not begin with UCHN")]
    NotAFrame,
    /// A frame of another format.
    #[error("frame format version {0}")]
    OtherVersion(u8),
    /// The bytes end before the frame does.
    #[error("the bytes end before the frame does")]
    Truncated,
    /// A kind that no frame has.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// A role that no end has.
    #[error("unknown role {0}")]
    UnknownRole(u8),
    /// Flags without a meaning are set.
    #[error("unknown flags {0:#x}")]
    UnknownFlags(u8),
    /// A payload where the kind has none, or none where it has one.
    #[error("{0:?} with the payload of another kind")]
    PayloadOfKind(FrameKind),
    /// Frame number 0.
    #[error("a frame without a number")]
    NoNumber,
    /// A position at the end of all numbers.
    #[error("a position that overflows")]
    Overflow,
    /// Acknowledges what was never sent.
    #[error("acknowledges what was never sent")]
    AckOfUnsent,
}

impl FrameError {
    /// The number of [`index`](Self::index)es.
    pub const COUNT: usize = 10;

    /// The error's place in a table of counters.
    pub const fn index(self) -> usize {
        match self {
            Self::NotAFrame => 0,
            Self::OtherVersion(_) => 1,
            Self::Truncated => 2,
            Self::UnknownKind(_) => 3,
            Self::UnknownRole(_) => 4,
            Self::UnknownFlags(_) => 5,
            Self::PayloadOfKind(_) => 6,
            Self::NoNumber => 7,
            Self::Overflow => 8,
            Self::AckOfUnsent => 9,
        }
    }
}
