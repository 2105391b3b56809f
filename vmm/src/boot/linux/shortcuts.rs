//! Kernel shortcuts: start-up work of a kernel that is left out where it takes minutes, which is on hosts
//! whose KVM emulates kernel code one instruction at a time (a few hundred nanoseconds each). They are
//! enabled with `--kernel-shortcuts`, are off by default, and have no benefit on other hosts.
//!
//! They do not change what the kernel computes afterwards, with these exceptions: function tracing and
//! its events do not work; there are no stack traces by the ORC unwinder and no BTF; the mitigations that
//! a kernel patches into itself (retpolines, return thunks) are off.
//!
//! If a part of the kernel is not as expected it is left unchanged, and the report lists it with a count
//! of 0.

use super::hooks::relative;
use crate::boot::elf::{Elf, u32_at};
use crate::boot::elf_code;
use iced_x86::Mnemonic;
use serde::Serialize;

/// Port at which a kernel requests that the VMM zeroes a page: RDI has its virtual address.
pub const ZERO_PAGE_PORT: u8 = 0xE6;

/// Work that is left out, and the number of places that were changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortcut {
    /// A short description.
    pub what: &'static str,
    /// Places changed.
    pub places: u64,
}

const RET: u8 = 0xC3;
const INT3: u8 = 0xCC;
const NOP: u8 = 0x90;
const NOP5: [u8; 5] = [0x0F, 0x1F, 0x44, 0, 0];
const CALL: u8 = 0xE8;
const JMP: u8 = 0xE9;
/// Bytes of `call rel32` and `jmp rel32`.
const BRANCH_BYTES: usize = 5;
/// Most calls of function tracing; a distribution's kernel has about fifty thousand.
const TRACING_CALLS_MAX: usize = 1 << 20;
/// Bytes between the retpolines of two registers (`__x86_indirect_thunk_array`, 32-byte aligned).
const THUNK_BYTES: u64 = 32;

/// Functions that return at once: they only prepare what is left out, or zero memory that is zero
/// already.
const RETURN_AT_ONCE: [&str; 7] = [
    "apply_returns",
    "apply_retpolines",
    "ftrace_init",
    "init_ftrace_syscalls",
    "trace_event_update_all",
    "unwind_init",
    "clear_bss",
];
/// Functions that zero the page at RDI.
const ZERO_PAGE: [&str; 2] = ["clear_page_rep", "clear_page_orig"];
/// `mov byte [rdi], 0` (faults as the function would, and marks the page dirty); `xor eax, eax`; `out
/// port, eax`; `ret`.
const ZERO_PAGE_CODE: [u8; 8] = [0xC6, 0x07, 0x00, 0x31, 0xC0, 0xE7, ZERO_PAGE_PORT, RET];

/// Applies the shortcuts to the kernel in `bytes`, whose headers are `elf`.
pub(super) fn apply(bytes: &mut [u8], elf: &Elf) -> Vec<Shortcut> {
    vec![
        Shortcut { what: "return thunks", places: return_thunks(bytes, elf) },
        Shortcut { what: "retpolines", places: retpolines(bytes, elf) },
        Shortcut { what: "calls of function tracing", places: tracing_calls(bytes, elf) },
        Shortcut {
            what: "preparations of what is left out",
            places: replace_starts(bytes, elf, &RETURN_AT_ONCE, &[RET]),
        },
        Shortcut {
            what: "zeroing of pages, done by the VMM",
            places: replace_starts(bytes, elf, &ZERO_PAGE, &ZERO_PAGE_CODE),
        },
        Shortcut { what: "type information (BTF)", places: type_information(bytes) },
    ]
}

fn replace_starts(bytes: &mut [u8], elf: &Elf, names: &[&str], code: &[u8]) -> u64 {
    let mut places = 0;
    for name in names {
        let address = elf.code.address_of(bytes, name);
        let Some(at) = address.and_then(|address| elf.code.file_offset(address)) else { continue };
        if let Some(start) = bytes.get_mut(at..at + code.len()) {
            start.copy_from_slice(code);
            places += 1;
        }
    }
    places
}

