//! The signals that end the program, and one that must not.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use std::sync::Arc;

/// Returns the signals to handle: SIGTERM always, SIGINT and SIGHUP unless the parent process set them to be
/// ignored. nohup(1) does so with SIGHUP, and a shell without job control with SIGINT for background
/// processes.
pub fn ending() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored(&status);
    let is_handled = |&signal: &i32| signal == SIGTERM || ignored & (1 << (signal - 1)) == 0;
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(is_handled).collect()
}

/// Lets a write beyond the limit of file sizes fail like one to a full disk (setrlimit(2), RLIMIT_FSIZE). By default its
/// signal ends the process, and with it a VM whose messages or capture have reached the limit.
pub fn survive_file_size_limit() {
    // The handler only sets a flag. Without it, the signal has its default effect.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Returns the mask of ignored signals in `status`, the text of `/proc/PID/status` (proc_pid_status(5)). Bit
/// n - 1 stands for signal n. Returns 0 if the line is missing or malformed.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_parsed_from_status() {
        let status = "Name:\tunderstudy\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored(status), 1 << (SIGHUP - 1) | 1 << 12);
        assert_eq!(ignored("Name:\tunderstudy\n"), 0);
        assert_eq!(ignored("SigIgn:\tnonsense\n"), 0);
    }
}
