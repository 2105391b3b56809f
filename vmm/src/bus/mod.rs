//! The port bus and the memory bus: how an access is split and where it lies in a window. The devices use
//! these functions; nothing here knows a device.

pub(crate) mod mmio;
pub(crate) mod pio;
