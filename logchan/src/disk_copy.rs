//! [`DiskCopy`]: the messages with which the contents of a primary's disks reach a new backup.
//!
//! The primary is the *source* and the backup the *target*. A disk is copied in blocks of [`DISK_BLOCK_BYTES`]:
//!
//! ```text
//! source                                   target
//!    <-- Have ------------------------------  what it has of this disk
//!    --- Digests of blocks that may be equal -->
//!    <-- Wanted: those that differ ----------
//!    --- Data, Zeros ------------------------>
//!    --- Flush ------------------------------>  makes durable what was before it
//!    <-- Flushed ----------------------------
//! ```
//!
//! A message is the body of an [`Entry::DiskCopy`](crate::entry::Entry::DiskCopy): the number of its form (u8), the disk
//! (u8), and
//!
//! | form | fields |
//! |---|---|
//! | 1 have | flags u8 (bit 0: there is a generation), then if there is one: term u64, owner u64; then the extents, [`DISK_EXTENTS_BYTES`] |
//! | 2 digests | block LEB128, then the digests, 16 bytes each |
//! | 3 wanted | block LEB128, blocks u64 |
//! | 4 zeros | sector LEB128, sectors LEB128 |
//! | 5 data | sector LEB128, then the data |
//! | 6 flush, 7 flushed | mark LEB128 |

use crate::error::FieldError;
use crate::ids::{Claimant, Term};
use crate::limits::{
    DISK_BLOCK_BYTES, DISK_BLOCKS_MAX, DISK_COPY_BYTES_MAX, DISK_DIGESTS_MAX, DISK_EXTENTS_BYTES,
    DISK_SECTORS_MAX, DISKS_MAX,
};
use crate::wire::{Put, Reader, bounded};
use core::fmt;

/// Bytes of a sector.
const SECTOR_BYTES: u64 = 512;

/// Bytes of a block's digest: xxh3-128. Blocks with the same digest are taken for equal, so it is not the shorter one.
pub const DISK_DIGEST_BYTES: usize = 16;

const HAVE: u8 = 1;
const DIGESTS: u8 = 2;
const WANTED: u8 = 3;
const ZEROS: u8 = 4;
const DATA: u8 = 5;
const FLUSH: u8 = 6;
const FLUSHED: u8 = 7;

const HAS_GENERATION: u8 = 1 << 0;

/// Which contents of a disk are meant: those that the VM had when the owner of this claim ran it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The term that was claimed.
    pub term: Term,
    /// Who claimed it.
    pub owner: Claimant,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.term, self.owner)
    }
}

/// One message about the copy of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskCopy<'a> {
    /// Target to source, the first message about each disk: what the target's image has.
    Have {
        /// Index of the disk.
        disk: u8,
        /// Whose contents it had completely, and when; `None` if it never was complete.
        generation: Option<Generation>,
        /// The extents that may have changed since then, a bit each: [`DISK_EXTENTS_BYTES`].
        extents: &'a [u8],
    },
    /// Source to target: digests of successive blocks.
    Digests {
        /// Index of the disk.
        disk: u8,
        /// The first of the blocks.
        block: u64,
        /// xxh3-128 of each, little-endian. The last block of a disk may be shorter.
        digests: &'a [u8],
    },
    /// Target to source: which blocks of a [`Digests`](Self::Digests) differ. The answers have the order of the digests.
    Wanted {
        /// Index of the disk.
        disk: u8,
        /// The first block of the digests.
        block: u64,
        /// Bit `i`: block `block + i` differs.
        blocks: u64,
    },
    /// Source to target: a range has nothing but zeros.
    Zeros {
        /// Index of the disk.
        disk: u8,
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u32,
    },
    /// Source to target: contents of a range.
    Data {
        /// Index of the disk.
        disk: u8,
        /// The first sector.
        sector: u64,
        /// Whole sectors, at most [`DISK_COPY_BYTES_MAX`].
        data: &'a [u8],
    },
    /// Source to target: what was sent before is to be durable.
    Flush {
        /// Index of the disk.
        disk: u8,
        /// Comes back in the answer.
        mark: u64,
    },
    /// Target to source: what came before the [`Flush`](Self::Flush) with this mark is durable.
    Flushed {
        /// Index of the disk.
        disk: u8,
        /// The mark.
        mark: u64,
    },
}

impl DiskCopy<'_> {
    /// Returns the index of the disk.
    pub const fn disk(&self) -> u8 {
        match *self {
            Self::Have { disk, .. }
            | Self::Digests { disk, .. }
            | Self::Wanted { disk, .. }
            | Self::Zeros { disk, .. }
            | Self::Data { disk, .. }
            | Self::Flush { disk, .. }
            | Self::Flushed { disk, .. } => disk,
        }
    }
}

