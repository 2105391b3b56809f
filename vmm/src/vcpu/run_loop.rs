//! The vCPU loop: the same for standalone, recording, replaying and every role of a pair. What
//! differs is the [`Boundary`] behind the door.
//!
//! One turn goes from a position to the next:
//!
//! ```text
//!   at a position --- inputs enter, at most one interrupt is injected
//!        |
//!        +-- Run ---> KVM_RUN --> natural exit ----------> devices handle it --> position
//!        |               |------> window at CPL3 ------------------------------> position
//!        |               |------> kick, or window at CPL0 --> passed over, or
//!        |               |                                    checkpoint ------> position
//!        +-- Apply -> the log's checkpoint is applied -------------------------> position
//!        +-- Capture -> a checkpoint is taken ---------------------------------> position
//!        +-- End ---> the machine stops
//! ```

use super::digest::{RIP, registers, vcpu_digest};
use super::machine::Machine;
use super::{fixups, processor_ports};
use crate::checkpoint::restore::RestoreError;
use crate::checkpoint::save::{Captured, state_digest};
use crate::devices::{Access, Effect};
use crate::kvm::exit::ExitClass;
use crate::kvm::{Direction, KvmError, VmExit};
use crate::mem::digest::memory_digest;
use crate::replay::boundary::{
    Boundary, DeviceCapacity, EndState, Position, Region, StopAction, Waited,
};
use crate::replay::error::SourceError;

/// Inputs that may enter at one position; the rest waits for the next. It bounds a timer that is
/// due again as soon as it has fired.
const INPUTS_MAX: usize = 1024;

/// Why a machine did not run to an orderly end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// KVM failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The door failed, or found a divergence.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A checkpoint could not be applied.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The guest can't go on.
    #[error(
        "the guest stopped: {exit} at rip {rip:#x} ({instruction}), CPL{privilege_level}, after {natural_exits} exits"
    )]
    Guest {
        /// What ended it.
        exit: VmExit,
        /// Instruction pointer.
        rip: u64,
        /// What is there.
        instruction: String,
        /// Privilege level.
        privilege_level: u8,
        /// Natural exits so far.
        natural_exits: u64,
    },
    /// The guest halted with interrupts off: nothing can ever wake it.
    #[error(
        "the guest halted with interrupts disabled at rip {rip:#x}, after {natural_exits} exits"
    )]
    HaltedForever {
        /// Instruction pointer.
        rip: u64,
        /// Natural exits so far.
        natural_exits: u64,
    },
    /// The guest asked for a reset; this machine stops instead.
    #[error("the guest asked for a reset after {natural_exits} exits (see its console)")]
    Reset {
        /// Natural exits so far.
        natural_exits: u64,
    },
}

impl RunError {
    /// Whether the guest itself has ended the VM: any other host would see the same. Otherwise this host
    /// has failed. An exit that KVM can't explain counts as the host's: if the guest is behind it after
    /// all, the next host ends in the same place.
    pub fn is_guests_own_end(&self) -> bool {
        match self {
            RunError::Guest { exit, .. } => match exit {
                VmExit::Shutdown => true,
                VmExit::InternalError { .. }
                | VmExit::EntryFailed { .. }
                | VmExit::Unknown { .. }
                | VmExit::Pio { .. }
                | VmExit::Mmio { .. }
                | VmExit::Halt
                | VmExit::SetTpr
                | VmExit::IrqWindow
                | VmExit::Interrupted => false,
            },
            RunError::HaltedForever { .. } | RunError::Reset { .. } => true,
            RunError::Kvm(_) | RunError::Source(_) | RunError::Restore(_) => false,
        }
    }
}

/// Where a region ended.
#[derive(Clone, Copy)]
enum Reached {
    /// The guest executed HLT.
    Halt,
    /// Any other position.
    Running,
}

/// Runs `machine` until its source says that it ends. The calling thread becomes its owner.
///
/// A live source is first given a full checkpoint of where the machine starts, if it keeps any.
pub fn run(machine: &mut Machine, source: &mut impl Boundary) -> Result<EndState, RunError> {
    machine.vcpu.adopt();
    let end = run_adopted(machine, source);
    machine.vcpu.release();
    end
}

