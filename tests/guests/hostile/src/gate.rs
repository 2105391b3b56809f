//! What CPL3 asks of CPL0 (`stub.s`), and lists of port and memory accesses.

use core::arch::asm;

/// Operations of the gate, in the order of `gate_table`.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Gate {
    Accesses,
    ReadMsr,
    WriteMsr,
    Cr0,
    Cr4,
    Cr3,
    Cr8,
    Debug,
    Halt,
    Invlpg,
    Tables,
    Lmsw,
    Hypercall,
    Wbinvd,
    Breakpoint,
    HaltForEver,
    TripleFault,
}

/// Enters the gate. If CPL0 faults in it, CPL3 starts anew and this does not return.
pub(crate) fn gate(operation: Gate, count: u64, value: u64, list: u64) -> u64 {
    let (result, high): (u64, u64);
    // SAFETY: the gate keeps every register but those named, and the stack. What it writes in memory is the
    // list, which is no Rust object.
    unsafe {
        asm!("ud2", inout("rax") operation as u64 => result, inout("rcx") count => _,
            inout("rdx") 0u64 => high, inout("rdi") value => _, inout("rsi") list => _, out("r8") _);
    }
    result ^ high.rotate_left(32)
}

/// Kinds of accesses, in the order of `access_table`.
pub(crate) const OUT: [u32; 3] = [1, 2, 3];
pub(crate) const IN: [u32; 3] = [4, 5, 6];
pub(crate) const WRITE: [u32; 4] = [7, 8, 9, 10];
pub(crate) const READ: [u32; 4] = [11, 12, 13, 14];

/// Where a list lies, and its longest length.
const LIST: u64 = 0x1F_0000 - 0x1000;
const LENGTH_MAX: u64 = 120;

/// A list of accesses that CPL0 performs in one visit.
pub(crate) struct Accesses(u64);

impl Accesses {
    pub(crate) fn new() -> Self {
        Self(0)
    }

    pub(crate) fn add(&mut self, kind: u32, target: u32, value: u64) {
        if self.0 == LENGTH_MAX {
            self.perform(0);
        }
        let at = LIST + 16 * self.0;
        crate::memory::write(at, u64::from(kind) | u64::from(target) << 32);
        crate::memory::write(at + 8, value);
        self.0 += 1;
    }

    pub(crate) fn out(&mut self, bytes: usize, port: u16, value: u64) {
        self.add(OUT[bytes / 2], u32::from(port), value);
    }

    /// Performs the accesses and empties the list. Returns the answers of all, mixed. Interrupts are on if
    /// `interrupts` is not 0.
    pub(crate) fn perform(&mut self, interrupts: u64) -> u64 {
        crate::memory::write(LIST + 16 * self.0, 0u64);
        gate(Gate::Accesses, interrupts, 0, LIST);
        let mut mixed = 0u64;
        for index in 0..self.0 {
            mixed = mixed.rotate_left(7) ^ crate::memory::read::<u64>(LIST + 16 * index + 8);
        }
        self.0 = 0;
        mixed
    }
}
