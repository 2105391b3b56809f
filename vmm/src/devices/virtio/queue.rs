//! A virtqueue: the registers through which a driver sets it up, and virtio-queue's ring once it
//! is enabled. Whatever a driver puts into its memory ends here in a typed error; every walk has a
//! bound.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::mem::GuestRam;

/// Bytes of `struct virtq_avail` before its ring (virtio 1.2, section 2.7.6), of an entry, and the
/// same of `struct virtq_used` (section 2.7.8).
const AVAIL_HEADER_BYTES: u64 = 4;
const USED_HEADER_BYTES: u64 = 4;
const USED_ELEMENT_BYTES: u64 = 8;
const _: () = assert!(AVAIL_HEADER_BYTES == USED_HEADER_BYTES);
/// An avail_event this far ahead of the driver is not reached before it is moved on.
const NO_KICK_DISTANCE: u16 = 0x7FFF;

/// A descriptor chain in guest memory.
pub(crate) type Chain<'m> = DescriptorChain<&'m GuestRam>;

/// What a driver did wrong with a queue. The device then needs a reset.
#[derive(Debug, Error)]
pub(crate) enum QueueError {
    #[error("ring: {0}")]
    Ring(#[from] virtio_queue::Error),
    #[error("ring memory is not RAM")]
    NotRam,
    #[error("descriptor chain has a loop, no end or too many parts")]
    BrokenChain,
    #[error("buffer: {0}")]
    Buffer(#[from] GuestMemoryError),
}

/// One of the three addresses of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueArea {
    Descriptors,
    Driver,
    Device,
}

/// Registers and position of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtQueueState {
    /// Entries.
    pub size: u16,
    /// The driver enabled it.
    pub enabled: bool,
    /// Guest physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest physical address of the driver area (available ring).
    pub driver: u64,
    /// Guest physical address of the device area (used ring).
    pub device: u64,
    /// Next available entry to take.
    pub next_avail: u16,
    /// Next used entry to write.
    pub next_used: u16,
    /// VIRTIO_F_EVENT_IDX is in force.
    pub event_idx: bool,
}

impl VirtQueueState {
    fn new(max_size: u16) -> Self {
        Self {
            size: max_size,
            enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
            next_avail: 0,
            next_used: 0,
            event_idx: false,
        }
    }

    fn ring_state(&self, max_size: u16) -> QueueState {
        QueueState {
            max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: self.event_idx,
            size: self.size,
            ready: self.enabled,
            desc_table: self.descriptors,
            avail_ring: self.driver,
            used_ring: self.device,
        }
    }
}

/// One queue.
#[derive(Debug)]
pub(crate) struct VirtQueue {
    max_size: u16,
    /// Registers. The positions in it are those of the ring only in a saved copy.
    registers: VirtQueueState,
    /// Present while enabled.
    ring: Option<Queue>,
}

impl VirtQueue {
    /// `max_size` is a power of two.
    pub(crate) fn new(max_size: u16) -> Self {
        Self { max_size, registers: VirtQueueState::new(max_size), ring: None }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }

    pub(crate) fn size(&self) -> u16 {
        self.registers.size
    }

    pub(crate) fn enabled(&self) -> bool {
        self.ring.is_some()
    }

    pub(crate) fn area(&self, area: QueueArea) -> u64 {
        match area {
            QueueArea::Descriptors => self.registers.descriptors,
            QueueArea::Driver => self.registers.driver,
            QueueArea::Device => self.registers.device,
        }
    }

    /// Sets the size; false if the queue is enabled or the size is not one it can have.
    pub(crate) fn set_size(&mut self, size: u16) -> bool {
        let fits = !self.enabled() && size.is_power_of_two() && size <= self.max_size;
        if fits {
            self.registers.size = size;
        }
        fits
    }

    /// Sets an address; false if the queue is enabled.
    pub(crate) fn set_area(&mut self, area: QueueArea, address: u64) -> bool {
        if self.enabled() {
            return false;
        }
        match area {
            QueueArea::Descriptors => self.registers.descriptors = address,
            QueueArea::Driver => self.registers.driver = address,
            QueueArea::Device => self.registers.device = address,
        }
        true
    }

    /// Takes the registers into use.
    pub(crate) fn enable(&mut self, ram: &GuestRam, event_idx: bool) -> Result<(), QueueError> {
        let wanted = VirtQueueState { enabled: true, event_idx, ..self.registers.clone() };
        let ring = Queue::try_from(wanted.ring_state(self.max_size))?;
        if !ring.is_valid(ram) {
            return Err(QueueError::NotRam);
        }
        self.registers = wanted;
        self.ring = Some(ring);
        Ok(())
    }

    /// Is there a buffer to take? True too when the ring is broken: taking then says how.
    pub(crate) fn has_available(&self, ram: &GuestRam) -> bool {
        self.ring.as_ref().is_some_and(|ring| {
            ring.avail_idx(ram, Ordering::Acquire)
                .map_or(true, |index| index.0 != ring.next_avail())
        })
    }

