//! Probes how this host's KVM runs kernel code, with a guest of a few instructions.
//!
//! ```text
//! CPL3: syscall --+-- at CPL0: IA32_LSTAR, "0" to the port --+
//!                 +-- at CPL3: #PF at it, "1" to the port ---+--> fwait --> "2" to the port, native
//!                                                                     `---> internal error, emulated
//! ```

use super::error::KvmError;
use super::exit::{Direction, VmExit};
use super::system::System;
use crate::boot::cpu_model::CpuModel;
use crate::boot::flat::FlatSegments;
use crate::mem::{GuestRam, layout::MEMORY_MIN};
use kvm_bindings::{kvm_dtable, kvm_msr_entry, kvm_regs, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};
use xxhash_rust::xxh3::xxh3_64;

/// How this host runs kernel code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelTraits {
    /// SYSCALL from CPL3 reaches its handler without changing to CPL0.
    pub syscall_stays_at_cpl3: bool,
    /// KVM emulates CPL0 code instruction by instruction, and does not support all instructions.
    pub emulates_cpl0: bool,
}

impl KernelTraits {
    /// Combines the CPU model's `digest` with these traits, for a Linux kernel that is prepared for them.
    /// Hosts with different traits get different digests.
    pub fn mixed_into(self, digest: u64) -> u64 {
        let traits = [self.syscall_stays_at_cpl3, self.emulates_cpl0].map(u8::from);
        xxh3_64(&[&digest.to_le_bytes()[..], &traits].concat())
    }

    /// Returns the CPU model's `name` with the traits that differ from VMX and SVM hosts.
    pub fn added_to(self, name: &str) -> String {
        let syscall = if self.syscall_stays_at_cpl3 { ", SYSCALL left at CPL3" } else { "" };
        let emulated = if self.emulates_cpl0 { ", kernel code emulated" } else { "" };
        format!("{name}{syscall}{emulated}")
    }
}

/// Addresses of the parts of the probe. Each part has one page; all are identity-mapped.
const TABLES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];
const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const TASK: u64 = 0x7000;
const USER_CODE: u64 = 0x8000;
const KERNEL_CODE: u64 = 0x9000;
const KERNEL_STACK_TOP: u64 = 0xC000;
/// The #PF handler's offset in the kernel's code.
const FAULT_HANDLER: u64 = 0x40;
const PORT: u8 = 0xE0;

const CODE_SELECTOR: u16 = 0x08;
const USER_DATA_SELECTOR: u16 = 0x1B;
const USER_CODE_SELECTOR: u16 = 0x23;
const TASK_SELECTOR: u16 = 0x28;
/// Descriptors of the GDT from the null one on (SDM vol. 3, 3.4.5).
const DESCRIPTORS: [u64; 7] = [
    0,
    0x00AF_9B00_0000_FFFF,
    0x00CF_9300_0000_FFFF,
    0x00CF_F300_0000_FFFF,
    0x00AF_FB00_0000_FFFF,
    // The task: busy 64-bit TSS, its base's upper half next.
    0x0000_8B00_0000_0067 | (TASK & 0xFF_FFFF) << 16,
    0,
];
const PAGE_FAULT: u64 = 14;
const IA32_STAR: u32 = 0xC000_0081;
const IA32_LSTAR: u32 = 0xC000_0082;
/// EFER: SCE, LME, LMA. CR0: PE, MP, ET, NE, WP, PG. CR4: PAE, OSFXSR.
const EFER: u64 = 0x501;
const CR0: u64 = 0x8001_0033;
const CR4: u64 = 0x220;
/// Maximum number of exits of the probe.
const EXITS_MAX: usize = 16;

/// Runs the probe. Returns `None` if it does not end as in the diagram above; then nothing is known about
/// this host.
///
/// # Errors
///
/// If a KVM call fails.
pub fn kernel_traits(system: &System, model: &CpuModel) -> Result<Option<KernelTraits>, KvmError> {
    let Ok(ram) = crate::mem::allocate(MEMORY_MIN) else { return Ok(None) };
    if write(&ram).is_err() {
        return Ok(None);
    }
    let vm = system.create_vm(&ram)?;
    let mut vcpu = vm.create_vcpu(model.entries())?;
    let mut state = vcpu.save()?;
    enter_at_cpl3(&mut state.sregs);
    state.regs = kvm_regs { rip: USER_CODE, rflags: 2, ..kvm_regs::default() };
    let star = u64::from(CODE_SELECTOR) << 32;
    for (index, data) in [(IA32_STAR, star), (IA32_LSTAR, KERNEL_CODE)] {
        state.msrs.retain(|msr| msr.index != index);
        state.msrs.push(kvm_msr_entry { index, data, ..kvm_msr_entry::default() });
    }
    vcpu.restore(&state)?;

    let mut stays = None;
    for _exit in 0..EXITS_MAX {
        match vcpu.run(false)? {
            VmExit::Interrupted => {}
            VmExit::Pio { direction: Direction::Out, size: 1, count: 1, .. } => {
                match (vcpu.pio_data()[0], stays) {
                    (level @ (0 | 1), None) => stays = Some(level == 1),
                    (2, Some(syscall_stays_at_cpl3)) => {
                        return Ok(Some(KernelTraits {
                            syscall_stays_at_cpl3,
                            emulates_cpl0: false,
                        }));
                    }
                    _ => return Ok(None),
                }
            }
            VmExit::InternalError { .. } => {
                return Ok(stays.map(|stays| KernelTraits {
                    syscall_stays_at_cpl3: stays,
                    emulates_cpl0: true,
                }));
            }
            VmExit::Pio { .. }
            | VmExit::Mmio { .. }
            | VmExit::Halt
            | VmExit::SetTpr
            | VmExit::IrqWindow
            | VmExit::Shutdown
            | VmExit::EntryFailed { .. }
            | VmExit::Unknown { .. } => return Ok(None),
        }
    }
    Ok(None)
}

