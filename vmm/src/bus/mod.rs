//! The two buses: which device an address belongs to, as data.

pub mod mmio;
pub mod pio;
