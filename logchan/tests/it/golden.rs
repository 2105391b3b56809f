//! The log format byte for byte: this build writes exactly what `fixtures/` holds.
//!
//! Rule: a fixture that differs means that the format has changed. An unintended change must be undone.
//! An intended change moves `LOG_VERSION` (the rule is at the head of `log_header.rs`) and rewrites the
//! fixtures in the same commit:
//!
//! ```text
//! LOGCHAN_WRITE_FIXTURES=1 cargo test -p logchan --test it -- golden dump
//! ```
//!
//! Then review the difference as carefully as code. The fixture of a new entry kind is added in the same
//! way; no other fixture may differ then. `dump.txt` is for people, not for programs that read logs, so
//! a change of that file alone moves no version.

use logchan::dump::Dump;
use logchan::entry_codec::decode;
use logchan::log_block::{BlockWriter, next_block};
use logchan::log_header::LogHeader;

use crate::fixtures::check_bytes;
use crate::samples::{channel_samples, encoded, header, samples, small_block};

#[test]
fn golden_entries_of_every_kind() {
    for (name, entry) in channel_samples() {
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
