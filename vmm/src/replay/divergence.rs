//! A divergence: what the log expected, what the replay did instead, and the entries before it, as a
//! report for a person.

use logchan::entry::REGISTERS;
use std::fmt::{self, Write as _};
use std::path::Path;

/// Names of the registers in the order of `struct kvm_regs`.
const REGISTER_NAMES: [&str; REGISTERS] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip", "rflags",
];

/// The first difference between a recording and its replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Natural exits replayed, the differing one included.
    pub natural_exits: u64,
    /// What the log expects.
    pub expected: String,
    /// What the replay did.
    pub found: String,
    /// Registers as recorded (if the log has them) and as replayed.
    pub registers: Option<(Option<[u64; REGISTERS]>, [u64; REGISTERS])>,
    /// The last log entries up to the difference, oldest first.
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

impl std::error::Error for Divergence {}

impl Divergence {
    /// Returns the registers side by side, one per line. Registers that differ are marked with `!`.
    pub fn register_diff(&self) -> String {
        let Some((recorded, replayed)) = &self.registers else {
            return String::from("no registers at this position\n");
        };
        let equal = recorded.is_some_and(|recorded| recorded == *replayed);
        let hint = "general registers are equal: system registers, events or the exit differ\n";
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
        text.push_str(if equal { hint } else { "" });
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

    /// Creates `folder` and writes `report.txt` into it.
    ///
    /// # Errors
    ///
    /// The folder or the file cannot be written.
    pub fn write_to(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("report.txt"), self.report())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_marks_the_differing_register() {
        let mut replayed = [7; REGISTERS];
        replayed[3] = 8;
        let divergence = Divergence {
            natural_exits: 12,
            expected: String::from("digest 1"),
            found: String::from("digest 2"),
            registers: Some((Some([7; REGISTERS]), replayed)),
            recent: vec![String::from("exit")],
        };
        let report = divergence.report();
        let marked: Vec<_> = report.lines().filter(|line| line.starts_with('!')).collect();
        assert_eq!(marked, ["! rdx                     0x7                0x8"]);
        assert!(report.contains("after 12 natural exits"));
    }
}
