//! Port 0x80, to which firmware writes POST progress codes. Guests write it as a delay, so its accesses do
//! not count as unclaimed. There is nothing behind it.

mod config;
#[cfg(test)]
mod tests;

use super::DeviceConfig;
use super::device::{Device, NoState, PortContext, PortDevice, PortEffect};
use super::error::RestoreError;
use crate::replay::error::SourceError;
use config::PORT;

/// The port.
#[derive(Debug)]
pub(crate) struct PostPort;

impl Device for PostPort {
    const NAME: &'static str = "POST port";
    type State = NoState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self
    }

    fn save(&self) -> NoState {
        NoState
    }

    fn restore(_state: NoState) -> Result<Self, RestoreError> {
        Ok(Self)
    }
}

impl PortDevice for PostPort {
    type Register = ();

    fn decode(port: u16, _bytes: usize) -> Option<()> {
        (port == PORT).then_some(())
    }

    /// The port is write-only, and no device drives the bus.
    fn read_port(&mut self, (): (), _context: &mut PortContext<'_>) -> Result<u32, SourceError> {
        Ok(0xFF)
    }

    fn write_port(&mut self, (): (), _value: u32, _context: &mut PortContext<'_>) -> PortEffect {
        PortEffect::None
    }
}
