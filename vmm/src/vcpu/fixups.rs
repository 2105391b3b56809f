//! Emulation of instructions that a KVM which emulates kernel code does not implement.
//!
//! Such a KVM ends the run with an internal error (api.rst 5, KVM_EXIT_INTERNAL_ERROR, suberror 1). A KVM
//! that implements the instructions never causes a call here, so there is no option to enable this.
//!
//! The emulation is a function of the guest's state and advances no guest time. So it is not a position
//! and is not logged: recording and replay behave the same, even if only one of them needs the emulation.

use super::machine::Machine;
use crate::kvm::KvmError;
use crate::mem::walk;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

/// Bytes of the longest instruction.
const INSTRUCTION_BYTES_MAX: usize = 15;
/// `KVM_INTERNAL_ERROR_EMULATION`.
const NOT_EMULATED: u32 = 1;
/// CR0: monitor coprocessor, task switched (SDM vol. 3, 2.5).
const CR0_MP: u64 = 1 << 1;
const CR0_TS: u64 = 1 << 3;
/// FSW.ES, an unmasked x87 exception is pending; FSW is word 1 of the XSAVE area.
const FSW_ES: u32 = 1 << 7;
/// Exception vectors.
const BREAKPOINT: u8 = 3;
const DEVICE_NOT_AVAILABLE: u8 = 7;

/// How often each kind of instruction was emulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Fixups {
    /// INT3, which raises a breakpoint exception.
    pub int3: u64,
    /// FWAIT.
    pub fwait: u64,
    /// Instructions with no effect that a guest can see here: fences, hints, and CLAC and STAC without
    /// SMAP.
    pub no_operation: u64,
}

/// Decodes the instruction at RIP as 64-bit code. The result is invalid if its memory is not mapped.
fn current_instruction(machine: &mut Machine) -> Instruction {
    let sync = machine.vcpu.sync_regs();
    let (rip, cr3) = (sync.regs.rip, sync.sregs.cr3);
    let mut bytes = [0; INSTRUCTION_BYTES_MAX];
    let there = walk::read(machine.vm.ram(), cr3, rip, &mut bytes);
    Decoder::with_ip(64, &bytes[..there], rip, DecoderOptions::NONE).decode()
}

/// Returns the lower-case mnemonic of the instruction at RIP, for a message.
pub(super) fn instruction_name(machine: &mut Machine) -> String {
    format!("{:?}", current_instruction(machine).mnemonic()).to_lowercase()
}

/// Emulates the instruction at RIP that KVM could not emulate. Returns false if it is not one of those
/// known here; the guest then cannot continue.
pub(super) fn fix_up(machine: &mut Machine, suberror: u32) -> Result<bool, KvmError> {
    if suberror != NOT_EMULATED {
        return Ok(false);
    }
    let cr0 = machine.vcpu.sync_regs().sregs.cr0;
    let instruction = current_instruction(machine);
    let rip = instruction.ip();
    let count = match instruction.mnemonic() {
        Mnemonic::Int3 => {
            machine.vcpu.continue_at(instruction.next_ip(), Some(BREAKPOINT))?;
            &mut machine.fixups.int3
        }
        Mnemonic::Wait => {
            let absent = cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS;
            if !absent && machine.vcpu.fpu_status()? & FSW_ES != 0 {
                // The guest would get #MF, or IGNNE# and IRQ 13. No guest has been seen to need this.
                return Ok(false);
            }
            match absent {
                true => machine.vcpu.continue_at(rip, Some(DEVICE_NOT_AVAILABLE))?,
                false => machine.vcpu.continue_at(instruction.next_ip(), None)?,
            }
            &mut machine.fixups.fwait
        }
        Mnemonic::Lfence
        | Mnemonic::Mfence
        | Mnemonic::Sfence
        | Mnemonic::Pause
        | Mnemonic::Prefetchw
        | Mnemonic::Endbr64
        | Mnemonic::Clac
        | Mnemonic::Stac => {
            machine.vcpu.continue_at(instruction.next_ip(), None)?;
            &mut machine.fixups.no_operation
        }
        _ => return Ok(false),
    };
    *count += 1;
    Ok(true)
}
