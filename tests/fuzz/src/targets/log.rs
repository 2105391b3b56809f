//! The codec of log entries, and of log files.

use logchan::dump::Dump;
use logchan::entry_codec::{check, decode, encode, encoded_length};
use logchan::error::DecodeError;
use logchan::log_block::{Block, BlockWriter, next_block};
use logchan::log_header::LogHeader;
use logchan::sequence::SequenceChecker;

/// Bytes that decode are the one encoding of their entry, and every proper prefix is truncated.
pub(crate) fn entry(bytes: &[u8]) {
    let Ok((entry, length)) = decode(bytes) else { return };
    assert_eq!(check(&entry), Ok(()));
    assert_eq!(encoded_length(&entry), length);
    let mut again = Vec::new();
    encode(&entry, &mut again);
    assert_eq!(again, bytes[..length], "another encoding of the same entry");
    assert_eq!(decode(&bytes[..length - 1]), Err(DecodeError::Truncated));
    let line = Dump(&entry).to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
}

/// A header is the one encoding of its fields. Entries that are in order, written as blocks, are read back.
pub(crate) fn block(bytes: &[u8]) {
    if let Ok((header, length)) = LogHeader::decode(bytes) {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(again, bytes[..length], "another encoding of the same header");
    }
    let mut rest = bytes;
    let mut sequence = 0;
    while let Ok(Some(block)) = next_block(rest, sequence) {
        entries(block);
        rest = &rest[block.encoded_length()..];
        sequence += 1;
    }
    // Behind a checksum that fits.
    let payload = Block { sequence: 0, payload: bytes };
    entries(payload);
    let mut writer = BlockWriter::new();
    let mut count = 0;
    for entry in payload.entries().map_while(Result::ok) {
        writer.push(&entry);
        count += 1;
        if writer.needs_flush() {
            break;
        }
    }
    if count > 0 {
        let written = writer.take_block().to_vec();
        let block = next_block(&written, 0).expect("it was written").expect("it is whole");
        assert_eq!(block.entries().map_while(Result::ok).count(), count);
    }
}

fn entries(block: Block<'_>) {
    let mut checker = SequenceChecker::new();
    let mut entries = block.entries();
    let mut failed = false;
    for entry in &mut entries {
        match entry {
            Ok(entry) => drop(checker.check(&entry)),
            Err(_) => failed = true,
        }
    }
    assert_eq!(failed, entries.offset() < block.payload.len());
}
