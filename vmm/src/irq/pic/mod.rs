//! The 8259A pair of a PC: the master on IRQ 0..=7, the slave on IRQ 8..=15 through the master's input 2,
//! and the edge/level control registers of the PIIX (ELCR, ports 0x4D0 and 0x4D1).
//!
//! Every function here is a few byte operations, without allocation or loop.

mod chip;
mod state;
#[cfg(test)]
mod tests;

pub use state::{ChipState, InitStep, PicState};

use crate::devices::error::RestoreError;
use crate::irq::Line;
use chip::{CASCADE, Chip, SPURIOUS};

/// ELCR bits that a guest may set: IRQ 0, 1, 2, 8 and 13 are always edge triggered (82371AB, section
/// 4.2.6).
const ELCR_MASTER: u8 = 0xF8;
const ELCR_SLAVE: u8 = 0xDE;

/// A register of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PicRegister {
    /// Ports 0x20 (even) and 0x21 (odd).
    Master {
        /// The odd address (A0 high).
        odd: bool,
    },
    /// Ports 0xA0 (even) and 0xA1 (odd).
    Slave {
        /// The odd address (A0 high).
        odd: bool,
    },
    /// Port 0x4D0.
    MasterElcr,
    /// Port 0x4D1.
    SlaveElcr,
}

/// The pair of interrupt controllers.
#[derive(Debug)]
pub struct Pic {
    master: Chip,
    slave: Chip,
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

impl Pic {
    /// Returns the pair after power-on: all inputs masked, the PCI lines level triggered as firmware
    /// would leave them.
    pub fn new() -> Self {
        let net = 1 << Line::Net.number();
        let rng = 1 << (Line::Rng.number() - 8);
        Self {
            master: Chip { state: ChipState::power_on(net) },
            slave: Chip { state: ChipState::power_on(rng) },
        }
    }

    /// Sets the level of an input.
    pub fn set_line(&mut self, line: Line, high: bool) {
        let irq = line.number();
        if irq < 8 {
            self.master.set_line(irq, high);
        } else {
            self.slave.set_line(irq - 8, high);
            self.cascade();
        }
    }

    /// Produces one rising edge on an input, whatever its level was.
    pub fn pulse(&mut self, line: Line) {
        self.set_line(line, false);
        self.set_line(line, true);
    }

    /// Whether INT to the processor is high.
    pub fn interrupt_pending(&self) -> bool {
        self.master.pending().is_some()
    }

    /// Performs an INTA cycle. Returns the vector, or `None` while INT is low.
    ///
    /// If the slave has withdrawn its request in the meantime, the vector is the slave's spurious one
    /// (IRQ 15), and the master has IR2 in service, as on hardware.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let ir = self.master.acknowledge()?;
        if ir != CASCADE {
            return Some(self.master.vector(ir));
        }
        let slave_ir = self.slave.acknowledge().unwrap_or(SPURIOUS);
        self.reassert_cascade();
        Some(self.slave.vector(slave_ir))
    }

    /// Reads a register.
    pub fn read(&mut self, register: PicRegister) -> u8 {
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
    pub fn write(&mut self, register: PicRegister, value: u8) {
        match register {
            PicRegister::Master { odd } => self.master.write(odd, value),
            PicRegister::Slave { odd } => self.slave.write(odd, value),
            PicRegister::MasterElcr => self.master.state.level = value & ELCR_MASTER,
            PicRegister::SlaveElcr => self.slave.state.level = value & ELCR_SLAVE,
        }
        self.cascade();
    }

    /// Connects the slave's INT to the master's input 2.
    fn cascade(&mut self) {
        self.master.set_line(CASCADE, self.slave.pending().is_some());
    }

    /// Drops the slave's INT during its acknowledge and raises it again if the slave has another request,
    /// which is a new edge.
    fn reassert_cascade(&mut self) {
        self.master.set_line(CASCADE, false);
        self.cascade();
    }

    /// Returns the complete state.
    pub fn save(&self) -> PicState {
        PicState { master: self.master.state.clone(), slave: self.slave.state.clone() }
    }

    /// Returns the pair in a saved state.
    ///
    /// # Errors
    ///
    /// The state is not one that the pair can be in.
    pub fn restore(state: PicState) -> Result<Self, RestoreError> {
        if !state.master.is_possible() || !state.slave.is_possible() {
            return Err(RestoreError::Impossible("pic"));
        }
        Ok(Self { master: Chip { state: state.master }, slave: Chip { state: state.slave } })
    }
}
