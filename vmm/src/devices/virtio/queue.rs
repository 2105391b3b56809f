//! A virtqueue: the registers with which a driver sets it up, and virtio-queue's ring once it is enabled.
//! Invalid values in the driver's memory become a typed error, and every walk over that memory is
//! bounded.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use virtio_bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryError};

use crate::mem::GuestRam;

/// Bytes of the header of `struct virtq_avail` (virtio 1.2, section 2.7.6), and of the header and an
/// element of `struct virtq_used` (section 2.7.8).
const AVAIL_HEADER_BYTES: u64 = 4;
const USED_HEADER_BYTES: u64 = 4;
const USED_ELEMENT_BYTES: u64 = 8;
/// Bytes of `struct virtq_desc` (section 2.7.5).
const DESCRIPTOR_BYTES: u64 = 16;
const _: () = assert!(AVAIL_HEADER_BYTES == USED_HEADER_BYTES);
/// Distance of avail_event from the driver's index that suppresses kicks: avail_event is advanced before
/// the driver reaches it.
const NO_KICK_DISTANCE: u16 = 0x7FFF;

/// A descriptor chain in guest memory.
pub(crate) type Chain<'m> = DescriptorChain<&'m GuestRam>;

/// Total lengths of the parts of a chain, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainLengths {
    /// Of those that the device reads.
    pub(crate) readable: u64,
    /// Of those that the device writes.
    pub(crate) writable: u64,
}

/// One part of a chain.
struct Part {
    address: GuestAddress,
    bytes: u32,
    /// The device writes it.
    is_for_device: bool,
}

/// A queue that a driver made invalid. The device then needs a reset.
#[derive(Debug, Error)]
pub(crate) enum QueueError {
    #[error("ring: {0}")]
    Ring(#[from] virtio_queue::Error),
    #[error("ring memory is not RAM")]
    NotRam,
    #[error("descriptor chain has a loop, no end or too many descriptors")]
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

/// State of a queue: registers and positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VirtQueueState {
    /// Entries.
    pub(crate) size: u16,
    /// The driver enabled the queue.
    pub(crate) enabled: bool,
    /// Guest physical address of the descriptor table.
    pub(crate) descriptors: u64,
    /// Guest physical address of the driver area (available ring).
    pub(crate) driver: u64,
    /// Guest physical address of the device area (used ring).
    pub(crate) device: u64,
    /// Index of the next available entry to take.
    pub(crate) next_avail: u16,
    /// Index of the next used entry to write.
    pub(crate) next_used: u16,
    /// VIRTIO_F_EVENT_IDX was negotiated.
    pub(crate) event_idx: bool,
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
    /// Registers. Their positions are up to date only in a saved copy; while the queue is enabled the
    /// ring has them.
    registers: VirtQueueState,
    /// The ring; present while the queue is enabled.
    ring: Option<Queue>,
}

impl VirtQueue {
    /// Creates a queue of at most `max_size` entries, a power of two.
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

    /// Sets the size. Returns false if the queue is enabled or the size is not allowed.
    pub(crate) fn set_size(&mut self, size: u16) -> bool {
        let fits = !self.enabled() && size.is_power_of_two() && size <= self.max_size;
        if fits {
            self.registers.size = size;
        }
        fits
    }

    /// Sets an address. Returns false if the queue is enabled.
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

    /// Enables the queue with its current registers.
    pub(crate) fn enable(&mut self, ram: &GuestRam, event_idx: bool) -> Result<(), QueueError> {
        let registers = VirtQueueState { enabled: true, event_idx, ..self.registers.clone() };
        let ring = Queue::try_from(registers.ring_state(self.max_size))?;
        if !ring.is_valid(ram) {
            return Err(QueueError::NotRam);
        }
        self.registers = registers;
        self.ring = Some(ring);
        Ok(())
    }

    /// Whether there is a buffer to take. It is also true for an invalid ring; taking a buffer then
    /// returns the error.
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

    /// Takes the next buffer, of a device that returns it later. Returns the index of its first descriptor.
    pub(crate) fn pop_head(&mut self, ram: &GuestRam) -> Result<Option<u16>, QueueError> {
        Ok(self.pop(ram)?.map(|chain| chain.head_index()))
    }

    /// Copies the device-readable parts of the chain at `head` into `buffer`, one after the other. What does not fit
    /// is cut off.
    pub(crate) fn gather_at(
        &self,
        ram: &GuestRam,
        head: u16,
        buffer: &mut [u8],
    ) -> Result<ChainLengths, QueueError> {
        let mut lengths = ChainLengths::default();
        self.walk_at(ram, head, |part| {
            if part.is_for_device {
                lengths.writable += u64::from(part.bytes);
                return Ok(());
            }
            let start = usize::try_from(lengths.readable).unwrap_or(usize::MAX).min(buffer.len());
            let end = start.saturating_add(part.bytes as usize).min(buffer.len());
            ram.read_slice(&mut buffer[start..end], part.address)?;
            lengths.readable += u64::from(part.bytes);
            Ok(())
        })?;
        Ok(lengths)
    }

