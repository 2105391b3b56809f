//! Reads the CPU time of a process from `/proc/PID/stat`, fields 14 and 15 (`proc(5)`). On a host with
//! tick-based accounting it is an estimate by sampling.

use crate::error::BenchError;
use nix::unistd::{SysconfVar, sysconf};

/// Returns the CPU time of all threads of process `pid` so far, user and system mode together, seconds.
/// A vCPU's guest time is included.
pub(super) fn seconds(pid: u32) -> Result<f64, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(BenchError::os(format!("reading {path}")))?;
    let ticks = ticks(&text)
        .ok_or_else(|| BenchError::Wrong(format!("{path} has an unexpected format: {text:?}")))?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Ok(ticks as f64 / per_second as f64)
}

fn ticks(stat: &str) -> Option<u64> {
    // The program's name is in parentheses and may contain any character.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_with_any_program_name_are_user_plus_system_time() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 700 55 8 9 20 0 5 0 100\n";
        assert_eq!(ticks(line), Some(755));
        assert_eq!(ticks("42 (x) S 1"), None);
    }
}
