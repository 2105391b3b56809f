//! The supervisor of a process of a pair: the process `understudy supervise` that it started.

use nix::unistd::Pid;
use std::fs;

/// Returns the supervisor of the process `pid`, if it has one that has not ended.
pub fn of(pid: u32) -> Option<Pid> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut children = processes.filter(|&process| parent(process) == Some(pid));
    let supervisor = children.find(|&child| is_supervisor(child))?;
    Some(Pid::from_raw(supervisor.cast_signed()))
}

/// Returns the parent of a process: the second field of proc_pid_stat(5) behind the name in parentheses.
fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Returns whether a process is a supervisor. One that has ended and was not reaped has no command line.
fn is_supervisor(process: u32) -> bool {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).nth(1) == Some(b"supervise")
}
