//! The PCI host bridge: nothing but its configuration space.

mod config;
mod state;
#[cfg(test)]
mod tests;

use crate::devices::DeviceConfig;
use crate::devices::device::{Device, PciDevice};
use crate::devices::error::RestoreError;
use crate::devices::pci::{Function, Identity};
use config::IDENTITY;
use state::HostBridgeState;

/// The host bridge.
#[derive(Debug)]
pub(crate) struct HostBridge {
    function: Function,
}

impl Device for HostBridge {
    const NAME: &'static str = "host bridge";
    type State = HostBridgeState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self { function: Function::new(IDENTITY) }
    }

    fn save(&self) -> HostBridgeState {
        self.function.save()
    }

    fn restore(state: HostBridgeState) -> Result<Self, RestoreError> {
        let function = Function::restore(IDENTITY, state);
        Ok(Self { function: function.ok_or(RestoreError::Impossible(Self::NAME))? })
    }
}

impl PciDevice for HostBridge {
    const IDENTITY: &'static Identity = IDENTITY;

    fn config_read(&self, register: u8, data: &mut [u8]) {
        self.function.read(register, data, false);
    }

    fn config_write(&mut self, register: u8, data: &[u8]) {
        self.function.write(register, data);
    }
}
