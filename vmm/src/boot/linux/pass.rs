//! The determinism pass: every instruction of a kernel whose result would be a fact of the host is
//! rewritten, hooked, or told of.
//!
//! | instruction | what becomes of it |
//! |---|---|
//! | `rdtsc` in the kernel | `in eax, 0xE4`: two bytes as before, answered from the log |
//! | `cpuid` in the kernel | `in eax, 0xE5`: two bytes as before, answered from the CPU model |
//! | `rdtsc`, `rdtscp` at CPL3 | fault, since CR4.TSD is set in the kernel's first instructions and never cleared; a hook in its #GP handler answers ([`super::hooks`]) |
//! | `syscall` at CPL3 | where the host's KVM leaves it at CPL3: a hook in the #PF handler |
//! | RDRAND and its kin | told of: a kernel uses them only if CPUID, which is ours, offers them |
//!
//! Code is decoded as [`sweep`] does it, in step with the kernel's own symbols. A
//! byte pattern inside another instruction is not taken for one.

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

/// What this host makes necessary, and what the user asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassOptions {
    /// SYSCALL arrives at its handler still at CPL3 here.
    pub syscall_stays_at_cpl3: bool,
    /// Leave out work of the kernel's start-up that does not matter in a VM.
    pub shortcuts: bool,
    /// Go on where an instruction can't be rewritten or user RDTSC can't be made to fault.
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

/// What the pass found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PassReport {
    /// Symbols that the kernel has of itself.
    pub symbols: u64,
    /// By address.
    pub rewritten: Vec<Rewritten>,
    /// Places where code of ours was put.
    pub hooks: Vec<Hook>,
    /// What could not be done, a line each; empty unless tolerated.
    pub lacking: Vec<String>,
    /// Start-up work left out, empty unless asked for.
    pub shortcuts: Vec<Shortcut>,
    /// What else replay has to know of.
    pub sweep: SweepReport,
}

/// Rewrites the kernel in `bytes`, whose headers are `elf`.
pub(super) fn rewrite(
    bytes: &mut [u8],
    elf: &Elf,
    options: &PassOptions,
) -> Result<PassReport, ImageFault> {
    let mut report = PassReport { sweep: judge(bytes, elf), ..PassReport::default() };
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
            Err(what) => lacking(format!("this host's KVM needs a hook for SYSCALL, and {what}"))?,
        }
    }
    if options.shortcuts {
        report.shortcuts = shortcuts::apply(bytes, elf);
    }
    Ok(report)
}

/// An offset in the file and the port that is read there.
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

/// What of a kernel's code replay has to know of besides what is rewritten.
fn judge(bytes: &[u8], elf: &Elf) -> SweepReport {
    sweep::sweep_with(bytes, &elf.code, rule_for_kernel)
}

/// A kernel asks CPUID before it uses an instruction that not every processor has, and CPUID is
/// answered from the CPU model.
const HIDDEN: Rule = Rule {
    verdict: Verdict::Warned,
    why: "a kernel uses it only if CPUID offers it, and the CPU model does not",
};

fn rule_for_kernel(instruction: &Instruction) -> Option<Rule> {
    match (instruction.mnemonic(), rules::rule_for(instruction)?) {
        (Mnemonic::Rdtsc | Mnemonic::Cpuid, _) => None,
        (_, rule) if rule.verdict == Verdict::Forbidden => Some(HIDDEN),
        (_, rule) => Some(rule),
    }
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
