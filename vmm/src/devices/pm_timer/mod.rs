//! The ACPI power management timer: a free-running 24-bit counter in the 32-bit port 0x608 (ACPI 6.5,
//! section 4.8.3.3). It has no state: it is the guest's time at another rate.

mod config;
#[cfg(test)]
mod tests;

use super::DeviceConfig;
use super::device::{Device, NoState, PortContext, PortDevice};
use super::error::RestoreError;
use super::ticks::ticks_at;
use crate::bus::pio::Width;
use crate::replay::error::SourceError;

/// Clock rate, three times the PIT's, 1/s (ACPI 6.5, section 4.8.2.1).
const HZ: u64 = 3_579_545;
const MASK: u32 = 0xFF_FFFF;

/// The timer.
#[derive(Debug)]
pub(crate) struct PmTimer;

/// Returns the register's value at `now_ns`.
fn read(now_ns: u64) -> u32 {
    ticks_at(now_ns, HZ) as u32 & MASK
}

impl Device for PmTimer {
    const NAME: &'static str = "PM timer";
    type State = NoState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self
    }

    fn save(&self) -> NoState {
        NoState
    }

    fn restore(_state: NoState) -> Result<Self, RestoreError> {
        Ok(Self)
    }
}

impl PortDevice for PmTimer {
    /// Index of the timer's byte at which the access starts.
    type Register = u8;
    const WIDTH: Width = Width::Whole;

    fn decode(port: u16, _bytes: usize) -> Option<u8> {
        config::lane(port)
    }

    fn read_needs_time(&self, _lane: u8) -> bool {
        true
    }

    fn read_port(&mut self, lane: u8, context: &mut PortContext<'_>) -> Result<u32, SourceError> {
        // Bytes beyond the register read as ones.
        let register = u64::from(read(context.now_ns)) | u64::MAX << 32;
        Ok((register >> (8 * lane)) as u32)
    }
}
