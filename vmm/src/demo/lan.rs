//! Network namespaces. A namespace is removed when its value is dropped.

use super::DemoError;
use crate::stdio;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs a command to its end and returns its standard output.
///
/// # Errors
///
/// If the command can't be started or fails.
pub fn command(program: &str, args: &[&str]) -> Result<String, DemoError> {
    let line = || format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|source| DemoError::Spawn { command: line(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    let output = String::from_utf8_lossy(&text).trim().replace('\n', "; ");
    Err(DemoError::Command { command: line(), output })
}

/// A network namespace with a unique name; removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates the namespace `understudy-<pid>-<n>-<role>` and sets its loopback interface up.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn new(role: &str) -> Result<Namespace, DemoError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("understudy-{}-{count}-{role}", std::process::id());
        command("ip", &["netns", "add", &name])?;
        let namespace = Namespace { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Returns the name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace and returns its standard output.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn ip(&self, args: &[&str]) -> Result<String, DemoError> {
        command("ip", &[&["-n", &self.name], args].concat())
    }

    /// Creates the tap device `tap` in the namespace, gives it the host's `address` (CIDR) if there is one,
    /// and sets it up.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn add_tap(&self, tap: &str, address: Option<&str>) -> Result<(), DemoError> {
        self.ip(&["tuntap", "add", "dev", tap, "mode", "tap"])?;
        // Otherwise the host kernel's router solicitations are the first frames that the VM receives.
        self.ip(&["link", "set", tap, "addrgenmode", "none"])?;
        if let Some(address) = address {
            self.ip(&["addr", "add", address, "dev", tap])?;
        }
        self.ip(&["link", "set", tap, "up"])?;
        Ok(())
    }

    /// Runs `work` on a thread in the namespace, so that its sockets and child processes belong to the
    /// namespace.
    ///
    /// # Errors
    ///
    /// If the namespace can't be entered, or `work` fails.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, DemoError> + Send,
    ) -> Result<T, DemoError> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| self.join().and_then(|()| work()));
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace permanently.
    ///
    /// # Errors
    ///
    /// If the namespace can't be entered.
    pub fn join(&self) -> Result<(), DemoError> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).map_err(DemoError::client(format!("open {path}")))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| DemoError::Client {
            doing: format!("entering namespace {}", self.name),
            source: errno.into(),
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = command("ip", &["netns", "del", &self.name]) {
            stdio::message(format_args!("understudy: {error}"));
        }
    }
}
