//! The 8254 interval timer at ports 0x40..=0x43, and port 0x61 beside it (speaker, counter 2's gate and
//! output, refresh toggle).
//!
//! The timer has no clock of its own: every call passes the time, and [`Device::next_timer_ns`] returns
//! when the next call is needed. Edges of counter 0 between two calls coalesce into one, as on a PC whose
//! interrupts are disabled for longer than a period. The number of coalesced edges is counted.

mod channel;
mod config;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::PitState;

use serde::Serialize;

use super::DeviceConfig;
use super::device::{Device, Line, PortContext, PortDevice, PortEffect, Signal};
use super::error::RestoreError;
use super::ticks::{ns_of_tick, ticks_at};
use crate::replay::error::SourceError;
use config::{CounterIndex, PitRegister};
use state::{Bytes, ChannelState, Mode};

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
pub(crate) struct Pit {
    state: PitState,
    counters: PitCounters,
}

impl Pit {
    /// Returns the timer after power-on: no counter runs.
    pub(crate) fn new() -> Self {
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

    /// Reads a register at `now_ns`.
    pub(crate) fn read(&mut self, register: PitRegister, now_ns: u64) -> u8 {
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
    pub(crate) fn write(&mut self, register: PitRegister, value: u8, now_ns: u64) {
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

    fn channel(&self, index: CounterIndex) -> &ChannelState {
        &self.state.channels[index as usize]
    }

    fn channel_mut(&mut self, index: CounterIndex) -> &mut ChannelState {
        &mut self.state.channels[index as usize]
    }

    /// Returns the event counts since the device was created or restored.
    pub(crate) fn counters(&self) -> PitCounters {
        self.counters
    }
}

impl Device for Pit {
    const NAME: &'static str = "pit";
    const LINE: Option<Line> = Some(config::LINE);
    type State = PitState;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self::new()
    }

    /// Timer 0 counts its full range as a square wave. The firmware leaves its interrupt masked.
    fn act_as_firmware(&mut self, now_ns: u64) {
        /// Counter 0, low byte then high byte, mode 3, binary.
        const CONTROL: u8 = 0x36;
        self.write(PitRegister::Control, CONTROL, now_ns);
        for byte in [0, 0] {
            self.write(PitRegister::Counter(CounterIndex::Zero), byte, now_ns);
        }
    }

    #[inline]
    fn advance(&mut self, now_ns: u64) -> Signal {
        let tick = ticks_at(now_ns, HZ);
        let Some(due) = self.state.next_edge.filter(|due| *due <= tick) else {
            return Signal::Keep;
        };
        let channel = &self.state.channels[0];
        self.state.next_edge = channel.edge_after(tick);
        self.counters.edges += 1;
        if self.state.next_edge.is_some() {
            self.counters.coalesced += (tick - due) / u64::from(channel.count);
        }
        Signal::Edge
    }

    #[inline]
    fn next_timer_ns(&self) -> Option<u64> {
        self.state.next_edge.map(|tick| ns_of_tick(tick, HZ))
    }

    fn save(&self) -> PitState {
        self.state.clone()
    }

    fn restore(state: PitState) -> Result<Self, RestoreError> {
        let possible = state.channels.iter().all(ChannelState::is_possible)
            && state.port61 & !PORT61_WRITABLE == 0;
        if !possible {
            return Err(RestoreError::Impossible(Self::NAME));
        }
        Ok(Self { state, counters: PitCounters::default() })
    }
}

impl PortDevice for Pit {
    type Register = PitRegister;

    fn decode(port: u16, _bytes: usize) -> Option<PitRegister> {
        PitRegister::at(port)
    }

    fn read_needs_time(&self, register: PitRegister) -> bool {
        match register {
            PitRegister::Counter(index) => !self.channel(index).read_is_latched(),
            PitRegister::Control => false,
            PitRegister::Port61 => true,
        }
    }

    fn write_needs_time(&self, register: PitRegister, value: u32) -> bool {
        let value = value as u8;
        match register {
            PitRegister::Counter(index) => self.channel(index).write_loads(),
            PitRegister::Control => value >> 6 == CONTROL_READ_BACK || value >> 4 & 3 == 0,
            PitRegister::Port61 => (value ^ self.state.port61) & PORT61_GATE2 != 0,
        }
    }

    fn read_port(
        &mut self,
        register: PitRegister,
        context: &mut PortContext<'_>,
    ) -> Result<u32, SourceError> {
        Ok(u32::from(self.read(register, context.now_ns)))
    }

    fn write_port(
        &mut self,
        register: PitRegister,
        value: u32,
        context: &mut PortContext<'_>,
    ) -> PortEffect {
        self.write(register, value as u8, context.now_ns);
        PortEffect::None
    }
}
