//! State of a disk.

use serde::{Deserialize, Serialize};

use crate::devices::DiskConfig;
use crate::devices::virtio::transport_pci::TransportState;

/// State of the PCI function, of the disk, and of the requests in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlkState {
    /// Transport and queue.
    pub(crate) transport: TransportState,
    /// The disk; `None` if the machine does not have it.
    pub(crate) disk: Option<DiskConfig>,
    /// Number of the last request.
    pub(crate) last_number: u64,
    /// The queue was left because as many requests as allowed were in flight.
    pub(crate) stalled: bool,
    /// Requests in flight, in the order of their numbers.
    pub(crate) in_flight: Vec<InFlight>,
}

/// A request in flight. Its data and its buffers are in guest memory, which a driver leaves alone until the request is
/// done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InFlight {
    /// Number of the request.
    pub(crate) number: u64,
    /// Index of the first descriptor of its chain; `None` after the driver has reset the device: nobody waits for the
    /// request then.
    pub(crate) head: Option<u16>,
    /// What it does.
    pub(crate) operation: Operation,
    /// First sector.
    pub(crate) sector: u64,
    /// Length in bytes.
    pub(crate) bytes: u32,
    /// xxh3-64 of the data of a write; otherwise 0.
    pub(crate) digest: u64,
}

/// [`DiskOperation`](replication::boundary::DiskOperation), as it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Makes writes stable.
    Flush,
    /// Gives up sectors.
    Discard,
    /// Fills sectors with zeros.
    WriteZeroes,
}
