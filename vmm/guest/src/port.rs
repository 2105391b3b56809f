//! Port I/O from CPL3.
//!
//! The TSS bitmap in `tables.s` opens the ports this guest uses; any other raises #GP and ends in the
//! exception report. Every access is an exit, that is a natural position for replay.

use core::arch::asm;

/// Reads a byte.
pub(crate) fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: IN changes nothing but AL; what the device does on a read is the caller's wish.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags));
    };
    value
}

/// Reads a 32-bit word.
pub(crate) fn inl(port: u16) -> u32 {
    let value;
    // SAFETY: as in `inb`, with EAX.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags));
    };
    value
}

/// Writes a byte.
pub(crate) fn outb(port: u16, value: u8) {
    // SAFETY: no device behind an open port accesses memory because of a port write alone, except the
    // i8042 reset, after which nothing of this program is left to be unsound.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags));
    };
}

/// Writes a 32-bit word.
pub(crate) fn outl(port: u16, value: u32) {
    // SAFETY: as in `outb`. Configuration writes that turn on bus mastering are made by `pci` before a
    // queue exists; the queues' memory is owned by the drivers.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags));
    };
}

/// Writes all bytes to one port, in order.
pub(crate) fn outsb(port: u16, bytes: &[u8]) {
    // SAFETY: REP OUTSB reads `bytes.len()` bytes from RSI upwards (DF is clear by the ABI), which is
    // exactly the slice.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _,
            options(readonly, nostack, preserves_flags));
    }
}
