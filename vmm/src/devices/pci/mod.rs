//! PCI: the configuration space that every function has, the ports that reach it, and the host bridge.

mod config_port;
mod function;
mod host_bridge;
#[cfg(test)]
mod tests;

pub(crate) use config_port::ConfigPort;
pub(crate) use function::{Function, FunctionState, Identity, WINDOW_BYTES, window_of_slot};
pub(crate) use host_bridge::HostBridge;
