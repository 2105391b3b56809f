//! The sweep: a search of an image's executable code for instructions that cannot be replayed.
//!
//! # How the sweep stays aligned with the instructions
//!
//! Code is decoded from its first byte to its last, one instruction after the other. So a byte pattern
//! inside an operand is not taken for an instruction; a search for bytes finds more than twice as many
//! `rdtsc`s as a kernel has. A linear sweep can lose the alignment at data between functions and at code
//! of another mode (a PVH entry is 32-bit code, read here as 64-bit). Two rules restore it:
//!
//! - Decoding restarts at every function symbol. An instruction never extends across one.
//! - After bytes that are not an instruction, decoding continues one byte further.
//!
//! Data that happens to decode is reported. A false alarm names its symbol, takes the user a moment to
//! check and can be overridden; a missed instruction causes a divergence. For the same reason the sweep
//! does not test whether code is reachable. It cannot see code that the guest writes or loads later; the
//! vCPU digests of the replay detect divergences caused by such code.

use std::fmt::Write as _;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use logchan::host_profile::HostProfile;
use serde::Serialize;

use crate::boot::cpu_features::ModelName;
use crate::boot::elf_code::{Code, CodeMap};
use crate::boot::image::GuestImage;
use crate::boot::rules::{self, Rule, Verdict};

/// Most findings that are listed for each verdict; further ones are only counted.
pub const LISTED_MAX: usize = 16_384;

/// An instruction that matters for replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Lower-case mnemonic.
    pub mnemonic: String,
    /// Guest virtual address of its first byte.
    pub address: u64,
    /// Offset of its first byte in the image file, bytes.
    pub file_offset: u64,
    /// Bytes of the instruction.
    pub length: u8,
    /// Nearest symbol before it in the same section, `name+0xoffset`; `None` in stripped images.
    pub symbol: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// One clause: what the instruction does to a replay.
    pub why: &'static str,
}

/// The result of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SweepReport {
    /// Findings in the order of their addresses, at most [`LISTED_MAX`] of each verdict.
    pub findings: Vec<Finding>,
    /// Number of forbidden instructions, listed or not.
    pub forbidden: u64,
    /// Number of instructions with a warning, listed or not.
    pub warned: u64,
    /// Number of instructions allowed with a note, listed or not.
    pub noted: u64,
    /// Number of executable bytes that were decoded.
    pub bytes_swept: u64,
    /// Number of bytes at which no instruction begins: data, padding, or code of another mode.
    pub undecodable: u64,
}

/// What to do with an image that contains forbidden instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SweepPolicy {
    /// Refuse to run it.
    #[default]
    Refuse,
    /// Run it, because it may never execute them. If it does, the backup diverges and must be repaired by
    /// a checkpoint.
    Warn,
}

/// An image was refused because of its instructions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The image has forbidden instructions, and the policy is [`SweepPolicy::Refuse`].
    #[error(
        "the guest has a forbidden instruction: {mnemonic} at {place}{more}; it {why}; rebuild the guest without it, or run it anyway with --forbidden warn, which may cause divergences"
    )]
    Forbidden {
        /// Mnemonic of the first one.
        mnemonic: String,
        /// Its address, with its symbol if known.
        place: String,
        /// A clause that says how many more there are; empty if there are none.
        more: String,
        /// What the instruction does to a replay.
        why: &'static str,
    },
}

/// Sweeps all executable code of `image`, for a guest with the CPU model `model`.
pub fn sweep(image: &GuestImage, model: ModelName) -> SweepReport {
    sweep_with(image.bytes(), image.code_map(), |instruction| rules::rule_with(model, instruction))
}

/// Sweeps all executable code of `bytes` that `map` lists, by the rules of `rule_for`.
pub(super) fn sweep_with(
    bytes: &[u8],
    map: &CodeMap,
    rule_for: impl Fn(&Instruction) -> Option<Rule>,
) -> SweepReport {
    let mut report = SweepReport::default();
    for code in &map.pieces {
        report.bytes_swept += code.file.len() as u64;
        report.undecodable += each_instruction(bytes, map, code, |address, instruction| {
            let Some(rule) = rule_for(instruction) else { return };
            let file_offset = code.file.start as u64 + (address - code.address);
            let symbol = || symbol_before(map, bytes, code, address);
            note_finding(&mut report, rule, instruction, (address, file_offset), symbol);
        });
    }
    report
}

impl SweepReport {
    /// Turns forbidden instructions that [fault](rules::faults) on a host with `profile` into warnings. A report that
    /// does not list all of them is returned as it is.
    #[must_use]
    pub fn on_host(mut self, profile: &HostProfile) -> SweepReport {
        if self.forbidden > LISTED_MAX as u64 {
            return self;
        }
        for finding in &mut self.findings {
            let is_forbidden = finding.verdict == Verdict::Forbidden;
            if is_forbidden && rules::faults(&finding.mnemonic, profile) {
                (finding.verdict, finding.why) = (rules::FAULTING.verdict, rules::FAULTING.why);
                self.forbidden -= 1;
                self.warned += 1;
            }
        }
        self
    }
}

