//! Number and bytes of entries by kind: what a log's size is made of.

use core::fmt;

use crate::entry::Entry;
use crate::entry_codec;
use crate::entry_kind::EntryKind;

/// Number of entries, and the bytes that they take encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryStats {
    /// Number of entries.
    pub count: u64,
    /// Encoded bytes of these entries: kind, body length and body.
    pub bytes: u64,
}

impl EntryStats {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// [`EntryStats`] of every kind. Displays as a table of the kinds that occur, with a total:
///
/// ```text
/// kind                    count          bytes   share
/// exit                      812           9744   61.3%
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryStatsTable {
    by_kind: [EntryStats; EntryKind::ALL.len()],
}

impl EntryStatsTable {
    /// Adds `entry` to the counters of its kind.
    pub fn record(&mut self, entry: &Entry<'_>) {
        let bytes = entry_codec::encoded_length(entry) as u64;
        self.by_kind[EntryKind::of(entry).index()].add(EntryStats { count: 1, bytes });
    }

    /// Returns the counters of one kind.
    pub fn get(&self, kind: EntryKind) -> EntryStats {
        self.by_kind[kind.index()]
    }

    /// Iterates over all kinds in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (EntryKind, EntryStats)> {
        EntryKind::ALL.into_iter().zip(self.by_kind)
    }

    /// Returns the sum over all kinds.
    pub fn total(&self) -> EntryStats {
        let mut total = EntryStats::default();
        for stats in self.by_kind {
            total.add(stats);
        }
        total
    }
}

impl fmt::Display for EntryStatsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = EntryKind::NAME_WIDTH;
        let total = self.total();
        writeln!(f, "{:width$} {:>12} {:>14} {:>7}", "kind", "count", "bytes", "share")?;
        for (kind, EntryStats { count, bytes }) in self.iter() {
            if count > 0 {
                let share = 100.0 * bytes as f64 / total.bytes as f64;
                writeln!(f, "{kind:width$} {count:>12} {bytes:>14} {share:>6.1}%")?;
            }
        }
        write!(f, "{:width$} {:>12} {:>14}", "total", total.count, total.bytes)
    }
}
