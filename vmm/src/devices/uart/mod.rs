//! The 16550 UART at ports 0x3F8..=0x3FF, IRQ 4. It wraps the model of vm-superio: the interrupts and
//! bytes that the model produces are stored until the call returns and are then returned to the caller.

mod config;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::UartState;

use std::cell::Cell;
use std::convert::Infallible;
use std::io;

use serde::Serialize;
use vm_superio::serial::{NoEvents, Serial};
use vm_superio::{SerialState, Trigger};

use super::DeviceConfig;
use super::device::{Device, Line, PortContext, PortDevice, PortEffect, Signal};
use super::error::RestoreError;
use crate::mem::GuestRam;
use crate::replay::error::SourceError;
use replication::boundary::{DeviceCapacity, Input};

/// MCR and its loopback bit. While the bit is set the receiver is disconnected from the line (16550D,
/// section 8.6.7).
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

/// The model's transmitter. It holds one byte, which is taken before the next one is written.
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

/// The effects of one access to the UART.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UartEffect {
    /// IRQ 4 has a rising edge.
    pub(crate) interrupt: bool,
    /// The guest sent this byte.
    pub(crate) output: Option<u8>,
}

/// Event counters, for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UartCounters {
    /// Bytes the guest sent.
    pub sent: u64,
    /// Bytes put into the receive FIFO.
    pub received: u64,
    /// Bytes that were lost because the receive FIFO was full.
    pub overrun: u64,
}

/// The UART.
#[derive(Debug)]
pub(crate) struct Uart {
    model: Serial<Interrupt, NoEvents, Transmitted>,
    /// MCR's loopback bit. It is kept here because the model does not expose it.
    loopback: bool,
    counters: UartCounters,
}

impl Uart {
    /// Returns the UART after power-on.
    pub(crate) fn new() -> Self {
        Self {
            model: Serial::new(Interrupt::default(), Transmitted::default()),
            loopback: false,
            counters: UartCounters::default(),
        }
    }

    /// Reads register `offset` (0..=7).
    pub(crate) fn read(&mut self, offset: u8) -> u8 {
        self.model.read(offset)
    }

    /// Writes register `offset` (0..=7).
    pub(crate) fn write(&mut self, offset: u8, value: u8) -> UartEffect {
        if offset == MODEM_CONTROL {
            self.loopback = value & LOOPBACK != 0;
        }
        // Neither the trigger nor the transmitter can fail.
        let _infallible = self.model.write(offset, value);
        let output = self.model.writer_mut().0.take();
        self.counters.sent += u64::from(output.is_some());
        UartEffect { interrupt: self.take_interrupt(), output }
    }

    /// Receives `bytes`; those that do not fit into the FIFO are lost. Returns true if IRQ 4 has a rising
    /// edge.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> bool {
        // The only possible error is a full FIFO, and then no byte was accepted.
        let taken = self.model.enqueue_raw_bytes(bytes).unwrap_or(0);
        self.counters.received += taken as u64;
        self.counters.overrun += (bytes.len() - taken) as u64;
        self.take_interrupt()
    }

    /// Returns how many bytes [`Uart::receive`] would accept now.
    pub(crate) fn room(&self) -> usize {
        if self.loopback { 0 } else { self.model.fifo_capacity() }
    }

    fn take_interrupt(&self) -> bool {
        self.model.interrupt_evt().0.take()
    }

    /// Returns the event counts since the device was created or restored.
    pub(crate) fn counters(&self) -> UartCounters {
        self.counters
    }
}

impl Device for Uart {
    const NAME: &'static str = "serial";
    const LINE: Option<Line> = Some(config::LINE);
    type State = UartState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self::new()
    }

    fn accept(&mut self, input: Input<'_>, _ram: &GuestRam) -> Option<Signal> {
        match input {
            Input::Console(bytes) if self.receive(bytes) => Some(Signal::Edge),
            Input::Console(_) => Some(Signal::Keep),
            Input::Clock { .. } | Input::Frame(_) | Input::Disk(_) => None,
        }
    }

    fn add_capacity(&self, capacity: &mut DeviceCapacity, _ram: &GuestRam) {
        capacity.console_bytes = self.room();
    }

    fn save(&self) -> UartState {
        self.model.state().into()
    }

    fn restore(state: UartState) -> Result<Self, RestoreError> {
        let state = SerialState::from(state);
        let loopback = state.modem_control & LOOPBACK != 0;
        let model =
            Serial::from_state(&state, Interrupt::default(), NoEvents, Transmitted::default())
                .map_err(|_full| RestoreError::Impossible(Self::NAME))?;
        let uart = Self { model, loopback, counters: UartCounters::default() };
        // The model raises a pending interrupt again. The PIC's saved state already contains that edge,
        // so this one is dropped.
        uart.take_interrupt();
        Ok(uart)
    }
}

impl PortDevice for Uart {
    /// Offset of the register, 0..=7.
    type Register = u8;

    fn decode(port: u16, _bytes: usize) -> Option<u8> {
        config::offset(port)
    }

    fn read_port(
        &mut self,
        offset: u8,
        _context: &mut PortContext<'_>,
    ) -> Result<u32, SourceError> {
        Ok(u32::from(self.read(offset)))
    }

    fn write_port(&mut self, offset: u8, value: u32, context: &mut PortContext<'_>) -> PortEffect {
        let effect = self.write(offset, value as u8);
        if let Some(byte) = effect.output {
            context.boundary.console_output(byte);
        }
        if effect.interrupt { PortEffect::Edge } else { PortEffect::None }
    }
}
