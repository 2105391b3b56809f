//! The guest image: one ELF file that was checked whole before a byte of it reached guest memory.
//!
//! A guest is an ELF64 x86-64 executable with a PVH entry note, as both an uncompressed Linux
//! kernel (`vmlinux`, CONFIG_PVH) and the built-in guest are. Copying it to guest memory is
//! `linux-loader`'s work; it runs only on what [`GuestImage::from_bytes`] accepted, and it is told
//! not to look at notes (it takes the last note segment for the only one).

use std::borrow::Cow;
use std::io::Cursor;

use linux_loader::loader::{Elf as ElfLoader, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use xxhash_rust::xxh3::xxh3_64;

use crate::boot::elf::Elf;
use crate::boot::elf_code::CodeMap;
use crate::mem::{GuestRam, layout};

/// An image that cannot be used: which one, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("guest image {name}: {fault}")]
pub struct ImageError {
    /// The image's name, fit for one line of output.
    pub name: String,
    /// What is wrong with it.
    pub fault: ImageFault,
}

/// What is wrong with an image. Each message is one line and says what to give instead, where the
/// fault itself does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The fields are the numbers in the messages.
pub enum ImageFault {
    /// Larger than the bound.
    #[error(
        "{bytes} bytes are more than the {bytes_max} accepted; strip debug information from it"
    )]
    TooLarge { bytes: usize, bytes_max: usize },
    /// No ELF magic number.
    #[error("not an ELF file; give an x86-64 ELF executable")]
    NotElf,
    /// A Linux bzImage.
    #[error("a compressed kernel (bzImage); give it with --kernel, not with --guest")]
    CompressedKernel,
    /// No bzImage where one was asked for.
    #[error("not a Linux kernel (bzImage); give a distribution's /boot/vmlinuz")]
    NotKernel,
    /// A bzImage without what is needed here.
    #[error(
        "boot protocol {}.{:02}, at least 2.12 (Linux 3.8) is needed; give a newer kernel",
        version >> 8,
        version & 0xFF
    )]
    OldBootProtocol { version: u16 },
    /// A payload that nothing here unpacks.
    #[error(
        "its payload is packed with {name}; gzip, xz, zstd and LZ4 are unpacked here: build the kernel with one of these"
    )]
    Compression { name: &'static str },
    /// A payload that does not unpack.
    #[error("its {kind} payload cannot be unpacked: {reason}; copy the file again")]
    Unpack { kind: &'static str, reason: String },
    /// An instruction that would have to be rewritten and has no room for it, or a place that is not
    /// as expected.
    #[error("{what}; run it anyway with --forbidden warn at the price of divergences")]
    NotRewritable { what: String },
    /// ELF for 32-bit machines.
    #[error("a 32-bit ELF file; give a 64-bit one")]
    ThirtyTwoBit,
    /// A bzImage without a 64-bit entry.
    #[error("a 32-bit kernel; give a 64-bit one (amd64)")]
    ThirtyTwoBitKernel,
    /// ELF for another processor.
    #[error("built for ELF machine {machine}, not for x86-64 (62)")]
    OtherMachine { machine: u16 },
    /// `ET_DYN`.
    #[error("position-independent (ET_DYN), and nothing here relocates it; link it with -no-pie")]
    PositionIndependent,
    /// Neither `ET_EXEC` nor `ET_DYN`.
    #[error("ELF type {kind} is not an executable (2); link it first")]
    NotExecutable { kind: u16 },
    /// The file ends before something it announces.
    #[error("truncated: the file ends inside or before {what}; copy it again")]
    Truncated { what: &'static str },
    /// More headers than accepted.
    #[error("{count} {what}, outside of 1 to {max}; strip the file")]
    TooMany { what: &'static str, count: usize, max: usize },
    /// Contradicts itself or the ELF specification.
    #[error("malformed: {what}; link it again")]
    Malformed { what: &'static str },
    /// No `XEN_ELFNOTE_PHYS32_ENTRY`.
    #[error("no PVH entry note (Xen, type 18); build the kernel with CONFIG_PVH=y")]
    NoPvhEntry,
    /// The entry note points to nowhere.
    #[error("PVH entry {entry:#x} is in no loaded segment; correct the note")]
    EntryOutside { entry: u32 },
    /// Where boot data and the legacy hole are.
    #[error(
        "a segment at {address:#x} is below {:#x}, where boot data lies; link it higher",
        layout::HIGH_MEMORY
    )]
    SegmentBelow { address: u64 },
    /// Two segments claim one address.
    #[error("two segments overlap at physical address {address:#x}; link it again")]
    SegmentsOverlap { address: u64 },
    /// Guest memory is too small, or the image is linked beyond it.
    #[error(
        "a segment at {start:#x}..{end:#x} is outside of guest memory, which ends at {memory_end:#x}; give the guest more memory"
    )]
    SegmentOutside { start: u64, end: u64, memory_end: u64 },
    /// Guest memory is too small for what a kernel needs besides its segments.
    #[error(
        "it needs {needed} bytes of guest memory to start, and there are {memory_end}; give the guest more memory"
    )]
    MemoryTooSmall { needed: u64, memory_end: u64 },
    /// Guest memory refused the bytes.
    #[error("cannot be written to guest memory: {reason}; report this, the image was checked")]
    Load { reason: String },
}

/// A loaded image, ready to be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Physical address of the first instruction, in 32-bit protected mode.
    pub pvh_entry: u32,
    /// Physical address after the last byte of the image, its zero-filled part included.
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
    /// Checks `bytes`, an ELF file known to the user as `name`. Accepts any bytes without panic.
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

    /// Any static or dynamic ELF64 x86-64 program or library, to be swept, not to be run.
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

    /// The name given to [`Self::from_bytes`], escaped for one line of output.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// XXH3-64 of the file's bytes: hosts compare it, so it names this image to both.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Least guest memory in bytes that holds the image: the physical address after its last byte.
    pub fn memory_bytes_min(&self) -> u64 {
        self.elf.segments.last().map_or(layout::HIGH_MEMORY, |segment| segment.end())
    }

    /// Copies the segments into `ram` and makes the part of each that the file does not hold zero.
    ///
    /// Memory outside of the segments is not touched.
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
    // An offset of zero leaves every address as it is and turns off the loader's own reading of
    // notes, which is done already.
    ElfLoader::load(ram, Some(GuestAddress(0)), &mut Cursor::new(bytes), None)
        .map_err(|error| ImageFault::Load { reason: error.to_string() })?;
    for segment in &elf.segments {
        let start = segment.physical + segment.file.len() as u64;
        clear(ram, start, segment.end())?;
    }
    Ok(())
}

/// Zeroes `start..end`, without touching pages that are zero already: fresh memory stays unbacked.
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
