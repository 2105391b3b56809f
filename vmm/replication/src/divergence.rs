//! A divergence: what the log expected, what the replay did instead, and the entries before it, as a
//! report for a person.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use logchan::entry::REGISTERS;
use serde::{Deserialize, Serialize};

/// Names of the registers in the order of `struct kvm_regs`.
const REGISTER_NAMES: [&str; REGISTERS] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip", "rflags",
];

/// General registers where an execution differs from its log, in the order of `struct kvm_regs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// As logged; `None` if the log does not have them.
    pub expected: Option<[u64; REGISTERS]>,
    /// As found.
    pub found: [u64; REGISTERS],
}

/// The first difference between a log and the execution that follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// Natural exits since the log began, the differing one included.
    pub natural_exits: u64,
    /// Position of the log entry that differs, bytes from the beginning of the file or of the session.
    pub log_position: u64,
    /// What the log expects.
    pub expected: String,
    /// What the execution did.
    pub found: String,
    /// Registers at the difference, if it is at a position.
    pub registers: Option<Registers>,
    /// The last log entries up to the difference, oldest first; none where they are not kept.
    pub recent: Vec<String>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "diverged after {} natural exits: the log says {}, the replay {}",
            self.natural_exits, self.expected, self.found
        )
    }
}

impl core::error::Error for Divergence {}

impl Divergence {
    /// Returns the registers side by side, one per line. Registers that differ are marked with `!`.
    pub fn register_diff(&self) -> String {
        let Some(Registers { expected: recorded, found: replayed }) = &self.registers else {
            return String::from("no registers at this position\n");
        };
        let mut text = format!("  {:<8} {:>18} {:>18}\n", "register", "recorded", "replayed");
        for (index, name) in REGISTER_NAMES.iter().enumerate() {
            let new = replayed[index];
            match recorded.map(|recorded| recorded[index]) {
                Some(old) => {
                    let mark = if old == new { ' ' } else { '!' };
                    let _ = writeln!(text, "{mark} {name:<8} {old:>#18x} {new:>#18x}");
                }
                None => {
                    let _ = writeln!(text, "  {name:<8} {:>18} {new:>#18x}", "(not logged)");
                }
            }
        }
        text
    }

    /// Returns the registers that differ on one line, as `rip 0x10 instead of 0x20, ...`; empty if none do
    /// or if they are not known.
    pub fn differing_registers(&self) -> String {
        let Some(Registers { expected: Some(expected), found }) = &self.registers else {
            return String::new();
        };
        let mut text = String::new();
        for (name, (expected, found)) in REGISTER_NAMES.iter().zip(expected.iter().zip(found)) {
            if expected != found {
                let comma = if text.is_empty() { "" } else { ", " };
                let _ = write!(text, "{comma}{name} {found:#x} instead of {expected:#x}");
            }
        }
        text
    }

    /// Returns the whole report: the difference, the registers and the last entries.
    pub fn report(&self) -> String {
        let mut text = format!("{self}\n\nregisters\n{}\nlast entries\n", self.register_diff());
        for line in &self.recent {
            let _ = writeln!(text, "  {line}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_marks_the_differing_register() {
        let mut replayed = [7; REGISTERS];
        replayed[3] = 8;
        let mut divergence = Divergence {
            natural_exits: 12,
            expected: String::from("digest 1"),
            found: String::from("digest 2"),
            registers: Some(Registers { expected: Some([7; REGISTERS]), found: replayed }),
            log_position: 0,
            recent: vec![String::from("exit")],
        };
        let report = divergence.report();
        let marked: Vec<_> = report.lines().filter(|line| line.starts_with('!')).collect();
        assert_eq!(marked, ["! rdx                     0x7                0x8"]);
        assert!(report.contains("after 12 natural exits"));
        assert_eq!(divergence.differing_registers(), "rdx 0x8 instead of 0x7");
        divergence.registers = None;
        assert_eq!(divergence.differing_registers(), "");
    }
}
