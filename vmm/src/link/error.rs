//! Errors of opening a logging channel.

use super::key_file::KeyFileError;
use logchan::channel::ConfigError;
use netpath::PortError;

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The interface can't be used, or this process may not use it.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The key file can't be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The thread that watches the interface can't be started.
    #[error("starting the thread that watches the log interface: {0}")]
    Thread(#[source] std::io::Error),
    /// The configuration is invalid.
    #[error("logging channel: {0}")]
    Config(#[from] ConfigError),
    /// The peer's address is the interface's own address.
    #[error(
        "{mac} is the address of {interface} itself: give the MAC address of the other host's interface"
    )]
    OwnAddress {
        /// The interface.
        interface: String,
        /// Its address, and the one given as the peer's.
        mac: netpath::MacAddr,
    },
}
