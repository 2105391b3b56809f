//! Taking a checkpoint of the machine where it stands.

use super::image::ImageView;
use super::schema::encode;
use crate::kvm::KvmError;
use crate::mem::dirty;
use crate::vcpu::Machine;
use xxhash_rust::xxh3::Xxh3;

/// States and page list of a checkpoint; the page contents stay in guest RAM until the next entry.
#[derive(Debug)]
pub struct Captured {
    full: bool,
    vcpu: Vec<u8>,
    devices: Vec<u8>,
    pages: Vec<u64>,
}

impl Captured {
    /// Captures `machine` at a position where nothing is left open in the vCPU (before its first
    /// run, or after an EINTR): everything if `full`, else with the pages written since the last
    /// capture. Either way the next one counts from here.
    pub fn take(machine: &mut Machine, full: bool) -> Result<Captured, KvmError> {
        let log = machine.vm.take_dirty_log()?;
        let changed = dirty::take(machine.vm.ram(), &log);
        let pages = if full { dirty::nonzero(machine.vm.ram()) } else { changed };
        Ok(Captured {
            full,
            vcpu: encode(&machine.vcpu.save()?),
            devices: encode(&machine.devices.save()),
            pages,
        })
    }

    /// The checkpoint as the event source takes it.
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

/// xxh3-64 of vCPU and device state; nothing may be left open in the vCPU.
pub fn state_digest(machine: &mut Machine) -> Result<u64, KvmError> {
    let mut hasher = Xxh3::new();
    hasher.update(&encode(&machine.vcpu.save()?));
    hasher.update(&encode(&machine.devices.save()));
    Ok(hasher.digest())
}
