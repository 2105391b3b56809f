//! Demonstrations on a single machine: network namespaces, VMs in them, and real clients.
//!
//! - [`pair`]: a protected VM on two hosts, whose primary is killed repeatedly
//! - [`standalone`]: one unprotected VM
//! - [`guest`]: the guests that the VM can run
//! - [`pace`]: how fast a guest answers on this machine, and the load and time limits that follow from that;
//!   [`cores`]: the cores that this process may run on
//! - [`lan`], [`vm_process`], [`clients`], [`redis`], [`icmp`]: building blocks; public, because the end-to-end
//!   tests and benchmarks use them, too

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

/// A failure of a demonstration.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A command of the host failed.
    #[error("'{command}' failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its output, in one line.
        output: String,
    },
    /// A command of the host could not be started.
    #[error(
        "can't start '{command}': {source} (scripts/install.sh installs ip, ss, ping and curl)"
    )]
    Spawn {
        /// The command line.
        command: String,
        /// Error of the system call.
        source: io::Error,
    },
    /// A client could not communicate with the VM.
    #[error("{doing}: {source}")]
    Client {
        /// What the client was doing.
        doing: String,
        /// Error of the system call.
        source: io::Error,
    },
    /// Something happened that must not happen, such as a wrong answer to a client.
    #[error("{0}")]
    Wrong(String),
    /// The process does not run as root, which network namespaces need.
    #[error("network namespaces, taps and /dev/kvm are needed: run as root")]
    NotRoot,
    /// The host is too slow for a demonstration.
    #[error("this host is too slow for a demonstration: {0}")]
    TooSlow(String),
    /// SIGINT, SIGTERM or SIGHUP arrived.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    /// Returns a function that adds what a client was doing to an I/O error.
    pub fn client(doing: impl Into<String>) -> impl FnOnce(io::Error) -> DemoError {
        let doing = doing.into();
        move |source| DemoError::Client { doing, source }
    }
}
