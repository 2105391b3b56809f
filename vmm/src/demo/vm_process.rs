//! A VM as a child process: this program, started again.

use super::DemoError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running `understudy run` or `understudy record`; killed on drop.
#[derive(Debug)]
pub struct VmProcess {
    child: Child,
}

impl VmProcess {
    /// Starts `program` with `args`, in the namespace of the calling thread.
    pub fn spawn(program: &Path, args: &[&str]) -> Result<VmProcess, DemoError> {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|source| DemoError::Spawn {
                command: format!("{} {}", program.display(), args.join(" ")),
                source,
            })?;
        Ok(VmProcess { child })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// Has it ended?
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_status)))
    }

    /// Waits for its end; exit status and what it printed on standard output.
    pub fn wait(mut self) -> Result<(ExitStatus, String), DemoError> {
        let mut output = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut output).map_err(DemoError::client("reading the result"))?;
        }
        let status = self.child.wait().map_err(DemoError::client("waiting for the VM"))?;
        Ok((status, output))
    }

    /// Tells it to stop and waits for its end.
    pub fn stop(self) -> Result<(ExitStatus, String), DemoError> {
        self.signal(Signal::SIGTERM);
        self.wait()
    }
}

impl Drop for VmProcess {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
