//! Ports that replace instructions: a rewritten kernel accesses them instead of executing RDTSC and CPUID
//! ([`crate::boot::linux`]), and instead of zeroing a page itself.
//!
//! | port, 32 bits | direction | effect |
//! |---|---|---|
//! | 0xE4 | IN | RDTSC: EDX:EAX become the guest's nanoseconds, a logged clock reading |
//! | 0xE5 | IN | CPUID: EAX, EBX, ECX, EDX become the CPU model's leaf EAX, index ECX |
//! | 0xE6 | OUT | zeroes the page at virtual address RDI |
//!
//! They are not devices because they change registers other than EAX.

use super::machine::Machine;
use crate::boot::cpu_model::Controls;
use crate::boot::linux::{IDENTIFICATION_PORT, TIME_STAMP_PORT, ZERO_PAGE_PORT};
use crate::devices::Access;
use crate::kvm::{Direction, VmExit};
use crate::mem::{layout::PAGE, walk};
use crate::replay::error::{HostError, SourceError};
use replication::boundary::Boundary;
use vm_memory::{Bytes, GuestAddress};

const TIME_STAMP: u16 = TIME_STAMP_PORT as u16;
const IDENTIFICATION: u16 = IDENTIFICATION_PORT as u16;
const ZERO_PAGE: u16 = ZERO_PAGE_PORT as u16;

/// Handles the exit if it is an access to one of these ports. Returns false if it is not.
pub(super) fn handle(
    machine: &mut Machine,
    boundary: &mut impl Boundary<Error = SourceError>,
    exit: &VmExit,
) -> Result<bool, SourceError> {
    let VmExit::Pio { direction, port, size: 4, count: 1 } = *exit else { return Ok(false) };
    match (port, direction) {
        (TIME_STAMP, Direction::In) => {
            let Machine { vm, vcpu, devices, .. } = machine;
            let now_ns = devices.time_stamp(&mut Access { ram: vm.ram(), boundary })?;
            vcpu.answer_time_stamp(now_ns);
        }
        (IDENTIFICATION, Direction::In) => {
            let sync = machine.vcpu.sync_regs();
            let (leaf, index) = (sync.regs.rax as u32, sync.regs.rcx as u32);
            let cr4 = sync.sregs.cr4;
            let controls = match machine.cpu_model.model_name().has_xsave() {
                true => Controls { cr4, xcr0: machine.vcpu.xcr0().map_err(HostError::from)? },
                false => Controls::RESET,
            };
            let answer = machine.cpu_model.answer(leaf, index, controls);
            machine.vcpu.answer_identification(answer);
        }
        (ZERO_PAGE, Direction::Out) => {
            let sync = machine.vcpu.sync_regs();
            let (address, cr3) = (sync.regs.rdi, sync.sregs.cr3);
            let ram = machine.vm.ram();
            // The instruction before this one wrote to the page, so the page is mapped. If it is not,
            // nothing is zeroed.
            if let Some(at) = walk::translate(ram, cr3, address) {
                let _ = ram.write_slice(&[0; PAGE as usize], GuestAddress(at & !(PAGE - 1)));
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}
