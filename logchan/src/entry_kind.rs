//! [`EntryKind`]: the kind of an entry, without its contents.

use core::fmt;

use crate::entry::Entry;

/// The kind of an entry. The discriminant is the kind's number in files and on the wire.
///
/// Rule: a number, once assigned, is never changed or reused. A new kind takes the next number. A kind
/// that is no longer written keeps its number and its name, so that old logs stay readable. Number 0 is
/// invalid, so a run of zero bytes is not a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// [`Entry::Exit`]
    Exit = 1,
    /// [`Entry::Window`]
    Window = 2,
    /// [`Entry::CheckpointBegin`]
    CheckpointBegin = 3,
    /// [`Entry::Page`]
    Page = 4,
    /// [`Entry::CheckpointEnd`]
    CheckpointEnd = 5,
    /// [`Entry::Clock`]
    Clock = 6,
    /// [`Entry::WallClock`]
    WallClock = 7,
    /// [`Entry::Entropy`]
    Entropy = 8,
    /// [`Entry::Frame`]
    Frame = 9,
    /// [`Entry::Console`]
    Console = 10,
    /// [`Entry::Interrupt`]
    Interrupt = 11,
    /// [`Entry::Output`]
    Output = 12,
    /// [`Entry::End`]
    End = 13,
    /// [`Entry::HandOver`]
    HandOver = 14,
    /// [`Entry::DiskDone`]
    DiskDone = 15,
    /// [`Entry::DiskCopy`]
    DiskCopy = 16,
}

impl EntryKind {
    /// Every kind, by number: kind `n` is at `n - 1`.
    pub const ALL: [Self; 16] = [
        Self::Exit,
        Self::Window,
        Self::CheckpointBegin,
        Self::Page,
        Self::CheckpointEnd,
        Self::Clock,
        Self::WallClock,
        Self::Entropy,
        Self::Frame,
        Self::Console,
        Self::Interrupt,
        Self::Output,
        Self::End,
        Self::HandOver,
        Self::DiskDone,
        Self::DiskCopy,
    ];

    /// Length of the longest [`name`](Self::name): the width of a column of names.
    pub const NAME_WIDTH: usize = "checkpoint-begin".len();

    /// Returns the kind's number in files and on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        let index = usize::from(number).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Returns the kind's index in [`ALL`](Self::ALL), for tables by kind.
    pub const fn index(self) -> usize {
        self.number() as usize - 1
    }

    /// Returns the kind's name in output for people and in `--kind` options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Window => "window",
            Self::CheckpointBegin => "checkpoint-begin",
            Self::Page => "page",
            Self::CheckpointEnd => "checkpoint-end",
            Self::Clock => "clock",
            Self::WallClock => "wall-clock",
            Self::Entropy => "entropy",
            Self::Frame => "frame",
            Self::Console => "console",
            Self::Interrupt => "interrupt",
            Self::Output => "output",
            Self::End => "end",
            Self::HandOver => "hand-over",
            Self::DiskDone => "disk-done",
            Self::DiskCopy => "disk-copy",
        }
    }

    /// Returns the kind of `entry`.
    pub const fn of(entry: &Entry<'_>) -> Self {
        match entry {
            Entry::Exit { .. } => Self::Exit,
            Entry::Window { .. } => Self::Window,
            Entry::CheckpointBegin { .. } => Self::CheckpointBegin,
            Entry::Page { .. } => Self::Page,
            Entry::CheckpointEnd { .. } => Self::CheckpointEnd,
            Entry::Clock { .. } => Self::Clock,
            Entry::WallClock { .. } => Self::WallClock,
            Entry::Entropy(_) => Self::Entropy,
            Entry::Frame(_) => Self::Frame,
            Entry::Console(_) => Self::Console,
            Entry::Interrupt { .. } => Self::Interrupt,
            Entry::Output { .. } => Self::Output,
            Entry::End { .. } => Self::End,
            Entry::HandOver => Self::HandOver,
            Entry::DiskDone { .. } => Self::DiskDone,
            Entry::DiskCopy(_) => Self::DiskCopy,
        }
    }
}

// The table is ordered by number without gaps, and the column is as wide as the longest name.
const _: () = {
    let mut index = 0;
    let mut widest = 0;
    while index < EntryKind::ALL.len() {
        let kind = EntryKind::ALL[index];
        assert!(kind.index() == index);
        if kind.name().len() > widest {
            widest = kind.name().len();
        }
        index += 1;
    }
    assert!(widest == EntryKind::NAME_WIDTH);
};

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
