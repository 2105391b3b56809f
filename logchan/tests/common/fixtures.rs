//! Bytes and texts kept in `fixtures/`: compared, or written if `LOGCHAN_WRITE_FIXTURES` is set.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Compares `text` with the fixture, or writes the fixture.
pub(crate) fn check_text(name: &str, text: &str) {
    let path = fixture(name);
    if env::var_os("LOGCHAN_WRITE_FIXTURES").is_some() {
        fs::write(&path, text).expect("the fixture is writable");
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert_eq!(text, golden, "{name} differs; see the head of it/golden.rs for what that means");
}

/// Does the same for bytes: as hex, 32 bytes in a line, under a comment `what`. Returns the fixture's
/// bytes.
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
