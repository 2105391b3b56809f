//! The determinism pass: every instruction of a kernel whose result would be a property of the host is
//! rewritten, hooked or reported.
//!
//! | instruction | treatment |
//! |---|---|
//! | `rdtsc` in the kernel | `in eax, 0xE4`: also two bytes, answered from the log |
//! | `cpuid` in the kernel | `in eax, 0xE5`: also two bytes, answered from the CPU model |
//! | `rdtsc`, `rdtscp` at CPL3 | fault, because CR4.TSD is set in the kernel's first instructions and never cleared; a hook in its #GP handler answers ([`super::hooks`]) |
//! | `syscall` at CPL3 | if the host's KVM leaves it at CPL3: a hook in the #PF handler |
//! | RDRAND and similar instructions | reported: a kernel uses them only if CPUID offers them, and the CPU model does not |
//!
//! Code is decoded as in [`sweep`], aligned by the kernel's own symbols. A byte pattern inside another
//! instruction is not taken for an instruction.

use super::hooks::{self, Hook};
use super::shortcuts::{self, Shortcut};
use crate::boot::elf::Elf;
use crate::boot::image::ImageFault;
use crate::boot::rules::{self, Rule, Verdict};
use crate::boot::sweep::{self, SweepReport, each_instruction, symbol_before};
use iced_x86::{Instruction, Mnemonic};
use serde::Serialize;

/// Port that a rewritten RDTSC reads: EAX and EDX become the guest's nanoseconds.
pub const TIME_STAMP_PORT: u8 = 0xE4;
/// Port that a rewritten CPUID reads: EAX, EBX, ECX and EDX become the CPU model's leaf.
pub const IDENTIFICATION_PORT: u8 = 0xE5;
/// Most instructions to rewrite; a distribution's kernel has about a hundred.
const REWRITTEN_MAX: usize = 1 << 16;
/// `in eax, imm8`.
const IN_EAX_IMM8: u8 = 0xE5;

/// What the host requires and the user requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassOptions {
    /// On this host, SYSCALL reaches its handler at CPL3.
    pub syscall_stays_at_cpl3: bool,
    /// Leave out start-up work of the kernel that does not matter in a VM.
    pub shortcuts: bool,
    /// Continue if an instruction cannot be rewritten or user RDTSC cannot be made to fault.
    pub tolerate: bool,
}

/// An instruction that was rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rewritten {
    /// Lower-case mnemonic.
    pub mnemonic: &'static str,
    /// Virtual address.
    pub address: u64,
    /// Nearest symbol before it.
    pub symbol: Option<String>,
}

/// The report of the pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PassReport {
    /// Number of symbols in the kernel's own table.
    pub symbols: u64,
    /// Rewritten instructions, in the order of their addresses.
    pub rewritten: Vec<Rewritten>,
    /// Places where the pass installed its own code or changed an instruction.
    pub hooks: Vec<Hook>,
    /// What could not be done, one line each. Empty unless tolerated.
    pub lacking: Vec<String>,
    /// Start-up work that is left out. Empty unless requested.
    pub shortcuts: Vec<Shortcut>,
    /// Other instructions that matter for replay.
    pub sweep: SweepReport,
}

/// Rewrites the kernel in `bytes`, whose headers are `elf`.
pub(super) fn rewrite(
    bytes: &mut [u8],
    elf: &Elf,
    options: &PassOptions,
) -> Result<PassReport, ImageFault> {
    let mut report = PassReport { sweep: sweep_kernel(bytes, elf), ..PassReport::default() };
    let mut lacking = |what: String| match options.tolerate {
        true => {
            report.lacking.push(what);
            Ok(())
        }
        false => Err(ImageFault::NotRewritable { what }),
    };
    let (patches, rewritten) = find_patches(bytes, elf, &mut lacking)?;
    for (offset, port) in patches {
        bytes[offset..offset + 2].copy_from_slice(&[IN_EAX_IMM8, port]);
    }
    match hooks::trap_user_tsc(bytes, elf) {
        Ok(hooks) => report.hooks.extend(hooks),
        Err(what) => lacking(format!("user rdtsc is not trapped: {what}"))?,
    }
    report.rewritten = rewritten;
    if options.syscall_stays_at_cpl3 {
        match hooks::syscall_from_cpl3(bytes, elf) {
            Ok(hook) => report.hooks.push(hook),
            Err(what) => lacking(format!("this host's KVM needs a hook for SYSCALL, but {what}"))?,
        }
    }
    if options.shortcuts {
        report.shortcuts = shortcuts::apply(bytes, elf);
    }
    Ok(report)
}

/// Offset in the file of an instruction to rewrite, and the port that replaces it.
type Patch = (usize, u8);

fn find_patches(
    bytes: &[u8],
    elf: &Elf,
    lacking: &mut impl FnMut(String) -> Result<(), ImageFault>,
) -> Result<(Vec<Patch>, Vec<Rewritten>), ImageFault> {
    let (mut patches, mut rewritten) = (Vec::new(), Vec::new());
    let mut odd = Vec::new();
    let mut count = 0;
    for code in &elf.code.pieces {
        each_instruction(bytes, &elf.code, code, |address, instruction| {
            let (mnemonic, port) = match instruction.mnemonic() {
                Mnemonic::Rdtsc => ("rdtsc", TIME_STAMP_PORT),
                Mnemonic::Cpuid => ("cpuid", IDENTIFICATION_PORT),
                _ => return,
            };
            count += 1;
            if count > REWRITTEN_MAX {
                return;
            }
            let symbol = symbol_before(&elf.code, bytes, code, address);
            if instruction.len() == 2 {
                patches.push((code.file.start + (address - code.address) as usize, port));
                rewritten.push(Rewritten { mnemonic, address, symbol });
            } else {
                let place = symbol.unwrap_or_default();
                odd.push(format!("{mnemonic} with prefixes at {address:#x} ({place})"));
            }
        });
    }
    if count > REWRITTEN_MAX {
        let what = "instructions to rewrite";
        return Err(ImageFault::TooMany { what, count, max: REWRITTEN_MAX });
    }
    for what in odd {
        lacking(what)?;
    }
    Ok((patches, rewritten))
}

/// Sweeps a kernel's code for instructions that matter for replay and are not rewritten.
fn sweep_kernel(bytes: &[u8], elf: &Elf) -> SweepReport {
    sweep::sweep_with(bytes, &elf.code, rule_for_kernel)
}

/// The rule for instructions that are forbidden in other guests. A kernel asks CPUID before it uses an
/// instruction that not every processor has, and CPUID is answered from the CPU model.
const HIDDEN_BY_CPU_MODEL: Rule = Rule {
    verdict: Verdict::Warned,
    why: "a kernel uses it only if CPUID offers it, which the CPU model does not",
};

fn rule_for_kernel(instruction: &Instruction) -> Option<Rule> {
    match (instruction.mnemonic(), rules::rule_for(instruction)?) {
        (Mnemonic::Rdtsc | Mnemonic::Cpuid, _) => None,
        (_, rule) if rule.verdict == Verdict::Forbidden => Some(HIDDEN_BY_CPU_MODEL),
        (_, rule) => Some(rule),
    }
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
