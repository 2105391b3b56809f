//! What can be wrong with a logging channel before its first frame.

use super::key_file::KeyFileError;
use logchan::channel::ConfigError;
use netpath::PortError;

/// Why a link was not opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The interface, or the right to use it.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Values that do not go together.
    #[error("logging channel: {0}")]
    Config(#[from] ConfigError),
    /// The peer's address is the interface's own.
    #[error("{mac} is the address of {interface} itself: give the MAC address of the other host's")]
    OwnAddress {
        /// The interface.
        interface: String,
        /// Its address, and the one given as the peer's.
        mac: netpath::MacAddr,
    },
}
