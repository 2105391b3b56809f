//! State of the entropy device.

use serde::{Deserialize, Serialize};

use crate::devices::virtio::transport_pci::TransportState;

/// The function; the device itself remembers nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState {
    /// Transport and queue.
    pub transport: TransportState,
}
