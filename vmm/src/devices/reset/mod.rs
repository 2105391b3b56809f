//! The two ways in which a PC guest resets the machine: the keyboard controller's pulse command (port
//! 0x64) and the PCI chipset's reset control register (port 0xCF9, 82371AB section 4.1.1.2).
//!
//! There is no keyboard. The i8042 answers every read with 0, "both buffers empty", so that a driver
//! which waits for that before the reset command does not wait.

mod config;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::ResetState;

use std::cell::Cell;
use std::convert::Infallible;

use vm_superio::{I8042Device, Trigger};

use super::DeviceConfig;
use super::device::{Device, PortContext, PortDevice, PortEffect};
use super::error::RestoreError;
use crate::replay::error::SourceError;
use config::ResetRegister;

/// Reset control: a full reset instead of a soft one. It makes no difference here but reads back.
const SYSTEM_RESET: u8 = 1 << 1;
/// Reset control: setting this bit resets the processor.
const RESET_CPU: u8 = 1 << 2;

/// Set when the i8042 model requests a reset.
#[derive(Debug, Default)]
struct Requested(Cell<bool>);

impl Trigger for Requested {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(true);
        Ok(())
    }
}

/// The ports that reset the machine.
#[derive(Debug)]
pub(crate) struct ResetPorts {
    i8042: I8042Device<Requested>,
    state: ResetState,
}

impl ResetPorts {
    fn new(state: ResetState) -> Self {
        Self { i8042: I8042Device::new(Requested::default()), state }
    }

    /// Reads an i8042 port, `offset` from 0x60.
    fn read_i8042(&mut self, offset: u8) -> u8 {
        self.i8042.read(offset)
    }

    /// Writes an i8042 port, `offset` from 0x60. Returns true if the machine must reset.
    fn write_i8042(&mut self, offset: u8, value: u8) -> bool {
        match self.i8042.write(offset, value) {
            Ok(()) => self.i8042.reset_evt().0.take(),
            Err(never) => match never {},
        }
    }

    /// Reads port 0xCF9.
    fn read_control(&self) -> u8 {
        self.state.control
    }

    /// Writes port 0xCF9. Returns true if the machine must reset.
    fn write_control(&mut self, value: u8) -> bool {
        self.state.control = value & SYSTEM_RESET;
        value & RESET_CPU != 0
    }
}

impl Device for ResetPorts {
    const NAME: &'static str = "reset ports";
    type State = ResetState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self::new(ResetState { control: 0 })
    }

    fn save(&self) -> ResetState {
        self.state.clone()
    }

    fn restore(state: ResetState) -> Result<Self, RestoreError> {
        Ok(Self::new(state))
    }
}

impl PortDevice for ResetPorts {
    type Register = ResetRegister;

    fn decode(port: u16, bytes: usize) -> Option<ResetRegister> {
        ResetRegister::at(port, bytes)
    }

    fn read_port(
        &mut self,
        register: ResetRegister,
        _context: &mut PortContext<'_>,
    ) -> Result<u32, SourceError> {
        Ok(u32::from(match register {
            ResetRegister::I8042(offset) => self.read_i8042(offset),
            ResetRegister::Control => self.read_control(),
        }))
    }

    fn write_port(
        &mut self,
        register: ResetRegister,
        value: u32,
        _context: &mut PortContext<'_>,
    ) -> PortEffect {
        let reset = match register {
            ResetRegister::I8042(offset) => self.write_i8042(offset, value as u8),
            ResetRegister::Control => self.write_control(value as u8),
        };
        if reset { PortEffect::Reset } else { PortEffect::None }
    }
}