/// Checks that every field is within its limits.
pub(crate) fn check(message: &DiskCopy<'_>) -> Result<(), FieldError> {
    bounded("disk", u64::from(message.disk()), 0, DISKS_MAX as u64 - 1)?;
    match *message {
        DiskCopy::Have { disk: _, generation: _, extents } => {
            let whole = DISK_EXTENTS_BYTES as u64;
            bounded("extents", extents.len() as u64, whole, whole)
        }
        DiskCopy::Digests { disk: _, block, digests } => {
            let most = DISK_DIGESTS_MAX * DISK_DIGEST_BYTES;
            multiple("digests", digests.len() as u64, DISK_DIGEST_BYTES as u64)?;
            bounded("digests", digests.len() as u64, DISK_DIGEST_BYTES as u64, most as u64)?;
            bounded("block", block, 0, DISK_BLOCKS_MAX - (digests.len() / DISK_DIGEST_BYTES) as u64)
        }
        DiskCopy::Wanted { disk: _, block, blocks } => {
            let count = u64::from(u64::BITS - blocks.leading_zeros());
            bounded("block", block, 0, DISK_BLOCKS_MAX - count.max(1))
        }
        DiskCopy::Zeros { disk: _, sector, sectors } => {
            bounded("sectors", u64::from(sectors), 1, u64::from(u32::MAX))?;
            bounded("sector", sector, 0, DISK_SECTORS_MAX - u64::from(sectors))
        }
        DiskCopy::Data { disk: _, sector, data } => {
            multiple("data", data.len() as u64, SECTOR_BYTES)?;
            bounded("data", data.len() as u64, SECTOR_BYTES, DISK_COPY_BYTES_MAX as u64)?;
            bounded("sector", sector, 0, DISK_SECTORS_MAX - data.len() as u64 / SECTOR_BYTES)
        }
        DiskCopy::Flush { disk: _, mark: _ } | DiskCopy::Flushed { disk: _, mark: _ } => Ok(()),
    }
}

pub(crate) fn put(message: &DiskCopy<'_>, out: &mut impl Put) {
    let form = match message {
        DiskCopy::Have { .. } => HAVE,
        DiskCopy::Digests { .. } => DIGESTS,
        DiskCopy::Wanted { .. } => WANTED,
        DiskCopy::Zeros { .. } => ZEROS,
        DiskCopy::Data { .. } => DATA,
        DiskCopy::Flush { .. } => FLUSH,
        DiskCopy::Flushed { .. } => FLUSHED,
    };
    out.put(&[form, message.disk()]);
    match *message {
        DiskCopy::Have { disk: _, generation, extents } => {
            out.put(&[if generation.is_some() { HAS_GENERATION } else { 0 }]);
            if let Some(Generation { term, owner }) = generation {
                out.put(&term.0.to_le_bytes());
                out.put(&owner.0.to_le_bytes());
            }
            out.put(extents);
        }
        DiskCopy::Digests { disk: _, block, digests } => {
            out.put_leb128(block);
            out.put(digests);
        }
        DiskCopy::Wanted { disk: _, block, blocks } => {
            out.put_leb128(block);
            out.put(&blocks.to_le_bytes());
        }
        DiskCopy::Zeros { disk: _, sector, sectors } => {
            out.put_leb128(sector);
            out.put_leb128(u64::from(sectors));
        }
        DiskCopy::Data { disk: _, sector, data } => {
            out.put_leb128(sector);
            out.put(data);
        }
        DiskCopy::Flush { disk: _, mark } | DiskCopy::Flushed { disk: _, mark } => {
            out.put_leb128(mark);
        }
    }
}

/// Reads a message, whose fields are then [checked](check).
pub(crate) fn read<'a>(reader: &mut Reader<'a>) -> Result<DiskCopy<'a>, FieldError> {
    let form = reader.u8("form")?;
    bounded("form", u64::from(form), u64::from(HAVE), u64::from(FLUSHED))?;
    let disk = reader.u8("disk")?;
    Ok(match form {
        HAVE => {
            let flags = reader.u8("flags")?;
            bounded("flags", u64::from(flags), 0, u64::from(HAS_GENERATION))?;
            let generation = match flags {
                0 => None,
                _present => {
                    let term = Term(reader.u64("term")?);
                    Some(Generation { term, owner: Claimant(reader.u64("owner")?) })
                }
            };
            DiskCopy::Have { disk, generation, extents: reader.take_rest() }
        }
        DIGESTS => {
            let block = reader.leb128_u64("block")?;
            DiskCopy::Digests { disk, block, digests: reader.take_rest() }
        }
        WANTED => {
            let block = reader.leb128_u64("block")?;
            DiskCopy::Wanted { disk, block, blocks: reader.u64("blocks")? }
        }
        ZEROS => {
            let sector = reader.leb128_u64("sector")?;
            DiskCopy::Zeros { disk, sector, sectors: reader.leb128_u32("sectors")? }
        }
        FLUSH => DiskCopy::Flush { disk, mark: reader.leb128_u64("mark")? },
        FLUSHED => DiskCopy::Flushed { disk, mark: reader.leb128_u64("mark")? },
        _data => {
            let sector = reader.leb128_u64("sector")?;
            DiskCopy::Data { disk, sector, data: reader.take_rest() }
        }
    })
}

fn multiple(field: &'static str, value: u64, unit: u64) -> Result<(), FieldError> {
    match value.is_multiple_of(unit) {
        true => Ok(()),
        false => Err(FieldError::NotAMultiple { field, value, unit }),
    }
}

// A block is whole sectors and whole messages.
const _: () = assert!(DISK_BLOCK_BYTES.is_multiple_of(DISK_COPY_BYTES_MAX));
const _: () = assert!((DISK_COPY_BYTES_MAX as u64).is_multiple_of(SECTOR_BYTES));
// A bit of `Wanted` for each digest.
const _: () = assert!(DISK_DIGESTS_MAX == u64::BITS as usize);
