//! virtio-blk: up to 16 requests at a time, each in a slot of its own and not waited for.
//!
//! The crate's own driver has no flush that returns at once, so this is one over its queue. The interrupt ends the wait
//! at the gate; the stub reads the device's ISR register.

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::dma::StaticDma;
use crate::mem::once;

pub(crate) const SECTOR_BYTES: usize = 512;
pub(crate) type Sector = [u8; SECTOR_BYTES];
/// Bytes of a block, and the sectors that it has.
pub(crate) const BLOCK_BYTES: usize = 4096;
pub(crate) const BLOCK_SECTORS: u64 = (BLOCK_BYTES / SECTOR_BYTES) as u64;
/// Most requests in flight.
pub(crate) const SLOTS: usize = 16;

const QUEUE: u16 = 0;
/// For each slot header, data and status; a power of two.
const QUEUE_SIZE: usize = 64;
const _: () = assert!(QUEUE_SIZE >= 3 * SLOTS);
/// Features (virtio 1.2, sections 5.2.3 and 6).
const READ_ONLY: u64 = 1 << 5;
const FLUSH: u64 = 1 << 9;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
/// Offset of `capacity` in the configuration (section 5.2.4).
const CAPACITY: usize = 0;
/// Request types (section 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH_TYPE: u32 = 4;
/// A status that no device writes.
const NO_STATUS: u8 = 0xff;

/// What the device and the driver both see of a request: static, so that nothing on the stack is ever shared.
struct Shared {
    header: [u8; 16],
    data: [u8; BLOCK_BYTES],
    status: [u8; 1],
}

impl Shared {
    const NEW: Self = Self { header: [0; 16], data: [0; BLOCK_BYTES], status: [NO_STATUS] };
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Reads one sector.
    Read { sector: u64 },
    /// Writes one sector.
    Write { sector: u64 },
    /// Reads the block that begins with a sector.
    ReadBlock { sector: u64 },
    /// Writes the block that begins with a sector.
    WriteBlock { sector: u64 },
    /// Makes stable what was written.
    Flush,
}

impl Operation {
    /// Bytes of data that travel with the request.
    fn bytes(self) -> usize {
        match self {
            Operation::Read { .. } | Operation::Write { .. } => SECTOR_BYTES,
            Operation::ReadBlock { .. } | Operation::WriteBlock { .. } => BLOCK_BYTES,
            Operation::Flush => 0,
        }
    }
}

/// The disk.
pub(crate) struct Disk {
    transport: PciTransport,
    queue: VirtQueue<StaticDma, QUEUE_SIZE>,
    shared: &'static mut [Shared; SLOTS],
    in_flight: [Option<(u16, Operation)>; SLOTS],
    /// The device wants to be notified of a request that was begun.
    must_notify: bool,
    sectors: u64,
    read_only: bool,
}

