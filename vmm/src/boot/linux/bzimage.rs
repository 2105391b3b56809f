//! The bzImage: a setup header and the compressed kernel.
//!
//! Source: Linux `Documentation/arch/x86/boot.rst` ("The Real-Mode Kernel Header"); fields have the names
//! used there. The file is untrusted: every offset is checked before it is followed.

use crate::boot::elf::{u16_at, u32_at};
use crate::boot::image::ImageFault;
use std::ops::Range;

/// Offset of the setup header in the file and in the zero page.
pub(super) const HEADER_START: usize = 0x1F1;
/// End of the fixed part of the header. The byte at 0x201 gives its actual length.
const HEADER_FIXED_END: usize = 0x268;
/// Latest end of the header: the next field of the zero page begins here.
const HEADER_END_MAX: usize = 0x290;
/// Least boot protocol that has `payload_offset` and announces a 64-bit entry (2.12, Linux 3.8).
const PROTOCOL_MIN: u16 = 0x020C;
/// `xloadflags`: the kernel has the 64-bit entry.
const XLF_KERNEL_64: u16 = 1 << 0;
/// Bytes of a sector. `setup_sects` is the number of sectors before the protected-mode part, less one.
const SECTOR_BYTES: usize = 512;

/// The parts of a bzImage that are needed to boot it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bzimage {
    /// The setup header, to be copied to [`HEADER_START`] of the zero page.
    pub(super) header: Vec<u8>,
    /// Most bytes of a command line, without its terminating zero.
    pub(super) command_line_max: usize,
    /// Highest address that the last byte of an initrd may have.
    pub(super) initrd_address_max: u64,
    /// Bytes of memory that the kernel needs from its load address on before it has read the memory map.
    pub(super) init_bytes: u64,
    /// Range of the compressed kernel in the file.
    pub(super) payload: Range<usize>,
}

/// Whether `bytes` is a bzImage: it has "HdrS" at 0x202 (Documentation/arch/x86/boot.rst).
pub(crate) fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.get(0x202..0x206) == Some(b"HdrS")
}

impl Bzimage {
    /// Reads and checks the header of `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ImageFault> {
        if !is_bzimage(bytes) {
            return Err(ImageFault::NotKernel);
        }
        if bytes.len() < HEADER_END_MAX {
            return Err(ImageFault::Truncated { what: "setup header" });
        }
        let version = u16_at(bytes, 0x206);
        if version < PROTOCOL_MIN {
            return Err(ImageFault::OldBootProtocol { version });
        }
        if u16_at(bytes, 0x236) & XLF_KERNEL_64 == 0 {
            return Err(ImageFault::ThirtyTwoBitKernel);
        }
        let end = 0x202 + usize::from(bytes[0x201]);
        if !(HEADER_FIXED_END..=HEADER_END_MAX).contains(&end) {
            return Err(ImageFault::Malformed { what: "setup header size" });
        }
        // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
        let sectors = match bytes[HEADER_START] {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let start = (sectors + 1) * SECTOR_BYTES + u32_at(bytes, 0x248) as usize;
        let payload = start..start.saturating_add(u32_at(bytes, 0x24C) as usize);
        if payload.is_empty() {
            return Err(ImageFault::Malformed { what: "no payload" });
        }
        if payload.end > bytes.len() {
            return Err(ImageFault::Truncated { what: "the compressed kernel" });
        }
        Ok(Self {
            header: bytes[HEADER_START..end].to_vec(),
            command_line_max: u32_at(bytes, 0x238) as usize,
            initrd_address_max: u64::from(u32_at(bytes, 0x22C)),
            init_bytes: u64::from(u32_at(bytes, 0x260)),
            payload,
        })
    }
}
