//! The sandbox on the command line: [`SandboxArgs`].

use super::exit_code::CliError;
use crate::opener::{self, OpenerConfig};
use crate::sandbox::{self, CoreDumps, Landlock, SandboxConfig, SandboxUser};
use crate::stdio;
use clap::Args;
use nix::sys::prctl::get_dumpable;
use nix::unistd::geteuid;

/// Options of the sandbox of a VM's process.
#[derive(Args, Clone, Debug)]
pub struct SandboxArgs {
    /// User that the VM's process becomes once everything is open: NAME, UID:GID or NAME:GROUP [default: one that no
    /// other process has, 1900000000 and the number of the process]
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<SandboxUser>,
    /// Keep user, capabilities and system calls of this process while the VM runs: for debugging only
    #[arg(long, conflicts_with = "user")]
    no_sandbox: bool,
}

impl SandboxArgs {
    /// Starts the opener of this process, unless there shall be no sandbox. To be called before this process has opened
    /// anything or started a thread.
    ///
    /// # Errors
    ///
    /// Only root can become another user; or the process can't be started.
    pub(super) fn start_opener(&self, config: &OpenerConfig) -> Result<(), CliError> {
        if self.no_sandbox {
            stdio::warning(
                "understudy: WARNING: --no-sandbox: a guest that breaks out of its VM has all rights of this process",
            );
            return Ok(());
        }
        if self.user.is_some() && !geteuid().is_root() {
            let text = "--user: only root can become another user";
            return Err(CliError::Usage(text.into()));
        }
        opener::start(config)
            .map_err(|source| CliError::Os { doing: "starting the opener", source })
    }

    /// Returns the user that was asked for, unless there shall be no sandbox.
    pub(super) fn user(&self) -> Option<SandboxUser> {
        self.user
    }

    /// Returns whether there shall be a sandbox.
    pub(super) fn is_on(&self) -> bool {
        !self.no_sandbox
    }

    /// Makes the sandbox that the threads of this process enter. To be called before they are started, and after all
    /// children that go on with this program.
    ///
    /// # Errors
    ///
    /// It can't be entered on this host.
    pub(super) fn start(&self) -> Result<(), CliError> {
        if self.no_sandbox {
            return Ok(());
        }
        let dumpable = get_dumpable().is_ok_and(|dumpable| dumpable);
        let core_dumps = if dumpable { CoreDumps::Allowed } else { CoreDumps::Forbidden };
        match sandbox::start(SandboxConfig { user: self.user, core_dumps })? {
            Landlock::Full => {}
            Landlock::Partial => tracing::info!("the sandbox has an older landlock of this kernel"),
            Landlock::Missing => stdio::warning(
                "understudy: WARNING: this kernel has no landlock: only the filter of system calls keeps the VM's \
                 process from files (see 'understudy doctor')",
            ),
        }
        opener::watch().map_err(|source| CliError::Os { doing: "watching the opener", source })
    }
}
