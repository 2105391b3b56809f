//! Ports around ports. Each one wraps any [`FramePort`](crate::port::FramePort) and is one, so they
//! stack: `Trace::new(Fault::new(tap, config))` logs what is left after the faults.

pub mod fault;
pub mod pcap;
pub mod trace;

pub use fault::{Fault, FaultConfig, FaultCounts, FaultRates};
pub use pcap::Pcap;
pub use trace::Trace;
