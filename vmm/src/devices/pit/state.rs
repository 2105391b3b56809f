//! State of the 8254.

use serde::{Deserialize, Serialize};

/// Counting mode (8254 datasheet, "Mode Definitions").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// 0: interrupt on terminal count.
    TerminalCount,
    /// 1: hardware retriggerable one-shot.
    OneShot,
    /// 2: rate generator.
    Rate,
    /// 3: square wave.
    Square,
    /// 4: software triggered strobe.
    SoftwareStrobe,
    /// 5: hardware triggered strobe.
    HardwareStrobe,
}

/// The bytes of a count that a port access transfers (control word bits RW1, RW0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bytes {
    /// Least significant only.
    Low,
    /// Most significant only.
    High,
    /// Least, then most significant.
    Both,
}

/// State of one counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChannelState {
    /// Counting mode.
    pub(crate) mode: Mode,
    /// Bytes per access.
    pub(crate) bytes: Bytes,
    /// The counter counts in four decimal digits.
    pub(crate) bcd: bool,
    /// Initial count in ticks, 1..=65536.
    pub(crate) count: u32,
    /// A count was written since the control word. If false, the status reads as "null count".
    pub(crate) loaded: bool,
    /// The tick at which the counter held its initial count.
    pub(crate) start_tick: u64,
    /// Ticks that were counted when the gate stopped the counter; `None` while it runs.
    pub(crate) held: Option<u64>,
    /// GATE input.
    pub(crate) gate: bool,
    /// First byte of a two-byte write.
    pub(crate) write_low: Option<u8>,
    /// The next byte of a two-byte read is the most significant.
    pub(crate) read_high: bool,
    /// Latched count, until it is read.
    pub(crate) latched_count: Option<u16>,
    /// Latched status, until it is read.
    pub(crate) latched_status: Option<u8>,
}

/// State of the three counters and of the port beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PitState {
    /// Counters 0, 1, 2.
    pub(crate) channels: [ChannelState; 3],
    /// Writable bits of port 0x61.
    pub(crate) port61: u8,
    /// Tick of the next rising edge of counter 0.
    pub(crate) next_edge: Option<u64>,
}
