//! The machine: one vCPU, RAM, devices.

use super::fixups::{self, Fixups};
use crate::boot::cpu_model::CpuModel;
use crate::boot::pvh::{EntryMode, InitialState};
use crate::checkpoint::restore::RestoreError;
use crate::checkpoint::{Image, restore};
use crate::devices::{DeviceConfig, Devices};
use crate::kvm::{KvmError, System, Vcpu, Vm, VmExit};
use crate::mem::{self, MemoryError, dirty, guest};
use crate::replay::boundary::Memory;
use crate::replay::error::SourceError;
use logchan::limits::PAGE_BYTES;

/// What a machine is made of; both hosts of a pair must agree on all of it.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Bytes of guest RAM.
    pub memory_bytes: u64,
    /// The CPU the guest sees.
    pub cpu_model: CpuModel,
    /// The NIC and the rest.
    pub devices: DeviceConfig,
}

/// A machine that can't be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No KVM for it.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Exits of the guest's own making.
    pub natural_exits: u64,
    /// Interrupt windows at CPL3.
    pub windows: u64,
    /// Checkpoints taken or applied, the first one included.
    pub checkpoints: u64,
    /// Interrupts injected.
    pub interrupts: u64,
    /// Runs that ended at no position: kicks, and windows at CPL0 that were passed over.
    pub mid_region_stops: u64,
}

/// One vCPU, RAM and devices. All of it belongs to the thread that runs it.
#[derive(Debug)]
pub struct Machine {
    pub(crate) vcpu: Vcpu,
    pub(crate) vm: Vm,
    pub(crate) devices: Devices,
    pub(crate) counters: Counters,
    pub(crate) fixups: Fixups,
    /// The CPU the guest sees, for kernels that ask through a port.
    pub(crate) cpu_model: CpuModel,
    /// Nothing was ever written to its memory.
    pub(crate) is_blank: bool,
}

impl Machine {
    /// A machine with empty memory and a vCPU at reset.
    pub fn new(system: &System, config: &MachineConfig) -> Result<Machine, MachineError> {
        Machine::with_ram(system, config, &mem::allocate(config.memory_bytes)?, true)
    }

    /// A machine with this memory, whatever is in it (nothing but zeros if `is_blank`), and a vCPU at
    /// reset.
    pub fn with_ram(
        system: &System,
        config: &MachineConfig,
        ram: &mem::GuestRam,
        is_blank: bool,
    ) -> Result<Machine, MachineError> {
        let vm = system.create_vm(ram)?;
        let vcpu = vm.create_vcpu(config.cpu_model.entries())?;
        let devices = Devices::new(&config.devices);
        Ok(Machine {
            vcpu,
            vm,
            devices,
            counters: Counters::default(),
            fixups: Fixups::default(),
            cpu_model: config.cpu_model.clone(),
            is_blank,
        })
    }

    /// Puts the vCPU to the first instruction of a loaded guest.
    pub fn start_at(&mut self, initial: &InitialState) -> Result<(), KvmError> {
        self.is_blank = false;
        match initial.mode {
            EntryMode::Protected => {}
            // A kernel expects a PC whose firmware has run.
            EntryMode::Long => self.devices.act_as_firmware(),
        }
        self.vcpu.start_at(initial)
    }

    /// How often what happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What was done in KVM's place so far.
    pub fn fixups(&self) -> Fixups {
        self.fixups
    }

    /// Whether interrupt windows are asked for; a machine does from the start. A guest whose kernel
    /// KVM emulates goes without: a window at CPL0 is no exact position there, and each would cost a
    /// checkpoint. Its interrupts wait for its next exit, or for the deadline.
    pub fn set_irq_windows(&mut self, windows: bool) {
        self.devices.set_irq_windows(windows);
    }

    /// The devices, for their counters.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Guest RAM.
    pub fn ram(&self) -> &mem::GuestRam {
        self.vm.ram()
    }

    /// Drains the vCPU and puts the machine into the state of `image`. `keepalive` is called again and
    /// again while that takes long.
    pub fn apply(
        &mut self,
        image: &Image,
        keepalive: &mut dyn FnMut(),
    ) -> Result<(), RestoreError> {
        loop {
            return match self.vcpu.drain()? {
                VmExit::Interrupted => restore::restore(self, image, keepalive),
                VmExit::InternalError { suberror } if fixups::fix_up(self, suberror)? => continue,
                exit => Err(RestoreError::ExitOpen { exit }),
            };
        }
    }
}

impl Memory for Machine {
    fn begin_noting(&mut self) -> Result<(), SourceError> {
        self.vm.take_dirty_log()?;
        dirty::clear_own(self.vm.ram());
        Ok(())
    }

    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]) {
        guest::read_page(self.vm.ram(), number, page);
    }
}
