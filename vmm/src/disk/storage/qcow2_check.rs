//! [`check`]: whether the tables of a qcow2 image agree with its refcounts, before the image is written.
//!
//! The crate imago trusts the tables. To make a refcount block for an area of the file, it looks for a free cluster in
//! front of that area. It starts at the first cluster that may be free: if that is inside the area, it never meets the
//! area's start, needs the same block again, and calls itself until the process ends by a stack overflow. That happens
//! when it has freed a cluster in an area without a block, or when the first area, which has the header, is without one.
//! And if a data cluster is also a table, the guest writes the table. So every cluster that the tables refer to must have
//! a refcount of at least the number of references, and no cluster may be both a table and something else. imago only
//! frees clusters that its tables refer to, and keeps this true.
//!
//! The contents of snapshots are not read, because imago neither reads nor frees them; their tables in the first level
//! count. imago frees nothing in an image that is only read, which therefore needs no check.
//!
//! The format is that of docs/interop/qcow2.txt of QEMU.

use crate::limits::{QCOW2_CLUSTERS_MAX, QCOW2_SNAPSHOTS_MAX, QCOW2_TABLE_ENTRIES_MAX};
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;

const MAGIC: u32 = u32::from_be_bytes(*b"QFI\xfb");

/// Bytes of the header of version 3 without additional fields.
const HEADER_BYTES: usize = 104;

/// Cluster sizes that QEMU and imago have, as powers of two: 512 bytes to 2 MiB.
const CLUSTER_BITS: RangeInclusive<u32> = 9..=21;

/// Largest refcounts: 64 bits, as a power of two.
const REFCOUNT_ORDER_MAX: u32 = 6;

/// Bytes of an entry of the L1, L2 and refcount tables.
const ENTRY_BYTES: u64 = 8;

/// Bits of an L1 or L2 entry that are the position of a cluster.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Bits of an L1 entry that must be 0.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;

/// Bits of an L2 entry that must be 0, unless the cluster is compressed.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// Bit of an L2 entry: the refcount is 1. A compressed cluster does not have it.
const L2_COPIED: u64 = 1 << 63;

/// Bit of an L2 entry: the cluster is compressed.
const L2_COMPRESSED: u64 = 1 << 62;

/// Bits of an entry of the refcount table that must be 0.
const REFCOUNT_TABLE_RESERVED: u64 = 0x1ff;

/// Unit of the length of a compressed cluster, bytes.
const COMPRESSED_UNIT_BYTES: u64 = 512;

/// Bytes of an entry of the snapshot table without its additional data and names, and what the entry's size is a
/// multiple of.
const SNAPSHOT_BYTES: usize = 40;
const SNAPSHOT_ALIGNMENT: u64 = 8;

/// Why an image may not be written.
#[derive(Debug, thiserror::Error)]
pub(in crate::disk) enum Unfit {
    /// Its tables contradict each other: what, and where.
    #[error("{0}")]
    Damaged(String),
    /// It has more clusters than a check has memory for.
    #[error("it has more than {QCOW2_CLUSTERS_MAX} clusters: make a copy that has larger ones")]
    TooLarge,
    /// It can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn damaged<T>(what: String) -> Result<T, Unfit> {
    Err(Unfit::Damaged(what))
}

/// What a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    RefcountTable,
    RefcountBlock,
    L1Table,
    L2Table,
    SnapshotTable,
    SnapshotL1Table,
    Data,
    Compressed,
}

impl Part {
    /// Returns whether several references to a cluster with it are valid, if its refcount says so. Compressed clusters
    /// share a cluster.
    fn may_be_shared(self) -> bool {
        match self {
            Part::Data | Part::Compressed => true,
            Part::Header
            | Part::RefcountTable
            | Part::RefcountBlock
            | Part::L1Table
            | Part::L2Table
            | Part::SnapshotTable
            | Part::SnapshotL1Table => false,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Header => "header",
            Part::RefcountTable => "refcount table",
            Part::RefcountBlock => "refcount block",
            Part::L1Table => "L1 table",
            Part::L2Table => "L2 table",
            Part::SnapshotTable => "snapshot table",
            Part::SnapshotL1Table => "snapshot's L1 table",
            Part::Data => "data cluster",
            Part::Compressed => "compressed cluster",
        })
    }
}

