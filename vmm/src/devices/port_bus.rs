//! Port accesses of [`Devices`]: from a port to the device's register.

use super::config_port::ConfigPort;
use super::device::{PortContext, PortDevice, PortEffect, Signal};
use super::{Access, Devices, Effect};
use crate::bus::pio;
use crate::replay::error::SourceError;
use replication::boundary::DeviceBoundary;

/// The context of one access: the boundary, whether the guest clock has been read for the access, and what
/// the machine must do after it.
pub(super) struct Exit<'a> {
    boundary: &'a mut (dyn DeviceBoundary<Error = SourceError> + 'a),
    clock_was_read: bool,
    effect: Effect,
}

impl<'a> Exit<'a> {
    fn new(access: &'a mut Access<'_>) -> Self {
        Self { boundary: &mut *access.boundary, clock_was_read: false, effect: Effect::None }
    }
}

impl Devices {
    /// Performs one IN of `data.len()` bytes (1, 2 or 4) from `port`. Ports without a device read as
    /// ones.
    ///
    /// # Errors
    ///
    /// The boundary failed or found a divergence.
    pub fn pio_in(
        &mut self,
        port: u16,
        data: &mut [u8],
        access: &mut Access<'_>,
    ) -> Result<(), SourceError> {
        let mut exit = Exit::new(access);
        let (mut port, mut rest) = (port, data);
        while let Some(first) = rest.first_mut() {
            *first = 0xFF;
            if let Some(lane) = ConfigPort::data_lane(port) {
                self.config_in(lane, rest);
                break;
            }
            let taken = self.read_claimed(port, rest, &mut exit)?.unwrap_or_else(|| {
                self.unclaimed.port_reads += 1;
                1
            });
            (port, rest) = (port.wrapping_add(taken as u16), &mut rest[taken..]);
        }
        Ok(())
    }

    /// Performs one OUT of `data.len()` bytes (1, 2 or 4) to `port`. Ports without a device ignore it.
    ///
    /// # Errors
    ///
    /// The boundary failed or found a divergence.
    pub fn pio_out(
        &mut self,
        port: u16,
        data: &[u8],
        access: &mut Access<'_>,
    ) -> Result<Effect, SourceError> {
        let mut exit = Exit::new(access);
        let (mut port, mut rest) = (port, data);
        while !rest.is_empty() {
            if let Some(lane) = ConfigPort::data_lane(port) {
                self.config_out(lane, rest);
                break;
            }
            let taken = self.write_claimed(port, rest, &mut exit)?.unwrap_or_else(|| {
                self.unclaimed.port_writes += 1;
                1
            });
            (port, rest) = (port.wrapping_add(taken as u16), &rest[taken..]);
        }
        Ok(exit.effect)
    }

    /// Reads the guest clock: the value for an instruction that reads a clock.
    pub(crate) fn time_stamp(&mut self, access: &mut Access<'_>) -> Result<u64, SourceError> {
        self.read_clock_once(&mut Exit::new(access))?;
        Ok(self.now_ns)
    }

    /// Reads a register of the device that `select` returns.
    pub(super) fn read_register<D: PortDevice>(
        &mut self,
        select: impl Fn(&mut Self) -> &mut D,
        register: D::Register,
        data: &mut [u8],
        exit: &mut Exit<'_>,
    ) -> Result<(), SourceError> {
        if select(self).read_needs_time(register) {
            self.read_clock_once(exit)?;
        }
        let mut context = PortContext { now_ns: self.now_ns, boundary: &mut *exit.boundary };
        pio::fill(data, select(self).read_port(register, &mut context)?);
        Ok(())
    }

    /// Writes a register of the device that `select` returns.
    pub(super) fn write_register<D: PortDevice>(
        &mut self,
        select: impl Fn(&mut Self) -> &mut D,
        register: D::Register,
        data: &[u8],
        exit: &mut Exit<'_>,
    ) -> Result<(), SourceError> {
        let value = pio::value(data);
        if select(self).write_needs_time(register, value) {
            self.read_clock_once(exit)?;
        }
        let mut context = PortContext { now_ns: self.now_ns, boundary: &mut *exit.boundary };
        match select(self).write_port(register, value, &mut context) {
            PortEffect::None => {}
            PortEffect::Edge => self.pic.drive(D::LINE, Signal::Edge),
            PortEffect::Reset => exit.effect = Effect::Reset,
            PortEffect::Unclaimed => self.unclaimed.port_writes += data.len() as u64,
        }
        Ok(())
    }

    /// Reads from byte `lane` of CONFIG_DATA on. An access across its end reaches no register.
    fn config_in(&mut self, lane: u8, data: &mut [u8]) {
        let fits = usize::from(lane) + data.len() <= 4;
        let found = match self.config_port.target(lane).filter(|_| fits) {
            Some((slot, register)) => self.read_function(slot, register, data),
            None => false,
        };
        if !found {
            data.fill(0xFF);
            self.unclaimed.config_aborts += 1;
        }
    }

    /// Writes from byte `lane` of CONFIG_DATA on.
    fn config_out(&mut self, lane: u8, data: &[u8]) {
        let fits = usize::from(lane) + data.len() <= 4;
        let found = match self.config_port.target(lane).filter(|_| fits) {
            Some((slot, register)) => self.write_function(slot, register, data),
            None => false,
        };
        self.unclaimed.config_aborts += u64::from(!found);
    }

    fn read_clock_once(&mut self, exit: &mut Exit<'_>) -> Result<(), SourceError> {
        if !exit.clock_was_read {
            let now_ns = exit.boundary.clock_ns()?;
            exit.clock_was_read = true;
            self.advance_time(now_ns);
        }
        Ok(())
    }
}
