//! An unprotected VM.

use crate::clients::{self, Limit};
use crate::{Guest, Namespace, TestbedError, VmProcess};
use serde_json::Value;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

/// The address of every VM.
pub const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The address of a VM's clients.
pub const HOST_CIDR: &str = "10.77.0.1/24";
/// The tap of a VM in its host's namespace.
pub const TAP: &str = "tap0";

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Path of `understudy`.
    pub program: &'a Path,
    /// The guest.
    pub guest: &'a Guest,
    /// The command, `run` or `record`, and its options except those that every VM here has.
    pub command: &'a [&'a str],
}

impl Launch<'_> {
    /// Starts the VM in namespace `host`, which has [`TAP`], and waits for its first answer to a ping from
    /// namespace `client`. Returns the process and the time from its start to the answer.
    ///
    /// # Errors
    ///
    /// If the VM can't be started, ends, or does not answer within `limit`.
    pub fn start(
        &self,
        [host, client]: [&Namespace; 2],
        limit: &Limit<'_>,
    ) -> Result<(VmProcess, Duration), TestbedError> {
        let common = ["--tap", TAP, "--quiet", "--json"];
        let args = self.command.iter().chain(&common).map(OsString::from);
        let args: Vec<OsString> = args.chain(self.guest.options()).collect();
        let begun = Instant::now();
        let mut vm = host.enter(|| VmProcess::spawn(self.program, &args))?;
        let reply = || clients::first_ping_reply(&mut vm, GUEST_ADDRESS, begun, limit);
        let first_answer = client.enter(reply)?;
        Ok((vm, first_answer))
    }
}

/// A VM and its clients in one namespace. Both are removed on drop.
#[derive(Debug)]
pub struct Standalone {
    /// The VM's process. Dropped first: it must end before the namespace in which it runs.
    pub vm: VmProcess,
    /// The namespace.
    pub namespace: Namespace,
    /// Time from the start of the process to the VM's first answer.
    pub first_answer: Duration,
}

impl Standalone {
    /// Starts a VM in `namespace` (see [`Namespace::with_tap`]) and waits for its first answer.
    ///
    /// # Errors
    ///
    /// See [`Launch::start`].
    pub fn start(
        namespace: Namespace,
        launch: &Launch<'_>,
        limit: &Limit<'_>,
    ) -> Result<Standalone, TestbedError> {
        let (vm, first_answer) = launch.start([&namespace, &namespace], limit)?;
        Ok(Standalone { vm, namespace, first_answer })
    }

    /// Stops the VM and returns the JSON object that it prints at its end.
    ///
    /// # Errors
    ///
    /// If it ends with a failure or without a result.
    pub fn stop(self) -> Result<Value, TestbedError> {
        let output = self.vm.finish()?;
        let last = output.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .map_err(|error| TestbedError::Wrong(format!("the VM printed {last:?}: {error}")))
    }
}