    /// Writes `bytes` to the front of the device-writable parts of the chain at `head`, and `last` into their last
    /// byte. Bytes for which there is no room before it are cut off. Returns how many bytes were written from the
    /// front on.
    pub(crate) fn scatter_at(
        &self,
        ram: &GuestRam,
        head: u16,
        bytes: &[u8],
        last: u8,
    ) -> Result<u32, QueueError> {
        let mut room = 0u64;
        self.walk_at(ram, head, |part| {
            room += if part.is_for_device { u64::from(part.bytes) } else { 0 };
            Ok(())
        })?;
        let last_at = room.checked_sub(1).ok_or(QueueError::BrokenChain)?;
        let count = bytes.len().min(usize::try_from(last_at).unwrap_or(usize::MAX));
        let (mut rest, mut at) = (&bytes[..count], 0u64);
        self.walk_at(ram, head, |part| {
            if !part.is_for_device {
                return Ok(());
            }
            let (now, later) = rest.split_at(rest.len().min(part.bytes as usize));
            ram.write_slice(now, part.address)?;
            rest = later;
            let end = at + u64::from(part.bytes);
            if (at..end).contains(&last_at) {
                let address = part.address.checked_add(last_at - at).ok_or(QueueError::NotRam)?;
                ram.write_slice(&[last], address)?;
            }
            at = end;
            Ok(())
        })?;
        // The byte in the last place counts only if everything before it was written (section 2.7.8.2).
        let whole = count as u64 == last_at;
        Ok(count as u32 + u32::from(whole))
    }

    /// Calls `visit` for each part of the chain at `head`, whose descriptors are read now. A chain leads to at most as
    /// many parts as the queue has entries, and not to a table of its own, which is a feature that is not offered.
    fn walk_at(
        &self,
        ram: &GuestRam,
        head: u16,
        mut visit: impl FnMut(Part) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        let size = self.registers.size;
        let mut next = Some(head);
        for _ in 0..size {
            let Some(index) = next else { return Ok(()) };
            if index >= size {
                return Err(QueueError::BrokenChain);
            }
            let offset = DESCRIPTOR_BYTES * u64::from(index);
            let address =
                self.registers.descriptors.checked_add(offset).ok_or(QueueError::NotRam)?;
            let mut raw = [0; DESCRIPTOR_BYTES as usize];
            ram.read_slice(&mut raw, GuestAddress(address))?;
            let flags = u16::from_le_bytes([raw[12], raw[13]]);
            if flags & VRING_DESC_F_INDIRECT as u16 != 0 {
                return Err(QueueError::BrokenChain);
            }
            visit(Part {
                address: GuestAddress(u64::from_le_bytes(std::array::from_fn(|i| raw[i]))),
                bytes: u32::from_le_bytes(std::array::from_fn(|i| raw[8 + i])),
                is_for_device: flags & VRING_DESC_F_WRITE as u16 != 0,
            })?;
            next = (flags & VRING_DESC_F_NEXT as u16 != 0)
                .then(|| u16::from_le_bytes([raw[14], raw[15]]));
        }
        if next.is_some() { Err(QueueError::BrokenChain) } else { Ok(()) }
    }

    /// Returns the buffer that was taken last to the ring, as if it had not been taken.
    pub(crate) fn unpop(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.go_to_previous_position();
        }
    }

    /// Returns a buffer, with `written` bytes in it, to the driver.
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

    /// Returns whether the driver must be interrupted for what was pushed since the last call. It must be
    /// called in the same exit as the pushes, because their number is not part of the saved state.
    pub(crate) fn needs_interrupt(&mut self, ram: &GuestRam) -> Result<bool, QueueError> {
        let Some(ring) = &mut self.ring else { return Ok(false) };
        if !ring.event_idx_enabled() {
            let flags: u16 = ram.read_obj(GuestAddress(self.registers.driver))?;
            return Ok(u16::from_le(flags) & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0);
        }
        Ok(ring.needs_notification(ram)?)
    }

    /// Requests or suppresses the driver's kick when it adds the next buffer.
    pub(crate) fn set_kicks_enabled(
        &mut self,
        ram: &GuestRam,
        enabled: bool,
    ) -> Result<(), QueueError> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        if enabled {
            ring.enable_notification(ram)?;
        } else if ring.event_idx_enabled() {
            // avail_event is located after the used ring (virtio 1.2, section 2.7.10).
            let offset = USED_HEADER_BYTES + USED_ELEMENT_BYTES * u64::from(ring.size());
            let event = ring.next_avail().wrapping_add(NO_KICK_DISTANCE);
            // `enable` checked that the ring is in RAM, but the addresses of a restored ring are
            // unchecked.
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

/// Copies the device-readable parts of `chain` into `buffer`, one after the other. Returns their total
/// length in bytes, which may be more than fits.
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

/// Returns the total length of the device-writable parts of `chain`, bytes.
pub(crate) fn room(chain: Chain<'_>, parts_max: u16) -> Result<u64, QueueError> {
    let mut total = 0u64;
    walk(chain, parts_max, |_, bytes, for_device_to_write| {
        total += if for_device_to_write { u64::from(bytes) } else { 0 };
        Ok(())
    })?;
    Ok(total)
}

/// Writes `bytes` into the device-writable parts of `chain`. What does not fit is cut off.
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

/// Calls `visit` for each part of a chain with its address, its length and whether the device writes it.
///
/// # Errors
///
/// The chain has a loop, leaves its table or has more than `parts_max` parts.
fn walk(
    chain: Chain<'_>,
    parts_max: u16,
    mut visit: impl FnMut(GuestAddress, u32, bool) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    let mut parts = 0;
    // The iterator ends without an error at an invalid index. The last part that it returned then still
    // has a "next" flag.
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

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
