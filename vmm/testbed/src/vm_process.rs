//! A VM in a child process.

use crate::TestbedError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};

/// Returns the path of `understudy`, built in the same profile as this executable.
///
/// # Errors
///
/// If it was not built.
pub fn understudy() -> Result<PathBuf, TestbedError> {
    let own = std::env::current_exe().map_err(TestbedError::client("finding this program"))?;
    // Cargo puts test programs into a folder of their own.
    let folders = own.ancestors().skip(1);
    let mut folders = folders.skip_while(|folder| folder.ends_with("deps"));
    let program = folders.next().unwrap_or(&own).join("understudy");
    if program.exists() {
        return Ok(program);
    }
    Err(TestbedError::Wrong(format!(
        "{} is missing: run 'cargo build --workspace' in the same profile first",
        program.display()
    )))
}

/// A running process with a VM; killed on drop.
#[derive(Debug)]
pub struct VmProcess {
    child: Child,
}

impl VmProcess {
    /// Starts `program` with `args` in the namespace of the calling thread. Standard output is a pipe.
    ///
    /// # Errors
    ///
    /// If the process can't be started.
    pub fn spawn(program: &Path, args: &[impl AsRef<OsStr>]) -> Result<VmProcess, TestbedError> {
        let mut command = Command::new(program);
        VmProcess::start(command.args(args).stdout(Stdio::piped()).stderr(Stdio::inherit()))
    }

    /// Starts `command` in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the process can't be started.
    pub fn start(command: &mut Command) -> Result<VmProcess, TestbedError> {
        let child = command.stdin(Stdio::null()).spawn().map_err(|source| {
            let words = std::iter::once(command.get_program()).chain(command.get_args());
            let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
            TestbedError::Spawn { command: words.join(" "), source }
        })?;
        Ok(VmProcess { child })
    }

    /// Takes the process's standard output and standard error, where they are pipes.
    pub fn take_pipes(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. Does nothing if the process has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// Returns whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.status().is_some()
    }

    /// Returns the exit status, if the process has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills the process, unless it has ended, and waits for it.
    pub fn kill(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// Waits for the process to end. Returns its exit status and what it wrote to its pipes. Standard error
    /// is read after the end of standard output, so only as much of it can be piped as a pipe holds.
    ///
    /// # Errors
    ///
    /// If its output can't be read, or waiting fails.
    pub fn wait(mut self) -> Result<Output, TestbedError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let pipes = self.take_pipes();
        let wait = || {
            pipes.0.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut stdout))?;
            pipes.1.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut stderr))?;
            self.child.wait()
        };
        let status = wait().map_err(TestbedError::client("waiting for the VM"))?;
        Ok(Output { status, stdout, stderr })
    }

    /// Sends SIGTERM and waits for the process to end. Returns its standard output.
    ///
    /// # Errors
    ///
    /// If it ends with a failure, its output can't be read, or waiting fails.
    pub fn finish(self) -> Result<String, TestbedError> {
        self.signal(Signal::SIGTERM);
        let Output { status, stdout, .. } = self.wait()?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        Err(TestbedError::Wrong(format!("the VM ended with {status}")))
    }
}

impl Drop for VmProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
