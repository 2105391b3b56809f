//! A VM that is recorded for a scene, and its log.

use crate::program::understudy;
use crate::recording::start_vm;
use logchan::entry::{Entry, REGISTERS};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use testbed::TestbedError;
use vmm::files::Access;
use vmm::replay::log_file::LogReader;

/// Index of RIP among the registers of an entry.
pub(super) const RIP: usize = 16;

/// A recording; its file is removed on drop.
pub(super) struct Recording {
    folder: TempDir,
    /// What `understudy record` printed at its end.
    pub(super) result: Value,
}

impl Recording {
    /// Records the reference guest while `work` uses it, on a thread in its namespace. Also returns what `work` returned.
    ///
    /// # Errors
    ///
    /// If the VM or `work` fails.
    pub(super) fn during<T: Send>(
        work: impl FnOnce() -> Result<T, TestbedError> + Send,
    ) -> Result<(Recording, T), TestbedError> {
        let folder = tempfile::tempdir().map_err(TestbedError::client("making a folder"))?;
        let log = folder.path().join("lecture.ulog");
        let vm = start_vm(&["record", "--log", &log.to_string_lossy()])?;
        let seen = vm.namespace.enter(work)?;
        Ok((Recording { folder, result: vm.stop()? }, seen))
    }

    /// Returns the path of the log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.path().join("lecture.ulog")
    }

    /// Returns a path for a changed copy of the log.
    pub(super) fn copy(&self) -> PathBuf {
        self.folder.path().join("changed.ulog")
    }

    /// Passes every entry of the log to `each`, with its index.
    ///
    /// # Errors
    ///
    /// If the log can't be read.
    pub(super) fn visit(&self, mut each: impl FnMut(u64, &Entry<'_>)) -> Result<(), TestbedError> {
        let failed = |error| TestbedError::Wrong(format!("reading the log: {error}"));
        let mut reader = LogReader::open(&self.log(), Access::Owner).map_err(failed)?;
        let mut index = 0;
        while let Some(entry) = reader.consume_entry().map_err(failed)? {
            each(index, &entry);
            index += 1;
        }
        Ok(())
    }
}

/// The registers of a recording, which the log has as changes from exit to exit.
#[derive(Debug, Default)]
pub(super) struct Registers([u64; REGISTERS]);

impl Registers {
    /// Takes an entry, and returns RIP if it is an exit with registers.
    pub(super) fn rip_at(&mut self, entry: &Entry<'_>) -> Option<u64> {
        let Entry::Exit { registers: Some(delta), .. } = entry else { return None };
        for (register, changes) in self.0.iter_mut().zip(delta.xor) {
            *register ^= changes;
        }
        Some(self.0[RIP])
    }
}

/// The result of `understudy replay`.
pub(super) struct Replayed {
    /// Exit code.
    pub(super) code: Option<i32>,
    /// The JSON object that it printed.
    pub(super) result: Value,
    /// Its last message.
    pub(super) message: String,
}

/// Runs `understudy replay` with `log`.
///
/// # Errors
///
/// If it can't be started, or prints no result.
pub(super) fn replay(log: &Path) -> Result<Replayed, TestbedError> {
    let report = log.with_extension("divergence");
    let mut command = Command::new(understudy());
    let command = command.args(["replay", "--json", "--report"]).args([&report, log]);
    let output = command.output().map_err(TestbedError::client("starting a replay"))?;
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let result = serde_json::from_str(stdout.trim())
        .map_err(|error| TestbedError::Wrong(format!("the replay: {error}: {stderr}")))?;
    let message = stderr.lines().last().unwrap_or_default().to_string();
    Ok(Replayed { code: output.status.code(), result, message })
}
