//! Network namespaces: made, entered, and removed again whatever happens.

use super::DemoError;
use crate::stdio;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs a command to its end; its standard output.
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

/// A network namespace with a name nobody else has; removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `understudy-<pid>-<n>-<role>`, with its loopback up.
    pub fn new(role: &str) -> Result<Namespace, DemoError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("understudy-{}-{count}-{role}", std::process::id());
        command("ip", &["netns", "add", &name])?;
        let namespace = Namespace { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside.
    pub fn ip(&self, args: &[&str]) -> Result<String, DemoError> {
        command("ip", &[&["-n", &self.name], args].concat())
    }

    /// Makes tap `tap` inside, up, with the host's address `address` (CIDR) if given.
    pub fn add_tap(&self, tap: &str, address: Option<&str>) -> Result<(), DemoError> {
        self.ip(&["tuntap", "add", "dev", tap, "mode", "tap"])?;
        // Otherwise the kernel's own router solicitations are the first frames the VM sees.
        self.ip(&["link", "set", tap, "addrgenmode", "none"])?;
        if let Some(address) = address {
            self.ip(&["addr", "add", address, "dev", tap])?;
        }
        self.ip(&["link", "set", tap, "up"])?;
        Ok(())
    }

    /// Runs `work` on a thread inside: its sockets and child processes belong to this namespace.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, DemoError> + Send,
    ) -> Result<T, DemoError> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| self.join().and_then(|()| work()));
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread inside, for good.
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
