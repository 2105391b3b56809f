//! virtio-blk (virtio 1.2, section 5.2): up to four disks, each a PCI function with one queue.
//!
//! ```text
//!   kick: pop -> parse -+-> refused, or the serial number: answered at once
//!                       +-> number, table of requests in flight, boundary -> the host does it aside
//!   input Disk: data and status to guest memory, used ring, interrupt line
//! ```
//!
//! A kick takes requests until the queue is empty or [`DISK_REQUESTS_MAX`] are in flight. In the second case the device
//! goes on when a completion has entered ([`VirtioDevice::resume`]). So how many are taken is a function of the
//! machine's state.
//!
//! A write is given to the boundary with a copy of its data. The table has a digest of the data and the place of the
//! descriptor chain. A driver must not change either before the request is done. One that does harms itself: a
//! completion goes to where the chain leads then, and a host that takes the machine over from a checkpoint refuses to
//! repeat the write.
//!
//! A driver that resets the device has no more requests, but the host does those in flight. Their completions enter as
//! well, reach no memory, and then leave the table.

mod config;
mod request;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::BlkState;

use serde::Serialize;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use xxhash_rust::xxh3::xxh3_64;

use crate::devices::pci::Identity;
use crate::devices::virtio::queue::{QueueError, VirtQueue};
use crate::devices::virtio::transport_pci::TransportState;
use crate::devices::virtio::{Failure, TransportCounters, VirtioDevice, VirtioPci};
use crate::devices::{Access, DeviceConfig, DiskConfig, ReissueError};
use crate::limits::DISK_REQUESTS_MAX;
use crate::mem::GuestRam;
use config::{CONFIG_BYTES, IDENTITIES, QUEUE_SIZE};
use logchan::limits::{DISK_BYTES_MAX, DISK_SECTORS_MAX};
use replication::boundary::{
    DeviceCapacity, DiskCompletion, DiskOperation, DiskRequest, DiskStatus, Input,
};
use request::{Gathered, HEADER_BYTES, Parsed, RANGE_SECTORS_MAX, Range, SECTOR_BYTES};
use state::{InFlight, Operation};

/// The disks as PCI functions.
pub(crate) type Disk0 = VirtioPci<Blk<0>>;
pub(crate) type Disk1 = VirtioPci<Blk<1>>;
pub(crate) type Disk2 = VirtioPci<Blk<2>>;
pub(crate) type Disk3 = VirtioPci<Blk<3>>;

/// Longest buffer and most buffers of a request, as the driver is told. Together they make the longest request.
const SIZE_MAX: u32 = 4096;
const SEG_MAX: u32 = (DISK_BYTES_MAX / SIZE_MAX as usize) as u32;
const _: () = assert!(SEG_MAX as usize * SIZE_MAX as usize == DISK_BYTES_MAX);
// With header and status.
const _: () = assert!(SEG_MAX + 2 <= QUEUE_SIZE as u32);
/// Bytes of a logical block, which is a sector, and logical blocks of a physical one: 4096 bytes.
const BLOCK_BYTES: u32 = SECTOR_BYTES as u32;
const PHYSICAL_BLOCK_EXPONENT: u8 = 3;
const OPTIMAL_IO_BLOCKS: u32 = 1;

/// Event counters of a disk, for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkCounters {
    /// Transport and queue.
    pub transport: TransportCounters,
    /// Requests given to the host.
    pub requests: u64,
    /// Requests that the host has done.
    pub done: u64,
    /// Requests in which the host has failed.
    pub failed: u64,
    /// Requests that the device has refused.
    pub refused: u64,
    /// Times the queue was left because as many requests as allowed were in flight.
    pub stalls: u64,
    /// Completions of requests that are not in flight.
    pub unknown: u64,
}

/// Disk number `N`.
#[derive(Debug)]
pub(crate) struct Blk<const N: usize> {
    disk: Option<DiskConfig>,
    /// `struct virtio_blk_config` (section 5.2.4).
    config: [u8; CONFIG_BYTES],
    last_number: u64,
    stalled: bool,
    in_flight: Vec<InFlight>,
    /// Buffer for the header and the data of the request that is taken.
    gathered: Option<Box<Gathered>>,
    counters: BlkCounters,
}

impl<const N: usize> Blk<N> {
    const INDEX: u8 = N as u8;

