//! The background clients, which run next to the measured ones: ping(8), curl(1), TCP echo, and redis's own
//! programs if the guest has a redis server.

use super::redis_tools::{self, Tool};
use crate::pace::Pace;
use crate::{GUEST_ADDRESS, Guest, TestbedError, clients};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Interval at which a pause checks the stop flag.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

// Pause of each client: a minimum, and a number of the guest's answers (see `Pace::pause`). For a Linux
// guest, an echo is as much work as tens of counter requests, and a page, for which it forks, as much as a
// hundred.
const ECHO_PAUSE: (Duration, u32) = (Duration::from_millis(100), 130);
const PAGE_PAUSE: (Duration, u32) = (Duration::from_millis(250), 330);
const PING_PAUSE: (Duration, u32) = (Duration::from_millis(50), 66);

/// The background clients except ping, and their results.
#[derive(Debug)]
pub struct Traffic {
    guest: Guest,
    pace: Pace,
    seen: Mutex<Seen>,
}

/// Results of the clients.
#[derive(Debug, Default)]
pub struct Seen {
    /// Echo transfers with a correct answer.
    pub echoes: u64,
    /// Pages fetched.
    pub pages: u64,
    /// Numbers that redis-cli got, each the next one.
    pub redis_cli: u64,
    /// Runs of redis-benchmark.
    pub redis_benchmarks: u64,
    /// Transfers that failed or had a wrong answer.
    pub failed: u64,
    /// Those of them that had a wrong answer.
    pub wrong: u64,
    /// Description of the first failure.
    pub first_failure: Option<String>,
}

impl Seen {
    /// Returns whether each of these clients, including `tools`, has completed a transfer, or one has failed.
    pub fn all_completed(&self, tools: &[Tool]) -> bool {
        let of = |tool| match tool {
            Tool::Cli => self.redis_cli,
            Tool::Benchmark => self.redis_benchmarks,
        };
        let are_through = tools.iter().all(|&tool| of(tool) > 0);
        self.failed > 0 || (self.echoes > 0 && self.pages > 0 && are_through)
    }
}

impl Traffic {
    /// Creates the clients for a VM with this guest, with this pace.
    pub fn new(guest: Guest, pace: Pace) -> Traffic {
        Traffic { guest, pace, seen: Mutex::default() }
    }

    /// Runs echo transfers until `stop`, in the namespace of the calling thread.
    pub fn echo(&self, stop: &AtomicBool) {
        let mut transfer: usize = 0;
        while !stop.load(Ordering::Relaxed) {
            transfer += 1;
            let bytes = (0..self.guest.echo_bytes())
                .map(|index| (index * 31 + index / 251 + transfer) as u8);
            let (bytes, patience) = (bytes.collect::<Vec<u8>>(), self.pace.patience());
            let result = self.guest.echo(GUEST_ADDRESS, &bytes, patience);
            self.record_result(result, |seen| seen.echoes += 1);
            self.pause(ECHO_PAUSE, stop);
        }
    }

    /// Fetches the guest's pages repeatedly until `stop`, in the namespace of the calling thread.
    pub fn pages(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            for path in self.guest.pages() {
                let result = clients::fetch_within(GUEST_ADDRESS, path, self.pace.patience());
                self.record_result(result, |seen| seen.pages += 1);
                self.pause(PAGE_PAUSE, stop);
            }
        }
    }

    /// Runs one of redis's programs repeatedly until `stop`, in the namespace of the calling thread.
    pub fn redis(&self, tool: Tool, stop: &AtomicBool) {
        let patience = self.pace.patience();
        while !stop.load(Ordering::Relaxed) {
            match tool {
                Tool::Cli => {
                    let due = self.seen().redis_cli + 1;
                    self.record_result(redis_tools::count(due, patience), |seen| {
                        seen.redis_cli = due;
                    });
                }
                Tool::Benchmark => {
                    let ended = redis_tools::benchmark(patience);
                    self.record_result(ended, |seen| seen.redis_benchmarks += 1);
                }
            }
            sleep_unless_stopped(tool.pause(&self.pace), stop);
        }
    }

    fn pause(&self, (least, answers): (Duration, u32), stop: &AtomicBool) {
        sleep_unless_stopped(self.pace.pause(least, answers), stop);
    }

    fn record_result<T>(&self, result: Result<T, TestbedError>, count: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen();
        match result {
            Ok(_) => count(&mut seen),
            Err(error) => {
                seen.failed += 1;
                seen.wrong += u64::from(matches!(error, TestbedError::Wrong(_)));
                seen.first_failure.get_or_insert(error.to_string());
            }
        }
    }

    /// Returns the results so far.
    ///
    /// # Panics
    ///
    /// If a thread panicked while it held the lock.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no thread panics while it holds the lock")
    }
}

/// Sleeps for `time`, or until `stop`.
pub(crate) fn sleep_unless_stopped(time: Duration, stop: &AtomicBool) {
    let end = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(POLL_INTERVAL));
    }
}

/// A running ping(8); killed on drop.
#[derive(Debug)]
pub struct Ping(Child);

impl Ping {
    /// Starts ping in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If ping can't be started.
    pub fn start(pace: &Pace) -> Result<Ping, TestbedError> {
        let (least, answers) = PING_PAUSE;
        let interval_s = format!("{:.3}", pace.pause(least, answers).as_secs_f64());
        let address = GUEST_ADDRESS.to_string();
        let args = ["-n", "-q", "-i", &interval_s, &address];
        let mut command = Command::new("ping");
        // Its own process group, so that Ctrl-C reaches only this process, which then stops ping and reads
        // its statistics.
        command.args(args).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|source| TestbedError::Spawn {
            command: format!("ping {}", args.join(" ")),
            source,
        })?;
        Ok(Ping(child))
    }

    /// Stops ping. Returns the number of requests sent and answered.
    ///
    /// # Errors
    ///
    /// If ping can't be stopped, or prints something unexpected.
    pub fn stop(mut self) -> Result<(u64, u64), TestbedError> {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        kill(pid, Signal::SIGINT).map_err(|errno| TestbedError::Client {
            doing: "stopping ping".into(),
            source: errno.into(),
        })?;
        let mut text = String::new();
        let mut output = self.0.stdout.take().expect("it is a pipe");
        output.read_to_string(&mut text).map_err(TestbedError::client("reading from ping"))?;
        counts(&text).ok_or_else(|| TestbedError::Wrong(format!("ping printed {text:?}")))
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Parses "20 packets transmitted, 19 received, +1 duplicates, 5% packet loss, time 3ms".
fn counts(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find(|line| line.contains(" packets transmitted"))?;
    let number = |what| line.split(", ").find_map(|part| part.strip_suffix(what)?.parse().ok());
    Some((number(" packets transmitted")?, number(" received")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_parsed_from_summary_of_ping() {
        let text = "PING 10.77.0.2\n\n--- statistics ---\n\
                    30 packets transmitted, 28 received, +1 duplicates, 6% packet loss, time 9ms\n";
        assert_eq!(counts(text), Some((30, 28)));
        assert_eq!(counts("ping: socket: no"), None);
    }
}
