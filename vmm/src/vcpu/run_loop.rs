//! The vCPU loop. It is the same for standalone, recording, replaying and every role of a pair; only the
//! [`Boundary`] differs.
//!
//! One iteration goes from a position to the next:
//!
//! ```text
//!   at a position --- inputs enter, at most one interrupt is injected
//!        |
//!        +-- Run ---> KVM_RUN --> natural exit ----------> devices handle it --> position
//!        |               |------> exact window --------------------------------> position
//!        |               |------> kick, or window at CPL0 --> re-entry, or
//!        |               |                                    checkpoint ------> position
//!        +-- Apply -> the log's checkpoint is applied -------------------------> position
//!        +-- Capture -> a checkpoint is taken ---------------------------------> position
//!        +-- Pending -> poll_memory, then next_region again
//!        +-- End ---> the machine stops
//! ```

use super::digest::{RIP, registers, vcpu_digest};
use super::machine::Machine;
use super::{fixups, processor_ports};
use crate::checkpoint::restore::RestoreError;
use crate::checkpoint::save::{Captured, state_digest};
use crate::devices::{Access, Effect, ReissueError};
use crate::kvm::exit::ExitClass;
use crate::kvm::{Direction, KvmError, VmExit};
use crate::limits::INPUTS_MAX;
use crate::mem::digest::memory_digest;
use crate::replay::error::SourceError;
use logchan::host_profile::Answer;
use replication::boundary::{
    Boundary, DeviceCapacity, EndState, Input, Position, Region, StopAction, VcpuDigest, Waited,
};

/// Why a machine did not run to an orderly end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// KVM failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The boundary failed or found a divergence.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A checkpoint could not be applied.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A restored guest's request to a disk can't be repeated.
    #[error(transparent)]
    Reissue(#[from] ReissueError),
    /// The guest cannot continue.
    #[error(
        "the guest stopped: {exit} at rip {rip:#x} ({instruction}), CPL{privilege_level}, after {natural_exits} exits"
    )]
    Guest {
        /// The exit in which it stopped.
        exit: VmExit,
        /// Instruction pointer.
        rip: u64,
        /// Mnemonic of the instruction there.
        instruction: String,
        /// Privilege level.
        privilege_level: u8,
        /// Natural exits so far.
        natural_exits: u64,
    },
    /// The guest halted with interrupts disabled, so nothing can wake it.
    #[error(
        "the guest halted with interrupts disabled at rip {rip:#x}, after {natural_exits} exits"
    )]
    HaltedForever {
        /// Instruction pointer.
        rip: u64,
        /// Natural exits so far.
        natural_exits: u64,
    },
    /// The guest requested a reset. The machine stops instead.
    #[error("the guest requested a reset after {natural_exits} exits (see its console)")]
    Reset {
        /// Natural exits so far.
        natural_exits: u64,
    },
}

impl RunError {
    /// Whether the guest itself has ended the VM, so that it would end the same way on any other host. If
    /// not, this host has failed.
    ///
    /// An exit that KVM cannot explain counts as this host's failure. If the guest causes it after all,
    /// the next host stops at the same place.
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
            RunError::Kvm(_)
            | RunError::Source(_)
            | RunError::Restore(_)
            | RunError::Reissue(_) => false,
        }
    }
}

/// How a region ended.
#[derive(Clone, Copy)]
enum Reached {
    /// The guest executed HLT.
    Halt,
    /// Any other position.
    Running,
}

/// Runs `machine` until `boundary` ends the run. The calling thread becomes the machine's owner.
///
/// A boundary that keeps checkpoints first receives a full one of the state in which the machine starts. Then
/// `before_first_entry` is called, once.
///
/// # Errors
///
/// See [`RunError`].
pub fn run(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
    before_first_entry: impl FnOnce(),
) -> Result<EndState, RunError> {
    let _aim = machine.vcpu.adopt()?;
    if boundary.keeps_checkpoints() {
        take_checkpoint(machine, boundary, true)?;
    }
    reissue(machine, boundary)?;
    before_first_entry();
    loop {
        boundary.poll_memory(machine)?;
        let reached = match boundary.next_region()? {
            Region::Run => {
                // An interrupt that is pending here could not be injected here. The window then opens at
                // the first instruction that can be interrupted, which is an exact position; or, where KVM
                // emulates CPL0, at the first one at CPL3. It is never armed in mid-region.
                let pending = machine.devices.interrupt_pending();
                run_region(machine, boundary, pending && machine.devices.irq_windows())?
            }
            Region::RunToExit => run_region(machine, boundary, false)?,
            Region::Pending => continue,
            Region::Apply => {
                apply(machine, boundary)?;
                Reached::Running
            }
            Region::Capture => match drain(machine, boundary)? {
                Some(reached) => reached,
                None => {
                    take_checkpoint(machine, boundary, false)?;
                    Reached::Running
                }
            },
            Region::End => match drain(machine, boundary)? {
                Some(reached) => reached,
                None => return end(machine, boundary),
            },
        };
        enter_inputs(machine, boundary, reached)?;
        inject(machine, boundary)?;
    }
}

