//! Port accesses of [`Devices`]: from a decoded port to the device's function.

use super::clockport::ClockHalf;
use super::pci::Slot;
use super::{Access, Devices, Effect, pmtimer};
use crate::bus::pio::{ByteTarget, PioTarget, WideTarget, decode};
use crate::irq::Line;
use crate::replay::error::SourceError;
use replication::boundary::DeviceBoundary;

/// The context of one access: the boundary, and whether the guest clock has been read for it.
struct Exit<'a> {
    boundary: &'a mut (dyn DeviceBoundary<Error = SourceError> + 'a),
    clock_was_read: bool,
}

impl<'a> Exit<'a> {
    fn new(access: &'a mut Access<'_>) -> Self {
        Self { boundary: &mut *access.boundary, clock_was_read: false }
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
        while !rest.is_empty() {
            match decode(port, rest.len()) {
                PioTarget::Wide(target) => return self.wide_in(target, rest, &mut exit),
                PioTarget::Byte(target) => {
                    let (byte, later) = rest.split_at_mut(1);
                    byte[0] = self.byte_in(target, &mut exit)?;
                    (port, rest) = (port.wrapping_add(1), later);
                }
            }
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
        let mut effect = Effect::None;
        while let Some((byte, later)) = rest.split_first() {
            match decode(port, rest.len()) {
                PioTarget::Wide(target) => {
                    self.wide_out(target, rest);
                    break;
                }
                PioTarget::Byte(target) => {
                    if self.byte_out(target, *byte, &mut exit)? == Effect::Reset {
                        effect = Effect::Reset;
                    }
                    (port, rest) = (port.wrapping_add(1), later);
                }
            }
        }
        Ok(effect)
    }

    /// Reads the guest clock: the value for an instruction that reads a clock.
    pub(crate) fn time_stamp(&mut self, access: &mut Access<'_>) -> Result<u64, SourceError> {
        self.read_clock_once(&mut Exit::new(access))?;
        Ok(self.now_ns)
    }

    fn byte_in(&mut self, target: ByteTarget, exit: &mut Exit<'_>) -> Result<u8, SourceError> {
        Ok(match target {
            ByteTarget::Pic(register) => self.pic.read(register),
            ByteTarget::Pit(register) => {
                if self.pit.read_needs_time(register) {
                    self.read_clock_once(exit)?;
                }
                self.pit.read(register, self.now_ns)
            }
            ByteTarget::I8042(offset) => self.reset.read_i8042(offset),
            ByteTarget::RtcData => {
                if self.rtc.read_needs_wall_clock() {
                    self.rtc.latch(exit.boundary.wall_clock_ns()?);
                }
                self.rtc.read()
            }
            // Both are write-only, and no device drives the bus.
            ByteTarget::RtcIndex | ByteTarget::Post => 0xFF,
            ByteTarget::Uart(offset) => self.uart.read(offset),
            ByteTarget::ResetControl => self.reset.read_control(),
            ByteTarget::Unclaimed => {
                self.unclaimed.port_reads += 1;
                0xFF
            }
        })
    }

    fn byte_out(
        &mut self,
        target: ByteTarget,
        value: u8,
        exit: &mut Exit<'_>,
    ) -> Result<Effect, SourceError> {
        let mut reset = false;
        match target {
            ByteTarget::Pic(register) => self.pic.write(register, value),
            ByteTarget::Pit(register) => {
                if self.pit.write_needs_time(register, value) {
                    self.read_clock_once(exit)?;
                }
                self.pit.write(register, value, self.now_ns);
            }
            ByteTarget::I8042(offset) => reset = self.reset.write_i8042(offset, value),
            ByteTarget::RtcIndex => self.rtc.select(value),
            ByteTarget::RtcData => self.rtc.write(value),
            ByteTarget::Post => {}
            ByteTarget::Uart(offset) => {
                let effect = self.uart.write(offset, value);
                if let Some(byte) = effect.output {
                    exit.boundary.console_output(byte);
                }
                if effect.interrupt {
                    self.pic.pulse(Line::Serial);
                }
            }
            ByteTarget::ResetControl => reset = self.reset.write_control(value),
            ByteTarget::Unclaimed => self.unclaimed.port_writes += 1,
        }
        Ok(if reset { Effect::Reset } else { Effect::None })
    }

    fn wide_in(
        &mut self,
        target: WideTarget,
        data: &mut [u8],
        exit: &mut Exit<'_>,
    ) -> Result<(), SourceError> {
        match target {
            WideTarget::PciAddress => fill(data, self.config_port.address(), 0),
            WideTarget::PciData(lane) => self.config_in(lane, data),
            WideTarget::PmTimer(lane) => {
                self.read_clock_once(exit)?;
                fill(data, pmtimer::read(self.now_ns), lane);
            }
            WideTarget::Clock(ClockHalf::Low) => {
                self.read_clock_once(exit)?;
                let low = self.clock_port.read_low(self.now_ns);
                fill(data, low, 0);
            }
            WideTarget::Clock(ClockHalf::High) => fill(data, self.clock_port.read_high(), 0),
        }
        Ok(())
    }

    fn wide_out(&mut self, target: WideTarget, data: &[u8]) {
        match target {
            WideTarget::PciAddress => {
                let address = data.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
                self.config_port.set_address(address);
            }
            WideTarget::PciData(lane) => self.config_out(lane, data),
            WideTarget::PmTimer(_) | WideTarget::Clock(_) => {
                self.unclaimed.port_writes += data.len() as u64;
            }
        }
    }

    fn config_in(&mut self, lane: u8, data: &mut [u8]) {
        // An access across the end of CONFIG_DATA reaches no register.
        let fits = usize::from(lane) + data.len() <= 4;
        match self.config_port.target(lane).filter(|_| fits) {
            Some((Slot::HostBridge, register)) => self.host_bridge.read(register, data, false),
            Some((Slot::Net, register)) => self.net.config_read(register, data),
            Some((Slot::Rng, register)) => self.rng.config_read(register, data),
            None => {
                data.fill(0xFF);
                self.unclaimed.config_aborts += 1;
            }
        }
    }

    fn config_out(&mut self, lane: u8, data: &[u8]) {
        let fits = usize::from(lane) + data.len() <= 4;
        match self.config_port.target(lane).filter(|_| fits) {
            Some((Slot::HostBridge, register)) => self.host_bridge.write(register, data),
            Some((Slot::Net, register)) => {
                self.net.config_write(register, data);
                self.drive_net_line();
            }
            Some((Slot::Rng, register)) => {
                self.rng.config_write(register, data);
                self.drive_rng_line();
            }
            None => self.unclaimed.config_aborts += 1,
        }
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

/// Fills `data` with the bytes of `word` from byte `lane` on, and with ones beyond its end.
fn fill(data: &mut [u8], word: u32, lane: u8) {
    let bytes = word.to_le_bytes();
    for (index, byte) in (usize::from(lane)..).zip(data) {
        *byte = bytes.get(index).copied().unwrap_or(0xFF);
    }
}
