//! The configuration space of one function: a type 0 header (PCI 3.0, section 6.1) with at most one
//! 32-bit memory window in BAR0, INTA, and a constant list of capabilities.

use serde::{Deserialize, Serialize};

use crate::bus::mmio::Window;
use crate::devices::device::Line;
use crate::mem::layout;

/// Header registers, as offsets of their 32-bit words.
const ID: u8 = 0x00;
const COMMAND_STATUS: u8 = 0x04;
const CLASS_REVISION: u8 = 0x08;
const CACHE_LINE: u8 = 0x0C;
const BAR0: u8 = 0x10;
const SUBSYSTEM: u8 = 0x2C;
const CAPABILITIES_POINTER: u8 = 0x34;
const INTERRUPT: u8 = 0x3C;
/// Offset at which the capability list starts.
pub(crate) const CAPABILITIES: u8 = 0x40;

/// Command register (section 6.2.2).
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE;
/// Status register (section 6.2.3).
const STATUS_INTERRUPT: u16 = 1 << 3;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const PIN_A: u32 = 1;

/// Bytes of a function's memory window.
pub(crate) const WINDOW_BYTES: u32 = 0x4000;

/// Returns the initial address of the memory window of the function in `slot`, which is not 0.
pub(crate) const fn window_of_slot(slot: u8) -> u32 {
    let offset = (slot as u32 - 1) * WINDOW_BYTES;
    assert!((offset + WINDOW_BYTES) as u64 <= layout::PCI_WINDOW_BYTES);
    layout::PCI_WINDOW as u32 + offset
}

/// The constant properties of a function.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Device number on bus 0, 0..=31. The function number is 0.
    pub(crate) slot: u8,
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) revision: u8,
    /// Base class and subclass.
    pub(crate) class: u16,
    /// Subsystem and subsystem vendor.
    pub(crate) subsystem: u32,
    /// The line that INTA is wired to; `None` if the function has no interrupt pin.
    pub(crate) interrupt: Option<Line>,
    /// Initial address in BAR0; `None` if the function has no BAR.
    pub(crate) window: Option<u32>,
    /// Configuration words from [`CAPABILITIES`] on.
    pub(crate) capabilities: &'static [u32],
}

/// The registers that the guest can write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FunctionState {
    /// Command register.
    pub(crate) command: u16,
    /// Cache line size. It is stored and has no effect.
    pub(crate) cache_line: u8,
    /// BAR0.
    pub(crate) window: u32,
    /// Interrupt line. It is stored and does not change the wiring.
    pub(crate) interrupt_line: u8,
}

/// One PCI function.
#[derive(Debug)]
pub(crate) struct Function {
    identity: &'static Identity,
    state: FunctionState,
}

impl Function {
    /// Returns the function after reset: addresses are assigned as firmware would, and decoding is off
    /// until the guest enables it.
    pub(crate) fn new(identity: &'static Identity) -> Self {
        let state = FunctionState {
            command: 0,
            cache_line: 0,
            window: identity.window.unwrap_or(0),
            interrupt_line: identity.interrupt.map_or(0, Line::number),
        };
        Self { identity, state }
    }

    /// Returns the memory window while the guest has it enabled.
    pub(crate) fn window(&self) -> Option<Window> {
        let enabled = self.state.command & COMMAND_MEMORY != 0 && self.identity.window.is_some();
        let (start, bytes) = (u64::from(self.state.window), u64::from(WINDOW_BYTES));
        enabled.then_some(Window { start, bytes })
    }

    /// Whether the function may drive INTA.
    pub(crate) fn intx_enabled(&self) -> bool {
        self.state.command & COMMAND_INTX_DISABLE == 0
    }

    /// Reads from byte `register` on. `interrupt` says whether the function has a pending interrupt.
    pub(crate) fn read(&self, register: u8, data: &mut [u8], interrupt: bool) {
        for (register, byte) in (usize::from(register)..).zip(data) {
            let word = register as u8 & !3;
            *byte = if register > 0xFF {
                0xFF
            } else {
                self.word(word, interrupt).to_le_bytes()[register & 3]
            };
        }
    }

    fn word(&self, register: u8, interrupt: bool) -> u32 {
        let (id, s) = (self.identity, &self.state);
        match register {
            ID => u32::from(id.device) << 16 | u32::from(id.vendor),
            COMMAND_STATUS => u32::from(self.status(interrupt)) << 16 | u32::from(s.command),
            CLASS_REVISION => u32::from(id.class) << 16 | u32::from(id.revision),
            CACHE_LINE => u32::from(s.cache_line),
            BAR0 => s.window,
            SUBSYSTEM => id.subsystem,
            CAPABILITIES_POINTER if !id.capabilities.is_empty() => u32::from(CAPABILITIES),
            INTERRUPT => {
                let pin = if id.interrupt.is_some() { PIN_A } else { 0 };
                pin << 8 | u32::from(s.interrupt_line)
            }
            CAPABILITIES.. => {
                let index = usize::from((register - CAPABILITIES) / 4);
                id.capabilities.get(index).copied().unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn status(&self, interrupt: bool) -> u16 {
        let list = if self.identity.capabilities.is_empty() { 0 } else { STATUS_CAPABILITIES };
        // The bit shows the interrupt even while INTA is disabled.
        list | if interrupt { STATUS_INTERRUPT } else { 0 }
    }

    /// Writes from byte `register` on. Read-only bits keep their value, as on hardware.
    pub(crate) fn write(&mut self, register: u8, data: &[u8]) {
        for (register, byte) in (register..=u8::MAX).zip(data) {
            self.write_byte(register, *byte);
        }
    }

    fn write_byte(&mut self, register: u8, value: u8) {
        let s = &mut self.state;
        let lane = u32::from(register & 3) * 8;
        match (register & !3, register & 3) {
            (COMMAND_STATUS, 0 | 1) => {
                let merged = s.command & !(0xFF << lane) | u16::from(value) << lane;
                s.command = merged & COMMAND_WRITABLE;
            }
            (CACHE_LINE, 0) => s.cache_line = value,
            (BAR0, _) if self.identity.window.is_some() => {
                // The bits below the window's size read as zero, which is how the guest learns the size.
                let merged = s.window & !(0xFF << lane) | u32::from(value) << lane;
                s.window = merged & !(WINDOW_BYTES - 1);
            }
            (INTERRUPT, 0) => s.interrupt_line = value,
            _ => {}
        }
    }

    pub(crate) fn save(&self) -> FunctionState {
        self.state.clone()
    }

    /// Returns the function in a saved state, or `None` if it cannot be in that state.
    pub(crate) fn restore(identity: &'static Identity, state: FunctionState) -> Option<Self> {
        let possible = state.command & !COMMAND_WRITABLE == 0
            && state.window & (WINDOW_BYTES - 1) == 0
            && (identity.window.is_some() || state.window == 0);
        possible.then_some(Self { identity, state })
    }
}
