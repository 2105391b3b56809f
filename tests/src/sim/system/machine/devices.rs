//! The toy machine's devices: an interrupt controller, a timer, a network card, a console.
//!
//! Like those of the real machine they act at exits and at positions only, and their state is a plain
//! struct.

use vmm::replay::boundary::{DeviceCapacity, Input};

use super::ram::Ram;

/// Frames that a ring holds.
pub(crate) const RING_SLOTS: u64 = 4;
/// Bytes of a slot: a length, and a frame.
const SLOT_BYTES: usize = 2048;
/// Where in a slot the frame is.
const SLOT_FRAME: usize = 8;
/// The receive ring: pages 1 and 2.
const RECEIVE_RING: usize = 0x1000;
/// The send ring: pages 3 and 4.
const SEND_RING: usize = 0x3000;

/// Frames that the network card has put into the receive ring since the machine was started.
pub(crate) const RECEIVED: usize = 0x08;
/// Frames that the guest has taken out of it.
pub(crate) const TAKEN: usize = 0x10;
/// Frames in the send ring.
pub(crate) const TO_SEND: usize = 0x18;

/// Bytes typed that wait.
const CONSOLE_BYTES_MAX: usize = 16;

/// Who interrupts. The lower one goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The timer.
    Timer,
    /// The network card.
    Network,
    /// The console.
    Console,
}

impl Line {
    const ALL: [Self; 3] = [Self::Timer, Self::Network, Self::Console];

    fn bit(self) -> u64 {
        1 << self as u64
    }

    /// Whether it is in what a status register says.
    pub(crate) fn is_in(self, status: u64) -> bool {
        status & self.bit() != 0
    }
}

/// Vector of the first line.
const FIRST_VECTOR: u8 = 32;

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Interrupts that wait to be injected, a bit for each line.
    pub(crate) pending: u64,
    /// What happened since the status was read, a bit for each line.
    pub(crate) status: u64,
    /// When the timer is due, in guest time.
    pub(crate) timer_ns: Option<u64>,
    /// Guest time as the devices last knew it.
    pub(crate) clock_ns: u64,
    /// Bytes typed.
    pub(crate) console: Vec<u8>,
}

impl Devices {
    /// What the devices could take.
    pub(crate) fn capacity(&self, ram: &Ram) -> DeviceCapacity {
        DeviceCapacity {
            frame: ram.word(RECEIVED) - ram.word(TAKEN) < RING_SLOTS,
            console_bytes: CONSOLE_BYTES_MAX - self.console.len(),
            timer_ns: self.timer_ns,
            ..DeviceCapacity::default()
        }
    }

    /// Something enters.
    pub(crate) fn apply(&mut self, ram: &mut Ram, input: &Input<'_>) {
        match *input {
            Input::Clock { now_ns } => {
                self.clock_ns = now_ns;
                if self.timer_ns.is_some_and(|due_ns| due_ns <= now_ns) {
                    self.timer_ns = None;
                    self.raise(Line::Timer);
                }
            }
            Input::Frame(frame) => {
                let received = ram.word(RECEIVED);
                write_slot(ram, RECEIVE_RING, received, frame);
                ram.set_word(RECEIVED, received + 1);
                self.raise(Line::Network);
            }
            Input::Console(bytes) => {
                self.console.extend(bytes);
                self.raise(Line::Console);
            }
        }
    }

    fn raise(&mut self, line: Line) {
        self.pending |= line.bit();
        self.status |= line.bit();
    }

    /// Whether an interrupt waits.
    pub(crate) fn interrupt_pending(&self) -> bool {
        self.pending != 0
    }

    /// The vector of the interrupt to be injected now, which does not wait any more.
    pub(crate) fn acknowledge(&mut self) -> u8 {
        let line = Line::ALL.into_iter().find(|line| line.is_in(self.pending));
        let line = line.expect("an interrupt is pending");
        self.pending &= !line.bit();
        FIRST_VECTOR + line as u8
    }
}

/// Puts a frame into a ring.
fn write_slot(ram: &mut Ram, ring: usize, number: u64, frame: &[u8]) {
    let slot = ring + (number % RING_SLOTS) as usize * SLOT_BYTES;
    assert!(frame.len() <= SLOT_BYTES - SLOT_FRAME, "a frame of {} bytes", frame.len());
    ram.set_word(slot, frame.len() as u64);
    ram.write(slot + SLOT_FRAME, frame);
}

fn read_slot(ram: &Ram, ring: usize, number: u64) -> &[u8] {
    let slot = ring + (number % RING_SLOTS) as usize * SLOT_BYTES;
    ram.bytes(slot + SLOT_FRAME, (ram.word(slot) as usize).min(SLOT_BYTES - SLOT_FRAME))
}

/// The `number`th frame received.
pub(crate) fn received(ram: &Ram, number: u64) -> &[u8] {
    read_slot(ram, RECEIVE_RING, number)
}

/// The `number`th frame in the send ring.
pub(crate) fn to_send(ram: &Ram, number: u64) -> &[u8] {
    read_slot(ram, SEND_RING, number)
}

/// The guest adds a frame to the send ring, which has room.
pub(crate) fn add_to_send(ram: &mut Ram, frame: &[u8]) {
    let number = ram.word(TO_SEND);
    assert!(number < RING_SLOTS, "the send ring is full");
    write_slot(ram, SEND_RING, number, frame);
    ram.set_word(TO_SEND, number + 1);
}
