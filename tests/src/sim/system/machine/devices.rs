//! The toy machine's devices: an interrupt controller, a timer, a network card, a console, a disk.
//!
//! As in the real machine, they act only at exits and at positions, and their state is a plain struct.

use replication::boundary::{DeviceCapacity, Input};

use super::disk::Disk;
use super::ram::Ram;

/// Number of frames in a ring.
pub(crate) const RING_SLOTS: u64 = 4;
/// Bytes of a slot: the length, then the frame.
const SLOT_BYTES: usize = 2048;
/// Offset of the frame in a slot.
const SLOT_FRAME: usize = 8;
/// Address of the receive ring: pages 1 and 2.
const RECEIVE_RING: usize = 0x1000;
/// Address of the send ring: pages 3 and 4.
const SEND_RING: usize = 0x3000;

/// Address of the number of frames put into the receive ring since boot.
pub(crate) const RECEIVED: usize = 0x08;
/// Address of the number of frames that the guest has taken out of it.
pub(crate) const TAKEN: usize = 0x10;
/// Address of the number of frames in the send ring.
pub(crate) const TO_SEND: usize = 0x18;

/// Maximum number of console bytes that wait.
const CONSOLE_BYTES_MAX: usize = 16;

/// The interrupt lines, in the order of priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The timer.
    Timer,
    /// The network card.
    Network,
    /// The console.
    Console,
    /// The disk.
    Disk,
}

impl Line {
    const ALL: [Self; 4] = [Self::Timer, Self::Network, Self::Console, Self::Disk];

    fn bit(self) -> u64 {
        1 << self as u64
    }

    /// Whether the line's bit is set in `status`.
    pub(crate) fn is_in(self, status: u64) -> bool {
        status & self.bit() != 0
    }
}

/// Interrupt vector of the first line.
const FIRST_VECTOR: u8 = 32;

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Interrupts that wait for injection, a bit for each line.
    pub(crate) pending: u64,
    /// Lines raised since the guest read the status, a bit for each line.
    pub(crate) status: u64,
    /// When the timer is due, in guest time.
    pub(crate) timer_ns: Option<u64>,
    /// Guest time at the last input or reading that contained it.
    pub(crate) clock_ns: u64,
    /// Console input that waits.
    pub(crate) console: Vec<u8>,
    /// The disk.
    pub(crate) disk: Disk,
}

impl Devices {
    /// The inputs that the devices can accept now.
    pub(crate) fn capacity(&self, ram: &Ram) -> DeviceCapacity {
        DeviceCapacity {
            frame: ram.word(RECEIVED) - ram.word(TAKEN) < RING_SLOTS,
            console_bytes: CONSOLE_BYTES_MAX - self.console.len(),
            timer_ns: self.timer_ns,
            disk_requests: self.disk.in_flight() as u32,
            disk_requests_held: self.disk.stalled && self.disk.next(ram).is_some(),
            ..DeviceCapacity::default()
        }
    }

    /// Applies an input.
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
            Input::Disk(done) => {
                self.disk.complete(ram, &done);
                self.raise(Line::Disk);
            }
        }
    }

    fn raise(&mut self, line: Line) {
        self.pending |= line.bit();
        self.status |= line.bit();
    }

    /// Whether an interrupt waits for injection.
    pub(crate) fn interrupt_pending(&self) -> bool {
        self.pending != 0
    }

    /// Removes the pending interrupt of the highest priority, and returns its vector.
    ///
    /// # Panics
    ///
    /// If no interrupt is pending.
    pub(crate) fn acknowledge(&mut self) -> u8 {
        let line = Line::ALL.into_iter().find(|line| line.is_in(self.pending));
        let line = line.expect("an interrupt is pending");
        self.pending &= !line.bit();
        FIRST_VECTOR + line as u8
    }
}

/// Writes a frame to its slot in a ring.
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

/// The received frame number `number`.
pub(crate) fn received(ram: &Ram, number: u64) -> &[u8] {
    read_slot(ram, RECEIVE_RING, number)
}

/// The frame number `number` in the send ring.
pub(crate) fn to_send(ram: &Ram, number: u64) -> &[u8] {
    read_slot(ram, SEND_RING, number)
}

/// Adds a frame of the guest to the send ring.
///
/// # Panics
///
/// If the ring is full.
pub(crate) fn add_to_send(ram: &mut Ram, frame: &[u8]) {
    let number = ram.word(TO_SEND);
    assert!(number < RING_SLOTS, "the send ring is full");
    write_slot(ram, SEND_RING, number, frame);
    ram.set_word(TO_SEND, number + 1);
}
