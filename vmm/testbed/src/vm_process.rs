//! A VM in a child process.

use crate::TestbedError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

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

    /// Waits for the process to end. Returns its exit status and standard output.
    ///
    /// # Errors
    ///
    /// If its output can't be read, or waiting fails.
    pub fn wait(mut self) -> Result<(ExitStatus, String), TestbedError> {
        let mut output = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout
                .read_to_string(&mut output)
                .map_err(TestbedError::client("reading the result"))?;
        }
        let status = self.child.wait().map_err(TestbedError::client("waiting for the VM"))?;
        Ok((status, output))
    }

    /// Sends SIGTERM and waits for the process to end. Returns its standard output.
    ///
    /// # Errors
    ///
    /// If it ends with a failure, its output can't be read, or waiting fails.
    pub fn finish(self) -> Result<String, TestbedError> {
        self.signal(Signal::SIGTERM);
        let (status, output) = self.wait()?;
        if status.success() {
            return Ok(output);
        }
        Err(TestbedError::Wrong(format!("the VM ended with {status}")))
    }
}

impl Drop for VmProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
