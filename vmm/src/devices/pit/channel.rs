//! One counter of the 8254 (Intel 8254 datasheet, order number 231164-005).
//!
//! Nothing is decremented: the counter's value is computed from the distance between the current tick and
//! the tick of its start. There are two approximations, neither of which Linux or the reference guest can
//! see. A count that is written to a running counter in modes 1, 2, 3 and 5 takes effect at once and not
//! at the end of the period. In modes 2 and 3 a count of 1, which the datasheet forbids, counts as 2.

use super::state::{Bytes, ChannelState, Mode};

/// Elapsed ticks of a counter that waits for its trigger: far beyond its terminal count.
const UNTRIGGERED: u64 = u64::MAX;

/// Status byte bits (datasheet, figure 12).
const STATUS_OUT: u8 = 1 << 7;
const STATUS_NULL_COUNT: u8 = 1 << 6;

impl Mode {
    /// Returns the mode of bits M2, M1, M0 of a control word; 6 and 7 mean 2 and 3.
    pub(super) fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::Rate,
            3 | 7 => Self::Square,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::TerminalCount => 0,
            Self::OneShot => 1,
            Self::Rate => 2,
            Self::Square => 3,
            Self::SoftwareStrobe => 4,
            Self::HardwareStrobe => 5,
        }
    }

    /// Returns the ticks from the start of counting to the first rising edge of OUT, and the ticks
    /// between edges.
    fn edges(self, count: u64) -> Option<(u64, Option<u64>)> {
        match self {
            Self::TerminalCount => Some((count, None)),
            Self::Rate | Self::Square => Some((count, Some(count))),
            // OUT is low for the one tick after the terminal count.
            Self::SoftwareStrobe => Some((count + 1, None)),
            // These modes wait for a rising gate, and the gate of counter 0 is tied high.
            Self::OneShot | Self::HardwareStrobe => None,
        }
    }
}

impl Bytes {
    fn bits(self) -> u8 {
        match self {
            Self::Low => 1,
            Self::High => 2,
            Self::Both => 3,
        }
    }
}

impl ChannelState {
    pub(super) fn power_on(gate: bool) -> Self {
        Self {
            mode: Mode::TerminalCount,
            bytes: Bytes::Both,
            bcd: false,
            count: 0x1_0000,
            loaded: false,
            start_tick: 0,
            held: None,
            gate,
            write_low: None,
            read_high: false,
            latched_count: None,
            latched_status: None,
        }
    }

    pub(super) fn is_possible(&self) -> bool {
        (1..=0x1_0000).contains(&self.count)
    }

    /// Applies a control word to this counter, which stops and waits for a count.
    pub(super) fn set_mode(&mut self, mode: Mode, bytes: Bytes, bcd: bool) {
        *self = Self { mode, bytes, bcd, ..Self::power_on(self.gate) };
    }

    /// Whether writing one more byte starts the counter.
    pub(super) fn write_loads(&self) -> bool {
        match self.bytes {
            Bytes::Low | Bytes::High => true,
            Bytes::Both => self.write_low.is_some(),
        }
    }

    /// Writes a byte of the count. Returns true if it completed the count.
    pub(super) fn write(&mut self, value: u8, tick: u64) -> bool {
        let raw = match (self.bytes, self.write_low.take()) {
            (Bytes::Low, _) => u16::from(value),
            (Bytes::High, _) => u16::from(value) << 8,
            (Bytes::Both, Some(low)) => u16::from_le_bytes([low, value]),
            (Bytes::Both, None) => {
                self.write_low = Some(value);
                // Mode 0: "writing the first byte disables counting".
                if self.mode == Mode::TerminalCount {
                    self.loaded = false;
                }
                return false;
            }
        };
        self.load(raw, tick);
        true
    }

    fn load(&mut self, raw: u16, tick: u64) {
        let count = if self.bcd { from_bcd(raw) } else { u32::from(raw) };
        let least = match self.mode {
            Mode::Rate | Mode::Square => 2,
            Mode::TerminalCount | Mode::OneShot | Mode::SoftwareStrobe | Mode::HardwareStrobe => 1,
        };
        self.count = if count == 0 { self.modulus() } else { count.max(least) };
        self.loaded = true;
        // The count is loaded into the counting element on the next clock pulse.
        self.start_tick = tick + 1;
        self.held = match self.mode {
            Mode::OneShot | Mode::HardwareStrobe => Some(UNTRIGGERED),
            Mode::TerminalCount | Mode::Rate | Mode::Square | Mode::SoftwareStrobe => {
                (!self.gate).then_some(0)
            }
        };
    }

    fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// Sets GATE (datasheet, figure 21).
    pub(super) fn set_gate(&mut self, gate: bool, tick: u64) {
        if gate == self.gate {
            return;
        }
        let elapsed = self.elapsed(tick);
        self.gate = gate;
        if !self.loaded {
            return;
        }
        match (self.mode, gate) {
            (Mode::TerminalCount | Mode::SoftwareStrobe, true) => {
                self.start_tick = tick.saturating_sub(elapsed);
                self.held = None;
            }
            (Mode::TerminalCount | Mode::SoftwareStrobe, false) => self.held = Some(elapsed),
            (Mode::Rate | Mode::Square, false) => self.held = Some(0),
            (Mode::OneShot | Mode::HardwareStrobe, false) => {}
            (Mode::OneShot | Mode::Rate | Mode::Square | Mode::HardwareStrobe, true) => {
                self.start_tick = tick + 1;
                self.held = None;
            }
        }
    }

    fn elapsed(&self, tick: u64) -> u64 {
        self.held.unwrap_or_else(|| tick.saturating_sub(self.start_tick))
    }

    /// Returns the level of OUT.
    pub(super) fn output(&self, tick: u64) -> bool {
        if !self.loaded {
            return self.mode != Mode::TerminalCount;
        }
        let count = u64::from(self.count);
        let elapsed = self.elapsed(tick);
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => elapsed >= count,
            Mode::Rate => elapsed % count != count - 1,
            Mode::Square => elapsed % count < count.div_ceil(2),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => elapsed != count,
        }
    }

    /// Returns the value of the counting element, as two bytes in the counter's number format.
    fn value(&self, tick: u64) -> u16 {
        let count = u64::from(self.count);
        let elapsed = self.elapsed(tick);
        let value = match self.mode {
            Mode::Rate => count - elapsed % count,
            // The counter counts down by two, twice per period.
            Mode::Square => count - (elapsed % count * 2) % count,
            // The counter continues below zero, modulo the number format.
            Mode::TerminalCount | Mode::OneShot | Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                let modulus = u64::from(self.modulus());
                (count + modulus - elapsed % modulus) % modulus
            }
        };
        if self.bcd { to_bcd(value % 10_000) } else { value as u16 }
    }

    /// Whether a read returns a latched value, so that the time is not needed.
    pub(super) fn read_is_latched(&self) -> bool {
        self.latched_status.is_some() || self.latched_count.is_some()
    }

    /// Reads the counter's port.
    pub(super) fn read(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.value(tick)).to_le_bytes();
        let (byte, last) = match self.bytes {
            Bytes::Low => (low, true),
            Bytes::High => (high, true),
            Bytes::Both if self.read_high => (high, true),
            Bytes::Both => (low, false),
        };
        if self.bytes == Bytes::Both {
            self.read_high = !self.read_high;
        }
        if last {
            self.latched_count = None;
        }
        byte
    }

    /// Executes the counter latch command. A second one before the read has no effect.
    pub(super) fn latch_count(&mut self, tick: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.value(tick));
        }
    }

    /// Executes the status half of the read-back command.
    pub(super) fn latch_status(&mut self, tick: u64) {
        if self.latched_status.is_some() {
            return;
        }
        let out = if self.output(tick) { STATUS_OUT } else { 0 };
        let null = if self.loaded && tick >= self.start_tick { 0 } else { STATUS_NULL_COUNT };
        let mode = self.bytes.bits() << 4 | self.mode.bits() << 1 | u8::from(self.bcd);
        self.latched_status = Some(out | null | mode);
    }

    /// Returns the tick of the first rising edge of OUT after `tick`, or `None` if the counter is
    /// stopped.
    pub(super) fn edge_after(&self, tick: u64) -> Option<u64> {
        if !self.loaded || self.held.is_some() {
            return None;
        }
        let (first, period) = self.mode.edges(u64::from(self.count))?;
        let first = self.start_tick.checked_add(first)?;
        if tick < first {
            return Some(first);
        }
        first.checked_add(((tick - first) / period? + 1).checked_mul(period?)?)
    }
}

fn from_bcd(raw: u16) -> u32 {
    (0..4).rev().fold(0, |value, digit| value * 10 + u32::from(raw >> (4 * digit) & 0xF))
}

fn to_bcd(value: u64) -> u16 {
    [1000, 100, 10, 1].iter().fold(0, |raw, unit| raw << 4 | (value / unit % 10) as u16)
}
