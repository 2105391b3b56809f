//! State of the network device.

use serde::{Deserialize, Serialize};

use crate::devices::virtio::transport_pci::TransportState;

/// State of the PCI function and the device's MAC address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetState {
    /// Transport and queues.
    pub(crate) transport: TransportState,
    /// MAC address.
    pub(crate) mac: [u8; 6],
}
