//! Encoding and decoding of an [`Entry`].
//!
//! ```text
//! entry = kind u8 | body length LEB128 | body
//! ```
//!
//! | kind | body |
//! |---|---|
//! | exit | flags u8 (bit 0: registers present), digest u64, then if present: changed LEB128, and for each set bit from the lowest up: old ^ new, LEB128, not 0 |
//! | window | flags u8 (no bit has a meaning), digest u64 |
//! | checkpoint-begin | flags u8 (bit 0: full, bit 1: vcpu is a delta, bit 2: devices is a delta), pages LEB128, vcpu length LEB128, vcpu, devices length LEB128, devices |
//! | page | number LEB128, form u8 (1: all zero, 2: raw, 3: delta), then if raw: 4096 bytes; if delta: a [page delta](crate::page_delta) |
//! | checkpoint-end | digest u64 |
//! | clock | advance_ns LEB128 |
//! | wall-clock | unix_ns LEB128 |
//! | entropy, frame, console | the bytes |
//! | disk-done | disk u8, flags u8 (bit 0: failed), number LEB128, digest u64, then the data |
//! | interrupt | vector u8 |
//! | output | length LEB128, digest u64 |
//! | end | natural_exits LEB128, interrupts LEB128, memory_digest u64, state_digest u64 |
//! | hand-over | nothing |
//! | disk-copy | a [message](crate::disk_copy) |
//!
//! Digests are little-endian and of fixed width. LEB128 numbers must be in their shortest form, a body
//! must be consumed to its last byte, and bits without a meaning must be zero. So every entry has
//! exactly one encoding, and bytes that decode encode to the same bytes again.
//!
//! Any change of this format moves [`crate::log_header::LOG_VERSION`].

use alloc::vec::Vec;

use crate::disk_copy;
use crate::entry::{DiskStatus, Entry, PageBytes, REGISTERS, RegisterDelta, StateBytes};
use crate::entry_kind::EntryKind;
use crate::error::{DecodeError, FieldError};
use crate::limits::{
    CHECKPOINT_PAGES_MAX, CLOCK_ADVANCE_NS_MAX, CONSOLE_BYTES_MAX, DEVICES_BYTES_MAX,
    DISK_BYTES_MAX, DISKS_MAX, ENTROPY_BYTES_MAX, ENTRY_BODY_MAX, FRAME_BYTES_MAX, PAGE_BYTES,
    PAGE_DELTA_BYTES_MAX, PAGE_NUMBER_MAX, VCPU_BYTES_MAX,
};
use crate::page_delta::PageDelta;
use crate::wire::{ByteCount, Put, Reader, bounded, leb128_length};

const EXIT_REGISTERS: u8 = 1 << 0;
const CHECKPOINT_FULL: u8 = 1 << 0;
const CHECKPOINT_VCPU_DELTA: u8 = 1 << 1;
const CHECKPOINT_DEVICES_DELTA: u8 = 1 << 2;
const DISK_FAILED: u8 = 1 << 0;
const PAGE_ZERO: u8 = 1;
const PAGE_RAW: u8 = 2;
const PAGE_DELTA: u8 = 3;

/// Appends `entry` to `out`. Allocates nothing while `out` has [`encoded_length`] bytes to spare.
///
/// # Panics
///
/// When [`check`] refuses the entry. The code that makes entries must keep within the limits.
pub fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let kind = EntryKind::of(entry);
    if let Err(error) = check(entry) {
        panic!("an entry outside of its limits: {kind}: {error}");
    }
    let length = body_length(entry);
    assert!(length <= ENTRY_BODY_MAX, "{kind}: a body of {length} bytes");
    out.put(&[kind.number()]);
    out.put_leb128(length as u64);
    put_body(entry, out);
}

/// Returns the number of bytes that [`encode`] appends for `entry`.
pub fn encoded_length(entry: &Entry<'_>) -> usize {
    let length = body_length(entry);
    1 + leb128_length(length as u64) + length
}

