//! The hard guest: does, at random and without end, everything that record and replay find hard.
//!
//! The reference guest is kind: interrupts stay off at CPL0, page tables never change, nothing lives in
//! SSE registers for long. A replay that broke the rules for those would not be noticed with it. This
//! guest breaks each of those habits, and folds whatever it computes, reads or is interrupted at into
//! one running hash, which lives in RBX: after the first wrong bit every later exit has other registers.
//!
//! | file | what it does |
//! |---|---|
//! | `entry.s` | boot, exceptions, interrupts |
//! | `kernel.s` | CPL0: the two gates that CPL3 calls at random, with interrupts on in every shape |
//! | `user.s` | CPL3: the main loop and its operations |
//! | `tables.s` | GDT, IDT, TSS, page tables, memory |
//!
//! What it does next comes from a pseudo-random sequence seeded from the clock port, which is logged
//! input. It needs no device but PIC, PIT and UART, whose loopback is a source of interrupts that are
//! raised by the guest's own instructions, so that one can be pending wherever an OUT can be.
//!
//! If the command line begins with `s`, it executes INT n (`op_int`).
//!
//! It looks at accessed bits. They are exact where KVM shadows page tables; with nested paging the
//! processor sets them itself, in speculation too. If the command line begins with `a`, it also looks whether
//! bits that it cleared without forgetting the translation are set again (`op_aging`), which is not a function of
//! the guest's state alone.
//!
//! With the CPU model v2 it computes with SSE4, too, and with v3 with AVX: it saves and restores its registers by
//! XSAVE and XRSTOR, at CPL3 and in a gate, and what they say of components in use goes into the hash.
//!
//! CPL0 code is short and free of `int3`, `fwait`, `cmpxchg16b`, `xrstor`, `popcnt` and `clac`: a KVM
//! that emulates CPL0 is slow there and does not know those. It offers no model that has XRSTOR.
#![no_std]
#![no_main]

core::arch::global_asm!(
    include_str!("entry.s"),
    include_str!("kernel.s"),
    include_str!("user.s"),
    include_str!("tables.s"),
    options(att_syntax, raw)
);

/// Nothing here is Rust that could panic; the compiler wants the handler all the same.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
