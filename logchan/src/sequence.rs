//! The grammar of a log: which entry may follow which.
//!
//! ```text
//! log        = checkpoint(full) here* ( position here* )* [ End ]
//! position   = Exit | Window | checkpoint
//! checkpoint = CheckpointBegin Page{pages} CheckpointEnd      page numbers strictly increasing
//! here*      = ( Clock | WallClock | Entropy | Frame | Console | DiskDone | Output )* [ Interrupt ]
//! ```
//!
//! ```text
//!            full begin            begin            Exit, Window, readings, ...
//!   Empty ---------------> InCheckpoint <------- AtPosition <---+
//!                            |   ^  |               |    |      |
//!                            +---+  +---------------+>   +------+
//!                            Page     CheckpointEnd      |
//!                                                        | End
//!                                                        v
//!                                                      Ended
//! ```
//!
//! Readings, outputs and inputs at one position come in whatever order the devices made them: in one
//! exit, a device may read the clock, send a frame and read the clock again. The interrupt is the last
//! entry at a position, because the guest runs after it.
//!
//! Digests, and whether a page number is within guest memory, are not checked here, because that
//! requires the machine.

use crate::entry::Entry;
use crate::entry_kind::EntryKind;
use crate::error::SequenceError;

/// Checks the order of the entries of one log. [`check`](Self::check) takes every entry, in order. The
/// checker has a fixed size, however long the log is.
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

/// How a log ends, as far as its last entry shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEnding {
    /// There is no entry, so there is nothing to replay.
    Empty,
    /// Inside a checkpoint. The log is usable up to the position before that checkpoint; if it is the
    /// log's first checkpoint, there is nothing to replay.
    InsideCheckpoint,
    /// After a position but without an `End`: the recorder was stopped.
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
    /// Returns a checker at the beginning of a log.
    pub fn new() -> Self {
        Self { state: State::Empty, natural_exits: 0, interrupts: 0 }
    }

    /// Checks the next entry.
    ///
    /// # Errors
    ///
    /// The entry must not stand here. The checker is then unchanged.
    pub fn check(&mut self, entry: &Entry<'_>) -> Result<(), SequenceError> {
        let kind = EntryKind::of(entry);
        match *entry {
            Entry::Exit { .. } => {
                self.expect_position(kind)?;
                self.natural_exits += 1;
                self.state = State::AtPosition { interrupted: false };
            }
            Entry::Window { .. } => {
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
            | Entry::DiskDone { .. }
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
            Entry::HandOver => return Err(SequenceError::HandOver),
            Entry::DiskCopy(_) => return Err(SequenceError::DiskCopy),
        }
        Ok(())
    }

    /// Returns how the log ends if no entry follows.
    pub fn ending(&self) -> LogEnding {
        match self.state {
            State::Empty => LogEnding::Empty,
            State::InCheckpoint { .. } => LogEnding::InsideCheckpoint,
            State::AtPosition { .. } => LogEnding::Open,
            State::Ended => LogEnding::Complete,
        }
    }

    /// Number of `Exit` entries so far.
    pub fn natural_exits(&self) -> u64 {
        self.natural_exits
    }

    /// Number of `Interrupt` entries so far.
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

    /// Returns the number of pages left in the current checkpoint and the number of its last page.
    /// `found` is allowed only inside a checkpoint.
    fn expect_checkpoint(&self, found: EntryKind) -> Result<(u32, Option<u64>), SequenceError> {
        match self.state {
            State::Empty => Err(SequenceError::NoFullCheckpoint { found }),
            State::InCheckpoint { pages_left, previous } => Ok((pages_left, previous)),
            State::AtPosition { .. } => Err(SequenceError::OutsideCheckpoint { found }),
            State::Ended => Err(SequenceError::AfterEnd { found }),
        }
    }

    /// Returns whether the current position already has its interrupt. `found` is allowed only outside
    /// of a checkpoint.
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
