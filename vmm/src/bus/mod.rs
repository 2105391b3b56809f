//! The port bus and the memory bus: decoding of an address into a device target, as data.

pub mod mmio;
pub mod pio;