    /// Takes the next buffer.
    pub(crate) fn pop<'m>(&mut self, ram: &'m GuestRam) -> Result<Option<Chain<'m>>, QueueError> {
        let Some(ring) = &mut self.ring else { return Ok(None) };
        Ok(ring.iter(ram)?.next())
    }

    /// Gives back the buffer taken last, as if it had not been.
    pub(crate) fn unpop(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.go_to_previous_position();
        }
    }

    /// Returns a buffer to the driver with `written` bytes in it.
    pub(crate) fn push(
        &mut self,
        ram: &GuestRam,
        head: u16,
        written: u32,
    ) -> Result<(), QueueError> {
        if let Some(ring) = &mut self.ring {
            ring.add_used(ram, head, written)?;
        }
        Ok(())
    }

    /// Does the driver want an interrupt for what was pushed since the last call? To be called in
    /// the same exit as the pushes: the count of them is not part of the state.
    pub(crate) fn needs_interrupt(&mut self, ram: &GuestRam) -> Result<bool, QueueError> {
        let Some(ring) = &mut self.ring else { return Ok(false) };
        if !ring.event_idx_enabled() {
            let flags: u16 = ram.read_obj(GuestAddress(self.registers.driver))?;
            return Ok(u16::from_le(flags) & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0);
        }
        Ok(ring.needs_notification(ram)?)
    }

    /// Asks the driver to kick, or not to kick, when it adds the next buffer.
    pub(crate) fn want_kick(&mut self, ram: &GuestRam, wanted: bool) -> Result<(), QueueError> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        if wanted {
            ring.enable_notification(ram)?;
        } else if ring.event_idx_enabled() {
            // virtio 1.2, section 2.7.10: avail_event lies behind the used ring.
            let offset = USED_HEADER_BYTES + USED_ELEMENT_BYTES * u64::from(ring.size());
            let event = ring.next_avail().wrapping_add(NO_KICK_DISTANCE);
            // Enabling checked that the ring lies in RAM; a restored ring comes unchecked.
            let address = ring.used_ring().checked_add(offset).ok_or(QueueError::NotRam)?;
            let address = GuestAddress(address);
            ram.store(event.to_le(), address, Ordering::Relaxed)?;
        } else {
            ring.disable_notification(ram)?;
        }
        Ok(())
    }

    pub(crate) fn save(&self) -> VirtQueueState {
        let mut state = self.registers.clone();
        if let Some(ring) = &self.ring {
            state.next_avail = ring.next_avail();
            state.next_used = ring.next_used();
        }
        state
    }

    pub(crate) fn restore(
        max_size: u16,
        registers: VirtQueueState,
    ) -> Result<Self, virtio_queue::Error> {
        let size_fits = registers.size.is_power_of_two() && registers.size <= max_size;
        if !size_fits {
            return Err(virtio_queue::Error::InvalidSize);
        }
        let ring = if registers.enabled {
            Some(Queue::try_from(registers.ring_state(max_size))?)
        } else {
            None
        };
        Ok(Self { max_size, registers, ring })
    }
}

/// Copies the parts a driver wrote in `chain` into `buffer`, one after the other, and returns how
/// many bytes they have in all, which may be more than fit.
pub(crate) fn gather(
    ram: &GuestRam,
    chain: Chain<'_>,
    parts_max: u16,
    buffer: &mut [u8],
) -> Result<u64, QueueError> {
    let mut total = 0u64;
    walk(chain, parts_max, |address, bytes, for_device_to_write| {
        if for_device_to_write {
            return Ok(());
        }
        let start = usize::try_from(total).unwrap_or(usize::MAX).min(buffer.len());
        let end = start.saturating_add(bytes as usize).min(buffer.len());
        ram.read_slice(&mut buffer[start..end], address)?;
        total += u64::from(bytes);
        Ok(())
    })?;
    Ok(total)
}

/// Room in the parts of `chain` that the device may write, bytes.
pub(crate) fn room(chain: Chain<'_>, parts_max: u16) -> Result<u64, QueueError> {
    let mut total = 0u64;
    walk(chain, parts_max, |_, bytes, for_device_to_write| {
        total += if for_device_to_write { u64::from(bytes) } else { 0 };
        Ok(())
    })?;
    Ok(total)
}

/// Writes `bytes` into the parts of `chain` that the device may write; what does not fit is cut.
pub(crate) fn scatter(
    ram: &GuestRam,
    chain: Chain<'_>,
    parts_max: u16,
    mut bytes: &[u8],
) -> Result<(), QueueError> {
    walk(chain, parts_max, |address, room, for_device_to_write| {
        if for_device_to_write {
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            ram.write_slice(now, address)?;
            bytes = later;
        }
        Ok(())
    })
}

/// Visits the parts of a chain: address, bytes, and whether the device is to write them. A chain
/// that loops, runs out of its table or has more than `parts_max` parts is an error.
fn walk(
    chain: Chain<'_>,
    parts_max: u16,
    mut visit: impl FnMut(GuestAddress, u32, bool) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    let mut parts = 0;
    // The iterator ends in silence at a bad index; the part before it then still says "next".
    let mut open = true;
    for part in chain {
        parts += 1;
        if parts > parts_max {
            return Err(QueueError::BrokenChain);
        }
        open = part.has_next();
        visit(part.addr(), part.len(), part.is_write_only())?;
    }
    if open { Err(QueueError::BrokenChain) } else { Ok(()) }
}
