//! Translation of guest virtual addresses through the guest's own page tables (SDM vol. 3, 4.5, "4-Level
//! Paging").
//!
//! It serves the VMM when it acts for the guest, for example to emulate an instruction. It is not on the
//! path of an ordinary exit.

use super::GuestRam;
use vm_memory::{Bytes, GuestAddress};

const PRESENT: u64 = 1 << 0;
const LARGE: u64 = 1 << 7;
/// Address bits 51:12 of an entry.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Lowest address bit that each level translates.
const LEVEL_SHIFTS: [u32; 4] = [39, 30, 21, 12];

/// Returns the physical address of virtual `address` in the address space of `cr3`, or `None` if it is
/// not mapped or a table is outside RAM.
pub fn translate(ram: &GuestRam, cr3: u64, address: u64) -> Option<u64> {
    let mut table = cr3 & ADDRESS;
    for shift in LEVEL_SHIFTS {
        let entry: u64 = ram.read_obj(GuestAddress(table + (address >> shift & 511) * 8)).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        // Only the two middle levels can map a large page; bit 7 has another meaning at the others.
        let last = shift == 12 || (shift < 39 && entry & LARGE != 0);
        if last {
            let within = (1u64 << shift) - 1;
            return Some(entry & ADDRESS & !within | address & within);
        }
        table = entry & ADDRESS;
    }
    None
}

/// Reads up to `bytes.len()` bytes at virtual `address`. Returns how many could be read before an address
/// that is not mapped to RAM.
pub fn read(ram: &GuestRam, cr3: u64, address: u64, bytes: &mut [u8]) -> usize {
    for (index, byte) in bytes.iter_mut().enumerate() {
        let address = address.wrapping_add(index as u64);
        match translate(ram, cr3, address).map(|at| ram.read_obj(GuestAddress(at))) {
            Some(Ok(value)) => *byte = value,
            Some(Err(_)) | None => return index,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];

    fn machine() -> GuestRam {
        let ram = crate::mem::allocate(16 << 20).unwrap();
        let put = |at: u64, entry: u64| ram.write_obj(entry, GuestAddress(at)).unwrap();
        put(TABLES[0] + 511 * 8, TABLES[1] | 3);
        put(TABLES[1] + 510 * 8, TABLES[2] | 3);
        put(TABLES[2], TABLES[3] | 3);
        put(TABLES[2] + 8, 0x20_0000 | 0x83);
        put(TABLES[2] + 16, 0xFFFF_FFFF_F000 | 3);
        put(TABLES[3] + 8, 1 << 63 | 0x5000 | 3);
        ram
    }

    #[test]
    fn translate_small_large_and_absent_pages() {
        let ram = machine();
        let base = 0xFFFF_FFFF_8000_0000;
        assert_eq!(translate(&ram, TABLES[0], base + 0x1234), Some(0x5234));
        assert_eq!(translate(&ram, TABLES[0], base + 0x20_1234), Some(0x20_1234));
        assert_eq!(translate(&ram, TABLES[0], base), None);
        assert_eq!(
            translate(&ram, TABLES[0], base + 0x40_0000),
            None,
            "the page table is beyond RAM"
        );
        assert_eq!(translate(&ram, TABLES[0], 0x1000), None);
        assert_eq!(translate(&ram, u64::MAX, base), None);
    }

    #[test]
    fn read_stops_at_the_end_of_the_mapping() {
        let ram = machine();
        ram.write_slice(&[7; 16], GuestAddress(0x5FF0)).unwrap();
        let mut bytes = [0; 32];
        assert_eq!(read(&ram, TABLES[0], 0xFFFF_FFFF_8000_1FF0, &mut bytes), 16);
        assert_eq!(bytes[..17], [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
    }
}
