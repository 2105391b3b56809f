//! The guest image: an ELF file that is checked completely before any of it is copied to guest memory.
//!
//! A guest is an ELF64 x86-64 executable with a PVH entry note. Both an uncompressed Linux kernel
//! (`vmlinux`, CONFIG_PVH) and the built-in guest have this form. `linux-loader` copies the image to
//! guest memory. It runs only on an image that [`GuestImage::from_bytes`] accepted, and its own search
//! for notes is turned off, because it takes the last note segment for the only one.

use std::borrow::Cow;
use std::io::Cursor;

use linux_loader::loader::{Elf as ElfLoader, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use xxhash_rust::xxh3::xxh3_64;

use crate::boot::elf::Elf;
use crate::boot::elf_code::CodeMap;
use crate::mem::{GuestRam, layout};

/// An image that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("guest image {name}: {fault}")]
pub struct ImageError {
    /// The image's name, escaped for one line of output.
    pub name: String,
    /// What is wrong with it.
    pub fault: ImageFault,
}

/// What is wrong with an image. Each message is one line and says what to do, unless the fault itself
/// implies it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The fields are the values in the messages.
pub enum ImageFault {
    /// The file is larger than the limit.
    #[error(
        "{bytes} bytes are more than the {bytes_max} accepted; strip debug information from it"
    )]
    TooLarge { bytes: usize, bytes_max: usize },
    /// The file has no ELF magic number.
    #[error("not an ELF file; give an x86-64 ELF executable")]
    NotElf,
    /// The file is a Linux bzImage.
    #[error("a compressed kernel (bzImage); give it with --kernel, not with --guest")]
    CompressedKernel,
    /// The file is not a bzImage, but one is required.
    #[error("not a Linux kernel (bzImage); give a distribution's /boot/vmlinuz")]
    NotKernel,
    /// A bzImage of a boot protocol that is too old.
    #[error(
        "boot protocol {}.{:02}, but at least 2.12 (Linux 3.8) is required; give a newer kernel",
        version >> 8,
        version & 0xFF
    )]
    OldBootProtocol { version: u16 },
    /// The payload has a compression that is not supported.
    #[error(
        "its payload is compressed with {name}; gzip, xz, zstd and LZ4 are supported: build the kernel with one of these"
    )]
    Compression { name: &'static str },
    /// The payload cannot be decompressed.
    #[error("its {kind} payload cannot be unpacked: {reason}; copy the file again")]
    Unpack { kind: &'static str, reason: String },
    /// An instruction that must be rewritten is too short, or the code is not as expected.
    #[error("{what}; run it anyway with --forbidden warn, which may cause divergences")]
    NotRewritable { what: String },
    /// The ELF file is for 32-bit machines.
    #[error("a 32-bit ELF file; give a 64-bit one")]
    ThirtyTwoBit,
    /// The bzImage has no 64-bit entry.
    #[error("a 32-bit kernel; give a 64-bit one (amd64)")]
    ThirtyTwoBitKernel,
    /// The ELF file is for another processor.
    #[error("built for ELF machine {machine}, not for x86-64 (62)")]
    OtherMachine { machine: u16 },
    /// The ELF type is `ET_DYN`.
    #[error("position-independent (ET_DYN), which is not supported; link it with -no-pie")]
    PositionIndependent,
    /// The ELF type is neither `ET_EXEC` nor `ET_DYN`.
    #[error("ELF type {kind} is not an executable (2); link it first")]
    NotExecutable { kind: u16 },
    /// The file ends before something that it announces.
    #[error("truncated: the file ends inside or before {what}; copy it again")]
    Truncated { what: &'static str },
    /// The file has more headers than accepted, or none.
    #[error("{count} {what}, but 1 to {max} are supported; strip the file")]
    TooMany { what: &'static str, count: usize, max: usize },
    /// The file contradicts itself or the ELF specification.
    #[error("malformed: {what}; link it again")]
    Malformed { what: &'static str },
    /// The file has no `XEN_ELFNOTE_PHYS32_ENTRY`.
    #[error("no PVH entry note (Xen, type 18); build the kernel with CONFIG_PVH=y")]
    NoPvhEntry,
    /// The entry note points outside the loaded segments.
    #[error("PVH entry {entry:#x} is outside every loaded segment; correct the note")]
    EntryOutside { entry: u32 },
    /// A segment is where boot data and the legacy hole are.
    #[error(
        "a segment at {address:#x} is below {:#x}, in the area of boot data; link it higher",
        layout::HIGH_MEMORY
    )]
    SegmentBelow { address: u64 },
    /// Two segments contain the same address.
    #[error("two segments overlap at physical address {address:#x}; link it again")]
    SegmentsOverlap { address: u64 },
    /// Guest memory is too small, or the image is linked beyond its end.
    #[error(
        "a segment at {start:#x}..{end:#x} is outside of guest memory, which ends at {memory_end:#x}; give the guest more memory"
    )]
    SegmentOutside { start: u64, end: u64, memory_end: u64 },
    /// Guest memory is too small for what the kernel needs besides its segments.
    #[error(
        "it needs {needed} bytes of guest memory to start, but there are {memory_end}; give the guest more memory"
    )]
    MemoryTooSmall { needed: u64, memory_end: u64 },
    /// Writing to guest memory failed.
    #[error("cannot be written to guest memory: {reason}; report this, the image was checked")]
    Load { reason: String },
}