    fn new(disk: Option<DiskConfig>) -> Self {
        Self {
            disk,
            config: disk.as_ref().map_or([0; CONFIG_BYTES], config_bytes),
            last_number: 0,
            stalled: false,
            in_flight: Vec::with_capacity(if disk.is_some() { DISK_REQUESTS_MAX } else { 0 }),
            gathered: disk.map(|_| Box::new([0; HEADER_BYTES + DISK_BYTES_MAX])),
            counters: BlkCounters::default(),
        }
    }

    /// Takes the requests that the driver made available, as far as the bound allows.
    fn take_requests(
        &mut self,
        queue: &mut VirtQueue,
        access: &mut Access<'_>,
    ) -> Result<bool, Failure> {
        let (Some(disk), Some(mut gathered)) = (self.disk, self.gathered.take()) else {
            return Ok(false);
        };
        let answered = self.take_requests_into(&disk, queue, &mut gathered, access);
        self.gathered = Some(gathered);
        let answered = answered? > 0;
        queue.set_kicks_enabled(access.ram, true)?;
        Ok(answered && queue.needs_interrupt(access.ram)?)
    }

    /// Returns how many requests were answered at once.
    fn take_requests_into(
        &mut self,
        disk: &DiskConfig,
        queue: &mut VirtQueue,
        gathered: &mut Gathered,
        access: &mut Access<'_>,
    ) -> Result<u32, Failure> {
        let mut answered = 0;
        self.stalled = false;
        for _ in 0..queue.size() {
            if access.boundary.holds_disk_requests() {
                self.stalled = true;
                return Ok(answered);
            }
            if self.in_flight.len() >= DISK_REQUESTS_MAX {
                self.stalled = true;
                self.counters.stalls += 1;
                return Ok(answered);
            }
            let Some(head) = queue.pop_head(access.ram)? else { return Ok(answered) };
            match request::parse(disk, (queue, head), access.ram, gathered)? {
                Parsed::Do(range) => {
                    let data = match range.operation {
                        Operation::Write => &gathered[HEADER_BYTES..][..range.bytes as usize],
                        Operation::Read
                        | Operation::Flush
                        | Operation::Discard
                        | Operation::WriteZeroes => &[],
                    };
                    self.begin(head, range, data, access)?;
                }
                Parsed::Serial => {
                    let answer = Answer { data: &disk.serial, status: VIRTIO_BLK_S_OK as u8 };
                    answer.give(queue, head, access.ram)?;
                    answered += 1;
                }
                Parsed::Refuse(status) => {
                    self.counters.refused += 1;
                    Answer { data: &[], status }.give(queue, head, access.ram)?;
                    answered += 1;
                }
            }
        }
        Ok(answered)
    }

    /// Numbers a request, puts it into the table, and gives it to the boundary.
    fn begin(
        &mut self,
        head: u16,
        range: Range,
        data: &[u8],
        access: &mut Access<'_>,
    ) -> Result<(), Failure> {
        self.last_number += 1;
        let Range { operation, sector, bytes } = range;
        let (number, digest) = (self.last_number, digest(data));
        let request = InFlight { number, head: Some(head), operation, sector, bytes, digest };
        access.boundary.disk_request(&to_request(Self::INDEX, &request, data))?;
        self.in_flight.push(request);
        self.counters.requests += 1;
        Ok(())
    }

    /// Takes the request that is done out of the table. Returns `None` if it is not in flight.
    fn take_in_flight(&mut self, completion: &DiskCompletion<'_>) -> Option<InFlight> {
        let found = self.in_flight.iter().position(|one| one.number == completion.number);
        let Some(index) = found else {
            self.counters.unknown += 1;
            return None;
        };
        Some(self.in_flight.remove(index))
    }

    /// Gives the answer to a request to the driver.
    fn complete(
        &mut self,
        request: &InFlight,
        completion: &DiskCompletion<'_>,
        queue: &mut VirtQueue,
        ram: &GuestRam,
    ) -> Result<bool, QueueError> {
        let Some(head) = request.head else { return Ok(false) };
        let expected = match request.operation {
            Operation::Read => request.bytes as usize,
            Operation::Write | Operation::Flush | Operation::Discard | Operation::WriteZeroes => 0,
        };
        let answer = match completion.status {
            DiskStatus::Done if completion.data.len() == expected => {
                self.counters.done += 1;
                Answer { data: completion.data, status: VIRTIO_BLK_S_OK as u8 }
            }
            DiskStatus::Done | DiskStatus::Failed => {
                self.counters.failed += 1;
                Answer { data: &[], status: VIRTIO_BLK_S_IOERR as u8 }
            }
        };
        answer.give(queue, head, ram)?;
        queue.needs_interrupt(ram)
    }
}

