//! What a device implements: [`Device`], and either [`PortDevice`] or [`PciDevice`]. The defaults are
//! those of a device without the property; they are inlined, so that asking such a device costs nothing.

use serde::{Deserialize, Serialize};

use super::error::{ReissueError, RestoreError};
use super::pci::Identity;
use super::{Access, DeviceConfig};
use crate::bus::mmio::Window;
use crate::bus::pio::Width;
use crate::mem::GuestRam;
use crate::replay::error::SourceError;
use replication::boundary::{DeviceBoundary, DeviceCapacity, Input};

/// An input of the interrupt controllers: an ISA interrupt number, 0..=15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line(u8);

impl Line {
    /// Returns the line of an ISA interrupt. Number 2 connects the two controllers, so no device has it.
    pub(crate) const fn new(number: u8) -> Self {
        assert!(number < 16 && number != 2);
        Self(number)
    }

    /// Returns the ISA interrupt number, 0..=15.
    pub(crate) const fn number(self) -> u8 {
        self.0
    }
}

/// What a device does to its interrupt line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Nothing.
    Keep,
    /// Drives a level.
    Level(bool),
    /// Makes one rising edge.
    Edge,
}

/// State of a device that has none. Its encoding is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NoState;

/// A device of the machine.
pub(crate) trait Device: Sized {
    /// Name for messages.
    const NAME: &'static str;
    /// The interrupt line that the device drives.
    const LINE: Option<Line> = None;
    /// The complete state, as it is saved.
    type State;

    /// Returns the device after power-on.
    fn power_on(config: &DeviceConfig) -> Self;

    /// Sets the state in which a PC's firmware leaves the device before it starts a kernel.
    #[inline]
    fn act_as_firmware(&mut self, _now_ns: u64) {}

    /// Advances the device to guest time `now_ns`, which is never less than before. A timer that is due
    /// fires.
    #[inline]
    fn advance(&mut self, _now_ns: u64) -> Signal {
        Signal::Keep
    }

    /// Returns the guest time at which the next timer is due, nanoseconds.
    #[inline]
    fn next_timer_ns(&self) -> Option<u64> {
        None
    }

    /// Takes an input. Returns `None` if it is for another device.
    #[inline]
    fn accept(&mut self, _input: Input<'_>, _ram: &GuestRam) -> Option<Signal> {
        None
    }

    /// Sets the fields of `capacity` for the inputs that this device accepts.
    #[inline]
    fn add_capacity(&self, _capacity: &mut DeviceCapacity, _ram: &GuestRam) {}

    /// Returns the complete state.
    fn save(&self) -> Self::State;

    /// Returns the device in a saved state, with all counters at zero.
    ///
    /// # Errors
    ///
    /// The state is not one that the device can be in.
    fn restore(state: Self::State) -> Result<Self, RestoreError>;
}

/// What a device on the port bus may use while it handles an access.
pub(crate) struct PortContext<'a> {
    /// Guest time, nanoseconds. It is the time of this access if the device said that it needs the time,
    /// and the last known time otherwise.
    pub(crate) now_ns: u64,
    /// The nondeterminism boundary.
    pub(crate) boundary: &'a mut (dyn DeviceBoundary<Error = SourceError> + 'a),
}

/// The effect of a write to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortEffect {
    /// None outside of the device.
    None,
    /// The interrupt line has a rising edge.
    Edge,
    /// The guest requested a machine reset.
    Reset,
    /// None at all: the register can only be read. The write counts as one that no device claims.
    Unclaimed,
}

/// A device on the port bus.
pub(crate) trait PortDevice: Device {
    /// A register of the device.
    type Register: Copy;
    /// How much of an access a register takes.
    const WIDTH: Width = Width::Byte;

    /// Returns the register to which an access of `bytes` bytes at `port` belongs, or `None` if the
    /// device does not claim it.
    fn decode(port: u16, bytes: usize) -> Option<Self::Register>;

    /// Whether the guest clock must be read before `register` is read.
    #[inline]
    fn read_needs_time(&self, _register: Self::Register) -> bool {
        false
    }

    /// Whether the guest clock must be read before `value` is written to `register`.
    #[inline]
    fn write_needs_time(&self, _register: Self::Register, _value: u32) -> bool {
        false
    }

    /// Reads a register. The low bytes of the value are returned, as many as the access has.
    ///
    /// # Errors
    ///
    /// The boundary failed or found a divergence.
    fn read_port(
        &mut self,
        register: Self::Register,
        context: &mut PortContext<'_>,
    ) -> Result<u32, SourceError>;

    /// Writes a register. The bytes of `value` beyond those of the access are zero.
    fn write_port(
        &mut self,
        _register: Self::Register,
        _value: u32,
        _context: &mut PortContext<'_>,
    ) -> PortEffect {
        PortEffect::Unclaimed
    }
}

/// A function on PCI bus 0. Its interrupt line is INTA, which is driven with the level of
/// [`PciDevice::inta`] after every access and input.
pub(crate) trait PciDevice: Device {
    /// The constant properties, with the device number.
    const IDENTITY: &'static Identity;

    /// Whether the machine has this function. One that it does not have can't be found or accessed.
    #[inline]
    fn is_present(&self) -> bool {
        true
    }

    /// Goes on with what the function had to leave when a bound of it was reached. Returns false if there was
    /// nothing.
    ///
    /// # Errors
    ///
    /// The boundary failed or found a divergence.
    #[inline]
    fn resume(&mut self, _access: &mut Access<'_>) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Passes the requests in flight to a boundary that does not know them.
    ///
    /// # Errors
    ///
    /// The boundary failed, or guest memory does not have the requests any more.
    #[inline]
    fn reissue(&mut self, _access: &mut Access<'_>) -> Result<(), ReissueError> {
        Ok(())
    }

    /// Reads configuration registers from byte `register` on.
    fn config_read(&self, register: u8, data: &mut [u8]);

    /// Writes configuration registers from byte `register` on.
    fn config_write(&mut self, register: u8, data: &[u8]);

    /// Whether INTA is asserted.
    #[inline]
    fn inta(&self) -> bool {
        false
    }

    /// Returns the memory window while the guest has it enabled.
    #[inline]
    fn window(&self) -> Option<Window> {
        None
    }

    /// Reads at `offset` of the window.
    fn read_window(&mut self, _offset: u64, data: &mut [u8], _access: &mut Access<'_>) {
        data.fill(0xFF);
    }

    /// Writes at `offset` of the window.
    ///
    /// # Errors
    ///
    /// The boundary failed or found a divergence.
    fn write_window(
        &mut self,
        _offset: u64,
        _data: &[u8],
        _access: &mut Access<'_>,
    ) -> Result<(), SourceError> {
        Ok(())
    }
}