/// Completes the vCPU's pending instruction. If that causes one more exit, this function handles it and
/// returns how the region ended; the caller's task must then wait for the next position. Returns `None`
/// if nothing is pending.
fn drain(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
) -> Result<Option<Reached>, RunError> {
    loop {
        let exit = machine.vcpu.drain()?;
        return match exit.class() {
            ExitClass::Interrupted => Ok(None),
            ExitClass::Natural => handle_exit(machine, boundary, exit).map(Some),
            // As in mid-region. But here the machine is about to be saved, and a checkpoint does not
            // contain a soft exception that the vCPU holds, so that case is fatal.
            ExitClass::Fatal
                if let VmExit::InternalError { suberror } = exit
                    && fixups::fix_up(machine, suberror)?
                    && !machine.vcpu.holds_soft_exception() =>
            {
                continue;
            }
            ExitClass::Fatal => Err(fatal(machine, boundary, exit)),
            ExitClass::Window => unreachable!("no window was asked for"),
        };
    }
}

/// Runs to the next position, and asks for an interrupt window on the way if `window` is set.
fn run_region(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
    window: bool,
) -> Result<Reached, RunError> {
    loop {
        let exit = machine.vcpu.run(window)?;
        let action = match exit.class() {
            ExitClass::Natural => return handle_exit(machine, boundary, exit),
            ExitClass::Window
                if machine.host_profile.exact_kernel_windows == Answer::Yes
                    || machine.vcpu.privilege_level() == 3 =>
            {
                machine.counters.windows += 1;
                let vcpu = digest_at(machine, &exit);
                boundary.reached(Position::Window, &vcpu, &exit)?;
                return Ok(Reached::Running);
            }
            ExitClass::Window => boundary.window_at_cpl0()?,
            ExitClass::Interrupted => {
                tracing::trace!("kicked at {:#x}", registers(&mut machine.vcpu)[RIP]);
                boundary.poll_memory(machine)?;
                let capacity = mid_region_capacity(machine);
                boundary.interrupted(&capacity, window)?
            }
            ExitClass::Fatal
                if let VmExit::InternalError { suberror } = exit
                    && fixups::fix_up(machine, suberror)? =>
            {
                continue;
            }
            ExitClass::Fatal => return Err(fatal(machine, boundary, exit)),
        };
        match action {
            // A checkpoint does not contain the soft exception that the vCPU holds. By the next kick it
            // has been delivered.
            StopAction::Checkpoint if machine.vcpu.holds_soft_exception() => {
                machine.counters.mid_region_stops += 1;
            }
            StopAction::Resume => machine.counters.mid_region_stops += 1,
            StopAction::Checkpoint => {
                take_checkpoint(machine, boundary, false)?;
                return Ok(Reached::Running);
            }
        }
    }
}

/// Returns the vCPU digest at the position that `exit` reached, and notes the state if it is traced.
fn digest_at(machine: &mut Machine, exit: &VmExit) -> VcpuDigest {
    if let Some(trace) = &mut machine.state_trace {
        trace.note(&mut machine.vcpu, exit);
    }
    vcpu_digest(&mut machine.vcpu, exit)
}

/// Returns the devices' capacity for a guest that is stopped in mid-region.
fn mid_region_capacity(machine: &Machine) -> DeviceCapacity {
    let mut capacity = machine.devices.capacity(machine.vm.ram());
    if !machine.devices.irq_windows() {
        capacity.interrupt = machine.devices.interrupt_pending();
        capacity.interrupts_blocked = !machine.vcpu.injectable();
    }
    capacity
}

/// Returns the error for a guest that cannot continue. It is a divergence if the log has the guest
/// continue.
fn fatal(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
    exit: VmExit,
) -> RunError {
    let natural_exits = machine.counters.natural_exits;
    let privilege_level = machine.vcpu.privilege_level();
    let registers = registers(&mut machine.vcpu);
    match boundary.fatal(&registers, &exit) {
        Ok(()) => {
            let (rip, instruction) = (registers[RIP], fixups::instruction_name(machine));
            RunError::Guest { exit, rip, instruction, privilege_level, natural_exits }
        }
        Err(error) => error.into(),
    }
}

