//! Guests for tests.

/// The hard guest's ELF file: interrupts at CPL0, page tables that change, live SSE registers
/// (`tests/guests/hard`).
pub const HARD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hard.elf"));

/// The hostile guest's ELF file: attacks the machine at random from the seed on its command line
/// (`tests/guests/hostile`).
pub const HOSTILE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hostile.elf"));
