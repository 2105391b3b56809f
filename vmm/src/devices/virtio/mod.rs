//! virtio devices (virtio 1.2) on PCI.

mod common;
pub mod net;
pub mod queue;
pub mod rng;
#[cfg(test)]
pub(crate) mod test_driver;
pub mod transport_pci;
#[cfg(test)]
mod transport_tests;

use serde::Serialize;

use super::Access;
use super::pci::Identity;
use crate::mem::GuestRam;
use crate::replay::error::SourceError;
use queue::{QueueError, VirtQueue};

/// Why handling a kick ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The door failed: the machine stops.
    Source(SourceError),
    /// The driver broke its queue: the device needs a reset.
    Queue(QueueError),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

/// What is special about one device type; the transport does the rest.
pub(crate) trait VirtioDevice {
    /// For messages.
    const NAME: &'static str;
    /// PCI header.
    const IDENTITY: &'static Identity;
    /// Offered feature bits.
    const FEATURES: u64;
    /// Largest size of each queue.
    const QUEUE_SIZES: &'static [u16];

    /// The device configuration structure.
    fn config(&self) -> &[u8];

    /// The driver set DRIVER_OK.
    fn start(&mut self, queues: &mut [VirtQueue], ram: &GuestRam) -> Result<(), QueueError>;

    /// The driver kicked queue `index`, which exists. True if it wants an interrupt.
    fn kick(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        access: &mut Access<'_>,
    ) -> Result<bool, Failure>;
}

/// What happened at the transport of one device, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransportCounters {
    /// Accesses that name no register, or one that was not to be touched now.
    pub odd_accesses: u64,
    /// Kicks handled.
    pub kicks: u64,
    /// Times the interrupt was raised from rest.
    pub interrupts: u64,
    /// Feature sets refused.
    pub refused_features: u64,
    /// Times a ring whose indices, size or addresses make no sense made the device need a reset.
    pub broken_rings: u64,
    /// The same for a descriptor chain without end.
    pub broken_chains: u64,
    /// The same for a ring or buffer that is not in RAM.
    pub bad_addresses: u64,
    /// Resets by the driver.
    pub resets: u64,
}
