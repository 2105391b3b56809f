//! Taking a checkpoint of the machine at its current position.

use super::image::ImageView;
use super::schema::encode;
use crate::kvm::KvmError;
use crate::mem::dirty;
use crate::vcpu::Machine;
use xxhash_rust::xxh3::Xxh3;

/// The states and the page list of a checkpoint. The page contents stay in guest RAM until the next
/// entry.
#[derive(Debug)]
pub struct Captured {
    full: bool,
    vcpu: Vec<u8>,
    devices: Vec<u8>,
    pages: Vec<u64>,
}

impl Captured {
    /// Captures `machine` at a position where the vCPU has no pending instruction (before its first run,
    /// or after EINTR). With `full` the capture contains every page that is not zero, otherwise the pages
    /// written since the last capture. Either way the set of dirty pages is cleared.
    ///
    /// Flushes the TLB, as applying the checkpoint does: whether the guest's next accesses set accessed bits depends on
    /// it.
    ///
    /// # Errors
    ///
    /// KVM refused to return the dirty log or the vCPU's state.
    pub fn take(machine: &mut Machine, full: bool) -> Result<Captured, KvmError> {
        let log = machine.vm.take_dirty_log()?;
        let changed = dirty::take(machine.vm.ram(), &log);
        let pages = if full { dirty::nonzero(machine.vm.ram()) } else { changed };
        let vcpu = machine.vcpu.save()?;
        machine.vcpu.flush_tlb(&vcpu.sregs)?;
        Ok(Captured { full, vcpu: encode(&vcpu), devices: encode(&machine.devices.save()), pages })
    }

    /// Returns the checkpoint in the form that the boundary takes.
    pub fn view<'a>(&'a self, machine: &'a Machine) -> ImageView<'a> {
        ImageView {
            full: self.full,
            vcpu: &self.vcpu,
            devices: &self.devices,
            pages: &self.pages,
            ram: machine.vm.ram(),
        }
    }
}

/// Returns the xxh3-64 of vCPU and device state. The vCPU must have no pending instruction.
///
/// # Errors
///
/// KVM refused to return the vCPU's state.
pub fn state_digest(machine: &mut Machine) -> Result<u64, KvmError> {
    let mut hasher = Xxh3::new();
    hasher.update(&encode(&machine.vcpu.save()?));
    hasher.update(&encode(&machine.devices.save()));
    Ok(hasher.digest())
}
