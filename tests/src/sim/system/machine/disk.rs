//! The toy machine's disk, as its guest sees it: a ring of requests in memory, and a table of those in flight.

use replication::boundary::{DiskCompletion, DiskOperation, DiskRequest, DiskStatus};

use super::ram::Ram;

/// Number of blocks of the disk.
pub(crate) const BLOCKS: usize = 4;
/// Number of requests that the guest may have made and not seen completed.
pub(crate) const RING_SLOTS: u64 = 8;
/// Number of requests in flight; the others wait in the ring.
pub(crate) const FLIGHTS_MAX: usize = 4;
/// Bytes of a block's contents.
pub(crate) const VALUE_BYTES: usize = 8;

/// Address of the number of requests made since boot.
pub(crate) const MADE: usize = 0x200;
/// Address of the number of requests completed since boot.
pub(crate) const COMPLETED: usize = 0x208;
/// Address of the last value read.
pub(crate) const VALUE: usize = 0x210;
/// Address of the ring: three words for each request.
const RING: usize = 0x240;
/// Address of what the guest last wrote to each block; 0: it does not know.
const EXPECTED: usize = 0x340;

/// A request in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flight {
    /// Its number; 0: none.
    pub(crate) number: u64,
    /// See [`operation`].
    pub(crate) kind: u64,
    pub(crate) block: u64,
    /// What is written, or what a read must find; 0 if the guest does not know.
    pub(crate) value: u64,
    /// Of a flush: the newest write to each block that was complete when it was made.
    pub(crate) covers: [u64; BLOCKS],
}

impl Flight {
    /// Whether it changes the disk.
    pub(crate) fn is_change(&self) -> bool {
        operation(self.kind).modifies()
    }
}

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Requests taken from the ring.
    pub(crate) taken: u64,
    /// Requests wait in the ring.
    pub(crate) stalled: bool,
    pub(crate) flights: [Flight; FLIGHTS_MAX],
    /// The newest write to each block that is complete.
    pub(crate) written: [u64; BLOCKS],
    /// The newest write to each block that a complete flush covers.
    pub(crate) flushed: [u64; BLOCKS],
    /// What the guest has read, if it is not what it had written.
    pub(crate) wrong: Option<String>,
}

/// Words of the state in a checkpoint.
pub(crate) const DISK_WORDS: usize = 2 + FLIGHTS_MAX * (4 + BLOCKS) + 2 * BLOCKS;

/// Returns the operation of a request of this kind.
fn operation(kind: u64) -> DiskOperation {
    match kind {
        0 => DiskOperation::Read,
        1 => DiskOperation::Write,
        2 => DiskOperation::Flush,
        _ => panic!("{kind} is not a kind of request"),
    }
}

/// Makes a request of `kind` for `block`; a write has `value`. The ring must have room.
pub(crate) fn make_request(ram: &mut Ram, kind: u64, block: u64, value: u64) {
    let made = ram.word(MADE);
    assert!(made - ram.word(COMPLETED) < RING_SLOTS, "the ring of the disk is full");
    let expected = EXPECTED + block as usize * 8;
    let value = match operation(kind) {
        DiskOperation::Read => ram.word(expected),
        DiskOperation::Write => {
            ram.set_word(expected, value);
            value
        }
        DiskOperation::Flush | DiskOperation::Discard | DiskOperation::WriteZeroes => 0,
    };
    let slot = RING + (made % RING_SLOTS) as usize * 24;
    for (index, word) in [kind, block, value].into_iter().enumerate() {
        ram.set_word(slot + index * 8, word);
    }
    ram.set_word(MADE, made + 1);
}