/// Checks the image `file`, which has `bytes` bytes. An image whose header imago refuses is not checked.
///
/// The memory is one byte for each cluster of the file, and that of the largest table. Each table is read once, and none
/// may be there twice; so the time is bounded by the size of the file.
///
/// # Errors
///
/// The image is damaged, has too many clusters, or can't be read.
pub(in crate::disk) fn check(mut file: impl Read + Seek, bytes: u64) -> Result<(), Unfit> {
    let Some(header) = Header::read(&mut file)? else { return Ok(()) };
    let mut references = References::new(bytes, header.cluster_bits)?;
    references.add(0, 1, Part::Header)?;
    let refcount_table = header.refcount_table(&mut file, &mut references)?;
    header.count_mapped(&mut file, &mut references)?;
    header.count_snapshots(&mut file, &mut references)?;
    header.check_refcounts(&mut file, &references, &refcount_table)
}

/// The fields of the header that say where the tables are.
#[derive(Debug)]
struct Header {
    cluster_bits: u32,
    /// Bits of a refcount, as a power of two.
    refcount_order: u32,
    l1_offset: u64,
    l1_entries: u64,
    refcount_offset: u64,
    refcount_clusters: u64,
    snapshots_offset: u64,
    snapshots: u32,
}

impl Header {
    /// Returns nothing if imago refuses the image: it has another format or version, a size of clusters or refcounts
    /// that does not exist, or incompatible features, of which imago has none that keep the data in the image.
    fn read(file: &mut (impl Read + Seek)) -> io::Result<Option<Header>> {
        let mut bytes = [0; HEADER_BYTES];
        read_or_zeros(file, 0, &mut bytes)?;
        let version = u32_at(&bytes, 4);
        let (incompatible, refcount_order) = match version {
            2 => (0, 4),
            _ => (u64_at(&bytes, 72), u32_at(&bytes, 96)),
        };
        let header = Header {
            cluster_bits: u32_at(&bytes, 20),
            refcount_order,
            l1_offset: u64_at(&bytes, 40),
            l1_entries: u64::from(u32_at(&bytes, 36)),
            refcount_offset: u64_at(&bytes, 48),
            refcount_clusters: u64::from(u32_at(&bytes, 56)),
            snapshots_offset: u64_at(&bytes, 64),
            snapshots: u32_at(&bytes, 60),
        };
        let is_usable = u32_at(&bytes, 0) == MAGIC
            && matches!(version, 2 | 3)
            && CLUSTER_BITS.contains(&header.cluster_bits)
            && header.refcount_order <= REFCOUNT_ORDER_MAX
            && incompatible == 0;
        Ok(is_usable.then_some(header))
    }

    fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Refcounts of a block.
    fn block_entries(&self) -> usize {
        1 << (self.cluster_bits + 3 - self.refcount_order)
    }

    /// Reads the refcount table, and counts it and its blocks.
    fn refcount_table(
        &self,
        file: &mut (impl Read + Seek),
        references: &mut References,
    ) -> Result<Vec<u64>, Unfit> {
        let entries = self.refcount_clusters * (self.cluster_bytes() / ENTRY_BYTES);
        let table = Table { offset: self.refcount_offset, entries, part: Part::RefcountTable };
        let table = table.read(file, references)?;
        for &entry in &table {
            if entry & REFCOUNT_TABLE_RESERVED != 0 {
                return reserved(Part::RefcountTable, entry);
            }
            if entry != 0 {
                references.add(entry, 1, Part::RefcountBlock)?;
            }
        }
        Ok(table)
    }

    /// Counts the L1 table, the L2 tables, and the clusters that they refer to.
    fn count_mapped(
        &self,
        file: &mut (impl Read + Seek),
        references: &mut References,
    ) -> Result<(), Unfit> {
        let table = Table { offset: self.l1_offset, entries: self.l1_entries, part: Part::L1Table };
        for entry in table.read(file, references)? {
            if entry & L1_RESERVED != 0 {
                return reserved(Part::L1Table, entry);
            }
            let offset = entry & OFFSET;
            if offset == 0 {
                continue;
            }
            let entries = self.cluster_bytes() / ENTRY_BYTES;
            let table = Table { offset, entries, part: Part::L2Table };
            for entry in table.read(file, references)? {
                self.count_l2_entry(entry, references)?;
            }
        }
        Ok(())
    }

