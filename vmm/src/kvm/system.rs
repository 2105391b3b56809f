//! `/dev/kvm`: opening it, checking its capabilities, creating VMs.

use super::caps::{NEEDED, Needed};
use super::error::KvmError;
use super::vm::Vm;
use crate::boot::host_checks::Host;
use crate::mem::GuestRam;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

/// Default path of the device node.
pub const DEV_KVM: &str = "/dev/kvm";

/// The stable API version (api.rst 4.1).
const API_VERSION: i32 = 12;

/// An open `/dev/kvm` of the supported API version.
#[derive(Debug)]
pub struct System {
    kvm: Kvm,
}

impl System {
    /// Opens `path` and checks the API version, how the kvm module keeps page tables, and all required capabilities.
    ///
    /// # Errors
    ///
    /// If the device can't be opened or used, the host [shadows page tables](Host::shadows_page_tables), or a
    /// capability is missing.
    pub fn open(path: &str) -> Result<System, KvmError> {
        let system = System::open_unchecked(path)?;
        if Host::new("/").shadows_page_tables() {
            return Err(KvmError::ShadowPaging);
        }
        match NEEDED.iter().find(|needed| !system.has(needed)) {
            Some(&Needed { name, why, .. }) => Err(KvmError::Capability { name, why }),
            None => Ok(system),
        }
    }

    /// Opens `path` and checks only the API version, for `doctor`, which reports the rest itself.
    ///
    /// # Errors
    ///
    /// If the device can't be opened or used, or has another API version.
    pub fn open_unchecked(path: &str) -> Result<System, KvmError> {
        let c_path = std::ffi::CString::new(path)
            .map_err(|_| KvmError::Missing { path: path.escape_default().to_string() })?;
        let kvm = Kvm::new_with_path(&c_path).map_err(|source| {
            let path = path.to_string();
            match source.errno() {
                libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::Missing { path },
                libc::EACCES | libc::EPERM => KvmError::Permission { path },
                _other => KvmError::Unusable { path, source },
            }
        })?;
        match kvm.get_api_version() {
            API_VERSION => Ok(System { kvm }),
            found if found < 0 => Err(KvmError::Unusable {
                path: path.to_string(),
                source: kvm_ioctls::Error::new(libc::ENOTTY),
            }),
            found => Err(KvmError::Version { found }),
        }
    }

    /// Returns whether this kernel has the capability.
    pub fn has(&self, needed: &Needed) -> bool {
        let found = self.kvm.check_extension_raw(libc::c_ulong::from(needed.cap));
        found > 0 && found & needed.bits == needed.bits
    }

    /// Returns the result of `KVM_GET_SUPPORTED_CPUID`: everything that a guest's CPU model can have on this
    /// host.
    ///
    /// # Errors
    ///
    /// If the ioctl fails.
    pub fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, KvmError> {
        let cpuid = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::call("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(cpuid.as_slice().to_vec())
    }

    /// Returns the MSRs that this KVM can save and restore.
    pub(super) fn msr_indices(&self) -> Result<Vec<u32>, KvmError> {
        let list =
            self.kvm.get_msr_index_list().map_err(KvmError::call("KVM_GET_MSR_INDEX_LIST"))?;
        Ok(list.as_slice().to_vec())
    }

    /// Creates a VM with the memory `ram` and dirty logging enabled. It has no irqchip, no PIT and no clock
    /// in the kernel.
    ///
    /// # Errors
    ///
    /// If a KVM call fails.
    pub fn create_vm(&self, ram: &GuestRam) -> Result<Vm, KvmError> {
        // A kick while the kernel takes its locks ends the call with EINTR. The kick is noticed anyway, so
        // the call is repeated. (A backup creates its next machine while its thread may be kicked.)
        let fd = loop {
            match self.kvm.create_vm() {
                Err(errno) if errno.errno() == libc::EINTR => {}
                made => break made.map_err(KvmError::call("KVM_CREATE_VM"))?,
            }
        };
        Vm::new(fd, ram, self.msr_indices()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::VmExit;
    use crate::kvm::kick::{Kicker, install};
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    #[cfg_attr(not(feature = "host-tests"), ignore = "needs /dev/kvm: --features host-tests")]
    fn undelivered_breakpoint_is_reported() {
        let system = System::open(DEV_KVM).unwrap();
        let ram = crate::mem::guest::allocate(16 << 20).unwrap();
        let vm = system.create_vm(&ram).unwrap();
        let mut vcpu = vm.create_vcpu(&[]).unwrap();
        // Fills the run page.
        assert_eq!(vcpu.drain().unwrap(), VmExit::Interrupted);
        let state = vcpu.save().unwrap();
        let rip = state.regs.rip + 1;
        vcpu.continue_at(rip, Some(3)).unwrap();
        assert_eq!(vcpu.drain().unwrap(), VmExit::Interrupted);
        assert!(vcpu.holds_soft_exception(), "the run ended before it was delivered");
        assert_eq!(vcpu.save().unwrap().events.exception.injected, 0, "KVM reports it now");
        vcpu.restore(&state).unwrap();
        assert!(!vcpu.holds_soft_exception());
        for exception in [None, Some(7)] {
            vcpu.continue_at(rip, exception).unwrap();
            assert!(!vcpu.holds_soft_exception(), "{exception:?}");
        }
    }

    #[test]
    #[cfg_attr(not(feature = "host-tests"), ignore = "needs /dev/kvm: --features host-tests")]
    fn vms_are_created_while_their_thread_is_kicked() {
        install().unwrap();
        let system = System::open(DEV_KVM).unwrap();
        let ram = crate::mem::guest::allocate(16 << 20).unwrap();
        let kicker = Kicker::of_this_thread();
        let stop = AtomicBool::new(false);
        let made = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    kicker.kick();
                }
            });
            let made: Result<Vec<_>, _> =
                (0..500).map(|_| system.create_vm(&ram).map(drop)).collect();
            stop.store(true, Ordering::Relaxed);
            made
        });
        made.unwrap();
    }
}
