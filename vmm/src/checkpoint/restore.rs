//! Applying a checkpoint to the machine.

use super::schema::{CheckpointError, decode};
use crate::devices::{Devices, DevicesState};
use crate::kvm::{KvmError, VcpuState, VmExit};
use crate::mem::guest::read_page;
use crate::mem::layout::PAGE;
use crate::vcpu::Machine;
use logchan::host_profile::Answer;
use replication::checkpoint::Image;
use vm_memory::{Bytes, GuestAddress};

/// Why a checkpoint was not applied. If KVM refused it, the machine's state is undefined.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The checkpoint itself is unusable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The last instruction caused one more exit, which the log does not contain.
    #[error("diverged: the log has a checkpoint where the guest makes one more exit: {exit}")]
    ExitOpen {
        /// The exit.
        exit: VmExit,
    },
    /// KVM refused the state.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// Pages that are applied between two calls of `keepalive`: about a millisecond's worth, because a page
/// that is not resident costs a page fault on the host.
const PAGES_AT_ONCE: usize = 128;

/// Applies `image`. The vCPU must have been drained ([`crate::kvm::Vcpu::drain`]). `keepalive` is called
/// about every millisecond.
///
/// Order: pages, stale shadow page tables, vCPU, devices. Everything is decoded before anything is
/// changed, so a malformed checkpoint leaves the machine as it was.
///
/// # Errors
///
/// The checkpoint is invalid, or KVM refused it.
pub fn restore(
    machine: &mut Machine,
    image: &Image,
    keepalive: &mut dyn FnMut(),
) -> Result<(), RestoreError> {
    let vcpu: VcpuState = decode("vCPU", &image.vcpu)?;
    let devices: DevicesState = decode("device", &image.devices)?;
    let devices = Devices::restore(devices)
        .map_err(|error| CheckpointError::Devices { what: error.to_string() })?;
    let pages = machine.vm.ram_bytes() as u64 / PAGE;
    if let Some(page) = image.pages.iter().find(|page| page.number >= pages) {
        return Err(CheckpointError::Page { page: page.number, pages }.into());
    }

    // Where KVM is known to keep no copies of the guest's page tables, the flush of the TLB in `Vcpu::restore` is enough.
    let shadows = match machine.host_profile.shadows_page_tables {
        Answer::Yes | Answer::Unknown => true,
        Answer::No => false,
    };
    let mut stale = image.full || has_short_entries(&vcpu);
    if image.full && !machine.is_blank {
        clear_unlisted(machine, image, pages, keepalive);
    }
    machine.is_blank = false;
    let mut old = [0u8; PAGE as usize];
    let zero = [0u8; PAGE as usize];
    for (index, page) in image.pages.iter().enumerate() {
        if index % PAGES_AT_ONCE == PAGES_AT_ONCE - 1 {
            keepalive();
        }
        let new = page.bytes.as_deref().unwrap_or(&zero);
        if shadows && !stale {
            read_page(machine.vm.ram(), page.number, &mut old);
            stale = may_stale_translation(&old, new, pages);
        }
        machine
            .vm
            .ram()
            .write_slice(new, GuestAddress(page.number * PAGE))
            .expect("the page lies in guest RAM");
    }
    if shadows && stale {
        machine.vm.forget_page_tables()?;
    }
    machine.vcpu.restore(&vcpu)?;
    machine.devices = devices;
    Ok(())
}

/// Zeroes every page that a full checkpoint does not list.
fn clear_unlisted(machine: &Machine, image: &Image, pages: u64, keepalive: &mut dyn FnMut()) {
    let zero = [0u8; PAGE as usize];
    let mut bytes = [0u8; PAGE as usize];
    let mut listed = image.pages.iter().map(|page| page.number).peekable();
    for number in 0..pages {
        if number % PAGES_AT_ONCE as u64 == 0 {
            keepalive();
        }
        if listed.next_if_eq(&number).is_some() {
            continue;
        }
        read_page(machine.vm.ram(), number, &mut bytes);
        if bytes != zero {
            machine
                .vm
                .ram()
                .write_slice(&zero, GuestAddress(number * PAGE))
                .expect("the page lies in guest RAM");
        }
    }
}

/// Page-table entry bits (SDM vol. 3, 4.5.4): present, accessed, dirty.
const PRESENT: u64 = 1 << 0;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Address bits 51:12 of an entry.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Whether the guest uses page tables with 4-byte entries (CR0.PG without CR4.PAE), which
/// [`may_stale_translation`] cannot read.
fn has_short_entries(vcpu: &VcpuState) -> bool {
    const CR0_PG: u64 = 1 << 31;
    const CR4_PAE: u64 = 1 << 5;
    vcpu.sregs.cr0 & CR0_PG != 0 && vcpu.sregs.cr4 & CR4_PAE == 0
}

/// Returns whether writing `new` over `old` may leave a stale translation in KVM's shadow page tables.
///
/// KVM shadows an entry only after it was used, and use sets the entry's accessed bit. So a page whose
/// words can all be page-table entries matters if an entry that was present and accessed changes in
/// anything but its dirty bit.
///
/// A page with a "present" word that points beyond 4 GiB is data: this machine has neither RAM nor
/// devices there, so no page table of a guest that respects the memory map has such an entry.
///
/// All other mistakes are on the safe side: dropping the shadow page tables only costs time.
fn may_stale_translation(old: &[u8], new: &[u8], pages: u64) -> bool {
    let limit = (pages * PAGE).max(1 << 32);
    let words = |bytes: &[u8]| -> Vec<u64> {
        bytes.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes"))).collect()
    };
    let (old, new) = (words(old), words(new));
    if old.iter().any(|word| word & PRESENT != 0 && word & ADDRESS >= limit) {
        return false;
    }
    old.iter().zip(&new).any(|(old, new)| {
        let used = PRESENT | ACCESSED;
        old & used == used && (old ^ new) & !(new & DIRTY) != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(words: &[(usize, u64)]) -> Vec<u8> {
        let mut bytes = vec![0u8; PAGE as usize];
        for &(index, word) in words {
            bytes[index * 8..index * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn may_stale_translation_of_a_used_entry_is_true() {
        let old = page(&[(3, 0x20_0000 | PRESENT | ACCESSED)]);
        let moved = page(&[(3, 0x40_0000 | PRESENT | ACCESSED)]);
        let cleared = page(&[]);
        assert!(may_stale_translation(&old, &moved, 4096));
        assert!(may_stale_translation(&old, &cleared, 4096));
    }

    #[test]
    fn may_stale_translation_of_unused_dirty_or_data_is_false() {
        let unused = page(&[(3, 0x20_0000 | PRESENT)]);
        assert!(!may_stale_translation(&unused, &page(&[]), 4096));
        let old = page(&[(3, 0x20_0000 | PRESENT | ACCESSED)]);
        let dirty = page(&[(3, 0x20_0000 | PRESENT | ACCESSED | DIRTY)]);
        assert!(!may_stale_translation(&old, &dirty, 4096));
        let data = page(&[(3, 0x20_0000 | PRESENT | ACCESSED), (4, 0x0001_2345_6789_ABCD)]);
        assert!(!may_stale_translation(&data, &page(&[]), 4096));
    }
}
