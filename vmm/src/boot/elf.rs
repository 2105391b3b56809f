//! A bounded reader of ELF64 files: identity, segments and the PVH entry.
//!
//! The file is untrusted. Every offset is checked against the file before it is followed, and every count
//! is checked against a limit before it is used; no input causes a panic. The result is plain data whose
//! ranges are all inside the file. Layouts are those of the System V ABI ("ELF-64 Object File Format",
//! chapters 2-8) and the GNU C library's `elf.h`.

use std::ops::Range;

use crate::boot::elf_code::CodeMap;
use crate::boot::image::ImageFault;
use crate::boot::linux::is_bzimage;
use crate::boot::notes;
use crate::mem::layout;

/// Most bytes of an image file. A Debian kernel without debug information has a quarter of this.
pub(crate) const FILE_BYTES_MAX: usize = 256 << 20;
/// Most program headers; linkers emit about ten.
pub(super) const SEGMENTS_MAX: usize = 64;

const EHDR_BYTES: usize = 64;
const PHDR_BYTES: usize = 56;

const ELFCLASS32: u8 = 1;
const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const ET_REL: u16 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;

/// A `PT_LOAD` program header. Its file range is inside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Range of the file that is copied to memory.
    pub(super) file: Range<usize>,
    /// Guest physical address of the first byte.
    pub(super) physical: u64,
    /// Guest virtual address of the first byte.
    pub(super) address: u64,
    /// Bytes in memory, at least as many as in the file; the rest is zero. The segment ends below 2^64.
    pub(super) memory_bytes: u64,
    /// Whether the guest may execute it.
    pub(super) executable: bool,
}

impl Segment {
    /// Returns the guest physical address after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.physical + self.memory_bytes
    }
}

/// The parts of an ELF file that the rest of `boot` uses.
#[derive(Debug, Clone)]
pub(super) struct Elf {
    /// Loadable segments in the order of their physical addresses. There is at least one; none overlap
    /// and none is below 1 MiB.
    pub(super) segments: Vec<Segment>,
    /// `e_entry`, unchecked. It is a physical address in a Linux kernel.
    pub(super) entry: u64,
    /// Its executable code and symbols.
    pub(super) code: CodeMap,
}

impl Elf {
    /// Reads and checks `bytes`, an image with a PVH entry. Also returns that entry, a physical address
    /// inside the file-backed part of a segment.
    pub(super) fn parse_pvh(bytes: &[u8]) -> Result<(Self, u32), ImageFault> {
        let elf = Self::parse(bytes)?;
        let entry = pvh_entry(bytes, &program_headers(bytes)?)?;
        match elf.is_in_file(u64::from(entry)) {
            true => Ok((elf, entry)),
            false => Err(ImageFault::EntryOutside { entry }),
        }
    }

    /// Reads and checks `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ImageFault> {
        check_identity(bytes)?;
        let headers = program_headers(bytes)?;
        let mut segments = load_segments(bytes, &headers)?;
        segments.sort_by_key(|segment| segment.physical);
        if let Some(pair) = segments.windows(2).find(|pair| pair[0].end() > pair[1].physical) {
            return Err(ImageFault::SegmentsOverlap { address: pair[1].physical });
        }
        let code = CodeMap::parse(bytes, &segments)?;
        Ok(Self { segments, entry: u64_at(bytes, 24), code })
    }

    /// Reads the code of `bytes`, any 64-bit executable or library. The load addresses are not checked,
    /// because it is not loaded.
    pub(super) fn parse_any(bytes: &[u8]) -> Result<Self, ImageFault> {
        let headers = match check_identity(bytes) {
            Ok(()) | Err(ImageFault::PositionIndependent) => program_headers(bytes)?,
            // A kernel module, which has sections only.
            Err(ImageFault::NotExecutable { kind: ET_REL }) => Vec::new(),
            Err(fault) => return Err(fault),
        };
        let mut segments = Vec::new();
        for header in headers.iter().filter(|h| h.kind == PT_LOAD) {
            segments.push(Segment {
                file: file_range(bytes, header.offset, header.file_bytes, "a segment")?,
                physical: header.physical,
                address: header.address,
                memory_bytes: header.file_bytes,
                executable: header.flags & PF_X != 0,
            });
        }
        let code = CodeMap::parse(bytes, &segments)?;
        Ok(Self { segments, entry: u64_at(bytes, 24), code })
    }

    /// Whether the physical address is in the file-backed part of a segment.
    pub(super) fn is_in_file(&self, physical: u64) -> bool {
        let inside = |s: &Segment| {
            physical.checked_sub(s.physical).is_some_and(|offset| offset < s.file.len() as u64)
        };
        self.segments.iter().any(inside)
    }
}

struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