    fn count_l2_entry(&self, entry: u64, references: &mut References) -> Result<(), Unfit> {
        let is_compressed = entry & L2_COMPRESSED != 0;
        let must_be_zero = if is_compressed { L2_COPIED } else { L2_RESERVED };
        if entry & must_be_zero != 0 {
            return reserved(Part::L2Table, entry);
        }
        if is_compressed {
            // The units behind the first one stand above the position.
            let offset_bits = 70 - self.cluster_bits;
            let descriptor = entry & (L2_COMPRESSED - 1);
            let offset = descriptor & ((1 << offset_bits) - 1) & (OFFSET | 0x1ff);
            let first = offset & !(COMPRESSED_UNIT_BYTES - 1);
            let units = (descriptor >> offset_bits) + 1;
            return references.add(first, units * COMPRESSED_UNIT_BYTES, Part::Compressed);
        }
        match entry & OFFSET {
            0 => Ok(()),
            offset => references.add(offset, 1, Part::Data),
        }
    }

    /// Counts the snapshot table and the L1 tables of the snapshots.
    fn count_snapshots(
        &self,
        file: &mut (impl Read + Seek),
        references: &mut References,
    ) -> Result<(), Unfit> {
        if self.snapshots > QCOW2_SNAPSHOTS_MAX {
            return damaged(format!("it has {} snapshots", self.snapshots));
        }
        let mut end = self.snapshots_offset;
        for _ in 0..self.snapshots {
            if end >= references.end() {
                return behind_end(Part::SnapshotTable, self.snapshots_offset);
            }
            let mut entry = [0; SNAPSHOT_BYTES];
            read_or_zeros(file, end, &mut entry)?;
            let table = Table {
                offset: u64_at(&entry, 0),
                entries: u64::from(u32_at(&entry, 8)),
                part: Part::SnapshotL1Table,
            };
            table.count(references)?;
            let names = u64::from(u16_at(&entry, 12)) + u64::from(u16_at(&entry, 14));
            let length = SNAPSHOT_BYTES as u64 + u64::from(u32_at(&entry, 36)) + names;
            end += length.next_multiple_of(SNAPSHOT_ALIGNMENT);
        }
        references.add(self.snapshots_offset, end - self.snapshots_offset, Part::SnapshotTable)
    }

