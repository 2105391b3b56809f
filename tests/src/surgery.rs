//! Rewrites logs: plants errors that a replay must detect in a file whose CRCs are correct.

use logchan::entry::Entry;
use replication::log_writer::LogSink;
use std::path::Path;
use vmm::files::Access;
use vmm::files::output::Existing;
use vmm::replay::log_file::{LogFile, LogReader};
use vmm::replay::recorder::LogDestination;

/// Copies the log `from` to `to` and replaces each entry by the result of `edit`. `edit` receives the
/// entry, its index, and a buffer that the returned entry may borrow from.
pub fn rewrite(
    from: &Path,
    to: &Path,
    mut edit: impl for<'a> FnMut(u64, Entry<'a>, &'a mut Vec<u8>) -> Entry<'a>,
) {
    let mut reader = LogReader::open(from, Access::Owner).expect("the log opens");
    let mut writer =
        LogFile::create(to, &reader.header().clone(), Existing::Replace, Access::Owner)
            .expect("a log is made");
    let mut index = 0;
    while let Some(entry) = reader.consume_entry().expect("the log reads") {
        let mut buffer = Vec::new();
        writer.append(&edit(index, entry, &mut buffer)).expect("the log is written");
        index += 1;
    }
    writer.finish().expect("the log is written");
}

/// Returns the index of the last entry that `wanted` accepts.
pub fn last_index(log: &Path, wanted: impl Fn(&Entry<'_>) -> bool) -> Option<u64> {
    let mut reader = LogReader::open(log, Access::Owner).expect("the log opens");
    let mut found = None;
    let mut index = 0;
    while let Some(entry) = reader.consume_entry().expect("the log reads") {
        if wanted(&entry) {
            found = Some(index);
        }
        index += 1;
    }
    found
}

/// Copies `bytes` to `buffer` and flips bit 0 of byte `at`.
pub fn flipped<'a>(bytes: &[u8], at: usize, buffer: &'a mut Vec<u8>) -> &'a [u8] {
    buffer.extend_from_slice(bytes);
    buffer[at] ^= 1;
    buffer
}
