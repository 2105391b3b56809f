//! The guest of the probes: a few pages with page tables, descriptor tables and a port write for every event, in
//! which one short program after the other runs from the same initial state.

use crate::boot::flat::FlatSegments;
use crate::kvm::{Direction, KvmError, System, Vcpu, VcpuState, Vm, VmExit};
use crate::mem::{GuestRam, layout::MEMORY_MIN};
use kvm_bindings::{
    KVM_X86_SHADOW_INT_STI, kvm_cpuid_entry2, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_sregs,
};
use vm_memory::{Bytes, GuestAddress};

/// Addresses of the parts of the guest. Each has one page; all are identity-mapped.
const TABLES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];
const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const TASK: u64 = 0x7000;
const USER_CODE: u64 = 0x8000;
const HANDLERS: u64 = 0x9000;
const KERNEL_STACK_TOP: u64 = 0xC000;
pub(super) const KERNEL_CODE: u64 = 0xC000;
/// Pages with data that CPL3 may write.
pub(super) const DATA: [u64; 2] = [0xD000, 0xE000];
/// Virtual address of a page that is mapped to `DATA[0]` at first.
pub(super) const WINDOW: u32 = 0x1_0000;
/// Number of pages that are identity-mapped.
const PAGES: u64 = 16;
const PORT: u8 = 0xE0;

const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
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
/// EFER: SCE, LME, LMA. CR0: PE, MP, ET, NE, WP, PG. CR4: PAE, OSFXSR.
const EFER: u64 = 0x501;
const CR0: u64 = 0x8001_0033;
const CR4: u64 = 0x220;
const RFLAGS_IF: u64 = 1 << 9;
const IA32_STAR: u32 = 0xC000_0081;
const IA32_LSTAR: u32 = 0xC000_0082;

/// Vectors, and the numbers that [`Guest::run`] returns for other events.
pub(super) const BREAKPOINT: u8 = 3;
pub(super) const INVALID_OPCODE: u8 = 6;
pub(super) const GENERAL_PROTECTION: u8 = 13;
pub(super) const PAGE_FAULT: u8 = 14;
/// A vector for interrupts and for INT n.
pub(super) const INTERRUPT: u8 = 0x30;
/// The program at CPL0 has reached [`DONE_CODE`].
pub(super) const DONE: u8 = 0x40;
/// SYSCALL has reached its handler at CPL0.
pub(super) const SYSCALL_AT_CPL0: u8 = 0x41;

/// End of a program at CPL0: mov al, DONE; out PORT, al.
pub(super) const DONE_CODE: [u8; 4] = [0xB0, DONE, 0xE6, PORT];
/// End of a program at CPL3: hlt, which is #GP there.
pub(super) const USER_DONE_CODE: [u8; 1] = [0xF4];

/// Privilege level and interrupt flag with which a program starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Cpl3,
    Cpl0,
    Cpl0InterruptsEnabled,
    /// With interrupts enabled, in the interrupt shadow of an STI.
    Cpl0BehindSti,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A handler, or the program's own end, wrote this number to the port.
    Event(u8),
    /// KVM's emulator does not know an instruction.
    NotEmulated,
    /// An interrupt window was requested, and has opened at this RIP.
    Window(u64),
    /// Any other exit.
    Otherwise,
}

/// The guest.
pub(super) struct Guest {
    pub(super) vcpu: Vcpu,
    vm: Vm,
    /// The state in which every program starts, except for its privilege level and RIP.
    initial: VcpuState,
}

impl Guest {
    /// Creates the guest with the CPU model `cpuid`.
    ///
    /// # Errors
    ///
    /// If a KVM call fails.
    pub(super) fn new(system: &System, cpuid: &[kvm_cpuid_entry2]) -> Result<Guest, KvmError> {
        let ram = crate::mem::allocate(MEMORY_MIN)
            .map_err(|error| KvmError::State { what: format!("no memory for probes: {error}") })?;
        write_tables(&ram);
        let vm = system.create_vm(&ram)?;
        let mut vcpu = vm.create_vcpu(cpuid)?;
        let mut initial = vcpu.save()?;
        let star = u64::from(CODE_SELECTOR) << 32;
        let handler = HANDLERS + u64::from(SYSCALL_AT_CPL0) * HANDLER_BYTES;
        for (index, data) in [(IA32_STAR, star), (IA32_LSTAR, handler)] {
            initial.msrs.retain(|msr| msr.index != index);
            initial.msrs.push(kvm_msr_entry { index, data, ..kvm_msr_entry::default() });
        }
        Ok(Guest { vcpu, vm, initial })
    }

    /// Restores the initial state as a checkpoint does, which flushes the TLB, and runs `code` until the first
    /// event.
    ///
    /// # Errors
    ///
    /// If a KVM call fails.
    pub(super) fn run(
        &mut self,
        start: Start,
        code: &[u8],
        window: Request,
    ) -> Result<Ended, KvmError> {
        self.start(start, code)?;
        let ended = self.resume(window)?;
        // Completes a port access, so that the next program can start.
        self.vcpu.drain()?;
        Ok(ended)
    }

