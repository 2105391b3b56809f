//! The error type.

use std::io;

/// Why a host, a VM or a client could not do its part. Every message has one line.
#[derive(Debug, thiserror::Error)]
pub enum TestbedError {
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
    /// The host is too slow for a demonstration or a measurement.
    #[error("this host is too slow for a demonstration or a measurement: {0}")]
    TooSlow(String),
    /// SIGINT, SIGTERM or SIGHUP arrived.
    #[error("interrupted")]
    Interrupted,
}

impl TestbedError {
    /// Returns a function that adds what a client was doing to an I/O error.
    pub fn client(doing: impl Into<String>) -> impl FnOnce(io::Error) -> TestbedError {
        let doing = doing.into();
        move |source| TestbedError::Client { doing, source }
    }
}
