//! Decompression of the kernel in a bzImage, by maintained crates and within a limit.
//!
//! The kernel's build compresses with one of seven programs (`Kconfig`, "Kernel compression mode") and
//! appends the decompressed size as four bytes (`scripts/Makefile.lib`, `size_append`; gzip has it in its
//! own trailer). Debian and others use LZ4 in its "legacy" frame, zstd, xz or gzip. LZMA, bzip2 and LZO
//! are refused by name.

use crate::boot::image::ImageFault;
use std::io::Read;

/// Most bytes of a decompressed kernel, the same as of an image file.
const UNPACKED_BYTES_MAX: usize = crate::boot::elf::FILE_BYTES_MAX;
/// Most decompressed bytes of a block of an LZ4 legacy frame (lz4_Frame_format.md, "Legacy frame").
const LZ4_BLOCK_BYTES: usize = 8 << 20;
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4C, 0x18];

/// A compression format, identified by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gzip,
    Xz,
    Zstd,
    Lz4Legacy,
}

/// First bytes of the formats that are supported (`KNOWN`) and of those that are only named in an error
/// (`REFUSED`).
const KNOWN: [(&[u8], Kind); 4] = [
    (&[0x1F, 0x8B], Kind::Gzip),
    (&[0xFD, b'7', b'z', b'X', b'Z', 0], Kind::Xz),
    (&[0x28, 0xB5, 0x2F, 0xFD], Kind::Zstd),
    (&LZ4_LEGACY_MAGIC, Kind::Lz4Legacy),
];
const REFUSED: [(&[u8], &str); 3] =
    [(b"BZh", "bzip2"), (&[0x5D, 0, 0], "LZMA"), (&[0x89, b'L', b'Z', b'O'], "LZO")];

/// Decompresses `payload` and returns the kernel's ELF file.
pub(super) fn unpack(payload: &[u8]) -> Result<Vec<u8>, ImageFault> {
    let known = KNOWN.iter().find(|(magic, _)| payload.starts_with(magic));
    match known {
        Some((_, Kind::Gzip)) => read_all("gzip", flate2::read::GzDecoder::new(payload)),
        Some((_, Kind::Xz)) => read_all("xz", lzma_rust2::XzReader::new(payload, false)),
        Some((_, Kind::Zstd)) => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(payload)
                .map_err(|error| unpack_fault("zstd", &error))?;
            read_all("zstd", decoder)
        }
        Some((_, Kind::Lz4Legacy)) => lz4_legacy(payload),
        None => {
            let named = REFUSED.iter().find(|(magic, _)| payload.starts_with(magic));
            let name = named.map_or("an unknown compression", |(_, name)| name);
            Err(ImageFault::Compression { name })
        }
    }
}

fn unpack_fault(kind: &'static str, reason: &dyn std::fmt::Display) -> ImageFault {
    ImageFault::Unpack { kind, reason: reason.to_string().escape_debug().to_string() }
}

fn too_large() -> ImageFault {
    ImageFault::TooLarge { bytes: UNPACKED_BYTES_MAX + 1, bytes_max: UNPACKED_BYTES_MAX }
}

/// Decompresses a stream. The bytes after it (the size that the kernel's build appends) are ignored.
fn read_all(kind: &'static str, reader: impl Read) -> Result<Vec<u8>, ImageFault> {
    let mut bytes = Vec::new();
    reader
        .take(UNPACKED_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unpack_fault(kind, &error))?;
    if bytes.len() > UNPACKED_BYTES_MAX {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Decompresses a legacy frame: a magic number, then blocks, each a length and that many bytes. It has no
/// end mark. The last block is one that is not full, or one that only four bytes or nothing follow.
fn lz4_legacy(payload: &[u8]) -> Result<Vec<u8>, ImageFault> {
    const KIND: &str = "LZ4";
    let mut bytes = Vec::new();
    let mut block = vec![0; LZ4_BLOCK_BYTES];
    let mut rest = &payload[LZ4_LEGACY_MAGIC.len()..];
    // Four bytes at the end are the appended size, not the length of a block.
    while rest.len() > 4 {
        let (length, tail) = rest.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize;
        let Some((packed, tail)) = tail.split_at_checked(length) else {
            return Err(ImageFault::Truncated { what: "a block of the compressed kernel" });
        };
        let unpacked = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|error| unpack_fault(KIND, &error))?;
        if bytes.len() + unpacked > UNPACKED_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&block[..unpacked]);
        rest = tail;
        if unpacked < LZ4_BLOCK_BYTES {
            break;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lz4(blocks: &[&[u8]]) -> Vec<u8> {
        let mut payload = LZ4_LEGACY_MAGIC.to_vec();
        for block in blocks {
            payload.extend((block.len() as u32).to_le_bytes());
            payload.extend(*block);
        }
        payload
    }

    #[test]
    fn lz4_legacy_of_two_literals_and_the_appended_size() {
        // Token 0x20: two literals, no match.
        let mut payload = lz4(&[&[0x20, b'h', b'i']]);
        payload.extend(2u32.to_le_bytes());
        assert_eq!(unpack(&payload).unwrap(), b"hi");
    }

    #[test]
    fn gzip_with_the_appended_size_is_unpacked() {
        let packer = flate2::read::GzEncoder::new(&b"kernel"[..], flate2::Compression::fast());
        let mut payload = read_all("gzip", packer).unwrap();
        payload.extend(6u32.to_le_bytes());
        assert_eq!(unpack(&payload).unwrap(), b"kernel");
    }

    #[test]
    fn foreign_compressions_are_refused_by_name() {
        let text = |payload: &[u8]| unpack(payload).unwrap_err().to_string();
        assert!(text(b"BZh91AY").contains("bzip2"));
        assert!(text(&[0x5D, 0, 0, 0x80]).contains("LZMA"));
        assert!(text(b"\x7fELF").contains("unknown"));
        assert!(text(b"").contains("unknown"));
    }

    #[test]
    fn damaged_streams_are_refused() {
        for magic in KNOWN.map(|(magic, _)| magic) {
            for filler in [0u8, 0x5A, 0xFF] {
                let mut payload = magic.to_vec();
                payload.extend([filler; 64]);
                let _ = unpack(&payload);
                payload.truncate(magic.len() + 3);
                let _ = unpack(&payload);
            }
        }
        let cut = lz4(&[&[0x20, b'h', b'i']]);
        assert!(unpack(&cut[..cut.len() - 1]).is_err());
        assert!(unpack(&lz4(&[&[0x0F, 1, 0, 0, 0]])).is_err());
    }
}
