//! The border between CPL3 and the CPL0 stub: the page both can see, and the halting gate.
//!
//! CPL3 calls the stub by executing `hlt`, which faults there (#GP, error code 0). That costs nothing to
//! decode, works on every KVM, and cannot be mistaken for anything else a correct program does. One visit
//! to CPL0 issues all kicks that piled up and then sleeps; on hosts that emulate CPL0 the visit is the
//! expensive part, so there is one per batch of packets, not one per packet.

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::console::say;
use crate::port::outb;

/// The page shared with the stub, at `SHARED` in `entry.s`. The stub writes the counts and the fault
/// report and reads the addresses. Interrupts change the counts between any two instructions here, hence
/// atomics; the only CPU there is sees its own writes in order, hence `Relaxed`.
#[repr(C)]
pub(crate) struct Shared {
    /// Device interrupts taken.
    events: AtomicU64,
    /// PIT interrupts taken.
    ticks: AtomicU64,
    /// Address of the network device's ISR status register; 0 while there is none.
    isr: AtomicU64,
    /// Address of the disk's ISR status register; 0 while there is none.
    disk_isr: AtomicU64,
    /// Addresses that kick the receive and the transmit queue.
    notify: [AtomicU64; 2],
    /// Physical address of the PVH `hvm_start_info`.
    start_info: AtomicU64,
    /// Set by the first fault.
    faulted: AtomicU64,
    fault_vector: AtomicU64,
    fault_error: AtomicU64,
    fault_rip: AtomicU64,
    fault_cr2: AtomicU64,
}

const _: () = assert!(size_of::<Shared>() <= 4096);

core::arch::global_asm!(
    include_str!("entry.s"),
    include_str!("tables.s"),
    EVENTS = const offset_of!(Shared, events),
    TICKS = const offset_of!(Shared, ticks),
    ISR = const offset_of!(Shared, isr),
    DISK_ISR = const offset_of!(Shared, disk_isr),
    NOTIFY_RX = const offset_of!(Shared, notify),
    NOTIFY_TX = const offset_of!(Shared, notify) + size_of::<AtomicU64>(),
    START_INFO = const offset_of!(Shared, start_info),
    FAULTED = const offset_of!(Shared, faulted),
    FAULT_VECTOR = const offset_of!(Shared, fault_vector),
    FAULT_ERROR = const offset_of!(Shared, fault_error),
    FAULT_RIP = const offset_of!(Shared, fault_rip),
    FAULT_CR2 = const offset_of!(Shared, fault_cr2),
    USER_MAIN = sym crate::user_main,
    FAULT_MAIN = sym fault_main,
    options(att_syntax)
);

fn shared() -> &'static Shared {
    unsafe extern "C" {
        static SHARED: Shared;
    }
    // SAFETY: entry.s reserves a zeroed, page-aligned page under this name, all-zero is a valid `Shared`,
    // the page is never unmapped, and everything in it is atomic.
    unsafe { &SHARED }
}

/// Device interrupts so far. Read it before looking for work, and hand it to [`wait`] afterwards.
pub(crate) fn events() -> u64 {
    shared().events.load(Relaxed)
}

/// Ticks of 10 ms since the PIT was started.
pub(crate) fn ticks() -> u64 {
    shared().ticks.load(Relaxed)
}

/// Physical address of the boot parameters.
pub(crate) fn start_info() -> u64 {
    shared().start_info.load(Relaxed)
}

/// Gives the stub the network device's registers: where to kick each queue, and what to read to lower
/// its interrupt line.
pub(crate) fn attach_net(isr: u64, notify: [u64; 2]) {
    for (slot, address) in shared().notify.iter().zip(notify) {
        slot.store(address, Relaxed);
    }
    shared().isr.store(isr, Relaxed);
}

/// Gives the stub what to read to lower the disk's interrupt line.
pub(crate) fn attach_disk(isr: u64) {
    shared().disk_isr.store(isr, Relaxed);
}

/// Kicks the queues in `kicks` (bit n: queue n), then sleeps until an event beyond `seen` or until the
/// tick count reaches `deadline` (`u64::MAX`: no deadline; the current tick: return at once).
pub(crate) fn wait(seen: u64, deadline: u64, kicks: u32) {
    // SAFETY: `hlt` at CPL3 enters the stub's gate, which changes RAX and flags only, returns behind the
    // instruction and does not touch this stack. A kick makes the device read and write ring and buffer
    // memory, so the block counts as accessing memory.
    unsafe {
        asm!("hlt", in("rdi") seen, in("rsi") deadline, in("edx") kicks, out("rax") _, options(nostack));
    }
}

/// Reboots the machine through the i8042.
pub(crate) fn reset() -> ! {
    outb(0x64, 0xfe);
    loop {
        core::hint::spin_loop();
    }
}

/// Where the stub sends an exception: a report on the console, then a reset. A fault in here resets
/// without a word.
extern "C" fn fault_main() -> ! {
    let s = shared();
    say!(
        "exception {} error {:#x} rip {:#x} cr2 {:#x}",
        s.fault_vector.load(Relaxed),
        s.fault_error.load(Relaxed),
        s.fault_rip.load(Relaxed),
        s.fault_cr2.load(Relaxed)
    );
    reset()
}