/// Decodes one entry at the front of `bytes`. Returns the entry, which borrows from `bytes`, and its
/// length in bytes.
///
/// # Errors
///
/// [`DecodeError::Truncated`] when `bytes` is a proper prefix of an entry, as far as can be seen.
/// Another [`DecodeError`] when no bytes that follow could make it an entry.
pub fn decode(bytes: &[u8]) -> Result<(Entry<'_>, usize), DecodeError> {
    let (&number, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
    if number == 0 {
        return Err(DecodeError::InvalidKind);
    }
    let kind = EntryKind::from_number(number).ok_or(DecodeError::UnknownKind(number))?;

    let mut reader = Reader::new(rest);
    let length = match reader.leb128_u32("body length") {
        Ok(length) => length,
        Err(FieldError::Ends { .. }) => return Err(DecodeError::Truncated),
        Err(error) => return Err(DecodeError::Length { kind, error }),
    };
    bounded("body length", u64::from(length), 0, ENTRY_BODY_MAX as u64)
        .map_err(|error| DecodeError::Length { kind, error })?;
    let body = reader.take("body", length as usize).map_err(|_| DecodeError::Truncated)?;

    let entry = read_body(kind, body).map_err(|error| DecodeError::Body { kind, error })?;
    Ok((entry, bytes.len() - reader.rest().len()))
}

/// Checks that every field of `entry` is within [`crate::limits`], as [`encode`] requires.
///
/// # Errors
///
/// The first field that is out of its limits.
pub fn check(entry: &Entry<'_>) -> Result<(), FieldError> {
    match *entry {
        Entry::Exit { digest: _, registers } => registers.as_ref().map_or(Ok(()), check_registers),
        Entry::CheckpointBegin { full: _, pages, vcpu, devices } => {
            bounded("pages", u64::from(pages), 0, u64::from(CHECKPOINT_PAGES_MAX))?;
            bounded_length("vcpu", vcpu.bytes(), VCPU_BYTES_MAX)?;
            bounded_length("devices", devices.bytes(), DEVICES_BYTES_MAX)
        }
        Entry::Page { number, bytes } => {
            bounded("number", number, 0, PAGE_NUMBER_MAX)?;
            match bytes {
                PageBytes::Zero => Ok(()),
                PageBytes::Raw(raw) => {
                    bounded("bytes", raw.len() as u64, PAGE_BYTES as u64, PAGE_BYTES as u64)
                }
                PageBytes::Delta(delta) => {
                    bounded_length("changes", delta.bytes(), PAGE_DELTA_BYTES_MAX)?;
                    bounded("pieces", delta.pieces() as u64, 1, 1)
                }
            }
        }
        Entry::Clock { advance_ns } => bounded("advance_ns", advance_ns, 0, CLOCK_ADVANCE_NS_MAX),
        Entry::Entropy(bytes) => bounded_length("entropy", bytes, ENTROPY_BYTES_MAX),
        Entry::Frame(bytes) => bounded_length("frame", bytes, FRAME_BYTES_MAX),
        Entry::Console(bytes) => bounded_length("console", bytes, CONSOLE_BYTES_MAX),
        Entry::DiskDone { disk, number, status: _, digest: _, data } => {
            bounded("disk", u64::from(disk), 0, DISKS_MAX as u64 - 1)?;
            bounded("number", number, 1, u64::MAX)?;
            bounded_length("data", data, DISK_BYTES_MAX)
        }
        Entry::DiskCopy(ref message) => disk_copy::check(message),
        Entry::Output { length, digest: _ } => {
            bounded("length", u64::from(length), 0, FRAME_BYTES_MAX as u64)
        }
        Entry::Window { digest: _ }
        | Entry::CheckpointEnd { digest: _ }
        | Entry::WallClock { unix_ns: _ }
        | Entry::Interrupt { vector: _ }
        | Entry::HandOver
        | Entry::End { natural_exits: _, interrupts: _, memory_digest: _, state_digest: _ } => {
            Ok(())
        }
    }
}

fn check_registers(delta: &RegisterDelta) -> Result<(), FieldError> {
    unknown_bits("changed", delta.changed, (1 << REGISTERS) - 1)?;
    for (index, &xor) in delta.xor.iter().enumerate() {
        let (min, max) = if is_set(delta.changed, index) { (1, u64::MAX) } else { (0, 0) };
        bounded("xor", xor, min, max)?;
    }
    Ok(())
}

fn body_length(entry: &Entry<'_>) -> usize {
    let mut count = ByteCount::default();
    put_body(entry, &mut count);
    count.0
}

fn put_body(entry: &Entry<'_>, out: &mut impl Put) {
    match *entry {
        Entry::Exit { digest, ref registers } => {
            out.put(&[if registers.is_some() { EXIT_REGISTERS } else { 0 }]);
            out.put(&digest.to_le_bytes());
            if let Some(delta) = registers {
                put_registers(delta, out);
            }
        }
        Entry::Window { digest } => {
            out.put(&[0]);
            out.put(&digest.to_le_bytes());
        }
        Entry::CheckpointBegin { full, pages, vcpu, devices } => {
            let flag = |state, flag| match state {
                StateBytes::Whole(_) => 0,
                StateBytes::Delta(_) => flag,
            };
            let full = if full { CHECKPOINT_FULL } else { 0 };
            let vcpu_flag = flag(vcpu, CHECKPOINT_VCPU_DELTA);
            out.put(&[full | vcpu_flag | flag(devices, CHECKPOINT_DEVICES_DELTA)]);
            out.put_leb128(u64::from(pages));
            for state in [vcpu.bytes(), devices.bytes()] {
                out.put_leb128(state.len() as u64);
                out.put(state);
            }
        }
        Entry::Page { number, bytes } => {
            out.put_leb128(number);
            match bytes {
                PageBytes::Zero => out.put(&[PAGE_ZERO]),
                PageBytes::Raw(raw) => {
                    out.put(&[PAGE_RAW]);
                    out.put(raw);
                }
                PageBytes::Delta(delta) => {
                    out.put(&[PAGE_DELTA]);
                    out.put(delta.bytes());
                }
            }
        }
        Entry::CheckpointEnd { digest } => out.put(&digest.to_le_bytes()),
        Entry::Clock { advance_ns } => out.put_leb128(advance_ns),
        Entry::WallClock { unix_ns } => out.put_leb128(unix_ns),
        Entry::Entropy(bytes) | Entry::Frame(bytes) | Entry::Console(bytes) => out.put(bytes),
        Entry::DiskDone { disk, number, status, digest, data } => {
            let failed = match status {
                DiskStatus::Done => 0,
                DiskStatus::Failed => DISK_FAILED,
            };
            out.put(&[disk, failed]);
            out.put_leb128(number);
            out.put(&digest.to_le_bytes());
            out.put(data);
        }
        Entry::Interrupt { vector } => out.put(&[vector]),
        Entry::Output { length, digest } => {
            out.put_leb128(u64::from(length));
            out.put(&digest.to_le_bytes());
        }
        Entry::End { natural_exits, interrupts, memory_digest, state_digest } => {
            out.put_leb128(natural_exits);
            out.put_leb128(interrupts);
            out.put(&memory_digest.to_le_bytes());
            out.put(&state_digest.to_le_bytes());
        }
        Entry::HandOver => {}
        Entry::DiskCopy(ref message) => disk_copy::put(message, out),
    }
}

fn read_body(kind: EntryKind, body: &[u8]) -> Result<Entry<'_>, FieldError> {
    let mut reader = Reader::new(body);
    let entry = match kind {
        EntryKind::Exit => {
            let flags = read_flags(&mut reader, EXIT_REGISTERS)?;
            let digest = reader.u64("digest")?;
            let registers =
                if flags & EXIT_REGISTERS != 0 { Some(read_registers(&mut reader)?) } else { None };
            Entry::Exit { digest, registers }
        }
        EntryKind::Window => {
            read_flags(&mut reader, 0)?;
            Entry::Window { digest: reader.u64("digest")? }
        }
        EntryKind::CheckpointBegin => {
            const KNOWN: u8 = CHECKPOINT_FULL | CHECKPOINT_VCPU_DELTA | CHECKPOINT_DEVICES_DELTA;
            let flags = read_flags(&mut reader, KNOWN)?;
            let pages = reader.leb128_u32("pages")?;
            let mut state = |field, flag| {
                let bytes = read_sized(&mut reader, field)?;
                Ok(match flags & flag {
                    0 => StateBytes::Whole(bytes),
                    _delta => StateBytes::Delta(PageDelta::new(bytes)?),
                })
            };
            Entry::CheckpointBegin {
                full: flags & CHECKPOINT_FULL != 0,
                pages,
                vcpu: state("vcpu", CHECKPOINT_VCPU_DELTA)?,
                devices: state("devices", CHECKPOINT_DEVICES_DELTA)?,
            }
        }
        EntryKind::Page => {
            let number = reader.leb128_u64("number")?;
            let form = reader.u8("form")?;
            bounded("form", u64::from(form), u64::from(PAGE_ZERO), u64::from(PAGE_DELTA))?;
            let bytes = match form {
                PAGE_ZERO => PageBytes::Zero,
                PAGE_RAW => PageBytes::Raw(reader.take_rest()),
                _delta => PageBytes::Delta(PageDelta::new(reader.take_rest())?),
            };
            Entry::Page { number, bytes }
        }
        EntryKind::CheckpointEnd => Entry::CheckpointEnd { digest: reader.u64("digest")? },
        EntryKind::Clock => Entry::Clock { advance_ns: reader.leb128_u64("advance_ns")? },
        EntryKind::WallClock => Entry::WallClock { unix_ns: reader.leb128_u64("unix_ns")? },
        EntryKind::Entropy => Entry::Entropy(reader.take_rest()),
        EntryKind::Frame => Entry::Frame(reader.take_rest()),
        EntryKind::Console => Entry::Console(reader.take_rest()),
        EntryKind::Interrupt => Entry::Interrupt { vector: reader.u8("vector")? },
        EntryKind::Output => {
            Entry::Output { length: reader.leb128_u32("length")?, digest: reader.u64("digest")? }
        }
        EntryKind::End => Entry::End {
            natural_exits: reader.leb128_u64("natural_exits")?,
            interrupts: reader.leb128_u64("interrupts")?,
            memory_digest: reader.u64("memory_digest")?,
            state_digest: reader.u64("state_digest")?,
        },
        EntryKind::HandOver => Entry::HandOver,
        EntryKind::DiskCopy => Entry::DiskCopy(disk_copy::read(&mut reader)?),
        EntryKind::DiskDone => {
            let disk = reader.u8("disk")?;
            let status = match read_flags(&mut reader, DISK_FAILED)? & DISK_FAILED {
                0 => DiskStatus::Done,
                _failed => DiskStatus::Failed,
            };
            Entry::DiskDone {
                disk,
                number: reader.leb128_u64("number")?,
                status,
                digest: reader.u64("digest")?,
                data: reader.take_rest(),
            }
        }
    };
    check(&entry)?;
    reader.finish()?;
    Ok(entry)
}

