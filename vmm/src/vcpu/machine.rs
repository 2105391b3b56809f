//! The machine: one vCPU, RAM, devices.

use super::fixups::{self, Fixups};
use super::state_trace::StateTrace;
use crate::boot::cpu_model::CpuModel;
use crate::boot::pvh::{EntryMode, InitialState};
use crate::checkpoint::restore;
use crate::checkpoint::restore::RestoreError;
use crate::devices::{DeviceConfig, Devices};
use crate::kvm::{KvmError, System, Vcpu, Vm, VmExit};
use crate::mem::{self, MemoryError, dirty, guest};
use crate::replay::error::{HostError, SourceError};
use logchan::host_profile::HostProfile;
use logchan::limits::PAGE_BYTES;
use replication::boundary::Memory;
use replication::checkpoint::Image;

/// The configuration of a machine. Both hosts of a pair must agree on all of it.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Bytes of guest RAM.
    pub memory_bytes: u64,
    /// The CPU the guest sees.
    pub cpu_model: CpuModel,
    /// How this host runs the guest. Hosts with [differences](HostProfile::difference) can't share a guest.
    pub host_profile: HostProfile,
    /// Configuration of the devices.
    pub devices: DeviceConfig,
}

/// A machine cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Guest memory cannot be allocated.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// Event counts since the machine was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Natural exits.
    pub natural_exits: u64,
    /// Positions at interrupt windows.
    pub windows: u64,
    /// Checkpoints taken or applied, the first one included.
    pub checkpoints: u64,
    /// Interrupts injected.
    pub interrupts: u64,
    /// Runs that ended at no position: kicks, and windows at CPL0 after which the guest was re-entered.
    pub mid_region_stops: u64,
}

/// One vCPU, RAM and devices. All of it is owned by the thread that runs the vCPU.
#[derive(Debug)]
pub struct Machine {
    pub(crate) vcpu: Vcpu,
    pub(crate) vm: Vm,
    pub(crate) devices: Devices,
    pub(crate) counters: Counters,
    pub(crate) fixups: Fixups,
    /// The CPU model that the guest sees. It answers the port that replaces CPUID in a rewritten kernel.
    pub(crate) cpu_model: CpuModel,
    /// How this host runs the guest.
    pub(crate) host_profile: HostProfile,
    /// Guest memory has never been written, so it is all zero.
    pub(crate) is_blank: bool,
    /// The state at the last positions, if [`trace_state`](Machine::trace_state) was called.
    pub(super) state_trace: Option<StateTrace>,
}

impl Machine {
    /// Creates a machine with zeroed memory and a vCPU at reset.
    ///
    /// # Errors
    ///
    /// The memory cannot be allocated, or KVM refused.
    pub fn new(system: &System, config: &MachineConfig) -> Result<Machine, MachineError> {
        Machine::with_ram(system, config, &mem::allocate(config.memory_bytes)?, true)
    }

    /// Creates a machine on the given memory and a vCPU at reset. `is_blank` says that the memory is all
    /// zero.
    ///
    /// # Errors
    ///
    /// KVM refused.
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
            host_profile: config.host_profile,
            is_blank,
            state_trace: None,
        })
    }

    /// Sets the vCPU to the first instruction of a loaded guest.
    ///
    /// # Errors
    ///
    /// KVM refused the registers.
    pub fn start_at(&mut self, initial: &InitialState) -> Result<(), KvmError> {
        self.is_blank = false;
        match initial.mode {
            EntryMode::Protected => {}
            // A kernel expects a PC whose firmware has run.
            EntryMode::Long => self.devices.act_as_firmware(),
        }
        self.vcpu.start_at(initial)
    }

    /// Returns the event counts.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns how often each kind of instruction was emulated.
    pub fn fixups(&self) -> Fixups {
        self.fixups
    }

    /// Enables or disables interrupt windows; they are enabled in a new machine.
    ///
    /// They are disabled for a guest whose kernel KVM emulates: a window at CPL0 is not an exact position
    /// there, and each one would cost a checkpoint. The guest's interrupts then wait for its next exit or
    /// for the deadline.
    pub fn set_irq_windows(&mut self, windows: bool) {
        self.devices.set_irq_windows(windows);
    }

    /// Begins to keep the state at the last positions.
    pub fn trace_state(&mut self) {
        self.state_trace = Some(StateTrace::default());
    }

    /// Returns the state at the last positions, if [`trace_state`](Self::trace_state) was called.
    pub fn state_trace(&self) -> Option<&StateTrace> {
        self.state_trace.as_ref()
    }

    /// Returns guest RAM.
    pub fn ram(&self) -> &mem::GuestRam {
        self.vm.ram()
    }

    /// Drains the vCPU and restores the state in `image`. If that takes long, `keepalive` is called
    /// repeatedly.
    ///
    /// # Errors
    ///
    /// The last instruction caused one more exit, the checkpoint is invalid, or KVM refused it.
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
    type Error = SourceError;

    fn take_written(&mut self) -> Result<Vec<u64>, SourceError> {
        let log = self.vm.take_dirty_log().map_err(HostError::from)?;
        Ok(dirty::take(self.vm.ram(), &log))
    }

    fn read_page(&self, number: u64, page: &mut [u8; PAGE_BYTES]) {
        guest::read_page(self.vm.ram(), number, page);
    }
}
