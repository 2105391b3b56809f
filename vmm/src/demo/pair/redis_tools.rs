//! The programs that redis comes with, as clients: redis-cli(1) and redis-benchmark(1).

use crate::demo::DemoError;
use crate::demo::lan;
use crate::demo::pace::Pace;
use crate::demo::standalone::GUEST_ADDRESS;
use std::time::Duration;

/// Requests of one run of redis-benchmark, each of SET and GET.
const BENCHMARK_REQUESTS: u64 = 5;

/// One of the programs. Both are of the package redis-tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Counts, with a connection for each number.
    Cli,
    /// Measures the server, on two connections at once.
    Benchmark,
}

impl Tool {
    /// Both.
    pub const ALL: [Tool; 2] = [Tool::Cli, Tool::Benchmark];

    /// As the program is called.
    pub const fn name(self) -> &'static str {
        match self {
            Tool::Cli => "redis-cli",
            Tool::Benchmark => "redis-benchmark",
        }
    }

    /// Whether this machine has it.
    pub fn is_installed(self) -> bool {
        lan::command(self.name(), &["--version"]).is_ok()
    }

    /// From the end of one run to the next.
    pub(super) fn pause(self, pace: &Pace) -> Duration {
        match self {
            Tool::Cli => pace.pause(Duration::from_secs(1), 200),
            Tool::Benchmark => pace.pause(Duration::from_secs(3), 600),
        }
    }
}

/// The next number by redis-cli, which must be `due`.
pub(super) fn count(due: u64, patience: Duration) -> Result<(), DemoError> {
    let answer = run(Tool::Cli, &["INCR", "redis-cli"], patience)?;
    if answer.trim() == due.to_string() {
        return Ok(());
    }
    Err(DemoError::Wrong(format!("redis-cli got {:?} where {due} was due", answer.trim())))
}

/// A run of redis-benchmark.
pub(super) fn benchmark(patience: Duration) -> Result<(), DemoError> {
    let count = BENCHMARK_REQUESTS.to_string();
    let args = ["-t", "set,get", "-c", "2", "-n", &count, "--csv"];
    let text = run(Tool::Benchmark, &args, patience)?;
    // It ends well, too, when the server tells it of an error.
    if ["\"SET\",", "\"GET\","].iter().all(|test| text.contains(test)) {
        return Ok(());
    }
    Err(DemoError::Wrong(format!("redis-benchmark printed {text:?}")))
}

/// Runs a tool on the VM's server. timeout(1), because neither has a patience of its own.
fn run(tool: Tool, args: &[&str], patience: Duration) -> Result<String, DemoError> {
    let (address, seconds) = (GUEST_ADDRESS.to_string(), patience.as_secs().to_string());
    let words = [&[&seconds, tool.name(), "-h", &address], args].concat();
    lan::command("timeout", &words)
}
