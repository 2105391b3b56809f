//! State of the host bridge.

use crate::devices::pci::FunctionState;

/// The registers of its PCI function.
pub(crate) type HostBridgeState = FunctionState;
