//! A digest of all guest memory.

use super::GuestRam;
use super::layout::PAGE;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use xxhash_rust::xxh3::Xxh3;

/// Returns the xxh3-64 over every byte of guest RAM, in ascending order.
pub fn memory_digest(ram: &GuestRam) -> u64 {
    let mut hasher = Xxh3::new();
    let mut bytes = [0u8; PAGE as usize];
    for page in 0..ram.iter().map(|region| region.len()).sum::<u64>() / PAGE {
        super::guest::read_page(ram, page, &mut bytes);
        hasher.update(&bytes);
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn memory_digest_changes_with_the_last_bit() {
        let ram = crate::mem::allocate(16 << 20).unwrap();
        let zero = memory_digest(&ram);
        ram.write_obj(0x80u8, GuestAddress((16 << 20) - 1)).unwrap();
        assert_ne!(memory_digest(&ram), zero);
    }
}