fn check_identity(bytes: &[u8]) -> Result<(), ImageFault> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(ImageFault::TooLarge { bytes: bytes.len(), bytes_max: FILE_BYTES_MAX });
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Err(if is_bzimage(bytes) {
            ImageFault::CompressedKernel
        } else {
            ImageFault::NotElf
        });
    }
    match bytes.get(4).copied() {
        None => return Err(ImageFault::Truncated { what: "ELF header" }),
        Some(ELFCLASS64) => {}
        Some(ELFCLASS32) => return Err(ImageFault::ThirtyTwoBit),
        Some(_) => return Err(ImageFault::Malformed { what: "unknown ELF class" }),
    }
    if bytes.len() < EHDR_BYTES {
        return Err(ImageFault::Truncated { what: "ELF header" });
    }
    if bytes[5] != ELFDATA2LSB {
        return Err(ImageFault::Malformed { what: "not little-endian" });
    }
    let machine = u16_at(bytes, 18);
    if machine != EM_X86_64 {
        return Err(ImageFault::OtherMachine { machine });
    }
    match u16_at(bytes, 16) {
        ET_EXEC => Ok(()),
        ET_DYN => Err(ImageFault::PositionIndependent),
        kind => Err(ImageFault::NotExecutable { kind }),
    }
}

fn program_headers(bytes: &[u8]) -> Result<Vec<ProgramHeader>, ImageFault> {
    let count = usize::from(u16_at(bytes, 56));
    if count > SEGMENTS_MAX {
        return Err(ImageFault::TooMany { what: "program headers", count, max: SEGMENTS_MAX });
    }
    if count == 0 {
        return Err(ImageFault::Malformed { what: "no program headers" });
    }
    if usize::from(u16_at(bytes, 54)) != PHDR_BYTES {
        return Err(ImageFault::Malformed { what: "program header size" });
    }
    let offset = u64_at(bytes, 32);
    if offset < EHDR_BYTES as u64 {
        return Err(ImageFault::Malformed { what: "program header offset" });
    }
    let table = file_range(bytes, offset, (count * PHDR_BYTES) as u64, "program headers")?;
    let header = |h: &[u8]| ProgramHeader {
        kind: u32_at(h, 0),
        flags: u32_at(h, 4),
        offset: u64_at(h, 8),
        address: u64_at(h, 16),
        physical: u64_at(h, 24),
        file_bytes: u64_at(h, 32),
        memory_bytes: u64_at(h, 40),
    };
    Ok(bytes[table].chunks_exact(PHDR_BYTES).map(header).collect())
}

fn load_segments(bytes: &[u8], headers: &[ProgramHeader]) -> Result<Vec<Segment>, ImageFault> {
    let mut segments = Vec::new();
    for header in headers.iter().filter(|h| h.kind == PT_LOAD) {
        if header.file_bytes > header.memory_bytes {
            return Err(ImageFault::Malformed {
                what: "a segment is larger in file than in memory",
            });
        }
        if header.memory_bytes == 0 {
            continue;
        }
        if header.physical.checked_add(header.memory_bytes).is_none()
            || header.address.checked_add(header.memory_bytes - 1).is_none()
        {
            return Err(ImageFault::Malformed { what: "a segment wraps around the address space" });
        }
        if header.physical < layout::HIGH_MEMORY {
            return Err(ImageFault::SegmentBelow { address: header.physical });
        }
        segments.push(Segment {
            file: file_range(bytes, header.offset, header.file_bytes, "a segment")?,
            physical: header.physical,
            address: header.address,
            memory_bytes: header.memory_bytes,
            executable: header.flags & PF_X != 0,
        });
    }
    if segments.is_empty() {
        return Err(ImageFault::Malformed { what: "no loadable segment" });
    }
    Ok(segments)
}

/// Searches all note segments for the PVH entry.
fn pvh_entry(bytes: &[u8], headers: &[ProgramHeader]) -> Result<u32, ImageFault> {
    let mut found = None;
    for header in headers.iter().filter(|h| h.kind == PT_NOTE) {
        let notes = &bytes[file_range(bytes, header.offset, header.file_bytes, "notes")?];
        if let Some(entry) = notes::pvh_entry(notes)? {
            if found.is_some_and(|earlier| earlier != entry) {
                return Err(ImageFault::Malformed { what: "two PVH entry notes disagree" });
            }
            found = Some(entry);
        }
    }
    found.ok_or(ImageFault::NoPvhEntry)
}

pub(super) fn file_range(
    bytes: &[u8],
    offset: u64,
    count: u64,
    what: &'static str,
) -> Result<Range<usize>, ImageFault> {
    let end = offset.checked_add(count).filter(|&end| end <= bytes.len() as u64);
    match (usize::try_from(offset), end.and_then(|end| usize::try_from(end).ok())) {
        (Ok(start), Some(end)) => Ok(start..end),
        _ => Err(ImageFault::Truncated { what }),
    }
}

// All callers of the readers below pass an offset inside a slice whose length they have checked.

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
