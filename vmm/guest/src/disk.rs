//! virtio-blk: one request at a time, a sector or a flush, not waited for.
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

const QUEUE: u16 = 0;
/// Header, data, status.
const QUEUE_SIZE: usize = 4;
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

/// What the device and the driver both see of the request: static, so that nothing on the stack is ever shared.
struct Shared {
    header: [u8; 16],
    data: Sector,
    status: [u8; 1],
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read { sector: u64 },
    Write { sector: u64 },
    Flush,
}

/// The disk.
pub(crate) struct Disk {
    transport: PciTransport,
    queue: VirtQueue<StaticDma, QUEUE_SIZE>,
    shared: &'static mut Shared,
    in_flight: Option<(u16, Operation)>,
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
        let shared =
            once!(Shared, Shared { header: [0; 16], data: [0; SECTOR_BYTES], status: [NO_STATUS] });
        let read_only = features & READ_ONLY != 0;
        Self { transport, queue, shared, in_flight: None, sectors, read_only }
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What the last read returned, and what the next write writes.
    ///
    /// # Panics
    ///
    /// While a request is in flight.
    pub(crate) fn data(&mut self) -> &mut Sector {
        assert!(self.in_flight.is_none(), "the device has the data");
        &mut self.shared.data
    }

    /// Begins a request.
    ///
    /// # Panics
    ///
    /// If one is in flight.
    pub(crate) fn begin(&mut self, operation: Operation) {
        assert!(self.in_flight.is_none(), "one request at a time");
        let (kind, sector) = match operation {
            Operation::Read { sector } => (IN, sector),
            Operation::Write { sector } => (OUT, sector),
            Operation::Flush => (FLUSH_TYPE, 0),
        };
        let Shared { header, data, status } = &mut *self.shared;
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        *status = [NO_STATUS];
        let queue = &mut self.queue;
        // SAFETY: the buffers are static, and `in_flight` keeps everyone off them until `poll` has popped them.
        let token = unsafe {
            match operation {
                Operation::Read { .. } => queue.add(&[&*header], &mut [&mut *data, status]),
                Operation::Write { .. } => queue.add(&[&*header, &*data], &mut [status]),
                Operation::Flush => queue.add(&[&*header], &mut [status]),
            }
        };
        let token = token.unwrap_or_else(|error| panic!("virtio-blk: {error}"));
        self.in_flight = Some((token, operation));
        if self.queue.should_notify() {
            self.transport.notify(QUEUE);
        }
    }

    /// Returns whether the request was done well, once it has ended.
    pub(crate) fn poll(&mut self) -> Option<bool> {
        let (token, operation) = self.in_flight.filter(|_| self.queue.can_pop())?;
        let Shared { header, data, status } = &mut *self.shared;
        let queue = &mut self.queue;
        // SAFETY: these are the buffers that `begin` has added for this operation.
        let popped = unsafe {
            match operation {
                Operation::Read { .. } => {
                    queue.pop_used(token, &[&*header], &mut [&mut *data, status])
                }
                Operation::Write { .. } => {
                    queue.pop_used(token, &[&*header, &*data], &mut [status])
                }
                Operation::Flush => queue.pop_used(token, &[&*header], &mut [status]),
            }
        };
        popped.unwrap_or_else(|error| panic!("virtio-blk: {error}"));
        self.in_flight = None;
        Some(self.shared.status == [0])
    }
}
