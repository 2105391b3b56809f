//! Instructions that a KVM which emulates kernel code does not know, done in its place.
//!
//! Such a KVM ends the run with an internal error (api.rst 5, KVM_EXIT_INTERNAL_ERROR, suberror 1).
//! Where it does not, nothing here is ever called: there is nothing to switch on. What is done is a
//! function of the guest's state and takes no time of the guest's, so it is no position and in no log:
//! recording and replay do the same, even if only one of them has to.

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

/// How often what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Fixups {
    /// INT3: a breakpoint exception.
    pub int3: u64,
    /// FWAIT.
    pub fwait: u64,
    /// Instructions that change nothing that a guest here can see: fences, hints, CLAC and STAC without
    /// SMAP.
    pub no_operation: u64,
}

/// The instruction that comes next, in 64-bit code; an invalid one if there is none.
fn instruction(machine: &mut Machine) -> Instruction {
    let sync = machine.vcpu.sync_regs();
    let (rip, cr3) = (sync.regs.rip, sync.sregs.cr3);
    let mut bytes = [0; INSTRUCTION_BYTES_MAX];
    let there = walk::read(machine.vm.ram(), cr3, rip, &mut bytes);
    Decoder::with_ip(64, &bytes[..there], rip, DecoderOptions::NONE).decode()
}

/// What it is called, for a message.
pub(super) fn name_instruction(machine: &mut Machine) -> String {
    format!("{:?}", instruction(machine).mnemonic()).to_lowercase()
}

/// Does the instruction that KVM could not, if it is one of those known here. False if not: the
/// guest can't go on.
pub(super) fn fix_up(machine: &mut Machine, suberror: u32) -> Result<bool, KvmError> {
    if suberror != NOT_EMULATED {
        return Ok(false);
    }
    let cr0 = machine.vcpu.sync_regs().sregs.cr0;
    let instruction = instruction(machine);
    let rip = instruction.ip();
    let count = match instruction.mnemonic() {
        Mnemonic::Int3 => {
            machine.vcpu.continue_at(instruction.next_ip(), Some(BREAKPOINT))?;
            &mut machine.fixups.int3
        }
        Mnemonic::Wait => {
            let absent = cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS;
            if !absent && machine.vcpu.fpu_status()? & FSW_ES != 0 {
                // A #MF, or IGNNE# and IRQ 13: nobody has met it.
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
