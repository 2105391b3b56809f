//! Which pages changed since the last checkpoint: what the guest wrote (KVM's dirty log) and what
//! the VMM wrote (vm-memory's bitmap), together.

use super::GuestRam;
use super::layout::PAGE;
use std::ops::Deref;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// Page numbers, ascending, of every page in `dirty_log` (words as KVM gives them) or written
/// through `ram`; clears the latter.
pub fn take(ram: &GuestRam, dirty_log: &[u64]) -> Vec<u64> {
    let own = take_own(ram);
    let mut pages = Vec::new();
    for (index, word) in dirty_log.iter().enumerate() {
        let mut bits = word | own.get(index).copied().unwrap_or(0);
        while bits != 0 {
            pages.push(index as u64 * 64 + u64::from(bits.trailing_zeros()));
            bits &= bits - 1;
        }
    }
    pages
}

/// Forgets what the VMM wrote so far.
pub fn clear_own(ram: &GuestRam) {
    take_own(ram);
}

fn take_own(ram: &GuestRam) -> Vec<u64> {
    let region = ram.iter().next().expect("guest RAM has a region");
    region.deref().bitmap().get_and_reset()
}

/// Page numbers, ascending, of every page that has a byte other than zero.
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
    fn take_merges_both_logs_and_clears_ours() {
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
