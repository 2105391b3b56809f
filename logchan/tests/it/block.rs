//! Blocks are written, read back and bounded.

use logchan::entry::{Entry, PageBytes, StateBytes};
use logchan::error::{BlockError, DecodeError, FieldError};
use logchan::limits::*;
use logchan::log_block::{Block, BlockWriter, next_block};

use crate::rng::Rng;
use crate::samples::{encoded, samples, small_block};

/// Returns a block around `payload`, whatever the payload is.
pub(crate) fn sealed(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let numbers = [&sequence.to_le_bytes()[..], &(payload.len() as u32).to_le_bytes()].concat();
    let crc = crc32fast::hash(&[&numbers[..], payload].concat());
    [b"UBLK", &numbers[..], &crc.to_le_bytes(), payload].concat()
}

#[test]
fn block_writer_and_reader_agree_over_many_blocks() {
    let mut rng = Rng(7);
    let made: Vec<_> = (0..4000).map(|_| rng.ingredients(VCPU_BYTES_MAX)).collect();
    let mut writer = BlockWriter::new();
    let mut file = Vec::new();
    for ingredients in &made {
        writer.push(&ingredients.entry());
        if writer.needs_flush() {
            file.extend_from_slice(writer.take_block());
        }
    }
    file.extend_from_slice(writer.take_block());
    assert!(writer.sequence() > 100, "{} blocks", writer.sequence());

    let mut rest = &file[..];
    let mut sequence = 0;
    let mut expected = made.iter();
    while let Some(block) = next_block(rest, sequence).expect("the block is whole") {
        assert!(block.encoded_length() <= BLOCK_BYTES_MAX);
        let mut entries = block.entries();
        for entry in &mut entries {
            let made = expected.next().expect("there are no more entries than were pushed");
            assert_eq!(entry, Ok(made.entry()));
        }
        assert_eq!(entries.offset(), block.payload.len());
        rest = &rest[block.encoded_length()..];
        sequence += 1;
    }
    assert_eq!(sequence, writer.sequence());
    assert!(expected.next().is_none(), "an entry was lost");
}

#[test]
fn block_writer_with_nothing_pushed_returns_no_block() {
    let mut writer = BlockWriter::new();
    assert!(writer.is_empty());
    assert!(writer.take_block().is_empty());
    assert!(!small_block(&mut writer).is_empty());
    assert!(writer.is_empty());
    assert!(writer.take_block().is_empty());
    assert_eq!(writer.sequence(), 1);
}

#[test]
fn block_writer_accepts_the_largest_entry_until_it_needs_a_flush_and_never_grows() {
    let blob = [0xa5; VCPU_BYTES_MAX];
    let largest = Entry::CheckpointBegin {
        full: true,
        pages: CHECKPOINT_PAGES_MAX,
        vcpu: StateBytes::Whole(&blob),
        devices: StateBytes::Whole(&blob[..DEVICES_BYTES_MAX]),
    };
    let mut writer = BlockWriter::new();
    let mut address = None;
    for _ in 0..3 {
        while !writer.needs_flush() {
            writer.push(&largest);
        }
        let block = writer.take_block();
        assert!(block.len() <= BLOCK_BYTES_MAX);
        assert_eq!(*address.get_or_insert(block.as_ptr()), block.as_ptr(), "the buffer moved");
        assert!(!writer.needs_flush());
    }
}

#[test]
#[should_panic(expected = "filled beyond its bound")]
fn block_writer_pushed_beyond_its_bound_panics() {
    let page = [1; PAGE_BYTES];
    let mut writer = BlockWriter::new();
    loop {
        writer.push(&Entry::Page { number: 1, bytes: PageBytes::Raw(&page) });
    }
}

#[test]
fn block_out_of_sequence_is_refused() {
    let mut writer = BlockWriter::new();
    let blocks = [small_block(&mut writer), small_block(&mut writer)];
    for (found, block) in blocks.iter().enumerate() {
        for expected in 0..3 {
            let read = next_block(block, expected);
            if found as u64 == expected {
                assert!(matches!(read, Ok(Some(block)) if block.sequence == expected));
            } else {
                assert_eq!(read, Err(BlockError::Sequence { found: found as u64, expected }));
            }
        }
    }
}

#[test]
fn block_length_out_of_bounds_is_refused_without_the_payload() {
    let max = BLOCK_PAYLOAD_MAX as u64;
    for length in [0, max + 1, u64::from(u32::MAX)] {
        let mut block = sealed(0, &[]);
        block[12..16].copy_from_slice(&(length as u32).to_le_bytes());
        let error = FieldError::OutOfBounds { field: "payload length", value: length, min: 1, max };
        assert_eq!(next_block(&block, 0), Err(BlockError::Length(error)));
    }
}

#[test]
fn block_of_zeros_has_no_marker() {
    assert_eq!(next_block(&[0; 64], 0), Err(BlockError::Marker { found: 0 }));
    assert_eq!(next_block(&[], 0), Ok(None));
}

#[test]
fn entries_stop_at_the_first_bad_one() {
    let (_, first) = samples()[0];
    let good = encoded(&first);
    for (tail, error) in [
        (&[0, 0][..], DecodeError::InvalidKind),
        (&[0xee], DecodeError::UnknownKind(0xee)),
        (&good[..good.len() - 1], DecodeError::Truncated),
    ] {
        let payload = [&good[..], tail, &good[..]].concat();
        let payload = &payload[..good.len() + tail.len()];
        let mut entries = Block { sequence: 0, payload }.entries();
        assert_eq!(entries.next(), Some(Ok(first)));
        assert_eq!(entries.next(), Some(Err(error)));
        assert_eq!(entries.offset(), good.len());
        assert_eq!(entries.next(), None);
    }
}