fn run_adopted(machine: &mut Machine, source: &mut impl Boundary) -> Result<EndState, RunError> {
    if source.keeps_checkpoints() {
        take_checkpoint(machine, source, true)?;
    }
    loop {
        source.poll_memory(machine)?;
        let reached = match source.next_region()? {
            Region::Run => {
                // What is pending here could not be injected here; the window then opens at the first
                // instruction of CPL3, an exact position. It is never armed in mid-region.
                let pending = machine.devices.interrupt_pending();
                run_region(machine, source, pending && machine.devices.irq_windows())?
            }
            Region::RunToExit => run_region(machine, source, false)?,
            Region::Stay => continue,
            Region::Apply => {
                apply(machine, source)?;
                Reached::Running
            }
            Region::Capture => match drain(machine, source)? {
                Some(reached) => reached,
                None => {
                    take_checkpoint(machine, source, false)?;
                    Reached::Running
                }
            },
            Region::End => match drain(machine, source)? {
                Some(reached) => reached,
                None => return end(machine, source),
            },
        };
        enter_inputs(machine, source, reached)?;
        inject(machine, source)?;
    }
}

/// Leaves nothing open in the vCPU. If completing the last instruction caused one more exit, that is
/// handled, and what was to be done has to wait until after it.
fn drain(machine: &mut Machine, source: &mut impl Boundary) -> Result<Option<Reached>, RunError> {
    loop {
        let exit = machine.vcpu.drain()?;
        return match exit.class() {
            ExitClass::Interrupted => Ok(None),
            ExitClass::Natural => handle_exit(machine, source, exit).map(Some),
            // As in mid-region; but the machine is about to be saved, with all that it holds.
            ExitClass::Fatal
                if let VmExit::InternalError { suberror } = exit
                    && fixups::fix_up(machine, suberror)?
                    && !machine.vcpu.holds_soft_exception() =>
            {
                continue;
            }
            ExitClass::Fatal => Err(fatal(machine, source, exit)),
            ExitClass::Window => unreachable!("no window was asked for"),
        };
    }
}

/// Runs to the next position; asks for an interrupt window on the way if `window`.
fn run_region(
    machine: &mut Machine,
    source: &mut impl Boundary,
    window: bool,
) -> Result<Reached, RunError> {
    loop {
        let exit = machine.vcpu.run(window)?;
        let action = match exit.class() {
            ExitClass::Natural => return handle_exit(machine, source, exit),
            ExitClass::Window if machine.vcpu.privilege_level() == 3 => {
                machine.counters.windows += 1;
                let vcpu = vcpu_digest(&mut machine.vcpu, &exit);
                source.reached(Position::UserWindow, &vcpu, &exit)?;
                return Ok(Reached::Running);
            }
            ExitClass::Window => source.window_at_cpl0(),
            ExitClass::Interrupted => {
                tracing::trace!("kicked at {:#x}", registers(&mut machine.vcpu)[RIP]);
                source.poll_memory(machine)?;
                let capacity = capacity_in_region(machine);
                source.interrupted(&capacity, window)?
            }
            ExitClass::Fatal
                if let VmExit::InternalError { suberror } = exit
                    && fixups::fix_up(machine, suberror)? =>
            {
                continue;
            }
            ExitClass::Fatal => return Err(fatal(machine, source, exit)),
        };
        match action {
            // No checkpoint has what the vCPU holds; the next kick finds it delivered.
            StopAction::Checkpoint if machine.vcpu.holds_soft_exception() => {
                machine.counters.mid_region_stops += 1;
            }
            StopAction::Resume => machine.counters.mid_region_stops += 1,
            StopAction::Checkpoint => {
                take_checkpoint(machine, source, false)?;
                return Ok(Reached::Running);
            }
        }
    }
}

/// What the devices want of a guest that is stopped in mid-region.
fn capacity_in_region(machine: &Machine) -> DeviceCapacity {
    let mut capacity = machine.devices.capacity(machine.vm.ram());
    if !machine.devices.irq_windows() {
        capacity.interrupt = machine.devices.interrupt_pending();
        capacity.holds_off = !machine.vcpu.injectable();
    }
    capacity
}

/// The guest can't go on; unless the log has it going on.
fn fatal(machine: &mut Machine, source: &mut impl Boundary, exit: VmExit) -> RunError {
    let natural_exits = machine.counters.natural_exits;
    let privilege_level = machine.vcpu.privilege_level();
    let registers = registers(&mut machine.vcpu);
    match source.fatal(&registers, &exit) {
        Ok(()) => {
            let (rip, instruction) = (registers[RIP], fixups::name_instruction(machine));
            RunError::Guest { exit, rip, instruction, privilege_level, natural_exits }
        }
        Err(error) => error.into(),
    }
}

fn apply(machine: &mut Machine, source: &mut impl Boundary) -> Result<(), RunError> {
    let image = source.take_checkpoint()?;
    let mut breathed = Ok(());
    machine.apply(&image, &mut || {
        if breathed.is_ok() {
            breathed = source.keepalive();
        }
    })?;
    machine.counters.checkpoints += 1;
    breathed?;
    Ok(source.applied()?)
}

