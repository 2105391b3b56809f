//! The 8259A pair of a PC: the master on IRQ 0..=7, the slave on IRQ 8..=15 through the master's input 2,
//! and the edge/level control registers of the PIIX (ELCR, ports 0x4D0 and 0x4D1).
//!
//! Every function here is a few byte operations, without allocation or loop.

mod chip;
mod config;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::PicState;

use super::DeviceConfig;
use super::device::{Device, Line, PortContext, PortDevice, PortEffect, Signal};
use super::error::RestoreError;
use crate::mem::GuestRam;
use crate::replay::error::SourceError;
use chip::{CASCADE, Chip, SPURIOUS};
use config::PicRegister;
use replication::boundary::{DeviceCapacity, TimerInterrupts};
use state::ChipState;

/// ELCR bits that a guest may set: IRQ 0, 1, 2, 8 and 13 are always edge triggered (82371AB, section
/// 4.2.6).
const ELCR_MASTER: u8 = 0xF8;
const ELCR_SLAVE: u8 = 0xDE;

/// The pair of interrupt controllers.
#[derive(Debug)]
pub(crate) struct Pic {
    master: Chip,
    slave: Chip,
}

impl Pic {
    /// Returns the pair after power-on: all inputs masked and edge triggered.
    pub(crate) fn new() -> Self {
        Self {
            master: Chip { state: ChipState::power_on(0) },
            slave: Chip { state: ChipState::power_on(0) },
        }
    }

    /// Makes an input level triggered, as firmware does through ELCR.
    pub(crate) fn set_level_triggered(&mut self, line: Line) {
        let irq = line.number();
        if irq < 8 {
            self.master.state.level |= 1 << irq;
        } else {
            self.slave.state.level |= 1 << (irq - 8);
        }
    }

    /// Does to an input what the device at its other end does.
    #[inline]
    pub(crate) fn drive(&mut self, line: Option<Line>, signal: Signal) {
        let Some(line) = line else { return };
        match signal {
            Signal::Keep => {}
            Signal::Level(high) => self.set_line(line, high),
            Signal::Edge => self.pulse(line),
        }
    }

    /// Sets the level of an input.
    pub(crate) fn set_line(&mut self, line: Line, high: bool) {
        let irq = line.number();
        if irq < 8 {
            self.master.set_line(irq, high);
        } else {
            self.slave.set_line(irq - 8, high);
            self.cascade();
        }
    }

    /// Produces one rising edge on an input, whatever its level was.
    pub(crate) fn pulse(&mut self, line: Line) {
        self.set_line(line, false);
        self.set_line(line, true);
    }

    /// Whether INT to the processor is high.
    pub(crate) fn interrupt_pending(&self) -> bool {
        self.master.pending().is_some()
    }

    /// Performs an INTA cycle. Returns the vector, or `None` while INT is low.
    ///
    /// If the slave has no request, which only a restored state can cause, the vector is the slave's spurious one (IRQ 15),
    /// and the master has IR2 in service, as on hardware.
    pub(crate) fn acknowledge(&mut self) -> Option<u8> {
        let ir = self.master.acknowledge()?;
        if ir != CASCADE {
            return Some(self.master.vector(ir));
        }
        let slave_ir = self.slave.acknowledge().unwrap_or(SPURIOUS);
        self.reassert_cascade();
        Some(self.slave.vector(slave_ir))
    }

    /// Reads a register.
    pub(crate) fn read(&mut self, register: PicRegister) -> u8 {
        match register {
            PicRegister::Master { odd } => self.master.read(odd),
            PicRegister::Slave { odd } => {
                let polled = self.slave.state.poll;
                let value = self.slave.read(odd);
                if polled {
                    self.reassert_cascade();
                }
                value
            }
            PicRegister::MasterElcr => self.master.state.level,
            PicRegister::SlaveElcr => self.slave.state.level,
        }
    }

    /// Writes a register.
    pub(crate) fn write(&mut self, register: PicRegister, value: u8) {
        match register {
            PicRegister::Master { odd } => self.master.write(odd, value),
            PicRegister::Slave { odd } => self.slave.write(odd, value),
            PicRegister::MasterElcr => self.master.state.level = value & ELCR_MASTER,
            PicRegister::SlaveElcr => self.slave.state.level = value & ELCR_SLAVE,
        }
        self.cascade();
    }

    /// Connects the slave's INT to the master's input 2. A request that the slave withdraws before INTA is gone from the
    /// master, too, whose request latch follows the input until then (datasheet, figure 9). Otherwise a guest with automatic
    /// EOI would get a spurious IRQ 15 after each interrupt of a level-triggered input of the slave.
    fn cascade(&mut self) {
        match self.slave.pending() {
            Some(_) => self.master.set_line(CASCADE, true),
            None => self.master.withdraw(CASCADE),
        }
    }

    /// Drops the slave's INT during its acknowledge and raises it again if the slave has another request,
    /// which is a new edge.
    fn reassert_cascade(&mut self) {
        self.master.set_line(CASCADE, false);
        self.cascade();
    }
}

impl Device for Pic {
    const NAME: &'static str = "pic";
    type State = PicState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self::new()
    }

    fn add_capacity(&self, capacity: &mut DeviceCapacity, _ram: &GuestRam) {
        // IRQ 0 is that of the PIT, IRQ 8 that of the real-time clock.
        let timers = |master: u8, slave: u8| master & 1 | (slave & 1) << 1;
        let (master, slave) = (&self.master.state, &self.slave.state);
        capacity.timers = TimerInterrupts {
            in_service: timers(master.in_service, slave.in_service),
            masked: timers(master.mask, slave.mask),
        };
    }

    fn save(&self) -> PicState {
        PicState { master: self.master.state.clone(), slave: self.slave.state.clone() }
    }

    fn restore(state: PicState) -> Result<Self, RestoreError> {
        if !state.master.is_possible() || !state.slave.is_possible() {
            return Err(RestoreError::Impossible(Self::NAME));
        }
        Ok(Self { master: Chip { state: state.master }, slave: Chip { state: state.slave } })
    }
}

impl PortDevice for Pic {
    type Register = PicRegister;

    fn decode(port: u16, _bytes: usize) -> Option<PicRegister> {
        PicRegister::at(port)
    }

    fn read_port(
        &mut self,
        register: PicRegister,
        _context: &mut PortContext<'_>,
    ) -> Result<u32, SourceError> {
        Ok(u32::from(self.read(register)))
    }

    fn write_port(
        &mut self,
        register: PicRegister,
        value: u32,
        _context: &mut PortContext<'_>,
    ) -> PortEffect {
        self.write(register, value as u8);
        PortEffect::None
    }
}
