//! What virtio devices (virtio 1.2) on PCI have in common: queues and the transport.

mod common;
pub(crate) mod queue;
#[cfg(test)]
pub(crate) mod test_driver;
pub(crate) mod transport_pci;
#[cfg(test)]
mod transport_tests;

pub(crate) use transport_pci::VirtioPci;

use serde::Serialize;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::pci::Identity;
use super::{Access, DeviceConfig, ReissueError};
use crate::mem::GuestRam;
use crate::replay::error::SourceError;
use queue::{QueueError, VirtQueue};
use replication::boundary::{DeviceBoundary, DeviceCapacity, Input};
use transport_pci::TransportState;

/// Why the handling of a kick ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The boundary failed: the machine stops.
    Boundary(SourceError),
    /// The driver made its queue invalid: the device needs a reset.
    Queue(QueueError),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Boundary(error)
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

/// The part of a virtio device that depends on its type. The transport does the rest: with it, the device
/// is a [`Device`](super::device::Device) on PCI.
pub(crate) trait VirtioDevice: Sized {
    /// Name for messages.
    const NAME: &'static str;
    /// PCI identity.
    const IDENTITY: &'static Identity;
    /// Offered feature bits.
    const FEATURES: u64;
    /// Largest size of each queue.
    const QUEUE_SIZES: &'static [u16];
    /// State of the device with that of its transport.
    type State;
    /// Event counters of the device with those of its transport.
    type Counters;

    /// Feature bits that a driver must accept.
    const REQUIRED_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1;

    /// Returns the device after power-on.
    fn power_on(config: &DeviceConfig) -> Self;

    /// Whether the machine has this device.
    #[inline]
    fn is_present(&self) -> bool {
        true
    }

    /// Returns the feature bits that this device offers, a subset of [`FEATURES`](Self::FEATURES).
    #[inline]
    fn features(&self) -> u64 {
        Self::FEATURES
    }

    /// Forgets what the driver has set up, because it has reset the device.
    #[inline]
    fn reset(&mut self) {}

    /// Goes on with queues that were left when a bound of the device was reached. Returns `None` if there are none,
    /// and otherwise as [`kick`](Self::kick).
    #[inline]
    fn resume(
        &mut self,
        _queues: &mut [VirtQueue],
        _access: &mut Access<'_>,
    ) -> Result<Option<bool>, Failure> {
        Ok(None)
    }

    /// Passes the requests in flight to a boundary that does not know them.
    #[inline]
    fn reissue(
        &mut self,
        _queues: &[VirtQueue],
        _access: &mut Access<'_>,
    ) -> Result<(), ReissueError> {
        Ok(())
    }

    /// Returns the device configuration structure.
    fn config(&self) -> &[u8];

    /// Starts the device, because the driver set DRIVER_OK.
    fn start(&mut self, queues: &mut [VirtQueue], ram: &GuestRam) -> Result<(), QueueError>;

    /// Handles a kick of queue `index`, which exists. Returns true if the driver must be interrupted.
    fn kick(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        access: &mut Access<'_>,
    ) -> Result<bool, Failure>;

    /// Takes an input. Returns false if it is for another device.
    #[inline]
    fn accept(_function: &mut VirtioPci<Self>, _input: Input<'_>, _ram: &GuestRam) -> bool {
        false
    }

    /// Sets the fields of `capacity` for the inputs that this device accepts.
    #[inline]
    fn add_capacity(_function: &VirtioPci<Self>, _capacity: &mut DeviceCapacity, _ram: &GuestRam) {}

    /// Notes that the driver's read of ISR status has deasserted INTA.
    #[inline]
    fn interrupt_served(_boundary: &mut dyn DeviceBoundary<Error = SourceError>) {}

    /// Returns the state, of which `transport` is a part.
    fn save(&self, transport: TransportState) -> Self::State;

    /// Returns the device in a saved state, and the state of its transport; `None` if the device cannot be in this
    /// state.
    fn restore(state: Self::State) -> Option<(Self, TransportState)>;

    /// Returns the event counts, of which `transport` is a part.
    fn counters(&self, transport: TransportCounters) -> Self::Counters;
}

/// Event counters of one device's transport, for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransportCounters {
    /// Accesses to no register, or to a register that must not be accessed in the current state.
    pub odd_accesses: u64,
    /// Kicks handled.
    pub kicks: u64,
    /// Times the interrupt was raised while it was not asserted.
    pub interrupts: u64,
    /// Feature sets refused.
    pub refused_features: u64,
    /// Times the device needed a reset because of a ring with invalid indices, size or addresses.
    pub broken_rings: u64,
    /// Times the device needed a reset because of a descriptor chain with a loop, no end or too many
    /// descriptors.
    pub broken_chains: u64,
    /// Times the device needed a reset because of a ring or buffer outside RAM.
    pub bad_addresses: u64,
    /// Resets by the driver.
    pub resets: u64,
}
