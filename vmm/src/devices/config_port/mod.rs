//! PCI configuration mechanism #1 (PCI 3.0, section 3.2.2.3.2): the function and register that an access
//! to ports 0xCF8 and 0xCFC..=0xCFF selects.
//!
//! The device is CONFIG_ADDRESS. CONFIG_DATA is no register of it but the way to those of the functions,
//! so the port bus passes the access on to the function that [`ConfigPort::target`] names.

mod config;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::ConfigPortState;

use crate::bus::pio::Width;
use crate::devices::DeviceConfig;
use crate::devices::device::{Device, PortContext, PortDevice, PortEffect};
use crate::devices::error::RestoreError;
use crate::replay::error::SourceError;

/// CONFIG_ADDRESS: configuration cycles are enabled.
const ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS: writable bits.
const ADDRESS_MASK: u32 = ENABLE | 0x00FF_FFFC;

/// The ports of the configuration mechanism.
#[derive(Debug)]
pub(crate) struct ConfigPort {
    state: ConfigPortState,
}

impl ConfigPort {
    fn new(address: u32) -> Self {
        Self { state: ConfigPortState { address: address & ADDRESS_MASK } }
    }

    /// Returns the byte of CONFIG_DATA at which an access at `port` starts.
    pub(crate) fn data_lane(port: u16) -> Option<u8> {
        config::data_lane(port)
    }

    /// Returns the device number of the selected function on bus 0, and the register at byte `lane` of
    /// CONFIG_DATA. `None` is a master abort: reads return all ones, writes have no effect.
    pub(crate) fn target(&self, lane: u8) -> Option<(u8, u8)> {
        let address = self.state.address;
        let [register, device_function, bus, _] = address.to_le_bytes();
        let selects = address & ENABLE != 0 && bus == 0 && device_function & 7 == 0;
        selects.then_some((device_function >> 3, register | lane & 3))
    }
}

impl Device for ConfigPort {
    const NAME: &'static str = "PCI configuration port";
    type State = ConfigPortState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self::new(0)
    }

    fn save(&self) -> ConfigPortState {
        self.state.clone()
    }

    fn restore(state: ConfigPortState) -> Result<Self, RestoreError> {
        Ok(Self::new(state.address))
    }
}

impl PortDevice for ConfigPort {
    type Register = ();
    const WIDTH: Width = Width::Whole;

    fn decode(port: u16, bytes: usize) -> Option<()> {
        config::is_address(port, bytes).then_some(())
    }

    fn read_port(&mut self, (): (), _context: &mut PortContext<'_>) -> Result<u32, SourceError> {
        Ok(self.state.address)
    }

    fn write_port(&mut self, (): (), value: u32, _context: &mut PortContext<'_>) -> PortEffect {
        *self = Self::new(value);
        PortEffect::None
    }
}