fn take_checkpoint(
    machine: &mut Machine,
    source: &mut impl Boundary,
    full: bool,
) -> Result<(), RunError> {
    machine.counters.checkpoints += 1;
    if source.keeps_checkpoints() {
        let captured = Captured::take(machine, full)?;
        source.checkpoint(&captured.view(machine))?;
    }
    Ok(())
}

fn handle_exit(
    machine: &mut Machine,
    source: &mut impl Boundary,
    exit: VmExit,
) -> Result<Reached, RunError> {
    machine.counters.natural_exits += 1;
    let natural_exits = machine.counters.natural_exits;
    let vcpu = vcpu_digest(&mut machine.vcpu, &exit);
    source.reached(Position::Exit, &vcpu, &exit)?;
    match exit {
        VmExit::Pio { .. } if processor_ports::handle(machine, source, &exit)? => {}
        VmExit::Pio { direction, port, size, .. } => {
            port_access(machine, source, direction, port, usize::from(size))?;
        }
        VmExit::Mmio { direction, address, length, mut data } => {
            let Machine { vm, vcpu, devices, .. } = machine;
            let mut access = Access { ram: vm.ram(), source };
            let bytes = &mut data[..usize::from(length)];
            match direction {
                Direction::In => {
                    devices.mmio_read(address, bytes, &mut access)?;
                    vcpu.answer_mmio(data);
                }
                Direction::Out => devices.mmio_write(address, bytes, &mut access)?,
            }
        }
        VmExit::SetTpr => {}
        VmExit::Halt => {
            if !machine.vcpu.interrupts_enabled() {
                let rip = vcpu.registers[RIP];
                return Err(RunError::HaltedForever { rip, natural_exits });
            }
            source.exit_handled()?;
            return Ok(Reached::Halt);
        }
        VmExit::IrqWindow
        | VmExit::Interrupted
        | VmExit::Shutdown
        | VmExit::InternalError { .. }
        | VmExit::EntryFailed { .. }
        | VmExit::Unknown { .. } => unreachable!("{exit} is not a natural exit"),
    }
    source.exit_handled()?;
    Ok(Reached::Running)
}

/// A port exit: element by element, as a REP string instruction would.
fn port_access(
    machine: &mut Machine,
    source: &mut impl Boundary,
    direction: Direction,
    port: u16,
    size: usize,
) -> Result<(), RunError> {
    let Machine { vm, vcpu, devices, counters, .. } = machine;
    let mut access = Access { ram: vm.ram(), source };
    for element in vcpu.pio_data().chunks_exact_mut(size) {
        match direction {
            Direction::In => devices.pio_in(port, element, &mut access)?,
            Direction::Out => match devices.pio_out(port, element, &mut access)? {
                Effect::None => {}
                Effect::Reset => {
                    return Err(RunError::Reset { natural_exits: counters.natural_exits });
                }
            },
        }
    }
    Ok(())
}

/// Everything that enters at this position; a halted guest waits here for its next interrupt.
fn enter_inputs(
    machine: &mut Machine,
    source: &mut impl Boundary,
    reached: Reached,
) -> Result<(), RunError> {
    loop {
        let Machine { vm, devices, .. } = machine;
        for _input in 0..INPUTS_MAX {
            let capacity = devices.capacity(vm.ram());
            let Some(input) = source.next_input(&capacity)? else { break };
            devices.apply(input, vm.ram());
        }
        match reached {
            Reached::Running => return Ok(()),
            Reached::Halt if devices.interrupt_pending() => return Ok(()),
            Reached::Halt => match source.wait(&devices.capacity(vm.ram()))? {
                Waited::Look => source.poll_memory(machine)?,
                Waited::End => return Ok(()),
            },
        }
    }
}

fn inject(machine: &mut Machine, source: &mut impl Boundary) -> Result<(), RunError> {
    if machine.devices.interrupt_pending() && machine.vcpu.injectable() {
        let vector =
            machine.devices.acknowledge_interrupt().expect("an interrupt is pending at the PIC");
        source.interrupt(vector)?;
        machine.vcpu.inject(vector)?;
        machine.counters.interrupts += 1;
    }
    Ok(())
}

fn end(machine: &mut Machine, source: &mut impl Boundary) -> Result<EndState, RunError> {
    let end = EndState {
        natural_exits: machine.counters.natural_exits,
        interrupts: machine.counters.interrupts,
        memory_digest: memory_digest(machine.vm.ram()),
        state_digest: state_digest(machine)?,
    };
    source.end(&end)?;
    Ok(end)
}
