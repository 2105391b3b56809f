//! The grammar of a log: which entry may follow which.

use logchan::entry::{DiskStatus, Entry, PageBytes, StateBytes};
use logchan::entry_kind::EntryKind;
use logchan::error::SequenceError;
use logchan::sequence::{LogEnding, SequenceChecker};

use crate::samples::samples;

const fn begin(full: bool, pages: u32) -> Entry<'static> {
    Entry::CheckpointBegin { full, pages, vcpu: NO_STATE, devices: NO_STATE }
}

const fn page(number: u64) -> Entry<'static> {
    Entry::Page { number, bytes: PageBytes::Zero }
}

const fn end(natural_exits: u64, interrupts: u64) -> Entry<'static> {
    Entry::End { natural_exits, interrupts, memory_digest: 0, state_digest: 0 }
}

const CHECKPOINT_END: Entry<'_> = Entry::CheckpointEnd { digest: 0 };
const EXIT: Entry<'_> = Entry::Exit { digest: 0, registers: None };
const WINDOW: Entry<'_> = Entry::Window { digest: 0 };
const INTERRUPT: Entry<'_> = Entry::Interrupt { vector: 32 };
const CLOCK: Entry<'_> = Entry::Clock { advance_ns: 1 };
const WALL_CLOCK: Entry<'_> = Entry::WallClock { unix_ns: 1 };
const ENTROPY: Entry<'_> = Entry::Entropy(&[1]);
const FRAME: Entry<'_> = Entry::Frame(&[1]);
const CONSOLE: Entry<'_> = Entry::Console(&[1]);
const OUTPUT: Entry<'_> = Entry::Output { length: 1, digest: 0 };
const DISK_DONE: Entry<'_> =
    Entry::DiskDone { disk: 0, number: 1, status: DiskStatus::Done, digest: 0, data: &[] };
