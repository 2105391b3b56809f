//! The CMOS real-time clock at ports 0x70 and 0x71 (Motorola MC146818A; century byte as in the PIIX).
//!
//! The wall clock is an input like any other. It is read when a guest starts to read the time: when it
//! reads the seconds, or status A to see whether an update is in progress. The other time registers
//! answer from that reading. So a guest never sees parts of two different times, and status A never
//! reports an update in progress.
//!
//! Setting the clock, alarms and interrupts are not supported: writes to time registers have no effect,
//! status C is always 0, and IRQ 8 is never raised.

mod civil;
mod config;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::RtcState;

use super::DeviceConfig;
use super::device::{Device, PortContext, PortDevice, PortEffect};
use super::error::RestoreError;
use crate::replay::error::SourceError;
use civil::Civil;
use config::RtcRegister;
use state::CMOS_BYTES;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0A;
const STATUS_B: u8 = 0x0B;
const STATUS_C: u8 = 0x0C;
const STATUS_D: u8 = 0x0D;
const CENTURY: u8 = 0x32;

/// Status A: update in progress, and the divider for a 32768 Hz crystal with a 1024 Hz rate.
const A_UPDATE: u8 = 1 << 7;
const A_DEFAULT: u8 = 0x26;
/// Status B: data mode binary, and 24-hour mode.
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
/// Status D: RAM and time are valid.
const D_VALID: u8 = 1 << 7;
/// Hours register in 12-hour mode: the afternoon.
const PM: u8 = 1 << 7;
/// Index bits of the index port. Its top bit masks NMI.
const INDEX_MASK: u8 = 0x7F;

/// The real-time clock.
#[derive(Debug)]
pub(crate) struct Rtc {
    state: RtcState,
}

impl Rtc {
    /// Returns the clock after power-on: BCD, 24 hours.
    pub(crate) fn new() -> Self {
        let mut memory = vec![0; CMOS_BYTES];
        memory[usize::from(STATUS_A)] = A_DEFAULT;
        memory[usize::from(STATUS_B)] = B_24_HOURS;
        Self { state: RtcState { index: 0, memory, latched_s: None } }
    }

    /// Writes port 0x70, the index.
    pub(crate) fn select(&mut self, value: u8) {
        self.state.index = value & INDEX_MASK;
    }

    /// Whether the wall clock must be latched before port 0x71 is read.
    pub(crate) fn read_needs_wall_clock(&self) -> bool {
        match self.state.index {
            SECONDS | STATUS_A => true,
            MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => {
                self.state.latched_s.is_none()
            }
            _ => false,
        }
    }

    /// Latches a reading of the wall clock for the time registers.
    pub(crate) fn latch(&mut self, wall_clock_ns: u64) {
        self.state.latched_s = Some(wall_clock_ns / 1_000_000_000);
    }

    /// Reads port 0x71.
    pub(crate) fn read(&self) -> u8 {
        let now = Civil::from_unix(self.state.latched_s.unwrap_or(0));
        match self.state.index {
            SECONDS => self.encode(now.second),
            MINUTES => self.encode(now.minute),
            HOURS => self.hours(now.hour),
            WEEKDAY => self.encode(now.weekday),
            DAY => self.encode(now.day),
            MONTH => self.encode(now.month),
            YEAR => self.encode((now.year % 100) as u8),
            CENTURY => self.encode((now.year / 100) as u8),
            STATUS_C => 0,
            STATUS_D => D_VALID,
            index => self.state.memory[usize::from(index)],
        }
    }

    /// Writes port 0x71.
    pub(crate) fn write(&mut self, value: u8) {
        let stored = match self.state.index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => return,
            STATUS_C | STATUS_D => return,
            STATUS_A => value & !A_UPDATE,
            _ => value,
        };
        self.state.memory[usize::from(self.state.index)] = stored;
    }

    fn hours(&self, hour: u8) -> u8 {
        if self.status_b() & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { PM } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    /// Returns `value`, which is below 100, in the data mode of status B.
    fn encode(&self, value: u8) -> u8 {
        if self.status_b() & B_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn status_b(&self) -> u8 {
        self.state.memory[usize::from(STATUS_B)]
    }
}

impl Device for Rtc {
    const NAME: &'static str = "rtc";
    type State = RtcState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self::new()
    }

    fn save(&self) -> RtcState {
        self.state.clone()
    }

    fn restore(state: RtcState) -> Result<Self, RestoreError> {
        if state.memory.len() != CMOS_BYTES || state.index > INDEX_MASK {
            return Err(RestoreError::Impossible(Self::NAME));
        }
        Ok(Self { state })
    }
}

impl PortDevice for Rtc {
    type Register = RtcRegister;

    fn decode(port: u16, _bytes: usize) -> Option<RtcRegister> {
        RtcRegister::at(port)
    }

    fn read_port(
        &mut self,
        register: RtcRegister,
        context: &mut PortContext<'_>,
    ) -> Result<u32, SourceError> {
        match register {
            // It is write-only, and no device drives the bus.
            RtcRegister::Index => Ok(0xFF),
            RtcRegister::Data => {
                if self.read_needs_wall_clock() {
                    self.latch(context.boundary.wall_clock_ns()?);
                }
                Ok(u32::from(self.read()))
            }
        }
    }

    fn write_port(
        &mut self,
        register: RtcRegister,
        value: u32,
        _context: &mut PortContext<'_>,
    ) -> PortEffect {
        match register {
            RtcRegister::Index => self.select(value as u8),
            RtcRegister::Data => self.write(value as u8),
        }
        PortEffect::None
    }
}
