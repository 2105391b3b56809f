//! A packet socket as it comes, without a port around it.

use std::os::fd::OwnedFd;

use super::{interface_index, open_socket};
use crate::error::PortError;
use crate::sys::ioctl::InterfaceName;

/// A packet socket for whole frames of `ethertype` on `interface`, bound and non-blocking: for
/// measurements, as what a [`PacketPort`](super::PacketPort) is compared with.
pub fn plain_socket(interface: &str, ethertype: u16) -> Result<OwnedFd, PortError> {
    InterfaceName::new(interface)?;
    let socket = open_socket()?;
    socket
        .bind(interface_index(interface)?, ethertype)
        .map_err(PortError::system("cannot bind the packet socket"))?;
    Ok(socket.into())
}