fn put_registers(delta: &RegisterDelta, out: &mut impl Put) {
    out.put_leb128(u64::from(delta.changed));
    for (index, &xor) in delta.xor.iter().enumerate() {
        if is_set(delta.changed, index) {
            out.put_leb128(xor);
        }
    }
}

/// Does not read values for bits beyond the last register. [`check`] refuses such bits afterwards.
fn read_registers(reader: &mut Reader<'_>) -> Result<RegisterDelta, FieldError> {
    let mut delta = RegisterDelta { changed: reader.leb128_u32("changed")?, xor: [0; REGISTERS] };
    for (index, xor) in delta.xor.iter_mut().enumerate() {
        if is_set(delta.changed, index) {
            *xor = reader.leb128_u64("xor")?;
        }
    }
    Ok(delta)
}

fn read_flags(reader: &mut Reader<'_>, known: u8) -> Result<u8, FieldError> {
    let flags = reader.u8("flags")?;
    unknown_bits("flags", u32::from(flags), u32::from(known))?;
    Ok(flags)
}

fn read_sized<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], FieldError> {
    let length = reader.leb128_u32(field)?;
    reader.take(field, length as usize)
}

fn is_set(mask: u32, index: usize) -> bool {
    mask >> index & 1 != 0
}

fn unknown_bits(field: &'static str, bits: u32, known: u32) -> Result<(), FieldError> {
    match bits & !known {
        0 => Ok(()),
        bits => Err(FieldError::UnknownBits { field, bits }),
    }
}

fn bounded_length(field: &'static str, bytes: &[u8], max: usize) -> Result<(), FieldError> {
    bounded(field, bytes.len() as u64, 0, max as u64)
}
