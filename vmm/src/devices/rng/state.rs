//! State of the entropy device.

use serde::{Deserialize, Serialize};

use crate::devices::virtio::transport_pci::TransportState;

/// State of the PCI function; the device itself has no state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RngState {
    /// Transport and queue.
    pub(crate) transport: TransportState,
}
