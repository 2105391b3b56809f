//! Guests for tests.

/// The hard guest's ELF file: interrupts at CPL0, page tables that change, live SSE registers
/// (`tests/guests/hard`).
pub const HARD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hard.elf"));
