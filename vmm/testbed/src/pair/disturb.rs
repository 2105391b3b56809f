//! What is done to the hosts of a pair: to one of them at a time, by name.

use super::hosts::Hosts;
use super::member::{self, Member, Part};
use super::network::Host;
use super::scene::Setup;
use crate::clock::boottime_ns;
use crate::{TestbedError, VmProcess};
use nix::sys::signal::Signal;
use std::process::{ExitStatus, Stdio};

impl Hosts {
    /// Returns the process on `host`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn on(&self, host: Host) -> Result<&Member, TestbedError> {
        let member = self.members[host.index()].as_ref();
        member.ok_or_else(|| TestbedError::Wrong(format!("no process runs on host {host}")))
    }

    /// Returns the settings of the processes that are started from now on.
    pub fn setup_mut(&mut self) -> &mut Setup {
        &mut self.setup
    }

    /// Declares that the process on `host` may end, whatever its exit status is. It is replaced by the next
    /// [`protect`](Self::protect).
    pub fn allow_end(&mut self, host: Host) {
        if let Some(member) = &mut self.members[host.index()] {
            member.may_end = true;
        }
    }

    fn wait_for_end(&mut self, host: Host) -> Result<(), TestbedError> {
        self.wait("a process to end", |hosts| hosts.is_missing(host).then_some(()))
    }

    /// Waits until the VM runs on `host`.
    ///
    /// # Errors
    ///
    /// If it does not in time, or a process or a client fails.
    pub fn wait_for_leader(&mut self, host: Host) -> Result<(), TestbedError> {
        let what = format!("the VM to run on host {host}");
        self.wait(&what, |hosts| hosts.leader().is_some_and(|m| m.host == host).then_some(()))
    }

    /// Kills the process on `host`, if one runs there, and waits until it has ended.
    ///
    /// # Errors
    ///
    /// If another process or a client fails.
    pub fn destroy(&mut self, host: Host) -> Result<(), TestbedError> {
        self.allow_end(host);
        // The end of its output comes later: it frees its memory before.
        self.leadership.end(host, boottime_ns());
        if let Ok(member) = self.on(host) {
            member.signal(Signal::SIGKILL);
        }
        self.wait_for_end(host)
    }

    /// Sends SIGTERM to the process on `host` and waits until it has ended in an orderly way.
    ///
    /// # Errors
    ///
    /// If there is none, it does not end in time or ends with a failure, or another process or a client fails.
    pub fn terminate(&mut self, host: Host) -> Result<(), TestbedError> {
        self.allow_end(host);
        self.on(host)?.signal(Signal::SIGTERM);
        self.wait_for_end(host)?;
        match self.ended[host.index()] {
            Some(status) if !status.success() => {
                let text = format!("the process on host {host} ended with {status} after SIGTERM");
                Err(TestbedError::Wrong(text))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits until the primary says in its status that the other host could continue the VM.
    ///
    /// # Errors
    ///
    /// If it does not in time, or a process or a client fails.
    pub fn wait_until_fit(&mut self) -> Result<(), TestbedError> {
        let mut said = String::new();
        let waited = self.wait("a status that says that the VM is protected", |hosts| {
            said = hosts.leader()?.status().ok()?["protected"].to_string();
            (said == r#""yes""#).then_some(())
        });
        waited.map_err(|error| match error {
            TestbedError::Wrong(text) => TestbedError::Wrong(format!("{text} (it says {said})")),
            other => other,
        })
    }

    /// Runs `understudy primary` for the running VM on `host`, with a `tap` and a log interface `log` of its own, because
    /// two processes of a host may not share them. Returns its exit status.
    ///
    /// # Errors
    ///
    /// If it can't be started or does not end in time, or a process or a client fails.
    pub fn run_second_primary(
        &mut self,
        host: Host,
        [tap, log]: [&str; 2],
    ) -> Result<ExitStatus, TestbedError> {
        let mut setup = self.setup.clone();
        setup.options[host.index()].extend([format!("--tap={tap}"), format!("--interface={log}")]);
        let socket = setup.scene.path("second-primary.sock");
        let mut command = member::command(&setup, Part::Primary, host, &socket);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = || VmProcess::start(&mut command);
        let mut process = setup.scene.network.host(host).enter(start)?;
        self.wait("a second primary to end", |_| process.status())
    }
}