impl Disk {
    /// The number of requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.iter().filter(|flight| flight.number > 0).count()
    }

    /// The requests in flight, by number.
    pub(crate) fn flights(&self) -> Vec<Flight> {
        let mut flights = self.flights.to_vec();
        flights.retain(|flight| flight.number > 0);
        flights.sort_by_key(|flight| flight.number);
        flights
    }

    /// The next request, if there is room for it.
    pub(crate) fn next(&self, ram: &Ram) -> Option<Flight> {
        if self.taken == ram.word(MADE) || self.in_flight() == FLIGHTS_MAX {
            return None;
        }
        let slot = RING + (self.taken % RING_SLOTS) as usize * 24;
        let [kind, block, value] = [0, 8, 16].map(|offset| ram.word(slot + offset));
        let number = self.taken + 1;
        let covers = if kind == 2 { self.written } else { [0; BLOCKS] };
        Some(Flight { number, kind, block, value, covers })
    }

    /// Puts the next request into the table.
    pub(crate) fn take(&mut self, flight: Flight) {
        let free = self.flights.iter_mut().find(|flight| flight.number == 0);
        *free.expect("there is room") = flight;
        self.taken = flight.number;
    }

    /// Delivers a completion.
    pub(crate) fn complete(&mut self, ram: &mut Ram, done: &DiskCompletion<'_>) {
        let found = self.flights.iter_mut().find(|flight| flight.number == done.number);
        let Some(flight) = found.map(std::mem::take) else {
            self.wrong = Some(format!("request {} is completed again", done.number));
            return;
        };
        ram.set_word(COMPLETED, ram.word(COMPLETED) + 1);
        let block = flight.block as usize;
        match (operation(flight.kind), done.status) {
            (DiskOperation::Read, DiskStatus::Done) => {
                let bytes = done.data.first_chunk().expect("a read has data");
                let value = u64::from_le_bytes(*bytes);
                ram.set_word(VALUE, value);
                if flight.value != 0 && value != flight.value {
                    let Flight { number, value: expected, .. } = flight;
                    self.wrong = Some(format!(
                        "request {number} reads {value:#x} from block {block}, which has {expected:#x}"
                    ));
                }
            }
            (DiskOperation::Write, DiskStatus::Done) => {
                self.written[block] = self.written[block].max(flight.number);
            }
            (DiskOperation::Write, DiskStatus::Failed) => {
                let expected = EXPECTED + block * 8;
                if ram.word(expected) == flight.value {
                    ram.set_word(expected, 0);
                }
            }
            (DiskOperation::Flush, DiskStatus::Done) => {
                for (flushed, covers) in self.flushed.iter_mut().zip(flight.covers) {
                    *flushed = covers.max(*flushed);
                }
            }
            (
                DiskOperation::Read
                | DiskOperation::Flush
                | DiskOperation::Discard
                | DiskOperation::WriteZeroes,
                _,
            ) => {}
        }
    }

    pub(crate) fn words(&self) -> Vec<u64> {
        let mut words = vec![self.taken, self.stalled.into()];
        for Flight { number, kind, block, value, covers } in self.flights {
            words.extend([number, kind, block, value]);
            words.extend(covers);
        }
        words.extend(self.written);
        words.extend(self.flushed);
        words
    }

    pub(crate) fn of_words(words: &[u64]) -> Disk {
        let blocks = |from: usize| std::array::from_fn(|index| words[from + index]);
        let flight = |index: usize| {
            let from = 2 + index * (4 + BLOCKS);
            let [number, kind, block, value] = std::array::from_fn(|index| words[from + index]);
            Flight { number, kind, block, value, covers: blocks(from + 4) }
        };
        let from = 2 + FLIGHTS_MAX * (4 + BLOCKS);
        Disk {
            taken: words[0],
            stalled: words[1] != 0,
            flights: std::array::from_fn(flight),
            written: blocks(from),
            flushed: blocks(from + BLOCKS),
            wrong: None,
        }
    }
}

/// Calls `give` with the request in `flight`.
pub(crate) fn with_request<T>(flight: &Flight, give: impl FnOnce(&DiskRequest<'_>) -> T) -> T {
    let operation = operation(flight.kind);
    let value = flight.value.to_le_bytes();
    let (bytes, data): (u32, &[u8]) = match operation {
        DiskOperation::Read => (VALUE_BYTES as u32, &[]),
        DiskOperation::Write => (VALUE_BYTES as u32, &value),
        DiskOperation::Flush | DiskOperation::Discard | DiskOperation::WriteZeroes => (0, &[]),
    };
    let (number, sector) = (flight.number, flight.block);
    give(&DiskRequest { disk: 0, number, operation, sector, bytes, data })
}