/// Returns the sites in a table of self-relative 32-bit offsets: offset in the file and address of each.
fn sites(bytes: &[u8], elf: &Elf, table: &str) -> Vec<(usize, u64)> {
    let Some((range, address)) = elf_code::section(bytes, table) else { return Vec::new() };
    let words = bytes[range].chunks_exact(4).zip((0u64..).step_by(4));
    words
        .filter_map(|(word, at)| {
            let distance = i64::from(u32_at(word, 0).cast_signed());
            let site = address.wrapping_add(at).wrapping_add_signed(distance);
            Some((elf.code.file_offset(site)?, site))
        })
        .filter(|(at, _)| at + BRANCH_BYTES < bytes.len())
        .collect()
}

/// Returns the target of the branch at file offset `at`, which runs at `address`.
fn branch_target(bytes: &[u8], at: usize, address: u64) -> u64 {
    let distance = i64::from(u32_at(bytes, at + 1).cast_signed());
    address.wrapping_add(BRANCH_BYTES as u64).wrapping_add_signed(distance)
}

/// Replaces `jmp __x86_return_thunk` by `ret`, as the kernel itself does where the mitigation is off.
fn return_thunks(bytes: &mut [u8], elf: &Elf) -> u64 {
    let Some(thunk) = elf.code.address_of(bytes, "__x86_return_thunk") else { return 0 };
    let mut places = 0;
    for (at, address) in sites(bytes, elf, ".return_sites") {
        if bytes[at] == JMP && branch_target(bytes, at, address) == thunk {
            bytes[at..at + BRANCH_BYTES].copy_from_slice(&[RET, INT3, INT3, INT3, INT3]);
            places += 1;
        }
    }
    places
}

/// Replaces a call or jump through a retpoline by one through the register.
fn retpolines(bytes: &mut [u8], elf: &Elf) -> u64 {
    let Some(array) = elf.code.address_of(bytes, "__x86_indirect_thunk_array") else { return 0 };
    let mut places = 0;
    for (at, address) in sites(bytes, elf, ".retpoline_sites") {
        // A CS prefix pads some of them.
        let prefix = usize::from(bytes[at] == 0x2E);
        let (at, address) = (at + prefix, address.wrapping_add(prefix as u64));
        let opcode = bytes[at];
        if opcode != CALL && opcode != JMP || at + BRANCH_BYTES > bytes.len() {
            continue;
        }
        let thunk = branch_target(bytes, at, address).wrapping_sub(array);
        if thunk % THUNK_BYTES != 0 || thunk / THUNK_BYTES >= 16 {
            continue;
        }
        let register = (thunk / THUNK_BYTES) as u8;
        let (mut code, base) = match opcode {
            CALL => ([NOP; BRANCH_BYTES], 0xD0),
            _ => ([INT3; BRANCH_BYTES], 0xE0),
        };
        let mut used = 0;
        if register >= 8 {
            code[used] = 0x41; // REX.B
            used += 1;
        }
        code[used] = 0xFF;
        code[used + 1] = base | register & 7;
        bytes[at..at + BRANCH_BYTES].copy_from_slice(&code);
        places += 1;
    }
    places
}

/// Replaces `call __fentry__` at the start of functions by a no-operation, as `ftrace_init` would.
fn tracing_calls(bytes: &mut [u8], elf: &Elf) -> u64 {
    let Some(fentry) = elf.code.address_of(bytes, "__fentry__") else { return 0 };
    let mut calls = Vec::new();
    for code in &elf.code.pieces {
        crate::boot::sweep::each_instruction(bytes, &elf.code, code, |address, instruction| {
            let is_call = instruction.mnemonic() == Mnemonic::Call;
            if is_call
                && instruction.len() == BRANCH_BYTES
                && instruction.near_branch_target() == fentry
                && calls.len() <= TRACING_CALLS_MAX
            {
                calls.push((code.file.start + (address - code.address) as usize, address));
            }
        });
    }
    if calls.len() > TRACING_CALLS_MAX {
        return 0;
    }
    for &(at, address) in &calls {
        debug_assert_eq!(bytes[at + 1..at + 5], relative(address + BRANCH_BYTES as u64, fentry));
        bytes[at..at + BRANCH_BYTES].copy_from_slice(&NOP5);
    }
    calls.len() as u64
}

/// Clears the magic number of the BTF section, so that the kernel does not parse it.
fn type_information(bytes: &mut [u8]) -> u64 {
    match elf_code::section(bytes, ".BTF") {
        Some((range, _)) if !range.is_empty() => {
            bytes[range.start] = 0;
            1
        }
        _ => 0,
    }
}