    /// Checks that the refcount of each cluster is at least the number of references to it.
    fn check_refcounts(
        &self,
        file: &mut (impl Read + Seek),
        references: &References,
        refcount_table: &[u64],
    ) -> Result<(), Unfit> {
        let mut block = vec![0; 1 << self.cluster_bits];
        let areas = references.clusters.chunks(self.block_entries());
        for (area, clusters) in areas.enumerate() {
            let first = (area * self.block_entries()) as u64;
            let offset = |index: usize| (first + index as u64) << self.cluster_bits;
            let Some(first_used) = clusters.iter().position(|&uses| uses != 0) else { continue };
            match refcount_table.get(area) {
                None | Some(0) => {
                    let offset = offset(first_used);
                    return damaged(format!("the cluster at {offset:#x} has no refcount"));
                }
                Some(&entry) => read_or_zeros(file, entry, &mut block)?,
            }
            for (index, uses) in clusters.iter().enumerate() {
                let uses = u64::from(uses & !TABLE);
                let refcount =
                    if uses == 0 { 0 } else { refcount(&block, index, self.refcount_order) };
                if uses > refcount {
                    let offset = offset(index);
                    return damaged(format!(
                        "the cluster at {offset:#x} has refcount {refcount}, and references: {uses}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Returns a refcount of 2 to the power of `order` bits. Those of less than a byte start at the lowest bit.
fn refcount(block: &[u8], index: usize, order: u32) -> u64 {
    if order < 3 {
        let bit = index << order;
        let mask = (1 << (1 << order)) - 1;
        return u64::from((block[bit / 8] >> (bit % 8)) & mask);
    }
    let bytes = 1 << (order - 3);
    block[index * bytes..][..bytes].iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// A table of entries of 8 bytes.
struct Table {
    offset: u64,
    entries: u64,
    part: Part,
}

impl Table {
    fn count(&self, references: &mut References) -> Result<(), Unfit> {
        if self.entries > QCOW2_TABLE_ENTRIES_MAX {
            return damaged(format!("the {} has {} entries", self.part, self.entries));
        }
        references.add(self.offset, self.entries * ENTRY_BYTES, self.part)
    }

    /// Counts the table, and reads it if it is in the file.
    fn read(
        &self,
        file: &mut (impl Read + Seek),
        references: &mut References,
    ) -> Result<Vec<u64>, Unfit> {
        self.count(references)?;
        let mut bytes = vec![0; (self.entries * ENTRY_BYTES) as usize];
        read_or_zeros(file, self.offset, &mut bytes)?;
        let entries = bytes.as_chunks().0.iter();
        Ok(entries.map(|entry| u64::from_be_bytes(*entry)).collect())
    }
}

/// Bit of a cluster's references: it is a table, or the header.
const TABLE: u8 = 1 << 7;

/// The references to each cluster.
struct References {
    /// One for each cluster of the file. The number stops at 127: compressed clusters may be more, whose cluster then
    /// needs a refcount of 127 only.
    clusters: Vec<u8>,
    cluster_bits: u32,
}

impl References {
    fn new(bytes: u64, cluster_bits: u32) -> Result<References, Unfit> {
        // The last cluster may be there in part.
        let clusters = bytes.div_ceil(1 << cluster_bits);
        if clusters > QCOW2_CLUSTERS_MAX {
            return Err(Unfit::TooLarge);
        }
        Ok(References { clusters: vec![0; clusters as usize], cluster_bits })
    }

    /// End of the last cluster, bytes.
    fn end(&self) -> u64 {
        (self.clusters.len() as u64) << self.cluster_bits
    }

    /// Adds a reference to each cluster that has some of the `bytes` bytes at `offset`.
    fn add(&mut self, offset: u64, bytes: u64, part: Part) -> Result<(), Unfit> {
        if bytes == 0 {
            return Ok(());
        }
        if part != Part::Compressed && !offset.is_multiple_of(1 << self.cluster_bits) {
            return damaged(format!("the {part} at {offset:#x} is not aligned"));
        }
        let Some(end) = offset.checked_add(bytes).filter(|&end| end <= self.end()) else {
            return behind_end(part, offset);
        };
        let first = (offset >> self.cluster_bits) as usize;
        let last = ((end - 1) >> self.cluster_bits) as usize;
        for uses in &mut self.clusters[first..=last] {
            *uses = match (*uses, part.may_be_shared()) {
                (0, false) => TABLE | 1,
                (uses, true) if uses & TABLE == 0 => (uses + 1).min(TABLE - 1),
                _ => {
                    return damaged(format!("the {part} at {offset:#x} has the place of a table"));
                }
            };
        }
        Ok(())
    }
}

fn behind_end<T>(part: Part, offset: u64) -> Result<T, Unfit> {
    damaged(format!("the {part} at {offset:#x} is not in the file"))
}

fn reserved<T>(part: Part, entry: u64) -> Result<T, Unfit> {
    damaged(format!("an entry of the {part} is {entry:#x}"))
}

/// Reads at `offset`. What is behind the end of the file is zeros, as for imago.
fn read_or_zeros(file: &mut (impl Read + Seek), offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let mut rest = &mut *bytes;
    while !rest.is_empty() {
        match file.read(rest) {
            Ok(0) => break,
            Ok(length) => rest = &mut rest[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    rest.fill(0);
    Ok(())
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(bytes, offset)) << 16 | u32::from(u16_at(bytes, offset + 2))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from(u32_at(bytes, offset)) << 32 | u64::from(u32_at(bytes, offset + 4))
}

#[cfg(test)]
mod tests;