fn apply(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
) -> Result<(), RunError> {
    let image = boundary.take_checkpoint()?;
    let mut keepalive_result = Ok(());
    machine.apply(&image, &mut || {
        if keepalive_result.is_ok() {
            keepalive_result = boundary.keepalive();
        }
    })?;
    machine.counters.checkpoints += 1;
    keepalive_result?;
    if image.full {
        reissue(machine, boundary)?;
    }
    Ok(boundary.applied()?)
}

/// Passes the requests to disks that are in flight to a boundary that has not seen them made.
fn reissue(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
) -> Result<(), RunError> {
    let Machine { vm, devices, .. } = machine;
    Ok(devices.reissue(&mut Access { ram: vm.ram(), boundary })?)
}

fn take_checkpoint(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
    full: bool,
) -> Result<(), RunError> {
    machine.counters.checkpoints += 1;
    if boundary.keeps_checkpoints() {
        let captured = Captured::take(machine, full)?;
        boundary.checkpoint(&captured.view(machine))?;
    }
    Ok(())
}

fn handle_exit(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
    exit: VmExit,
) -> Result<Reached, RunError> {
    machine.counters.natural_exits += 1;
    let natural_exits = machine.counters.natural_exits;
    let vcpu = digest_at(machine, &exit);
    boundary.reached(Position::Exit, &vcpu, &exit)?;
    match exit {
        VmExit::Pio { .. } if processor_ports::handle(machine, boundary, &exit)? => {}
        VmExit::Pio { direction, port, size, .. } => {
            port_access(machine, boundary, direction, port, usize::from(size))?;
        }
        VmExit::Mmio { direction, address, length, mut data } => {
            let Machine { vm, vcpu, devices, .. } = machine;
            let mut access = Access { ram: vm.ram(), boundary };
            let bytes = &mut data[..usize::from(length)];
            match direction {
                Direction::In => {
                    devices.mmio_read(address, bytes, &mut access);
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
            boundary.exit_handled()?;
            return Ok(Reached::Halt);
        }
        VmExit::IrqWindow
        | VmExit::Interrupted
        | VmExit::Shutdown
        | VmExit::InternalError { .. }
        | VmExit::EntryFailed { .. }
        | VmExit::Unknown { .. } => unreachable!("{exit} is not a natural exit"),
    }
    boundary.exit_handled()?;
    Ok(Reached::Running)
}

/// Handles a port exit, one element after the other, as a REP string instruction would.
fn port_access(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
    direction: Direction,
    port: u16,
    size: usize,
) -> Result<(), RunError> {
    let Machine { vm, vcpu, devices, counters, .. } = machine;
    let mut access = Access { ram: vm.ram(), boundary };
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

/// Delivers the inputs of this position. A halted guest waits here for its next interrupt.
///
/// Before the inputs, devices go on with what was held for a sync: at the position of the closing checkpoint on both hosts,
/// or where the sync was given up.
fn enter_inputs(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
    reached: Reached,
) -> Result<(), RunError> {
    loop {
        let Machine { vm, devices, .. } = machine;
        devices.resume(&mut Access { ram: vm.ram(), boundary })?;
        for _input in 0..INPUTS_MAX {
            let capacity = devices.capacity(vm.ram());
            let Some(input) = boundary.next_input(&capacity)? else { break };
            let is_disk = matches!(input, Input::Disk(_));
            devices.apply(input, vm.ram());
            if is_disk {
                devices.resume(&mut Access { ram: vm.ram(), boundary })?;
            }
        }
        match reached {
            Reached::Running => return Ok(()),
            Reached::Halt if devices.interrupt_pending() => return Ok(()),
            Reached::Halt => match boundary.wait(&devices.capacity(vm.ram()))? {
                Waited::Poll => boundary.poll_memory(machine)?,
                Waited::End => return Ok(()),
            },
        }
    }
}

fn inject(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
) -> Result<(), RunError> {
    if machine.devices.interrupt_pending() && machine.vcpu.injectable() {
        let vector =
            machine.devices.acknowledge_interrupt().expect("the PIC reported a pending interrupt");
        boundary.interrupt(vector)?;
        machine.vcpu.inject(vector)?;
        machine.counters.interrupts += 1;
    }
    Ok(())
}

fn end(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
) -> Result<EndState, RunError> {
    let end = EndState {
        natural_exits: machine.counters.natural_exits,
        interrupts: machine.counters.interrupts,
        memory_digest: memory_digest(machine.vm.ram()),
        state_digest: state_digest(machine)?,
    };
    boundary.end(&end)?;
    Ok(end)
}
