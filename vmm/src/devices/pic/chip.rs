//! One 8259A (Intel 8259A datasheet, order number 231468-003).
//!
//! Differences from the hardware, none of which matters to drivers: ICW1.LTIM is ignored in favour of
//! ELCR, as in the PIIX; the 8080 modes are absent; an edge of a device, once latched, stays until it is acknowledged
//! or ICW1 is written, even if its line drops (a pulse is enough).

use super::state::{ChipState, InitStep};

/// ICW1 and the OCWs share the even address: bit 4 marks ICW1, bit 3 marks OCW3.
const ICW1: u8 = 1 << 4;
const ICW1_SINGLE: u8 = 1 << 1;
const ICW1_IC4: u8 = 1 << 0;
const ICW4_SPECIAL_NESTED: u8 = 1 << 4;
const ICW4_AUTO_EOI: u8 = 1 << 1;
const OCW3: u8 = 1 << 3;
const OCW3_ESMM: u8 = 1 << 6;
const OCW3_SMM: u8 = 1 << 5;
const OCW3_POLL: u8 = 1 << 2;
const OCW3_READ: u8 = 1 << 1;
const OCW3_READ_ISR: u8 = 1 << 0;
/// Bit in the answer to a poll: an interrupt was pending, and its input is in the low bits.
const POLL_INTERRUPT: u8 = 1 << 7;
/// The input that the slave is wired to, and the input that a spurious acknowledge reports.
pub(super) const CASCADE: u8 = 2;
pub(super) const SPURIOUS: u8 = 7;

/// One chip and its registers.
#[derive(Debug)]
pub(super) struct Chip {
    pub(super) state: ChipState,
}

impl Chip {
    /// Sets input `ir`; a rising edge on an edge-triggered input is latched.
    pub(super) fn set_line(&mut self, ir: u8, high: bool) {
        let bit = 1 << ir;
        let s = &mut self.state;
        if high {
            if s.lines & bit == 0 && s.level & bit == 0 {
                s.latched |= bit;
            }
            s.lines |= bit;
        } else {
            s.lines &= !bit;
        }
    }

    /// Lowers input `ir` and drops its request, latched or not.
    pub(super) fn withdraw(&mut self, ir: u8) {
        self.set_line(ir, false);
        self.state.latched &= !(1 << ir);
    }

    /// Returns the interrupt request register (IRR).
    fn requests(&self) -> u8 {
        let s = &self.state;
        (s.latched & !s.level) | (s.lines & s.level)
    }

    /// Returns the rank of the first set bit in priority order: 0 is the highest, 8 means that no bit is
    /// set.
    fn rank(&self, bits: u8) -> u32 {
        bits.rotate_right(u32::from((self.state.lowest + 1) & 7)).trailing_zeros()
    }

    fn input_of_rank(&self, rank: u32) -> u8 {
        // All callers pass a rank below 8, so the sum does not overflow.
        (rank as u8 + self.state.lowest + 1) & 7
    }

    /// Returns the input that drives INT, if INT is high.
    pub(super) fn pending(&self) -> Option<u8> {
        let s = &self.state;
        let request = self.rank(self.requests() & !s.mask);
        let mut in_service = s.in_service;
        if s.special_mask {
            in_service &= !s.mask;
        }
        if s.special_nested {
            in_service &= !(1 << CASCADE);
        }
        (request < self.rank(in_service)).then(|| self.input_of_rank(request))
    }

    /// Performs one INTA sequence. Returns the acknowledged input, or `None` for a spurious interrupt.
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        let ir = self.pending()?;
        let s = &mut self.state;
        s.latched &= !(1 << ir);
        if !s.auto_eoi {
            s.in_service |= 1 << ir;
        } else if s.rotate_on_auto_eoi {
            s.lowest = ir;
        }
        Some(ir)
    }

    /// Returns the vector of input `ir`.
    pub(super) fn vector(&self, ir: u8) -> u8 {
        self.state.base | ir
    }

    /// Reads the even (`odd == false`) or odd address.
    pub(super) fn read(&mut self, odd: bool) -> u8 {
        if std::mem::take(&mut self.state.poll) {
            return self.acknowledge().map_or(0, |ir| POLL_INTERRUPT | ir);
        }
        match (odd, self.state.read_in_service) {
            (true, _) => self.state.mask,
            (false, true) => self.state.in_service,
            (false, false) => self.requests(),
        }
    }

    /// Writes the even (`odd == false`) or odd address.
    pub(super) fn write(&mut self, odd: bool, value: u8) {
        if odd {
            self.write_odd(value);
        } else if value & ICW1 != 0 {
            self.icw1(value);
        } else if value & OCW3 != 0 {
            self.ocw3(value);
        } else {
            self.ocw2(value);
        }
    }

    fn write_odd(&mut self, value: u8) {
        let s = &mut self.state;
        s.init = match s.init {
            InitStep::Ready => {
                s.mask = value;
                InitStep::Ready
            }
            InitStep::Icw2 => {
                s.base = value & 0xF8;
                match (s.single, s.icw4) {
                    (false, _) => InitStep::Icw3,
                    (true, true) => InitStep::Icw4,
                    (true, false) => InitStep::Ready,
                }
            }
            // The wiring is fixed, so the value that the guest writes has no effect.
            InitStep::Icw3 if s.icw4 => InitStep::Icw4,
            InitStep::Icw3 => InitStep::Ready,
            InitStep::Icw4 => {
                s.auto_eoi = value & ICW4_AUTO_EOI != 0;
                s.special_nested = value & ICW4_SPECIAL_NESTED != 0;
                InitStep::Ready
            }
        };
    }

    /// Resets what ICW1 resets (datasheet, "Initialization Command Words 1 and 2").
    fn icw1(&mut self, value: u8) {
        let s = &mut self.state;
        *s = ChipState {
            lines: s.lines,
            mask: 0,
            base: s.base,
            init: InitStep::Icw2,
            single: value & ICW1_SINGLE != 0,
            icw4: value & ICW1_IC4 != 0,
            ..ChipState::power_on(s.level)
        };
    }

    /// Executes OCW2 (datasheet, "Operation Command Word 2"): R, SL and EOI in bits 7..5, the level in
    /// bits 2..0.
    fn ocw2(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0b000 => self.state.rotate_on_auto_eoi = false,
            0b100 => self.state.rotate_on_auto_eoi = true,
            0b001 => {
                self.end_highest();
            }
            0b101 => {
                if let Some(ir) = self.end_highest() {
                    self.state.lowest = ir;
                }
            }
            0b011 => self.state.in_service &= !(1 << level),
            0b111 => {
                self.state.in_service &= !(1 << level);
                self.state.lowest = level;
            }
            0b110 => self.state.lowest = level,
            // 0b010: no operation.
            _ => {}
        }
    }

    /// Executes a non-specific EOI. In special mask mode it does not clear the ISR bit of a masked input.
    fn end_highest(&mut self) -> Option<u8> {
        let s = &self.state;
        let candidates = if s.special_mask { s.in_service & !s.mask } else { s.in_service };
        if candidates == 0 {
            return None;
        }
        let ir = self.input_of_rank(self.rank(candidates));
        self.state.in_service &= !(1 << ir);
        Some(ir)
    }

    fn ocw3(&mut self, value: u8) {
        let s = &mut self.state;
        if value & OCW3_ESMM != 0 {
            s.special_mask = value & OCW3_SMM != 0;
        }
        if value & OCW3_READ != 0 {
            s.read_in_service = value & OCW3_READ_ISR != 0;
        }
        s.poll = value & OCW3_POLL != 0;
    }
}
