//! State of the PCI configuration port.

use serde::{Deserialize, Serialize};

/// CONFIG_ADDRESS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigPortState {
    /// The value that the guest wrote to port 0xCF8.
    pub(crate) address: u32,
}