/// What the driver gets for a request.
struct Answer<'a> {
    data: &'a [u8],
    status: u8,
}

impl Answer<'_> {
    /// Writes the answer into the buffers of the chain at `head`, and returns the chain to the driver. Data for which
    /// there is no room is cut off.
    fn give(&self, queue: &mut VirtQueue, head: u16, ram: &GuestRam) -> Result<(), QueueError> {
        let written = queue.scatter_at(ram, head, self.data, self.status)?;
        queue.push(ram, head, written)
    }
}

impl<const N: usize> VirtioDevice for Blk<N> {
    const NAME: &'static str = "virtio-blk";
    const IDENTITY: &'static Identity = &IDENTITIES[N];
    const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
        | 1 << VIRTIO_RING_F_EVENT_IDX
        | 1 << VIRTIO_BLK_F_SIZE_MAX
        | 1 << VIRTIO_BLK_F_SEG_MAX
        | 1 << VIRTIO_BLK_F_RO
        | 1 << VIRTIO_BLK_F_BLK_SIZE
        | 1 << VIRTIO_BLK_F_FLUSH
        | 1 << VIRTIO_BLK_F_TOPOLOGY
        | 1 << VIRTIO_BLK_F_DISCARD
        | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
    /// Without FLUSH a driver would take every write that is done for stable (section 5.2.6.2).
    const REQUIRED_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_BLK_F_FLUSH;
    const QUEUE_SIZES: &'static [u16] = &[QUEUE_SIZE];
    type State = BlkState;
    type Counters = BlkCounters;

    fn power_on(config: &DeviceConfig) -> Self {
        Self::new(config.disks[N])
    }

    fn is_present(&self) -> bool {
        self.disk.is_some()
    }

    fn features(&self) -> u64 {
        const RO: u64 = 1 << VIRTIO_BLK_F_RO;
        const CHANGES: u64 = 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        let read_only = self.disk.is_some_and(|disk| disk.read_only);
        Self::FEATURES & !(if read_only { CHANGES } else { RO })
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, queues: &mut [VirtQueue], ram: &GuestRam) -> Result<(), QueueError> {
        queues[0].set_kicks_enabled(ram, true)
    }

    fn reset(&mut self) {
        self.stalled = false;
        self.in_flight.iter_mut().for_each(|request| request.head = None);
    }

    fn kick(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        access: &mut Access<'_>,
    ) -> Result<bool, Failure> {
        self.take_requests(&mut queues[index], access)
    }

    fn resume(
        &mut self,
        queues: &mut [VirtQueue],
        access: &mut Access<'_>,
    ) -> Result<Option<bool>, Failure> {
        if !self.stalled
            || self.in_flight.len() >= DISK_REQUESTS_MAX
            || access.boundary.holds_disk_requests()
        {
            return Ok(None);
        }
        self.take_requests(&mut queues[0], access).map(Some)
    }

    /// Completes a request. If its driver is gone, no memory changes.
    fn accept(function: &mut VirtioPci<Self>, input: Input<'_>, ram: &GuestRam) -> bool {
        match input {
            Input::Disk(completion) if completion.disk == Self::INDEX => {
                if let Some(request) = function.device_mut().take_in_flight(&completion) {
                    let _is_running = function.at_input(|device, queues| {
                        device.complete(&request, &completion, &mut queues[0], ram)
                    });
                }
                true
            }
            Input::Clock { .. } | Input::Frame(_) | Input::Console(_) | Input::Disk(_) => false,
        }
    }

    fn add_capacity(function: &VirtioPci<Self>, capacity: &mut DeviceCapacity, _ram: &GuestRam) {
        let device = function.device();
        let in_flight = device.in_flight.len();
        capacity.disk_requests += in_flight as u32;
        capacity.disk_requests_held |= device.stalled && in_flight < DISK_REQUESTS_MAX;
    }

