//! The guest clock port: nanoseconds since the guest started, in two 32-bit reads. A read of the low half
//! latches the high half, so that both halves are of one reading. No hardware has this port; a trapped
//! RDTSC reads it.

mod config;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::ClockPortState;

use super::DeviceConfig;
use super::device::{Device, PortContext, PortDevice};
use super::error::RestoreError;
use crate::bus::pio::Width;
use crate::replay::error::SourceError;
use config::ClockHalf;

/// The guest clock port.
#[derive(Debug)]
pub(crate) struct ClockPort {
    state: ClockPortState,
}

impl ClockPort {
    /// Returns the low half of `now_ns` and latches the high half.
    fn read_low(&mut self, now_ns: u64) -> u32 {
        self.state.high = (now_ns >> 32) as u32;
        now_ns as u32
    }

    /// Returns the latched high half.
    fn read_high(&self) -> u32 {
        self.state.high
    }
}

impl Device for ClockPort {
    const NAME: &'static str = "clock port";
    type State = ClockPortState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self { state: ClockPortState { high: 0 } }
    }

    fn save(&self) -> ClockPortState {
        self.state.clone()
    }

    fn restore(state: ClockPortState) -> Result<Self, RestoreError> {
        Ok(Self { state })
    }
}

impl PortDevice for ClockPort {
    type Register = ClockHalf;
    const WIDTH: Width = Width::Whole;

    fn decode(port: u16, bytes: usize) -> Option<ClockHalf> {
        ClockHalf::at(port, bytes)
    }

    fn read_needs_time(&self, half: ClockHalf) -> bool {
        half == ClockHalf::Low
    }

    fn read_port(
        &mut self,
        half: ClockHalf,
        context: &mut PortContext<'_>,
    ) -> Result<u32, SourceError> {
        Ok(match half {
            ClockHalf::Low => self.read_low(context.now_ns),
            ClockHalf::High => self.read_high(),
        })
    }
}
