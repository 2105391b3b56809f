//! Errors in bytes that should be a log or a frame, and in the order of log entries.
//!
//! The caller decides what an error means. A torn block at the end of a file comes from a recorder that
//! was killed; the same bytes in a frame from a peer are counted and dropped.

use crate::entry_kind::EntryKind;
use crate::frame::FrameKind;

/// What is wrong with one field of an entry's body or of a header. `field` is the name of the field in
/// [`crate::entry::Entry`] or [`crate::log_header::LogHeader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The bytes end before the field does.
    #[error("the bytes end inside `{field}`")]
    Ends {
        /// The field.
        field: &'static str,
    },
    /// Bytes follow the last field.
    #[error("{count} bytes follow the last field")]
    Trailing {
        /// Number of bytes left over.
        count: usize,
    },
    /// A LEB128 number with superfluous zero groups.
    #[error("`{field}` is not in its shortest form")]
    NotShortest {
        /// The field.
        field: &'static str,
    },
    /// A LEB128 number with more bits than its type has.
    #[error("`{field}` does not fit {bits} bits")]
    TooWide {
        /// The field.
        field: &'static str,
        /// Bits of the field's type.
        bits: u32,
    },
    /// A number, or the length of a byte string, outside of its limits.
    #[error("`{field}` is {value}, not in {min}..={max}")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// Smallest value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// A memory size that is not a whole number of pages.
    #[error("`{field}` is {value}, not a multiple of {unit}")]
    NotAMultiple {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The unit that it must be a multiple of.
        unit: u64,
    },
    /// Bits that have no meaning are set.
    #[error("`{field}` has unknown bits {bits:#x}")]
    UnknownBits {
        /// The field.
        field: &'static str,
        /// The unknown bits.
        bits: u32,
    },
    /// A name that is not UTF-8 or has control characters. Names are printed to terminals.
    #[error("`{field}` is not printable UTF-8")]
    NotText {
        /// The field.
        field: &'static str,
    },
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the entry does. With more bytes it may be an entry.
    #[error("the bytes end before the entry does")]
    Truncated,
    /// Kind 0, which is invalid. The bytes were probably never written.
    #[error("entry kind 0")]
    InvalidKind,
    /// A kind that this build does not know.
    #[error("unknown entry kind {0}")]
    UnknownKind(u8),
    /// The length of the body is malformed or too large.
    #[error("{kind}: {error}")]
    Length {
        /// The entry's kind.
        kind: EntryKind,
        /// What is wrong with the length.
        error: FieldError,
    },
    /// The body is not a valid body of this kind.
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
    /// The bytes do not begin with the magic of a log.
    #[error("not a log: the file does not begin with USTDYLOG")]
    NotALog,
    /// A log of another format version.
    #[error("log format version {found}, this build reads version {expected}")]
    OtherVersion {
        /// The log's version.
        found: u16,
        /// [`crate::log_header::LOG_VERSION`].
        expected: u16,
    },
    /// The file ends inside the header.
    #[error("the log header is cut off: {have} of at least {need} bytes")]
    Truncated {
        /// Bytes available.
        have: usize,
        /// Bytes needed, at least.
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
    /// A field is outside of its limits.
    #[error("log header: {0}")]
    Field(FieldError),
}

/// Why bytes are not the next block of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes end inside the block, as a killed recorder leaves the end of its file.
    #[error("torn block: {have} of at least {need} bytes")]
    Torn {
        /// Bytes available.
        have: usize,
        /// Bytes needed, at least.
        need: usize,
    },
    /// The bytes do not begin with the block marker.
    #[error("corrupt block: it begins with {found:08x}, not with the block marker")]
    Marker {
        /// The four bytes in the marker's place.
        found: u32,
    },
    /// A payload length outside of its limits.
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
    /// A whole block, but not the next one: blocks are missing, duplicated or swapped.
    #[error("found block {found} where block {expected} was expected")]
    Sequence {
        /// The block's sequence number.
        found: u64,
        /// The sequence number expected.
        expected: u64,
    },
}

/// Why an entry must not follow those before it. [`crate::sequence`] has the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The first entry does not begin a full checkpoint.
    #[error("the log begins with {found}, not with a full checkpoint")]
    NoFullCheckpoint {
        /// The first entry's kind.
        found: EntryKind,
    },
    /// The entry is not allowed inside a checkpoint.
    #[error("{found} inside a checkpoint with {pages_left} pages left")]
    InsideCheckpoint {
        /// The entry's kind.
        found: EntryKind,
        /// `Page` entries still missing.
        pages_left: u32,
    },
    /// The entry is allowed only inside a checkpoint, and none was begun.
    #[error("{found} outside of a checkpoint")]
    OutsideCheckpoint {
        /// The entry's kind.
        found: EntryKind,
    },
    /// The checkpoint has more pages than it announced.
    #[error("page {number:#x} after the checkpoint's last page")]
    SurplusPage {
        /// The page's number.
        number: u64,
    },
    /// The checkpoint ends before its last page.
    #[error("the checkpoint ends with {pages_left} pages left")]
    MissingPages {
        /// `Page` entries still missing.
        pages_left: u32,
    },
    /// The page numbers of a checkpoint do not increase.
    #[error("page {number:#x} after page {previous:#x}")]
    PageOrder {
        /// Number of the page before.
        previous: u64,
        /// Number of this page.
        number: u64,
    },
    /// A hand-over, which only the logging channel carries.
    #[error("a hand-over in a file")]
    HandOver,
    /// A message about the copy of a disk, which only the logging channel carries.
    #[error("a message about a disk's copy in a file")]
    DiskCopy,
    /// The interrupt is the last entry at a position. Only a position may follow it.
    #[error("{found} after the interrupt of the same position")]
    AfterInterrupt {
        /// The entry's kind.
        found: EntryKind,
    },
    /// An entry follows `End`.
    #[error("{found} after the end")]
    AfterEnd {
        /// The entry's kind.
        found: EntryKind,
    },
    /// `End` states another count than the log has.
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

/// Why bytes are not a frame of a channel, or not one that the peer can have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes do not begin with the magic of a frame.
    #[error("not a frame of a channel: it does not begin with UCHN")]
    NotAFrame,
    /// A frame of another format version.
    #[error("frame format version {0}")]
    OtherVersion(u8),
    /// The bytes end before the frame does.
    #[error("the bytes end before the frame does")]
    Truncated,
    /// An unknown frame kind.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// An unknown role.
    #[error("unknown role {0}")]
    UnknownRole(u8),
    /// Flags that have no meaning are set.
    #[error("unknown flags {0:#x}")]
    UnknownFlags(u8),
    /// A payload in a frame whose kind has none, or none in a frame whose kind has one.
    #[error("the payload does not match frame kind {0:?}")]
    PayloadOfKind(FrameKind),
    /// Frame number 0, which is invalid.
    #[error("frame number 0")]
    NoNumber,
    /// A position or a frame number at the end of its range.
    #[error("a position or frame number that overflows")]
    Overflow,
    /// The frame acknowledges frames or bytes that were never sent.
    #[error("acknowledges frames or bytes that were never sent")]
    AckOfUnsent,
}

impl FrameError {
    /// Number of values of [`index`](Self::index).
    pub const COUNT: usize = 10;

    /// Returns the error's index in a table of counters.
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
