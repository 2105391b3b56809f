//! The VM: its memory slot, the dirty log, and invalidation of KVM's shadow page tables.

use super::error::KvmError;
use super::msr_filter;
use super::vcpu::Vcpu;
use crate::mem::{GuestRam, layout};
use kvm_bindings::{
    KVM_CAP_EXCEPTION_PAYLOAD, KVM_MEM_LOG_DIRTY_PAGES, kvm_cpuid_entry2, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// Memory slot of guest RAM.
const RAM_SLOT: u32 = 0;
/// Memory slot that is added and deleted to make KVM drop its shadow page tables.
const SCRATCH_SLOT: u32 = 1;

/// A KVM virtual machine with one region of RAM at guest physical address 0.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    /// Keeps the mapping that KVM uses alive (rule 1).
    ram: GuestRam,
    ram_bytes: usize,
    host_address: u64,
    msr_indices: Vec<u32>,
}

impl Vm {
    pub(super) fn new(fd: VmFd, ram: &GuestRam, msr_indices: Vec<u32>) -> Result<Vm, KvmError> {
        // VMX hosts without unrestricted guests keep a TSS here (api.rst 4.36).
        fd.set_tss_address(layout::KVM_TSS as usize).map_err(KvmError::call("KVM_SET_TSS_ADDR"))?;
        // Without this capability, KVM writes CR2 and DR6 when an exception is queued instead of when it is
        // delivered, and a checkpoint in between would differ (api.rst 7.21).
        let payload = kvm_enable_cap {
            cap: KVM_CAP_EXCEPTION_PAYLOAD,
            args: [1, 0, 0, 0],
            ..Default::default()
        };
        fd.enable_cap(&payload).map_err(KvmError::call("KVM_CAP_EXCEPTION_PAYLOAD"))?;
        msr_filter::install(&fd)?;
        assert_eq!(ram.num_regions(), 1, "guest RAM is one region");
        let region = ram.iter().next().expect("guest RAM has a region");
        let ram_bytes = region.len() as usize;
        let host_address = region
            .get_host_address(vm_memory::MemoryRegionAddress(0))
            .expect("guest RAM is mapped");
        // Guest memory holds what its clients sent, and would make a core dump huge. The flag also keeps the
        // kernel from joining the mapping with a neighbour, so that smaps(5) shows it as one.
        // SAFETY: the range is the whole mapping that `ram` keeps alive, and the advice changes no contents.
        unsafe { libc::madvise(host_address.cast(), ram_bytes, libc::MADV_DONTDUMP) };
        let host_address = host_address as u64;
        let vm = Vm { fd, ram: ram.clone(), ram_bytes, host_address, msr_indices };
        vm.set_slot(RAM_SLOT, 0, ram_bytes as u64, KVM_MEM_LOG_DIRTY_PAGES)?;
        Ok(vm)
    }

    fn set_slot(&self, slot: u32, address: u64, bytes: u64, flags: u32) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: address,
            memory_size: bytes,
            userspace_addr: self.host_address,
        };
        // SAFETY: the range [host_address, host_address + bytes) lies in the mapping that
        // `self.ram` keeps alive as long as this VM (rule 1): `bytes` is the whole of it or a page.
        unsafe { self.fd.set_user_memory_region(region) }
            .map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION"))
    }

    /// Returns guest RAM.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Returns the size of guest RAM in bytes.
    pub fn ram_bytes(&self) -> usize {
        self.ram_bytes
    }

    /// Reads and clears KVM's dirty bitmap: bit `n % 64` of word `n / 64` is set if the guest wrote to page
    /// `n` since the last call. Writes by this process are not included.
    ///
    /// # Errors
    ///
    /// If the ioctl fails.
    pub fn take_dirty_log(&self) -> Result<Vec<u64>, KvmError> {
        self.fd.get_dirty_log(RAM_SLOT, self.ram_bytes).map_err(KvmError::call("KVM_GET_DIRTY_LOG"))
    }

    /// Makes KVM drop all shadow page tables. This is needed after this process changed page tables in guest
    /// memory without KVM's knowledge. Adding and deleting any slot has this effect on every KVM that was
    /// tested.
    ///
    /// # Errors
    ///
    /// If the ioctl fails.
    pub fn forget_page_tables(&self) -> Result<(), KvmError> {
        self.set_slot(SCRATCH_SLOT, layout::SCRATCH_SLOT, layout::PAGE, 0)?;
        self.set_slot(SCRATCH_SLOT, layout::SCRATCH_SLOT, 0, 0)
    }

    /// Creates the only vCPU, with the CPU model `cpuid`.
    ///
    /// # Errors
    ///
    /// If a KVM call fails.
    pub fn create_vcpu(&self, cpuid: &[kvm_cpuid_entry2]) -> Result<Vcpu, KvmError> {
        let fd = self.fd.create_vcpu(0).map_err(KvmError::call("KVM_CREATE_VCPU"))?;
        Vcpu::new(fd, cpuid, &self.msr_indices)
    }
}
