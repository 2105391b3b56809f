//! A log that a killed recorder or a failing disk has left is diagnosed correctly, wherever the damage
//! is.

use logchan::error::{BlockError, HeaderError};
use logchan::limits::BLOCK_HEADER_BYTES;
use logchan::log_block::{BlockWriter, next_block};
use logchan::log_header::LogHeader;

use crate::samples::{header, small_block};

/// Where and why reading a log stopped.
#[derive(Debug, PartialEq)]
enum Stop {
    Header(HeaderError),
    Clean { blocks: u64 },
    Block { whole: u64, error: BlockError },
}

fn walk(log: &[u8]) -> Stop {
    let mut at = match LogHeader::decode(log) {
        Ok((_, length)) => length,
        Err(error) => return Stop::Header(error),
    };
    let mut blocks = 0;
    loop {
        match next_block(&log[at..], blocks) {
            Ok(None) => return Stop::Clean { blocks },
            Ok(Some(block)) => {
                at += block.encoded_length();
                blocks += 1;
            }
            Err(error) => return Stop::Block { whole: blocks, error },
        }
    }
}

/// Returns a log of three blocks, and the offsets at which its header and each block end.
fn log() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    header().encode(&mut bytes);
    let mut ends = vec![bytes.len()];
    let mut writer = BlockWriter::new();
    for _ in 0..3 {
        bytes.extend(small_block(&mut writer));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

#[test]
fn log_cut_anywhere_is_clean_at_block_boundaries_and_torn_elsewhere() {
    let (log, ends) = log();
    for cut in 0..=log.len() {
        let stop = walk(&log[..cut]);
        let Some(whole) = ends.iter().rposition(|&end| end <= cut) else {
            assert!(matches!(stop, Stop::Header(HeaderError::Truncated { .. })), "{cut}: {stop:?}");
            continue;
        };
        let have = cut - ends[whole];
        let whole = whole as u64;
        if have == 0 {
            assert_eq!(stop, Stop::Clean { blocks: whole }, "{cut}");
        } else {
            let size = ends[1] - ends[0];
            let need = if have < BLOCK_HEADER_BYTES { BLOCK_HEADER_BYTES } else { size };
            assert_eq!(stop, Stop::Block { whole, error: BlockError::Torn { have, need } });
        }
    }
}

/// Flips every bit of the first block in `bytes`. The reader sees the first block alone, or followed by
/// another one.
fn flip_every_bit(first: usize, bytes: &[u8]) {
    assert!(next_block(bytes, 0).expect("a whole block").is_some());
    for bit in 0..first * 8 {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = next_block(&bytes, 0).expect_err("a flipped bit");
        let expected = match bit / 8 {
            0..4 => matches!(error, BlockError::Marker { .. }),
            12..16 => matches!(
                error,
                BlockError::Torn { .. } | BlockError::Length(_) | BlockError::Crc { .. }
            ),
            _ => matches!(error, BlockError::Crc { .. }),
        };
        assert!(expected, "bit {bit}: {error}");
    }
}

#[test]
fn block_with_any_bit_flipped_is_refused_as_the_last_block_and_before_another() {
    let mut writer = BlockWriter::new();
    let mut bytes = small_block(&mut writer);
    let first = bytes.len();
    flip_every_bit(first, &bytes);
    bytes.extend(small_block(&mut writer));
    flip_every_bit(first, &bytes);
}

#[test]
fn log_with_blocks_lost_duplicated_or_swapped_is_refused() {
    let (log, ends) = log();
    let block = |number: usize| &log[ends[number]..ends[number + 1]];
    let head = &log[..ends[0]];
    for (blocks, whole, found) in
        [([0, 2, 2], 1, 2), ([0, 0, 1], 1, 0), ([0, 2, 1], 1, 2), ([1, 0, 2], 0, 1)]
    {
        let bytes = [head, block(blocks[0]), block(blocks[1]), block(blocks[2])].concat();
        let error = BlockError::Sequence { found, expected: whole };
        assert_eq!(walk(&bytes), Stop::Block { whole, error });
    }
}