/// A loaded image that is ready to be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Physical address of the first instruction, in 32-bit protected mode.
    pub pvh_entry: u32,
    /// Physical address after the last byte of the image, including its zero-filled part.
    pub image_end: u64,
}

/// A guest image that passed every check that does not depend on the size of guest memory.
#[derive(Debug, Clone)]
pub struct GuestImage {
    name: String,
    bytes: Cow<'static, [u8]>,
    elf: Elf,
    pvh_entry: u32,
    digest: u64,
}

impl GuestImage {
    /// Checks `bytes`, an ELF file known to the user as `name`. Arbitrary bytes never cause a panic.
    ///
    /// # Errors
    ///
    /// The file is not a guest image that can be loaded; see [`ImageFault`].
    pub fn from_bytes(
        name: &str,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self, ImageError> {
        let name = name.escape_debug().to_string();
        let bytes = bytes.into();
        match Elf::parse_pvh(&bytes) {
            Ok((elf, pvh_entry)) => {
                Ok(Self { name, digest: xxh3_64(&bytes), bytes, elf, pvh_entry })
            }
            Err(fault) => Err(ImageError { name, fault }),
        }
    }

    /// Reads a static or dynamic ELF64 x86-64 program or library that is to be swept, but not run.
    ///
    /// # Errors
    ///
    /// The file is not an ELF file of this kind.
    pub fn for_inspection(name: &str, bytes: Vec<u8>) -> Result<Self, ImageError> {
        let name = name.escape_debug().to_string();
        match Elf::parse_any(&bytes) {
            Ok(elf) => {
                let digest = xxh3_64(&bytes);
                Ok(Self { name, digest, bytes: bytes.into(), elf, pvh_entry: 0 })
            }
            Err(fault) => Err(ImageError { name, fault }),
        }
    }

    /// Returns the name given to [`Self::from_bytes`], escaped for one line of output.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the XXH3-64 of the file's bytes. It identifies the image, and hosts compare it.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns the bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the least guest memory that holds the image, bytes: the physical address after its last
    /// byte.
    pub fn memory_bytes_min(&self) -> u64 {
        self.elf.segments.last().map_or(layout::HIGH_MEMORY, |segment| segment.end())
    }

    /// Copies the segments into `ram` and zeroes the part of each that is not in the file. Memory outside
    /// the segments is not changed.
    ///
    /// # Errors
    ///
    /// A segment is outside guest memory.
    pub fn load(&self, ram: &GuestRam) -> Result<Entry, ImageError> {
        self.try_load(ram).map_err(|fault| ImageError { name: self.name.clone(), fault })
    }

    pub(super) fn code_map(&self) -> &CodeMap {
        &self.elf.code
    }

    fn try_load(&self, ram: &GuestRam) -> Result<Entry, ImageFault> {
        load_segments(&self.elf, &self.bytes, ram)?;
        Ok(Entry { pvh_entry: self.pvh_entry, image_end: self.memory_bytes_min() })
    }
}

/// Copies the segments of `elf`, read from `bytes`, into `ram` and zeroes the rest of each.
pub(super) fn load_segments(elf: &Elf, bytes: &[u8], ram: &GuestRam) -> Result<(), ImageFault> {
    for segment in &elf.segments {
        let bytes = usize::try_from(segment.memory_bytes).unwrap_or(usize::MAX);
        if !ram.check_range(GuestAddress(segment.physical), bytes) {
            return Err(ImageFault::SegmentOutside {
                start: segment.physical,
                end: segment.end(),
                memory_end: ram.last_addr().0.saturating_add(1),
            });
        }
    }
    // An offset of zero keeps every address as it is and turns off the loader's own search for notes,
    // which is done already.
    ElfLoader::load(ram, Some(GuestAddress(0)), &mut Cursor::new(bytes), None)
        .map_err(|error| ImageFault::Load { reason: error.to_string() })?;
    for segment in &elf.segments {
        let start = segment.physical + segment.file.len() as u64;
        clear(ram, start, segment.end())?;
    }
    Ok(())
}

/// Zeroes `start..end`. Pages that are zero already are not written, so that fresh memory stays
/// unallocated.
fn clear(ram: &GuestRam, start: u64, end: u64) -> Result<(), ImageFault> {
    let failed =
        |error: vm_memory::GuestMemoryError| ImageFault::Load { reason: error.to_string() };
    let mut buffer = [0; layout::PAGE as usize];
    let mut at = start;
    while at < end {
        let step = (layout::PAGE - at % layout::PAGE).min(end - at);
        let piece = &mut buffer[..step as usize];
        ram.read_slice(piece, GuestAddress(at)).map_err(failed)?;
        if piece.iter().any(|&byte| byte != 0) {
            piece.fill(0);
            ram.write_slice(piece, GuestAddress(at)).map_err(failed)?;
        }
        at += step;
    }
    Ok(())
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
