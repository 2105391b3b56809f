//! The programs of redis as clients: redis-cli(1) and redis-benchmark(1).

use crate::pace::Pace;
use crate::{GUEST_ADDRESS, TestbedError, command};
use std::time::Duration;

/// Number of SET requests and of GET requests in one run of redis-benchmark.
const BENCHMARK_REQUESTS: u64 = 5;

/// The key that redis-cli increments.
pub const COUNTER_KEY: &str = "redis-cli";

/// One of the programs. Both are in the package redis-tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// redis-cli: increments a counter, with a new connection for each number.
    Cli,
    /// redis-benchmark: measures the server on two concurrent connections.
    Benchmark,
}

impl Tool {
    /// Both programs.
    pub const ALL: [Tool; 2] = [Tool::Cli, Tool::Benchmark];

    /// Returns the name of the executable.
    pub const fn name(self) -> &'static str {
        match self {
            Tool::Cli => "redis-cli",
            Tool::Benchmark => "redis-benchmark",
        }
    }

    /// Returns whether the program is installed.
    pub fn is_installed(self) -> bool {
        command(self.name(), &["--version"]).is_ok()
    }

    /// Returns the pause between two runs.
    pub(super) fn pause(self, pace: &Pace) -> Duration {
        match self {
            Tool::Cli => pace.pause(Duration::from_secs(1), 200),
            Tool::Benchmark => pace.pause(Duration::from_secs(3), 600),
        }
    }
}

/// Increments the counter with redis-cli and checks that the result is `due`.
pub(super) fn count(due: u64, patience: Duration) -> Result<(), TestbedError> {
    let answer = run(Tool::Cli, &["INCR", COUNTER_KEY], patience)?;
    if answer.trim() == due.to_string() {
        return Ok(());
    }
    Err(TestbedError::Wrong(format!("redis-cli got {:?} instead of {due}", answer.trim())))
}

/// Runs redis-benchmark once.
pub(super) fn benchmark(patience: Duration) -> Result<(), TestbedError> {
    let count = BENCHMARK_REQUESTS.to_string();
    let args = ["-t", "set,get", "-c", "2", "-n", &count, "--csv"];
    let text = run(Tool::Benchmark, &args, patience)?;
    // redis-benchmark exits successfully even if the server answers with an error.
    if ["\"SET\",", "\"GET\","].iter().all(|test| text.contains(test)) {
        return Ok(());
    }
    Err(TestbedError::Wrong(format!("redis-benchmark printed {text:?}")))
}

/// Runs a program against the VM's server, under timeout(1), because neither program has a timeout of its
/// own.
fn run(tool: Tool, args: &[&str], patience: Duration) -> Result<String, TestbedError> {
    let (address, seconds) = (GUEST_ADDRESS.to_string(), patience.as_secs().to_string());
    let words = [&[&seconds, tool.name(), "-h", &address], args].concat();
    command("timeout", &words)
}
