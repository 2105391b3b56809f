//! Arbitrary bytes, and what must hold for all of them.
//!
//! The bodies, `fuzz_*`, are plain functions of bytes, so any fuzzer can use them. The runs here feed
//! them with random bytes and with mutated valid encodings; see `fuzz_run`.

use logchan::dump::Dump;
use logchan::entry_codec::{check, decode, encoded_length};
use logchan::entry_stats::EntryStatsTable;
use logchan::error::DecodeError;
use logchan::limits::PAGE_BYTES;
use logchan::log_block::{Block, BlockWriter, next_block};
use logchan::log_header::LogHeader;
use logchan::page_delta::PageDelta;
use logchan::sequence::SequenceChecker;

use crate::block::sealed;
use crate::fuzz_run::{mutate, run};
use crate::header::reseal;
use crate::samples::{encoded, header};

/// Bytes that decode are the one encoding of their entry, and every proper prefix is truncated.
fn fuzz_entry(bytes: &[u8]) {
    let Ok((entry, length)) = decode(bytes) else { return };
    assert_eq!(check(&entry), Ok(()));
    assert_eq!(encoded_length(&entry), length);
    assert_eq!(encoded(&entry), bytes[..length], "another encoding of the same entry");
    assert_eq!(decode(&bytes[..length - 1]), Err(DecodeError::Truncated));
    let line = Dump(&entry).to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
}

/// Bytes that are a delta are the one encoding of the difference that they make; applied twice, they
/// restore the base. Other bytes are refused.
fn fuzz_delta(bytes: &[u8], base: &[u8]) {
    let Ok(delta) = PageDelta::new(bytes) else { return };
    let mut changed = base.to_vec();
    if delta.apply(&mut changed).is_err() {
        return;
    }
    let mut again = vec![0; bytes.len() + 16];
    let made = PageDelta::make(&mut base.to_vec(), &changed, &mut again);
    assert_eq!(made, Some(delta), "another encoding of the same delta");
    assert_eq!(delta.apply(&mut changed), Ok(()));
    assert_eq!(changed, base);
}

/// A payload is consumed entry by entry, to its end or to the first bad entry.
fn fuzz_payload(bytes: &[u8]) {
    let mut checker = SequenceChecker::new();
    let mut stats = EntryStatsTable::default();
    let mut entries = Block { sequence: 0, payload: bytes }.entries();
    let mut failed = false;
    for entry in &mut entries {
        match entry {
            Ok(entry) => {
                stats.record(&entry);
                let _legal_or_refused = checker.check(&entry);
            }
            Err(_) => failed = true,
        }
    }
    assert_eq!(stats.total().bytes, entries.offset() as u64);
    assert_eq!(failed, entries.offset() < bytes.len());
}

/// A header that decodes is the one encoding of its fields.
fn fuzz_header(bytes: &[u8]) {
    if let Ok((header, length)) = LogHeader::decode(bytes) {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(again, bytes[..length], "another encoding of the same header");
    }
}

/// Blocks are found whole and in order, or not at all.
fn fuzz_blocks(bytes: &[u8]) {
    let mut rest = bytes;
    let mut sequence = 0;
    while let Ok(Some(block)) = next_block(rest, sequence) {
        assert_eq!(sealed(sequence, block.payload), rest[..block.encoded_length()]);
        fuzz_payload(block.payload);
        rest = &rest[block.encoded_length()..];
        sequence += 1;
    }
}

#[test]
fn fuzz_random_bytes() {
    run("fuzz_random_bytes", |rng| {
        let length = rng.below(300);
        let mut bytes = rng.bytes(length);
        // Without these prefixes, all but a few inputs would end at an unknown kind or a wrong marker.
        if length > 32 {
            match rng.below(4) {
                0 => bytes[..8].copy_from_slice(b"USTDYLOG"),
                1 => bytes[..12].copy_from_slice(b"UBLK\0\0\0\0\0\0\0\0"),
                _ => (bytes[0], bytes[1]) = (bytes[0] % 16, bytes[1] % 64),
            }
        }
        fuzz_entry(&bytes);
        fuzz_payload(&bytes);
        fuzz_header(&bytes);
        fuzz_blocks(&bytes);
        length
    });
}

#[test]
fn fuzz_random_and_mutated_deltas() {
    run("fuzz_random_and_mutated_deltas", |rng| {
        let mut bytes = rng.delta();
        let length = [PAGE_BYTES, rng.below(PAGE_BYTES), PAGE_BYTES + rng.below(PAGE_BYTES)];
        let length = length[rng.below(length.len())];
        let base = rng.bytes(length);
        match rng.below(4) {
            0 => bytes = rng.bytes(bytes.len()),
            1 => bytes.extend(rng.delta()),
            2 => mutate(&mut bytes, rng),
            _ => {}
        }
        fuzz_delta(&bytes, &base);
        bytes.len()
    });
}

#[test]
fn fuzz_mutated_entries() {
    run("fuzz_mutated_entries", |rng| {
        let mut bytes = encoded(&rng.ingredients(64).entry());
        mutate(&mut bytes, rng);
        fuzz_entry(&bytes);
        fuzz_payload(&bytes);
        // The body under a length that fits again: the damage is then in the body's fields.
        let Some(&kind) = bytes.first() else { return 0 };
        let body = &bytes[bytes.len().min(2)..];
        let length = body.len();
        let mut resized = vec![kind];
        if length >= 0x80 {
            resized.push(length as u8 | 0x80);
        }
        resized.push(if length >= 0x80 { length >> 7 } else { length } as u8);
        resized.extend_from_slice(body);
        fuzz_entry(&resized);
        bytes.len() + resized.len()
    });
}

#[test]
fn fuzz_mutated_logs() {
    run("fuzz_mutated_logs", |rng| {
        let mut head = Vec::new();
        header().encode(&mut head);
        mutate(&mut head, rng);
        fuzz_header(&head);
        if head.len() > 12 {
            let length = head.len() as u16;
            head[10..12].copy_from_slice(&length.to_le_bytes());
            reseal(&mut head);
            fuzz_header(&head);
        }

        let mut writer = BlockWriter::new();
        let mut blocks = Vec::new();
        for _ in 0..2 {
            for _ in 0..1 + rng.below(4) {
                writer.push(&rng.ingredients(16).entry());
            }
            blocks.extend_from_slice(writer.take_block());
        }
        mutate(&mut blocks, rng);
        fuzz_blocks(&blocks);
        let payload = &blocks[blocks.len().min(20)..];
        fuzz_blocks(&sealed(0, payload));
        head.len() + 2 * blocks.len()
    });
}