/// Applies `policy` to a report. Returns the lines to print about the guest, worst first. Lines that
/// begin with "note" require no action.
///
/// # Errors
///
/// The guest must not be run.
pub fn check(report: &SweepReport, policy: SweepPolicy) -> Result<Vec<String>, SweepError> {
    let first = report.findings.iter().find(|finding| finding.verdict == Verdict::Forbidden);
    if let (SweepPolicy::Refuse, Some(first)) = (policy, first) {
        let more = match report.forbidden - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (mnemonic, place) = (first.mnemonic.clone(), place(first));
        return Err(SweepError::Forbidden { mnemonic, place, more, why: first.why });
    }
    Ok(warnings(report))
}

/// Returns one line for each verdict and reason, worst first.
fn warnings(report: &SweepReport) -> Vec<String> {
    let mut groups: Vec<(&Finding, u64)> = Vec::new();
    for finding in &report.findings {
        let same = |first: &Finding| (first.verdict, first.why) == (finding.verdict, finding.why);
        match groups.iter_mut().find(|(first, _)| same(first)) {
            Some((_, count)) => *count += 1,
            None => groups.push((finding, 1)),
        }
    }
    groups.sort_by_key(|(first, _)| (first.verdict, first.address));
    let mut lines: Vec<String> = Vec::new();
    for (first, count) in groups {
        let kind = match first.verdict {
            Verdict::Forbidden => "forbidden instruction, run anyway",
            Verdict::Warned => "doubtful instruction",
            Verdict::AllowedNote => "note",
        };
        let mut line = format!("{kind}: {} at {}", first.mnemonic, place(first));
        if count > 1 {
            let _ = write!(line, " and {} more of its kind", count - 1);
        }
        let _ = write!(line, ": {}", first.why);
        lines.push(line);
    }
    let unlisted = report.forbidden + report.warned + report.noted - report.findings.len() as u64;
    if unlisted > 0 {
        lines.push(format!("note: {unlisted} further instructions of these kinds are not listed"));
    }
    lines
}

fn place(finding: &Finding) -> String {
    match &finding.symbol {
        Some(symbol) => format!("{:#x} ({symbol})", finding.address),
        None => format!("{:#x}", finding.address),
    }
}

/// Calls `each` with the address of every instruction of `code`, in order. Returns the number of bytes at
/// which no instruction begins.
pub(super) fn each_instruction(
    bytes: &[u8],
    map: &CodeMap,
    code: &Code,
    mut each: impl FnMut(u64, &Instruction),
) -> u64 {
    let end = code.address + code.file.len() as u64;
    let functions = map.symbols_in(code.address..end);
    let starts = functions.iter().filter(|symbol| symbol.function).map(|symbol| symbol.address);
    let mut from = code.address;
    let mut undecodable = 0;
    for to in starts.chain([end]) {
        // Several symbols for one function make an empty piece, which is skipped.
        if to > from {
            let piece = (from - code.address) as usize..(to - code.address) as usize;
            undecodable += decode_piece(&bytes[code.file.clone()][piece], from, &mut each);
            from = to;
        }
    }
    undecodable
}

/// Decodes `piece`, which starts with an instruction at address `from`. Returns the number of bytes at
/// which no instruction begins.
fn decode_piece(piece: &[u8], from: u64, each: &mut impl FnMut(u64, &Instruction)) -> u64 {
    let mut decoder = Decoder::with_ip(64, piece, from, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut undecodable = 0;
    while decoder.can_decode() {
        let at = decoder.position();
        decoder.decode_out(&mut instruction);
        let address = from + at as u64;
        if instruction.is_invalid() {
            undecodable += 1;
            if decoder.set_position(at + 1).is_err() {
                break;
            }
            decoder.set_ip(address + 1);
            continue;
        }
        each(address, &instruction);
    }
    undecodable
}

fn note_finding(
    report: &mut SweepReport,
    rule: Rule,
    instruction: &Instruction,
    (address, file_offset): (u64, u64),
    symbol: impl FnOnce() -> Option<String>,
) {
    let total = match rule.verdict {
        Verdict::Forbidden => &mut report.forbidden,
        Verdict::Warned => &mut report.warned,
        Verdict::AllowedNote => &mut report.noted,
    };
    *total += 1;
    if *total <= LISTED_MAX as u64 {
        report.findings.push(Finding {
            mnemonic: format!("{:?}", instruction.mnemonic()).to_lowercase(),
            address,
            file_offset,
            length: instruction.len() as u8,
            symbol: symbol(),
            verdict: rule.verdict,
            why: rule.why,
        });
    }
}

/// Returns the nearest symbol at or before `address` in the same piece of code, as `name+0xoffset`.
pub(super) fn symbol_before(
    map: &CodeMap,
    bytes: &[u8],
    code: &Code,
    address: u64,
) -> Option<String> {
    let symbol = map.symbols_in(code.address..address + 1).last()?;
    let name = map.symbol_name(bytes, symbol);
    match address - symbol.address {
        0 => Some(name),
        offset => Some(format!("{name}+{offset:#x}")),
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
