//! The two ways in which a PC guest resets the machine: the keyboard controller's pulse command (port
//! 0x64) and the PCI chipset's reset control register (port 0xCF9, 82371AB section 4.1.1.2).
//!
//! There is no keyboard. The i8042 answers every read with 0, "both buffers empty", so that a driver
//! which waits for that before the reset command does not wait.

use std::cell::Cell;
use std::convert::Infallible;

use serde::{Deserialize, Serialize};
use vm_superio::{I8042Device, Trigger};

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

/// State of the reset control register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetState {
    /// The value that it reads back.
    pub control: u8,
}

/// The ports that reset the machine.
#[derive(Debug)]
pub(crate) struct ResetPorts {
    i8042: I8042Device<Requested>,
    state: ResetState,
}

impl ResetPorts {
    pub(crate) fn new() -> Self {
        Self::restore(ResetState::default())
    }

    /// Reads an i8042 port, `offset` from 0x60.
    pub(crate) fn read_i8042(&mut self, offset: u8) -> u8 {
        self.i8042.read(offset)
    }

    /// Writes an i8042 port, `offset` from 0x60. Returns true if the machine must reset.
    pub(crate) fn write_i8042(&mut self, offset: u8, value: u8) -> bool {
        match self.i8042.write(offset, value) {
            Ok(()) => self.i8042.reset_evt().0.take(),
            Err(never) => match never {},
        }
    }

    /// Reads port 0xCF9.
    pub(crate) fn read_control(&self) -> u8 {
        self.state.control
    }

    /// Writes port 0xCF9. Returns true if the machine must reset.
    pub(crate) fn write_control(&mut self, value: u8) -> bool {
        self.state.control = value & SYSTEM_RESET;
        value & RESET_CPU != 0
    }

    pub(crate) fn save(&self) -> ResetState {
        self.state.clone()
    }

    pub(crate) fn restore(state: ResetState) -> Self {
        Self { i8042: I8042Device::new(Requested::default()), state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i8042_pulse_command_resets_once_and_others_do_not() {
        let mut ports = ResetPorts::new();
        assert_eq!(ports.read_i8042(4), 0);
        assert!(!ports.write_i8042(4, 0xAA));
        assert!(!ports.write_i8042(0, 0xFE));
        assert!(ports.write_i8042(4, 0xFE));
        assert!(!ports.write_i8042(4, 0x60));
    }

    #[test]
    fn reset_control_resets_on_the_cpu_bit_only() {
        let mut ports = ResetPorts::new();
        assert!(!ports.write_control(SYSTEM_RESET));
        assert_eq!(ports.read_control(), SYSTEM_RESET);
        assert!(ports.write_control(SYSTEM_RESET | RESET_CPU));
    }
}