const HERE: [Entry<'_>; 7] = [CLOCK, WALL_CLOCK, ENTROPY, FRAME, CONSOLE, DISK_DONE, OUTPUT];

const NO_STATE: StateBytes<'_> = StateBytes::Whole(&[]);

fn walk(entries: &[Entry<'_>]) -> Result<LogEnding, (usize, SequenceError)> {
    let mut checker = SequenceChecker::new();
    for (index, entry) in entries.iter().enumerate() {
        checker.check(entry).map_err(|error| (index, error))?;
    }
    Ok(checker.ending())
}

/// Checks `entry` after a full checkpoint and the entries `before`.
fn after(before: &[Entry<'_>], entry: Entry<'_>) -> Result<LogEnding, SequenceError> {
    let start = [&[begin(true, 0), CHECKPOINT_END], before].concat();
    assert!(walk(&start).is_ok(), "the entries before are legal");
    walk(&[&start[..], &[entry]].concat()).map_err(|(_, error)| error)
}

#[test]
fn sequence_of_the_samples_is_a_complete_log() {
    let entries: Vec<_> = samples().into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(walk(&entries), Ok(LogEnding::Complete));
}

#[test]
fn sequence_stopped_anywhere_reports_its_ending() {
    assert_eq!(walk(&[]), Ok(LogEnding::Empty));
    assert_eq!(walk(&[begin(true, 1)]), Ok(LogEnding::InsideCheckpoint));
    assert_eq!(walk(&[begin(true, 1), page(9)]), Ok(LogEnding::InsideCheckpoint));
    assert_eq!(walk(&[begin(true, 1), page(9), CHECKPOINT_END]), Ok(LogEnding::Open));
    assert_eq!(after(&[EXIT], INTERRUPT), Ok(LogEnding::Open));
    assert_eq!(after(&[EXIT], begin(false, 7)), Ok(LogEnding::InsideCheckpoint));
    assert_eq!(after(&[EXIT, INTERRUPT], end(1, 1)), Ok(LogEnding::Complete));
}

#[test]
fn sequence_without_a_full_checkpoint_first_is_refused() {
    for (_, first) in samples() {
        let found = EntryKind::of(&first);
        if found != EntryKind::CheckpointBegin {
            assert_eq!(walk(&[first]), Err((0, SequenceError::NoFullCheckpoint { found })));
        }
    }
    let found = EntryKind::CheckpointBegin;
    assert_eq!(walk(&[begin(false, 0)]), Err((0, SequenceError::NoFullCheckpoint { found })));
}

#[test]
fn sequence_of_positions_may_have_any_order() {
    let positions: [&[Entry<'_>]; 3] = [&[EXIT], &[WINDOW], &[begin(false, 0), CHECKPOINT_END]];
    for first in positions {
        for second in positions {
            for here in [&[][..], &HERE, &[INTERRUPT], &[CLOCK, OUTPUT, CLOCK, FRAME, INTERRUPT]] {
                let entries =
                    [&[begin(true, 0), CHECKPOINT_END], first, here, second, here].concat();
                assert_eq!(walk(&entries), Ok(LogEnding::Open));
            }
        }
    }
    assert_eq!(after(&[EXIT], begin(true, 3)), Ok(LogEnding::InsideCheckpoint));
}

#[test]
fn sequence_before_the_interrupt_of_a_position_may_have_any_order() {
    for first in HERE {
        for second in HERE {
            assert_eq!(after(&[EXIT, first, second], INTERRUPT), Ok(LogEnding::Open));
        }
    }
}

#[test]
fn sequence_after_an_interrupt_requires_a_position() {
    for entry in HERE.into_iter().chain([INTERRUPT]) {
        let found = EntryKind::of(&entry);
        let error = SequenceError::AfterInterrupt { found };
        for position in [&[EXIT][..], &[WINDOW], &[begin(false, 0), CHECKPOINT_END]] {
            let before = [position, &[INTERRUPT]].concat();
            assert_eq!(after(&before, entry), Err(error));
            assert_eq!(after(&[&before[..], &[WINDOW]].concat(), entry), Ok(LogEnding::Open));
        }
    }
}

#[test]
fn sequence_inside_a_checkpoint_has_only_pages_and_its_end() {
    for entry in HERE.into_iter().chain([EXIT, WINDOW, INTERRUPT, begin(true, 1), end(0, 0)]) {
        let found = EntryKind::of(&entry);
        for (pages, pages_left) in [(1, 1), (2, 2), (0, 0)] {
            let error = SequenceError::InsideCheckpoint { found, pages_left };
            assert_eq!(walk(&[begin(true, pages), entry]), Err((1, error)));
            assert_eq!(after(&[EXIT, begin(false, pages)], entry), Err(error));
        }
    }
}

#[test]
fn sequence_of_pages_has_the_announced_count_in_increasing_order() {
    let checkpoint = [begin(false, 3), page(0), page(7)];
    assert_eq!(
        after(&checkpoint, CHECKPOINT_END),
        Err(SequenceError::MissingPages { pages_left: 1 })
    );
    for number in [0, 6, 7] {
        assert_eq!(
            after(&checkpoint, page(number)),
            Err(SequenceError::PageOrder { previous: 7, number })
        );
    }
    let full = [&checkpoint[..], &[page(8)]].concat();
    assert_eq!(after(&full, page(9)), Err(SequenceError::SurplusPage { number: 9 }));
    assert_eq!(after(&full, CHECKPOINT_END), Ok(LogEnding::Open));
    assert_eq!(
        after(&[&full[..], &[CHECKPOINT_END, begin(false, 1)]].concat(), page(0)),
        Ok(LogEnding::InsideCheckpoint),
        "the page order starts over in each checkpoint"
    );
}

#[test]
fn sequence_with_pages_outside_of_a_checkpoint_is_refused() {
    for entry in [page(1), CHECKPOINT_END] {
        let found = EntryKind::of(&entry);
        assert_eq!(after(&[EXIT], entry), Err(SequenceError::OutsideCheckpoint { found }));
        assert_eq!(after(&[], entry), Err(SequenceError::OutsideCheckpoint { found }));
    }
}

#[test]
fn sequence_after_the_end_is_refused() {
    for (_, entry) in samples() {
        let found = EntryKind::of(&entry);
        assert_eq!(after(&[end(0, 0)], entry), Err(SequenceError::AfterEnd { found }));
    }
}

#[test]
fn sequence_end_with_other_counts_than_the_log_is_refused() {
    let before = [EXIT, WINDOW, INTERRUPT, EXIT, INTERRUPT, EXIT];
    assert_eq!(after(&before, end(3, 2)), Ok(LogEnding::Complete));
    let count = |what, stated, counted| Err(SequenceError::Count { what, stated, counted });
    assert_eq!(after(&before, end(4, 2)), count("natural exits", 4, 3));
    assert_eq!(after(&before, end(3, 1)), count("interrupts", 1, 2));
}

#[test]
fn sequence_checker_is_unchanged_after_an_error() {
    let mut checker = SequenceChecker::new();
    let legal = [begin(true, 1), page(4), CHECKPOINT_END, EXIT, INTERRUPT, EXIT, end(2, 1)];
    for entry in legal {
        for (_, other) in samples() {
            let mut tried = checker.clone();
            if tried.check(&other).is_err() {
                assert!(checker.check(&other).is_err());
            }
        }
        assert_eq!(checker.check(&entry), Ok(()), "{:?}", EntryKind::of(&entry));
    }
    assert_eq!((checker.natural_exits(), checker.interrupts()), (2, 1));
    assert_eq!(checker.ending(), LogEnding::Complete);
}
