//! Event counters of the buses, for diagnosis. They are not part of the devices' state.

use serde::Serialize;

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
