//! Bytes of any kind, and what must hold for all of them.
//!
//! The bodies, `fuzz_*`, are plain functions of bytes, for any fuzzer. The runs here feed them with
//! random bytes and with valid encodings that were mutated, from a seed that is new every time and
//! printed when something fails, with the command that repeats the one input.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `LOGCHAN_FUZZ_INPUTS` | inputs of each run | 100 000 |
//! | `LOGCHAN_FUZZ_SEED` | the seed | from the clock |
//! | `LOGCHAN_FUZZ_FROM` | the first input's number | 0 |

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use logchan::dump::Dump;
use logchan::entry_codec::{check, decode, encoded_length};
use logchan::entry_stats::EntryStatsTable;
use logchan::error::DecodeError;
use logchan::log_block::{Block, BlockWriter, next_block};
use logchan::log_header::LogHeader;
use logchan::sequence::SequenceChecker;

use crate::block::sealed;
use crate::header::reseal;
use crate::ingredients::Rng;
use crate::samples::{encoded, header};

/// Bytes that decode are the one encoding of their entry; cut short, they are not enough.
fn fuzz_entry(bytes: &[u8]) {
    let Ok((entry, length)) = decode(bytes) else { return };
    assert_eq!(check(&entry), Ok(()));
    assert_eq!(encoded_length(&entry), length);
    assert_eq!(encoded(&entry), bytes[..length], "another encoding of the same entry");
    assert_eq!(decode(&bytes[..length - 1]), Err(DecodeError::Truncated));
    let line = Dump(&entry).to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
}

/// A payload is consumed entry by entry, to its end or to the first bad one.
fn fuzz_payload(bytes: &[u8]) {
    let mut checker = SequenceChecker::new();
    let mut stats = EntryStatsTable::default();
    let mut entries = Block { sequence: 0, payload: bytes }.entries();
    let mut failed = false;
    for entry in &mut entries {
        match entry {
            Ok(entry) => {
                stats.record(&entry);
                let _legal_or_not = checker.check(&entry);
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

fn from_env(name: &str, default: impl FnOnce() -> u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => default(),
    }
}

/// Says, when a panic passes by, how to repeat the input under way.
struct Repeat {
    run: &'static str,
    seed: u64,
    input: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { run, seed, input } = self;
            eprintln!(
                "input {input} of seed {seed}; repeat: LOGCHAN_FUZZ_SEED={seed} \
                 LOGCHAN_FUZZ_FROM={input} LOGCHAN_FUZZ_INPUTS=1 cargo test -p logchan --test it {run}"
            );
        }
    }
}

/// Runs `input` with a generator that depends only on the seed and the input's number.
pub(crate) fn run(name: &'static str, input: impl Fn(&mut Rng) -> usize) {
    run_one_in(1, name, input);
}

/// The same for inputs that are as much work as `share` others: as many fewer of them.
pub(crate) fn run_one_in(share: u64, name: &'static str, input: impl Fn(&mut Rng) -> usize) {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let seed = from_env("LOGCHAN_FUZZ_SEED", clock);
    let from = from_env("LOGCHAN_FUZZ_FROM", || 0);
    let inputs = from_env("LOGCHAN_FUZZ_INPUTS", || 100_000).div_ceil(share);
    let started = Instant::now();
    let mut repeat = Repeat { run: name, seed, input: from };
    let mut bytes = 0;
    for number in from..from + inputs {
        repeat.input = number;
        bytes += input(&mut Rng(Rng(seed ^ number.rotate_left(32)).next()));
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{name}: seed {seed}, {inputs} inputs, {:.0} inputs/s, {:.1} MB/s",
        inputs as f64 / seconds,
        bytes as f64 / seconds / 1e6
    );
}

/// One to four changes: a bit, a byte, a length, a cut, or something inserted, removed or doubled.
pub(crate) fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        if bytes.is_empty() {
            bytes.push(rng.next() as u8);
        }
        // Kind, length and flags are at the front: half of all changes go there.
        let reach = if rng.next() & 1 == 0 { bytes.len() } else { bytes.len().min(16) };
        let at = rng.below(reach);
        let end = at + rng.below((bytes.len() - at).min(32) + 1);
        match rng.below(8) {
            0 | 1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes[at] = rng.next() as u8,
            3 => bytes[at] = [0x00, 0x01, 0x7f, 0x80, 0xff][rng.below(5)],
            4 => bytes.truncate(at),
            5 => bytes.insert(at, rng.next() as u8),
            6 => drop(bytes.drain(at..end)),
            _ => bytes.extend_from_within(at..end),
        }
    }
}

#[test]
fn fuzz_random_bytes() {
    run("fuzz_random_bytes", |rng| {
        let length = rng.below(300);
        let mut bytes = rng.bytes(length);
        // Without these, all but a few inputs would end at an unknown kind or a wrong marker.
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
fn fuzz_mutated_entries() {
    run("fuzz_mutated_entries", |rng| {
        let mut bytes = encoded(&rng.ingredients(64).entry());
        mutate(&mut bytes, rng);
        fuzz_entry(&bytes);
        fuzz_payload(&bytes);
        // The body under a length that fits again: the damage is then in its fields.
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
