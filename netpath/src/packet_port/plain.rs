//! A plain packet socket without a port, as a baseline for measurements.

use std::os::fd::OwnedFd;

use super::{interface_index, open_socket};
use crate::error::PortError;
use crate::sys::ioctl::InterfaceName;

/// Opens a packet socket for frames (with their Ethernet header) of `ethertype` on `interface`, bound and
/// non-blocking. Measurements compare a [`PacketPort`](super::PacketPort) with it.
///
/// # Errors
///
/// [`PortError`] if the interface does not exist, the process lacks CAP_NET_RAW, or a system call fails.
pub fn plain_socket(interface: &str, ethertype: u16) -> Result<OwnedFd, PortError> {
    InterfaceName::new(interface)?;
    let socket = open_socket()?;
    socket
        .bind(interface_index(interface)?, ethertype)
        .map_err(PortError::system("cannot bind the packet socket"))?;
    Ok(socket.into())
}
