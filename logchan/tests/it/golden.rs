//! The format, byte for byte: what this build writes is what `fixtures/` holds.
//!
//! Rule: a fixture that differs is a format that changed. A change that was not meant is undone. A
//! change that was meant moves `LOG_VERSION` (its rule is at the head of `log_header.rs`) and
//! writes the fixtures anew in the same commit:
//!
//! ```text
//! LOGCHAN_WRITE_FIXTURES=1 cargo test -p logchan --test it -- golden dump
//! ```
//!
//! then reads the difference as closely as the code. A fixture for a new entry kind is added the
//! same way; nothing else may differ then. `dump.txt` is for people, not for programs that read
//! logs: a change of it alone moves no version.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use logchan::dump::Dump;
use logchan::entry_codec::decode;
use logchan::log_block::{BlockWriter, next_block};
use logchan::log_header::LogHeader;

use crate::samples::{encoded, header, samples, small_block};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Compares with the fixture, or writes it when told to.
pub(crate) fn check_text(name: &str, text: &str) {
    let path = fixture(name);
    if env::var_os("LOGCHAN_WRITE_FIXTURES").is_some() {
        fs::write(&path, text).expect("the fixture is writable");
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert_eq!(text, golden, "{name} differs; see the head of golden.rs for what that means");
}

/// Hex, 32 bytes a line, under a comment that says what it is. Returns the fixture's bytes.
pub(crate) fn check_bytes(name: &str, what: &str, bytes: &[u8]) -> Vec<u8> {
    let mut text = format!("# {what}\n");
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").expect("a string takes everything");
        }
        text.push('\n');
    }
    let name = format!("{name}.hex");
    check_text(&name, &text);
    parse_hex(&fs::read_to_string(fixture(&name)).expect("it was just read"))
}

fn parse_hex(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two hex digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn golden_entries_of_every_kind() {
    for (name, entry) in samples() {
        let golden = check_bytes(name, &Dump(&entry).to_string(), &encoded(&entry));
        assert_eq!(decode(&golden), Ok((entry, golden.len())), "{name}");
    }
}

#[test]
fn golden_log_header() {
    let header = header();
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    let golden = check_bytes("log_header", "the header of a log", &bytes);
    assert_eq!(LogHeader::decode(&golden), Ok((header, golden.len())));
}

#[test]
fn golden_block() {
    let bytes = small_block(&mut BlockWriter::new());
    let golden = check_bytes("block", "block 0 of a log: every sample but page_raw", &bytes);
    let block = next_block(&golden, 0).expect("a whole block").expect("a block");
    assert_eq!(block.encoded_length(), golden.len());
    let entries: Result<Vec<_>, _> = block.entries().collect();
    assert_eq!(entries.expect("every entry decodes").len(), samples().len() - 1);
}