impl Disk {
    /// Brings the device up.
    pub(crate) fn new(mut transport: PciTransport) -> Self {
        let begun = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(DeviceStatus::empty());
        transport.set_status(begun);
        let features =
            transport.read_device_features() & (READ_ONLY | FLUSH | EVENT_IDX | VERSION_1);
        transport.write_driver_features(features);
        transport.set_status(begun | DeviceStatus::FEATURES_OK);
        // Only words of four bytes are sure to be aligned.
        let [low, high] = [CAPACITY, CAPACITY + 4].map(|offset| {
            let word: u32 = transport
                .read_config_space(offset)
                .unwrap_or_else(|error| panic!("virtio-blk: {error}"));
            u64::from(word)
        });
        let sectors = low | high << 32;
        let queue = VirtQueue::new(&mut transport, QUEUE, false, features & EVENT_IDX != 0)
            .unwrap_or_else(|error| panic!("virtio-blk: {error}"));
        transport.finish_init();
        let shared = once!([Shared; SLOTS], [Shared::NEW; SLOTS]);
        let read_only = features & READ_ONLY != 0;
        let in_flight = [None; SLOTS];
        Self { transport, queue, shared, in_flight, must_notify: false, sectors, read_only }
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What the last read of a sector in slot 0 returned, and what the next write of one writes.
    ///
    /// # Panics
    ///
    /// While the slot is in use.
    pub(crate) fn data(&mut self) -> &mut Sector {
        let block = self.block(0);
        block.first_chunk_mut().expect("a block has a sector")
    }

    /// What the last read in `slot` returned, and what the next write writes.
    ///
    /// # Panics
    ///
    /// While the slot is in use.
    pub(crate) fn block(&mut self, slot: usize) -> &mut [u8; BLOCK_BYTES] {
        assert!(self.in_flight[slot].is_none(), "the device has the data");
        &mut self.shared[slot].data
    }

    /// Returns a slot below `depth` that is not in use.
    pub(crate) fn free_slot(&self, depth: usize) -> Option<usize> {
        self.in_flight[..depth].iter().position(Option::is_none)
    }

    /// Begins a request in `slot`. A [notification](Disk::notify) must follow, of one or several requests.
    ///
    /// # Panics
    ///
    /// If the slot is in use.
    pub(crate) fn begin(&mut self, slot: usize, operation: Operation) {
        assert!(self.in_flight[slot].is_none(), "one request at a time in a slot");
        let (kind, sector) = match operation {
            Operation::Read { sector } | Operation::ReadBlock { sector } => (IN, sector),
            Operation::Write { sector } | Operation::WriteBlock { sector } => (OUT, sector),
            Operation::Flush => (FLUSH_TYPE, 0),
        };
        let Shared { header, data, status } = &mut self.shared[slot];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        *status = [NO_STATUS];
        let data = &mut data[..operation.bytes()];
        let queue = &mut self.queue;
        // SAFETY: the buffers are static, and `in_flight` keeps everyone off them until `poll` has popped them.
        let token = unsafe {
            match kind {
                IN => queue.add(&[&*header], &mut [data, status]),
                OUT => queue.add(&[&*header, &*data], &mut [status]),
                _ => queue.add(&[&*header], &mut [status]),
            }
        };
        let token = token.unwrap_or_else(|error| panic!("virtio-blk: {error}"));
        self.in_flight[slot] = Some((token, operation));
        // Of each request: the queue compares only the last one with what the device asks for.
        self.must_notify |= self.queue.should_notify();
    }

    /// Tells the device of the requests that were begun, if it wants to know.
    pub(crate) fn notify(&mut self) {
        if core::mem::take(&mut self.must_notify) {
            self.transport.notify(QUEUE);
        }
    }

    /// Returns a slot whose request has ended, and whether it was done well.
    pub(crate) fn poll(&mut self) -> Option<(usize, bool)> {
        let ended = self.queue.peek_used()?;
        let is_it = |one: &Option<(u16, Operation)>| one.is_some_and(|(token, _)| token == ended);
        let slot = self.in_flight.iter().position(is_it).expect("the device ends what was begun");
        let (token, operation) = self.in_flight[slot].take().expect("it was just found");
        let Shared { header, data, status } = &mut self.shared[slot];
        let data = &mut data[..operation.bytes()];
        let queue = &mut self.queue;
        // SAFETY: these are the buffers that `begin` has added for this operation.
        let popped = unsafe {
            match operation {
                Operation::Read { .. } | Operation::ReadBlock { .. } => {
                    queue.pop_used(token, &[&*header], &mut [data, status])
                }
                Operation::Write { .. } | Operation::WriteBlock { .. } => {
                    queue.pop_used(token, &[&*header, &*data], &mut [status])
                }
                Operation::Flush => queue.pop_used(token, &[&*header], &mut [status]),
            }
        };
        popped.unwrap_or_else(|error| panic!("virtio-blk: {error}"));
        Some((slot, self.shared[slot].status == [0]))
    }
}
