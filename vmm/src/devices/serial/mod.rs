//! 16550 UART at ports 0x3F8..=0x3FF, IRQ 4: vm-superio's model with its wires cut short. What it
//! would trigger and write is kept until the call returns, then handed on.

mod state;
#[cfg(test)]
mod tests;

pub use state::UartState;

use std::cell::Cell;
use std::convert::Infallible;
use std::io;

use serde::Serialize;
use vm_superio::serial::{NoEvents, Serial};
use vm_superio::{SerialState, Trigger};

use crate::devices::error::RestoreError;

/// MCR, and its loopback bit: while it is set the receiver is off the line (16550D, section 8.6.7).
const MODEM_CONTROL: u8 = 4;
const LOOPBACK: u8 = 1 << 4;

/// The model's interrupt output.
#[derive(Debug, Default)]
struct Interrupt(Cell<bool>);

impl Trigger for Interrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(true);
        Ok(())
    }
}

/// The model's transmitter: one byte, taken before the next is written.
#[derive(Debug, Default)]
struct Transmitted(Option<u8>);

impl io::Write for Transmitted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = bytes.last().copied();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What one access to the UART led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UartEffect {
    /// IRQ 4 has a rising edge.
    pub interrupt: bool,
    /// The guest sent this byte.
    pub output: Option<u8>,
}

/// What happened, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UartCounters {
    /// Bytes the guest sent.
    pub sent: u64,
    /// Bytes put into the receive FIFO.
    pub received: u64,
    /// Bytes that found no room there.
    pub overrun: u64,
}

/// The UART.
#[derive(Debug)]
pub struct Uart {
    model: Serial<Interrupt, NoEvents, Transmitted>,
    /// MCR's loopback bit, beside the model because the model does not show it.
    loopback: bool,
    counters: UartCounters,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// After power-on.
    pub fn new() -> Self {
        Self {
            model: Serial::new(Interrupt::default(), Transmitted::default()),
            loopback: false,
            counters: UartCounters::default(),
        }
    }

    /// Reads register `offset` (0..=7).
    pub fn read(&mut self, offset: u8) -> u8 {
        self.model.read(offset)
    }

    /// Writes register `offset` (0..=7).
    pub fn write(&mut self, offset: u8, value: u8) -> UartEffect {
        if offset == MODEM_CONTROL {
            self.loopback = value & LOOPBACK != 0;
        }
        // Neither the trigger nor the transmitter can fail.
        let _infallible = self.model.write(offset, value);
        let output = self.model.writer_mut().0.take();
        self.counters.sent += u64::from(output.is_some());
        UartEffect { interrupt: self.take_interrupt(), output }
    }

    /// Receives `bytes`; those beyond the FIFO's room are lost. True when IRQ 4 has an edge.
    pub fn receive(&mut self, bytes: &[u8]) -> bool {
        // A full FIFO is the one error, and it took nothing.
        let taken = self.model.enqueue_raw_bytes(bytes).unwrap_or(0);
        self.counters.received += taken as u64;
        self.counters.overrun += (bytes.len() - taken) as u64;
        self.take_interrupt()
    }

    /// Bytes [`Uart::receive`] would take now.
    pub fn room(&self) -> usize {
        if self.loopback { 0 } else { self.model.fifo_capacity() }
    }

    fn take_interrupt(&self) -> bool {
        self.model.interrupt_evt().0.take()
    }

    /// What happened since the device was made.
    pub fn counters(&self) -> UartCounters {
        self.counters
    }

    /// Everything that decides future behaviour.
    pub fn save(&self) -> UartState {
        self.model.state().into()
    }

    /// The UART in a saved state.
    pub fn restore(state: UartState) -> Result<Self, RestoreError> {
        let state = SerialState::from(state);
        let loopback = state.modem_control & LOOPBACK != 0;
        let model =
            Serial::from_state(&state, Interrupt::default(), NoEvents, Transmitted::default())
                .map_err(|_full| RestoreError::Impossible("serial"))?;
        let uart = Self { model, loopback, counters: UartCounters::default() };
        // The model triggers anew what was pending; the PIC's own state already has that edge.
        uart.take_interrupt();
        Ok(uart)
    }
}
