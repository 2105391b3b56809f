//! State of the 8259A pair.

use serde::{Deserialize, Serialize};

/// The initialization command word that a chip expects next (8259A datasheet, figure 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InitStep {
    /// None: writes to the odd address are OCW1.
    Ready,
    /// ICW2, the vector base.
    Icw2,
    /// ICW3, the cascade wiring.
    Icw3,
    /// ICW4, the mode.
    Icw4,
}

/// State of one 8259A.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChipState {
    /// Rising edges that were not acknowledged yet. A level-triggered request is in `lines` only.
    pub(crate) latched: u8,
    /// Current levels of the inputs.
    pub(crate) lines: u8,
    /// Interrupts in service (ISR).
    pub(crate) in_service: u8,
    /// Interrupt mask (IMR).
    pub(crate) mask: u8,
    /// ELCR: inputs that are level triggered.
    pub(crate) level: u8,
    /// Vector of input 0.
    pub(crate) base: u8,
    /// Input with the lowest priority, 0..=7. The next input has the highest.
    pub(crate) lowest: u8,
    /// Position in the initialization sequence.
    pub(crate) init: InitStep,
    /// ICW1 SNGL: no ICW3 follows.
    pub(crate) single: bool,
    /// ICW1 IC4: an ICW4 follows.
    pub(crate) icw4: bool,
    /// ICW4 AEOI.
    pub(crate) auto_eoi: bool,
    /// ICW4 SFNM.
    pub(crate) special_nested: bool,
    /// OCW2 rotate in automatic EOI mode.
    pub(crate) rotate_on_auto_eoi: bool,
    /// OCW3 special mask mode.
    pub(crate) special_mask: bool,
    /// OCW3: the even address reads ISR, not IRR.
    pub(crate) read_in_service: bool,
    /// OCW3: the next read is a poll.
    pub(crate) poll: bool,
}

impl ChipState {
    /// Returns the state after power-on, before the first ICW1: all inputs masked.
    pub(super) fn power_on(level: u8) -> Self {
        Self {
            latched: 0,
            lines: 0,
            in_service: 0,
            mask: 0xFF,
            level,
            base: 0,
            lowest: 7,
            init: InitStep::Ready,
            single: false,
            icw4: false,
            auto_eoi: false,
            special_nested: false,
            rotate_on_auto_eoi: false,
            special_mask: false,
            read_in_service: false,
            poll: false,
        }
    }

    /// Whether a chip can be in this state.
    pub(super) fn is_possible(&self) -> bool {
        self.lowest <= 7 && self.base & 7 == 0
    }
}

/// State of master and slave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PicState {
    /// IRQ 0..=7.
    pub(crate) master: ChipState,
    /// IRQ 8..=15, cascaded on the master's input 2.
    pub(crate) slave: ChipState,
}
