//! The PVH entry note of an ELF file, which is the only note that a loader must understand.
//!
//! A note consists of a header of three words (bytes of the name, bytes of the value, type), the name and
//! the value, each padded to 4 bytes (ELF specification 1.2, "Note Section";
//! linux/include/linux/elfnote.h).

use crate::boot::elf::{u32_at, u64_at};
use crate::boot::image::ImageFault;

const NHDR_BYTES: usize = 12;
/// `XEN_ELFNOTE_PHYS32_ENTRY`, xen/include/public/elfnote.h.
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
const XEN_NAME: &[u8] = b"Xen\0";

struct Note<'a> {
    kind: u32,
    name: &'a [u8],
    value: &'a [u8],
}

/// Returns the physical address of the 32-bit entry that a note segment names, or `None` if it names
/// none.
///
/// A malformed chain of notes ends the search without an error, because the notes of other tools are none
/// of this loader's concern.
pub(super) fn pvh_entry(mut bytes: &[u8]) -> Result<Option<u32>, ImageFault> {
    let mut found = None;
    while let Some((note, rest)) = split_note(bytes) {
        bytes = rest;
        if note.kind != XEN_ELFNOTE_PHYS32_ENTRY || note.name != XEN_NAME {
            continue;
        }
        let entry = entry_value(note.value)?;
        if found.is_some_and(|earlier| earlier != entry) {
            return Err(ImageFault::Malformed { what: "two PVH entry notes disagree" });
        }
        found = Some(entry);
    }
    Ok(found)
}

fn split_note(bytes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let (header, rest) = bytes.split_at_checked(NHDR_BYTES)?;
    let (name, rest) = split_padded(rest, u32_at(header, 0))?;
    let (value, rest) = split_padded(rest, u32_at(header, 4))?;
    Some((Note { kind: u32_at(header, 8), name, value }, rest))
}

/// Splits off a field of `count` bytes and its padding, which the last field may lack.
fn split_padded(bytes: &[u8], count: u32) -> Option<(&[u8], &[u8])> {
    let count = usize::try_from(count).ok()?;
    let field = bytes.get(..count)?;
    Some((field, &bytes[count.next_multiple_of(4).min(bytes.len())..]))
}

/// Decodes the entry's address. It is a 32-bit value, but some Linux kernels write 64 bits.
fn entry_value(value: &[u8]) -> Result<u32, ImageFault> {
    let wide = match value.len() {
        4 => u64::from(u32_at(value, 0)),
        8 => u64_at(value, 0),
        _ => return Err(ImageFault::Malformed { what: "PVH entry note of neither 4 nor 8 bytes" }),
    };
    let what = "PVH entry above 4 GiB, though it is entered in 32-bit mode";
    u32::try_from(wide).map_err(|_| ImageFault::Malformed { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, value.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for field in [name, value] {
            bytes.extend(field);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn pvh_note_is_found_behind_others_in_either_width() {
        for value in [&0x10_0000u32.to_le_bytes()[..], &0x10_0000u64.to_le_bytes()[..]] {
            let mut bytes = note(b"GNU\0", 3, &[7; 19]);
            bytes.extend(note(b"Linux\0", 18, b"x"));
            bytes.extend(note(b"Xen\0", 17, b"yz"));
            bytes.extend(note(b"Xen\0", 18, value));
            bytes.extend([1, 2, 3]);
            assert_eq!(pvh_entry(&bytes), Ok(Some(0x10_0000)));
        }
    }

    #[test]
    fn pvh_note_with_a_bad_value_is_refused() {
        for value in [&[][..], &[0; 3], &[0; 5], &[0xFF; 8]] {
            assert!(pvh_entry(&note(b"Xen\0", 18, value)).is_err(), "{value:?}");
        }
        let mut two = note(b"Xen\0", 18, &1u32.to_le_bytes());
        two.extend(note(b"Xen\0", 18, &2u32.to_le_bytes()));
        assert!(pvh_entry(&two).is_err());
    }

    #[test]
    fn broken_chain_ends_the_search() {
        let mut bytes = note(b"GNU\0", 3, &[0; 4]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes.extend(note(b"Xen\0", 18, &[0; 4]));
        assert_eq!(pvh_entry(&bytes), Ok(None));
        assert_eq!(pvh_entry(&[]), Ok(None));
    }
}