    /// Prepares `code` to run.
    fn start(&mut self, start: Start, code: &[u8]) -> Result<(), KvmError> {
        let (level, rip, rflags, stack) = match start {
            Start::Cpl3 => (3, USER_CODE, 2 | RFLAGS_IF, 0),
            Start::Cpl0 => (0, KERNEL_CODE, 2, KERNEL_STACK_TOP),
            Start::Cpl0InterruptsEnabled | Start::Cpl0BehindSti => {
                (0, KERNEL_CODE, 2 | RFLAGS_IF, KERNEL_STACK_TOP)
            }
        };
        put(self.vm.ram(), rip, code);
        let (rsi, rdi) = (DATA[0], DATA[1]);
        self.initial.regs = kvm_regs { rip, rflags, rsp: stack, rsi, rdi, ..kvm_regs::default() };
        set_system_registers(&mut self.initial.sregs, level);
        self.initial.if_flag = rflags & RFLAGS_IF != 0;
        self.initial.events.interrupt.shadow = match start {
            Start::Cpl3 | Start::Cpl0 | Start::Cpl0InterruptsEnabled => 0,
            Start::Cpl0BehindSti => KVM_X86_SHADOW_INT_STI as u8,
        };
        self.initial.ready_for_injection =
            self.initial.if_flag && self.initial.events.interrupt.shadow == 0;
        self.vcpu.restore(&self.initial)
    }

    fn resume(&mut self, window: Request) -> Result<Ended, KvmError> {
        loop {
            return Ok(match self.vcpu.run(window == Request::Window)? {
                VmExit::Interrupted => continue,
                VmExit::Pio { direction: Direction::Out, size: 1, count: 1, .. } => {
                    Ended::Event(self.vcpu.pio_data()[0])
                }
                VmExit::InternalError { .. } => Ended::NotEmulated,
                VmExit::IrqWindow => Ended::Window(self.vcpu.sync_regs().regs.rip),
                VmExit::Pio { .. }
                | VmExit::Mmio { .. }
                | VmExit::Halt
                | VmExit::SetTpr
                | VmExit::Shutdown
                | VmExit::EntryFailed { .. }
                | VmExit::Unknown { .. } => Ended::Otherwise,
            });
        }
    }

    /// Runs `code` at CPL0 after it has injected [`INTERRUPT`].
    ///
    /// # Errors
    ///
    /// If a KVM call fails.
    pub(super) fn run_interrupted(&mut self, code: &[u8]) -> Result<Ended, KvmError> {
        self.start(Start::Cpl0InterruptsEnabled, code)?;
        self.vcpu.inject(INTERRUPT)?;
        let ended = self.resume(Request::Nothing)?;
        self.vcpu.drain()?;
        Ok(ended)
    }

    /// Returns RBX at the end of the last program.
    pub(super) fn rbx(&mut self) -> u64 {
        self.vcpu.sync_regs().regs.rbx
    }

    /// Maps [`WINDOW`] to `page`, by a write to the page table that KVM does not see.
    pub(super) fn map_window(&self, page: u64) {
        put(self.vm.ram(), TABLES[3] + (u64::from(WINDOW) >> 12) * 8, &(page | 7).to_le_bytes());
    }

    /// Writes `bytes` to guest memory.
    pub(super) fn put(&self, at: u64, bytes: &[u8]) {
        put(self.vm.ram(), at, bytes);
    }

    /// Fills `bytes` from guest memory.
    pub(super) fn get(&self, at: u64, bytes: &mut [u8]) {
        self.vm.ram().read_slice(bytes, GuestAddress(at)).expect("the guest has this memory");
    }
}

/// Whether an interrupt window is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Nothing,
    Window,
}

/// Bytes of a handler.
const HANDLER_BYTES: u64 = 16;

fn put(ram: &GuestRam, at: u64, bytes: &[u8]) {
    ram.write_slice(bytes, GuestAddress(at)).expect("the guest has this memory");
}

fn write_tables(ram: &GuestRam) {
    // Present, writable, user at every level; the last level makes the kernel's pages supervisor-only.
    for pair in TABLES.windows(2) {
        put(ram, pair[0], &(pair[1] | 7).to_le_bytes());
    }
    for page in 0..PAGES {
        let address = page << 12;
        let user = if address == USER_CODE || DATA.contains(&address) { 4 } else { 0 };
        put(ram, TABLES[3] + page * 8, &(address | 3 | user).to_le_bytes());
    }
    for (descriptor, at) in DESCRIPTORS.iter().zip((GDT..).step_by(8)) {
        put(ram, at, &descriptor.to_le_bytes());
    }
    put(ram, TASK + 4, &KERNEL_STACK_TOP.to_le_bytes());
    // A handler for each exception, for INTERRUPT and for SYSCALL: mov al, number; out PORT, al. And an interrupt
    // gate to each (SDM vol. 3, 6.14.1), whose address is below 64 KiB.
    for vector in (0..32).chain([INTERRUPT, SYSCALL_AT_CPL0]) {
        let handler = HANDLERS + u64::from(vector) * HANDLER_BYTES;
        put(ram, handler, &[0xB0, vector, 0xE6, PORT]);
        let gate = 0x8E00 << 32 | u64::from(CODE_SELECTOR) << 16 | handler;
        put(ram, IDT + u64::from(vector) * 16, &gate.to_le_bytes());
    }
}

fn set_system_registers(sregs: &mut kvm_sregs, level: u8) {
    let (code, data) = match level {
        3 => (USER_CODE_SELECTOR, USER_DATA_SELECTOR),
        _kernel => (CODE_SELECTOR, DATA_SELECTOR),
    };
    FlatSegments {
        code,
        data,
        task: TASK_SELECTOR,
        task_base: TASK,
        privilege_level: level,
        is_64_bit: true,
    }
    .load(sregs);
    sregs.gdt = kvm_dtable { base: GDT, limit: 0x37, ..kvm_dtable::default() };
    sregs.idt = kvm_dtable { base: IDT, limit: 0xFFF, ..kvm_dtable::default() };
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0, TABLES[0], CR4, EFER);
}