    fn reissue(
        &mut self,
        queues: &[VirtQueue],
        access: &mut Access<'_>,
    ) -> Result<(), ReissueError> {
        let (Some(disk), Some(gathered)) = (self.disk, self.gathered.as_mut()) else {
            return Ok(());
        };
        // The driver that made the others is gone, and does not know whether they were done.
        self.in_flight.retain(|request| request.head.is_some());
        for request in &self.in_flight {
            let Some(head) = request.head else { continue };
            let changed = ReissueError::Changed { disk: Self::INDEX, number: request.number };
            let &InFlight { operation, sector, bytes, .. } = request;
            let parsed = request::parse(&disk, (&queues[0], head), access.ram, gathered);
            if !matches!(parsed, Ok(Parsed::Do(range)) if range == Range { operation, sector, bytes })
            {
                return Err(changed);
            }
            let data = match operation {
                Operation::Write => &gathered[HEADER_BYTES..][..bytes as usize],
                Operation::Read
                | Operation::Flush
                | Operation::Discard
                | Operation::WriteZeroes => &[],
            };
            if digest(data) != request.digest {
                return Err(changed);
            }
            let request = to_request(Self::INDEX, request, data);
            access.boundary.disk_request(&request)?;
        }
        Ok(())
    }

    fn save(&self, transport: TransportState) -> BlkState {
        BlkState {
            transport,
            disk: self.disk,
            last_number: self.last_number,
            stalled: self.stalled,
            in_flight: self.in_flight.clone(),
        }
    }

    fn restore(state: BlkState) -> Option<(Self, TransportState)> {
        let BlkState { transport, disk, last_number, stalled, in_flight } = state;
        let sectors = disk.map_or(0, |disk| disk.sectors);
        let is_possible = disk.is_none_or(|disk| (1..=DISK_SECTORS_MAX).contains(&disk.sectors))
            && (disk.is_some() || !stalled)
            && in_flight.len() <= DISK_REQUESTS_MAX
            && last_number < u64::MAX / 2
            && in_flight.iter().all(|request| is_possible(request, sectors))
            && in_flight.is_sorted_by(|one, next| one.number < next.number)
            && in_flight.last().is_none_or(|last| last.number <= last_number);
        if !is_possible {
            return None;
        }
        let mut device = Self { last_number, stalled, ..Self::new(disk) };
        device.in_flight.extend(in_flight);
        Some((device, transport))
    }

    fn counters(&self, transport: TransportCounters) -> BlkCounters {
        BlkCounters { transport, ..self.counters }
    }
}

/// Whether a disk of `sectors` sectors can have this request in flight.
fn is_possible(request: &InFlight, sectors: u64) -> bool {
    let bytes = u64::from(request.bytes);
    let end = request.sector.checked_add(bytes / SECTOR_BYTES);
    let bytes_max = match request.operation {
        Operation::Read | Operation::Write => DISK_BYTES_MAX as u64,
        Operation::Flush => 0,
        Operation::Discard | Operation::WriteZeroes => u64::from(RANGE_SECTORS_MAX) * SECTOR_BYTES,
    };
    request.number > 0
        && bytes <= bytes_max
        && bytes.is_multiple_of(SECTOR_BYTES)
        && end.is_some_and(|end| end <= sectors)
}

/// Returns a request in flight as the boundary takes it.
fn to_request<'a>(disk: u8, request: &InFlight, data: &'a [u8]) -> DiskRequest<'a> {
    let &InFlight { number, head: _, operation, sector, bytes, digest: _ } = request;
    let operation = match operation {
        Operation::Read => DiskOperation::Read,
        Operation::Write => DiskOperation::Write,
        Operation::Flush => DiskOperation::Flush,
        Operation::Discard => DiskOperation::Discard,
        Operation::WriteZeroes => DiskOperation::WriteZeroes,
    };
    DiskRequest { disk, number, operation, sector, bytes, data }
}

fn digest(data: &[u8]) -> u64 {
    if data.is_empty() { 0 } else { xxh3_64(data) }
}

/// Returns `struct virtio_blk_config`.
fn config_bytes(disk: &DiskConfig) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let mut put = |offset: usize, field: &[u8]| {
        config[offset..offset + field.len()].copy_from_slice(field);
    };
    put(0, &disk.sectors.to_le_bytes());
    put(8, &SIZE_MAX.to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &BLOCK_BYTES.to_le_bytes());
    put(24, &[PHYSICAL_BLOCK_EXPONENT, 0]);
    put(28, &OPTIMAL_IO_BLOCKS.to_le_bytes());
    // The cache is a write-back cache, and num_queues belongs to a feature that is not offered.
    put(32, &[1]);
    if !disk.read_only {
        let alignment = BLOCK_BYTES / SECTOR_BYTES as u32;
        put(36, &RANGE_SECTORS_MAX.to_le_bytes());
        put(40, &1u32.to_le_bytes());
        put(44, &alignment.to_le_bytes());
        put(48, &RANGE_SECTORS_MAX.to_le_bytes());
        put(52, &1u32.to_le_bytes());
    }
    config
}
