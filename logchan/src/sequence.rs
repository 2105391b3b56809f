//! Which entries may follow which.
//!
//! ```text
//! log        = checkpoint(full) here* ( position here* )* [ End ]
//! position   = Exit | UserWindow | checkpoint
//! checkpoint = CheckpointBegin Page{pages} CheckpointEnd      page numbers strictly increasing
//! here*      = ( Clock | WallClock | Entropy | Frame | Console | Output )* [ Interrupt ]
//! ```
//!
//! ```text
//!            full begin            begin            Exit, UserWindow, readings, ...
//!   Empty ---------------> InCheckpoint <------- AtPosition <---+
//!                            |   ^  |               |    |      |
//!                            +---+  +---------------+>   +------+
//!                            Page     CheckpointEnd      |
//!                                                        | End
//!                                                        v
//!                                                      Ended
//! ```
//!
//! Readings, outputs and inputs at one position come in whatever order the devices made them: a
//! device may read the clock, send a frame and read the clock again in one exit. The interrupt
//! closes the position: after it the guest runs.
//!
//! Not checked here, because it takes the machine: digests, and whether a page number is memory.

use crate::entry::Entry;
use crate::entry_kind::EntryKind;
use crate::error::SequenceError;

/// Is shown every entry of a log, in order, and refuses those that the grammar does not allow.
/// Takes the same few bytes however long the log is.
#[derive(Clone, Debug)]
pub struct SequenceChecker {
    state: State,
    natural_exits: u64,
    interrupts: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Empty,
    InCheckpoint { pages_left: u32, previous: Option<u64> },
    AtPosition { interrupted: bool },
    Ended,
}

/// Where a log stops, seen from its last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEnding {
    /// No entry at all: there is nothing to replay.
    Empty,
    /// Inside a checkpoint: the log is good up to the position before it. When that checkpoint is
    /// the log's first, there is nothing to replay.
    InsideCheckpoint,
    /// After a position, but without an `End`: the recorder was stopped.
    Open,
    /// With an `End`.
    Complete,
}

impl Default for SequenceChecker {
    fn default() -> Self {
        Self::new()
    }
}

impl SequenceChecker {
    /// A checker at the beginning of a log.
    pub fn new() -> Self {
        Self { state: State::Empty, natural_exits: 0, interrupts: 0 }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    ///
    /// The entry may not stand here. The checker is then where it was before it.
    pub fn check(&mut self, entry: &Entry<'_>) -> Result<(), SequenceError> {
        let kind = EntryKind::of(entry);
        match *entry {
            Entry::Exit { .. } => {
                self.expect_position(kind)?;
                self.natural_exits += 1;
                self.state = State::AtPosition { interrupted: false };
            }
            Entry::UserWindow { .. } => {
                self.expect_position(kind)?;
                self.state = State::AtPosition { interrupted: false };
            }
            Entry::CheckpointBegin { full, pages, .. } => {
                let is_first = matches!(self.state, State::Empty);
                if !(is_first && full) {
                    self.expect_position(kind)?;
                }
                self.state = State::InCheckpoint { pages_left: pages, previous: None };
            }
            Entry::Page { number, .. } => self.check_page(number)?,
            Entry::CheckpointEnd { .. } => {
                let (pages_left, _) = self.expect_checkpoint(kind)?;
                if pages_left > 0 {
                    return Err(SequenceError::MissingPages { pages_left });
                }
                self.state = State::AtPosition { interrupted: false };
            }
            Entry::Clock { .. }
            | Entry::WallClock { .. }
            | Entry::Entropy(_)
            | Entry::Frame(_)
            | Entry::Console(_)
            | Entry::Output { .. } => self.expect_before_interrupt(kind)?,
            Entry::Interrupt { .. } => {
                self.expect_before_interrupt(kind)?;
                self.interrupts += 1;
                self.state = State::AtPosition { interrupted: true };
            }
            Entry::End { natural_exits, interrupts, .. } => {
                self.expect_position(kind)?;
                expect_count("natural exits", natural_exits, self.natural_exits)?;
                expect_count("interrupts", interrupts, self.interrupts)?;
                self.state = State::Ended;
            }
        }
        Ok(())
    }

    /// Where the log stops if no entry follows.
    pub fn ending(&self) -> LogEnding {
        match self.state {
            State::Empty => LogEnding::Empty,
            State::InCheckpoint { .. } => LogEnding::InsideCheckpoint,
            State::AtPosition { .. } => LogEnding::Open,
            State::Ended => LogEnding::Complete,
        }
    }

    /// `Exit` entries so far.
    pub fn natural_exits(&self) -> u64 {
        self.natural_exits
    }

    /// `Interrupt` entries so far.
    pub fn interrupts(&self) -> u64 {
        self.interrupts
    }

    fn check_page(&mut self, number: u64) -> Result<(), SequenceError> {
        let (pages_left, previous) = self.expect_checkpoint(EntryKind::Page)?;
        let pages_left = pages_left.checked_sub(1).ok_or(SequenceError::SurplusPage { number })?;
        if let Some(previous) = previous
            && number <= previous
        {
            return Err(SequenceError::PageOrder { previous, number });
        }
        self.state = State::InCheckpoint { pages_left, previous: Some(number) };
        Ok(())
    }

    /// `found` belongs into a checkpoint: its pages to come, and its last page so far.
    fn expect_checkpoint(&self, found: EntryKind) -> Result<(u32, Option<u64>), SequenceError> {
        match self.state {
            State::Empty => Err(SequenceError::NoFullCheckpoint { found }),
            State::InCheckpoint { pages_left, previous } => Ok((pages_left, previous)),
            State::AtPosition { .. } => Err(SequenceError::OutsideCheckpoint { found }),
            State::Ended => Err(SequenceError::AfterEnd { found }),
        }
    }

    /// `found` belongs after a position: whether that one's interrupt was there already.
    fn expect_position(&self, found: EntryKind) -> Result<bool, SequenceError> {
        match self.state {
            State::Empty => Err(SequenceError::NoFullCheckpoint { found }),
            State::InCheckpoint { pages_left, .. } => {
                Err(SequenceError::InsideCheckpoint { found, pages_left })
            }
            State::AtPosition { interrupted } => Ok(interrupted),
            State::Ended => Err(SequenceError::AfterEnd { found }),
        }
    }

    fn expect_before_interrupt(&self, found: EntryKind) -> Result<(), SequenceError> {
        if self.expect_position(found)? {
            return Err(SequenceError::AfterInterrupt { found });
        }
        Ok(())
    }
}

fn expect_count(what: &'static str, stated: u64, counted: u64) -> Result<(), SequenceError> {
    if stated == counted { Ok(()) } else { Err(SequenceError::Count { what, stated, counted }) }
}
