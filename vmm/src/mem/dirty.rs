//! The pages that changed since the last checkpoint: those that the guest wrote (KVM's dirty log) and
//! those that the VMM wrote (vm-memory's bitmap).

use super::GuestRam;
use super::layout::PAGE;
use std::ops::Deref;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// Returns the numbers, ascending, of all pages that are in `dirty_log` (in KVM's format) or were written
/// through `ram`. Clears the latter.
pub fn take(ram: &GuestRam, dirty_log: &[u64]) -> Vec<u64> {
    let vmm_written = take_vmm_written(ram);
    let mut pages = Vec::new();
    for (index, word) in dirty_log.iter().enumerate() {
        let mut bits = word | vmm_written.get(index).copied().unwrap_or(0);
        while bits != 0 {
            pages.push(index as u64 * 64 + u64::from(bits.trailing_zeros()));
            bits &= bits - 1;
        }
    }
    pages
}

/// Clears the bitmap of the pages that the VMM wrote.
pub fn clear_vmm_written(ram: &GuestRam) {
    take_vmm_written(ram);
}

fn take_vmm_written(ram: &GuestRam) -> Vec<u64> {
    let region = ram.iter().next().expect("guest RAM has a region");
    region.deref().bitmap().get_and_reset()
}

/// Returns the numbers, ascending, of all pages with a byte other than zero.
pub fn nonzero(ram: &GuestRam) -> Vec<u64> {
    let mut bytes = [0u8; PAGE as usize];
    let pages = ram.iter().map(|region| region.len()).sum::<u64>() / PAGE;
    (0..pages)
        .filter(|&page| {
            super::guest::read_page(ram, page, &mut bytes);
            bytes.iter().any(|&byte| byte != 0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn take_merges_both_logs_and_clears_the_vmms() {
        let ram = crate::mem::allocate(16 << 20).unwrap();
        ram.write_obj(7u8, GuestAddress(3 * PAGE)).unwrap();
        ram.write_slice(&[1; 32], GuestAddress(70 * PAGE - 16)).unwrap();
        let mut log = vec![0u64; 64];
        log[0] = 1 << 5;
        assert_eq!(take(&ram, &log), [3, 5, 69, 70]);
        assert_eq!(take(&ram, &log), [5]);
        assert_eq!(nonzero(&ram), [3, 69, 70]);
    }
}
