//! The 8254 interval timer at ports 0x40..=0x43, and port 0x61 beside it (speaker, counter 2's gate and
//! output, refresh toggle).
//!
//! The timer has no clock of its own: every call passes the time, and [`Pit::next_expiry_ns`] returns
//! when the next call is needed. Edges of counter 0 between two calls coalesce into one, as on a PC whose
//! interrupts are disabled for longer than a period. The number of coalesced edges is counted.

mod channel;
mod state;
#[cfg(test)]
mod tests;

pub use state::{Bytes, ChannelState, Mode, PitState};

use serde::Serialize;

use crate::devices::error::RestoreError;
use crate::devices::ticks::{ns_of_tick, ticks_at};

/// Input clock, 1/s (a third of the NTSC colour clock of the first PC).
const HZ: u64 = 1_193_182;

/// Control word: value of the counter selection that marks the read-back command.
const CONTROL_READ_BACK: u8 = 3;
/// Read-back command: bits that, if set, suppress latching of the counts and of the status.
const READ_BACK_NO_COUNT: u8 = 1 << 5;
const READ_BACK_NO_STATUS: u8 = 1 << 4;

/// Port 0x61 (82371AB, section 4.1.6.1).
const PORT61_GATE2: u8 = 1 << 0;
const PORT61_WRITABLE: u8 = 0x0F;
const PORT61_REFRESH: u8 = 1 << 4;
const PORT61_OUT2: u8 = 1 << 5;
/// The refresh bit toggles with each DRAM refresh request of counter 1: 18 ticks.
const REFRESH_TICKS: u64 = 18;

/// A register of the timer or port 0x61.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PitRegister {
    /// Ports 0x40, 0x41, 0x42.
    Counter(CounterIndex),
    /// Port 0x43.
    Control,
    /// Port 0x61.
    Port61,
}

/// A counter of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterIndex {
    /// Drives IRQ 0.
    Zero,
    /// DRAM refresh, unused.
    One,
    /// Speaker.
    Two,
}

/// Event counters, for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PitCounters {
    /// Edges raised on IRQ 0.
    pub edges: u64,
    /// Edges of counter 0 that were coalesced into one of those.
    pub coalesced: u64,
}

/// The timer.
#[derive(Debug)]
pub struct Pit {
    state: PitState,
    counters: PitCounters,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// Returns the timer after power-on: no counter runs.
    pub fn new() -> Self {
        Self {
            state: PitState {
                channels: [
                    ChannelState::power_on(true),
                    ChannelState::power_on(true),
                    ChannelState::power_on(false),
                ],
                port61: 0,
                next_edge: None,
            },
            counters: PitCounters::default(),
        }
    }

    /// Whether the caller must read the guest clock before it reads `register`.
    pub fn read_needs_time(&self, register: PitRegister) -> bool {
        match register {
            PitRegister::Counter(index) => !self.channel(index).read_is_latched(),
            PitRegister::Control => false,
            PitRegister::Port61 => true,
        }
    }

    /// Whether the caller must read the guest clock before it writes `value` to `register`.
    pub fn write_needs_time(&self, register: PitRegister, value: u8) -> bool {
        match register {
            PitRegister::Counter(index) => self.channel(index).write_loads(),
            PitRegister::Control => value >> 6 == CONTROL_READ_BACK || value >> 4 & 3 == 0,
            PitRegister::Port61 => (value ^ self.state.port61) & PORT61_GATE2 != 0,
        }
    }

    /// Reads a register at `now_ns`.
    pub fn read(&mut self, register: PitRegister, now_ns: u64) -> u8 {
        let tick = ticks_at(now_ns, HZ);
        match register {
            PitRegister::Counter(index) => self.channel_mut(index).read(tick),
            // "There is no read of the control word register"; the bus floats.
            PitRegister::Control => 0xFF,
            PitRegister::Port61 => {
                let out2 = self.channel(CounterIndex::Two).output(tick);
                let refresh = tick / REFRESH_TICKS % 2 == 1;
                self.state.port61
                    | if refresh { PORT61_REFRESH } else { 0 }
                    | if out2 { PORT61_OUT2 } else { 0 }
            }
        }
    }

    /// Writes a register at `now_ns`.
    pub fn write(&mut self, register: PitRegister, value: u8, now_ns: u64) {
        let tick = ticks_at(now_ns, HZ);
        match register {
            PitRegister::Counter(index) => {
                self.channel_mut(index).write(value, tick);
                if index == CounterIndex::Zero {
                    self.state.next_edge = self.state.channels[0].edge_after(tick);
                }
            }
            PitRegister::Control => self.control(value, tick),
            PitRegister::Port61 => {
                self.state.port61 = value & PORT61_WRITABLE;
                self.state.channels[2].set_gate(value & PORT61_GATE2 != 0, tick);
            }
        }
    }

    fn control(&mut self, value: u8, tick: u64) {
        let select = value >> 6;
        if select == CONTROL_READ_BACK {
            for (index, channel) in self.state.channels.iter_mut().enumerate() {
                if value & (2 << index) == 0 {
                    continue;
                }
                if value & READ_BACK_NO_COUNT == 0 {
                    channel.latch_count(tick);
                }
                if value & READ_BACK_NO_STATUS == 0 {
                    channel.latch_status(tick);
                }
            }
            return;
        }
        let channel = &mut self.state.channels[usize::from(select)];
        let bytes = match value >> 4 & 3 {
            0 => return channel.latch_count(tick),
            1 => Bytes::Low,
            2 => Bytes::High,
            _ => Bytes::Both,
        };
        channel.set_mode(Mode::from_bits(value >> 1), bytes, value & 1 != 0);
        if select == 0 {
            self.state.next_edge = None;
        }
    }

    /// Advances the timer to `now_ns`. Returns true if IRQ 0 rises.
    pub fn advance(&mut self, now_ns: u64) -> bool {
        let tick = ticks_at(now_ns, HZ);
        let Some(due) = self.state.next_edge.filter(|due| *due <= tick) else {
            return false;
        };
        let channel = &self.state.channels[0];
        self.state.next_edge = channel.edge_after(tick);
        self.counters.edges += 1;
        if self.state.next_edge.is_some() {
            self.counters.coalesced += (tick - due) / u64::from(channel.count);
        }
        true
    }

    /// Returns the guest time of the next edge on IRQ 0.
    pub fn next_expiry_ns(&self) -> Option<u64> {
        self.state.next_edge.map(|tick| ns_of_tick(tick, HZ))
    }

    fn channel(&self, index: CounterIndex) -> &ChannelState {
        &self.state.channels[index as usize]
    }

    fn channel_mut(&mut self, index: CounterIndex) -> &mut ChannelState {
        &mut self.state.channels[index as usize]
    }

    /// Returns the event counts since the device was created or restored.
    pub fn counters(&self) -> PitCounters {
        self.counters
    }

    /// Returns the complete state.
    pub fn save(&self) -> PitState {
        self.state.clone()
    }

    /// Returns the timer in a saved state.
    ///
    /// # Errors
    ///
    /// The state is not one that the timer can be in.
    pub fn restore(state: PitState) -> Result<Self, RestoreError> {
        let possible = state.channels.iter().all(ChannelState::is_possible)
            && state.port61 & !PORT61_WRITABLE == 0;
        if !possible {
            return Err(RestoreError::Impossible("pit"));
        }
        Ok(Self { state, counters: PitCounters::default() })
    }
}
