//! Demonstrations on this host alone: network namespaces, VMs in them, real clients.
//!
//! - [`pair`]: a VM on two hosts, which are killed again and again
//! - [`standalone`]: a VM on its own
//! - [`guest`]: what the VM may be
//! - [`pace`]: how fast a guest is on this host, and what follows from that; [`cores`]: what it may run on
//! - [`lan`], [`vm_process`], [`clients`], [`redis`], [`icmp`]: their parts, public because the end-to-end
//!   tests use the same

pub mod clients;
pub mod cores;
pub mod guest;
pub mod icmp;
pub mod lan;
pub mod pace;
pub mod pair;
pub mod redis;
pub mod standalone;
pub mod vm_process;

use std::io;

/// What went wrong in a demonstration.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A command of the host failed.
    #[error("'{command}' failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it printed, in one line.
        output: String,
    },
    /// A command of the host is not there.
    #[error(
        "can't start '{command}': {source} (scripts/install.sh installs ip, ss, ping and curl)"
    )]
    Spawn {
        /// The command line.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A client could not talk to the VM.
    #[error("{doing}: {source}")]
    Client {
        /// What the client was doing.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A client got an answer it should not have got.
    #[error("{0}")]
    Wrong(String),
    /// Without root there are no namespaces.
    #[error("network namespaces, taps and /dev/kvm are needed: run it as root")]
    NotRoot,
    /// The host is too slow to show anything.
    #[error("this host is too slow to show anything: {0}")]
    TooSlow(String),
    /// SIGINT, SIGTERM or SIGHUP.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    /// Names what a client was doing.
    pub fn client(doing: impl Into<String>) -> impl FnOnce(io::Error) -> DemoError {
        let doing = doing.into();
        move |source| DemoError::Client { doing, source }
    }
}
