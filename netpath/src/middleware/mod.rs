//! Ports that wrap another port. Each one wraps any [`FramePort`](crate::port::FramePort) and
//! implements it, so they stack: `Trace::new(Fault::new(tap, config))` logs received frames after the
//! faults were applied.

pub mod fault;
pub mod pcap;
pub mod send_filter;
pub mod trace;

pub use fault::{Fault, FaultConfig, FaultCounts, FaultRates};
pub use pcap::Pcap;
pub use send_filter::SendFilter;
pub use trace::Trace;