fn write(ram: &GuestRam) -> Result<(), vm_memory::GuestMemoryError> {
    let put = |at: u64, bytes: &[u8]| ram.write_slice(bytes, GuestAddress(at));
    // Present, writable, user at every level; the last level makes the kernel's pages supervisor-only.
    for pair in TABLES.windows(2) {
        put(pair[0], &(pair[1] | 7).to_le_bytes())?;
    }
    for page in 0..16u64 {
        let user = if page << 12 == USER_CODE { 4 } else { 0 };
        put(TABLES[3] + page * 8, &(page << 12 | 3 | user).to_le_bytes())?;
    }
    for (descriptor, at) in DESCRIPTORS.iter().zip((GDT..).step_by(8)) {
        put(at, &descriptor.to_le_bytes())?;
    }
    // An interrupt gate to the #PF handler (SDM vol. 3, 6.14.1), whose address is below 64 KiB.
    let gate = 0x8E00 << 32 | u64::from(CODE_SELECTOR) << 16 | (KERNEL_CODE + FAULT_HANDLER);
    put(IDT + PAGE_FAULT * 16, &gate.to_le_bytes())?;
    put(TASK + 4, &KERNEL_STACK_TOP.to_le_bytes())?;
    put(USER_CODE, &[0x0F, 0x05])?; // syscall
    for (at, level) in [(0, 0), (FAULT_HANDLER, 1)] {
        // mov al, level; out port, al; fwait; mov al, 2; out port, al
        let code = [0xB0, level, 0xE6, PORT, 0x9B, 0xB0, 2, 0xE6, PORT];
        put(KERNEL_CODE + at, &code)?;
    }
    Ok(())
}

fn enter_at_cpl3(sregs: &mut kvm_sregs) {
    FlatSegments {
        code: USER_CODE_SELECTOR,
        data: USER_DATA_SELECTOR,
        task: TASK_SELECTOR,
        task_base: TASK,
        privilege_level: 3,
        is_64_bit: true,
    }
    .load(sregs);
    sregs.gdt = kvm_dtable { base: GDT, limit: 0x37, ..kvm_dtable::default() };
    sregs.idt = kvm_dtable { base: IDT, limit: 0xFFF, ..kvm_dtable::default() };
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0, TABLES[0], CR4, EFER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_traits_has_its_own_digest_and_name() {
        let traits = [(false, false), (false, true), (true, false), (true, true)];
        let traits = traits.map(|(syscall_stays_at_cpl3, emulates_cpl0)| KernelTraits {
            syscall_stays_at_cpl3,
            emulates_cpl0,
        });
        let digests: std::collections::BTreeSet<_> =
            traits.iter().map(|traits| traits.mixed_into(7)).chain([7]).collect();
        let names: std::collections::BTreeSet<_> =
            traits.iter().map(|traits| traits.added_to("cpu")).collect();
        assert_eq!((digests.len(), names.len()), (5, 4));
        assert_ne!(traits[0].mixed_into(7), traits[0].mixed_into(8));
    }

    #[test]
    #[cfg_attr(not(feature = "host-tests"), ignore = "needs /dev/kvm: --features host-tests")]
    fn probe_of_this_host_has_a_result() {
        let system = System::open(super::super::system::DEV_KVM).unwrap();
        let model = CpuModel::from_supported(&system.supported_cpuid().unwrap());
        let traits = kernel_traits(&system, &model).unwrap().expect("the probe has a result");
        // A KVM leaves SYSCALL at CPL3 only because it can't run CPL0 code natively.
        assert!(traits.emulates_cpl0 || !traits.syscall_stays_at_cpl3, "{traits:?}");
    }
}
