//! Event counters of the devices, for diagnosis. They are not part of the devices' state.

use serde::Serialize;

use super::pit::PitCounters;
use super::serial::UartCounters;
use super::virtio::TransportCounters;
use super::virtio::net::NetCounters;
use super::virtio::rng::RngCounters;

/// Accesses that no device claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BusCounters {
    /// Bytes read from ports without a device.
    pub port_reads: u64,
    /// Bytes written to ports without a device.
    pub port_writes: u64,
    /// Reads of memory addresses without RAM or device.
    pub memory_reads: u64,
    /// Writes to memory addresses without RAM or device.
    pub memory_writes: u64,
    /// Configuration accesses to functions that do not exist.
    pub config_aborts: u64,
}

/// All counters since the devices were created or restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceCounters {
    /// Unclaimed accesses.
    pub bus: BusCounters,
    /// Timer.
    pub pit: PitCounters,
    /// UART.
    pub uart: UartCounters,
    /// Transport of the network device.
    pub net_transport: TransportCounters,
    /// Network device.
    pub net: NetCounters,
    /// Transport of the entropy device.
    pub rng_transport: TransportCounters,
    /// Entropy device.
    pub rng: RngCounters,
}
