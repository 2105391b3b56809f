//! [`FrameSender`]: sends frames of the logging channel, and receives nothing.

use std::io;

use super::link::Link;
use super::{channel_header, interface_index, open_socket};
use crate::error::PortError;
use crate::mac::MacAddr;
use crate::port::FRAME_MIN;
use crate::sys::ioctl::{self, InterfaceName};
use crate::sys::packet_socket::PacketSocket;

/// The protocol of a packet socket that receives nothing (packet(7)).
const NO_PROTOCOL: u16 = 0;

/// Sends frames of [`CHANNEL_ETHERTYPE`](super::CHANNEL_ETHERTYPE) from one interface to one station. Has one
/// descriptor, and neither a ring nor a receive queue. Any thread may use it.
pub struct FrameSender {
    socket: PacketSocket,
    header: [u8; FRAME_MIN],
}

impl FrameSender {
    /// Opens `interface` in the calling thread's network namespace, to send to `destination`. An interface
    /// that is down is not an error.
    ///
    /// # Errors
    ///
    /// [`PortError`] if the interface does not exist or is not Ethernet, if the process lacks CAP_NET_RAW, or
    /// if a system call fails.
    pub fn open(interface: &str, destination: MacAddr) -> Result<FrameSender, PortError> {
        InterfaceName::new(interface)?;
        let socket = open_socket()?;
        let index = interface_index(interface)?;
        let control = ioctl::control_socket()
            .map_err(PortError::system("cannot open a socket for interface requests"))?;
        let link = Link::new(control, index);
        if !link.is_ethernet()? {
            return Err(PortError::NotEthernet { name: interface.into() });
        }
        let header = channel_header(link.mac()?, destination);
        socket
            .bind(index, NO_PROTOCOL)
            .map_err(PortError::system("cannot bind the packet socket"))?;
        Ok(FrameSender { socket, header })
    }

    /// Sends a frame with this payload. Does not block. The kernel's acceptance does not mean that the frame
    /// reaches the station.
    ///
    /// # Errors
    ///
    /// The kernel does not take the frame: the interface is down or gone, its queue is full, or the payload is
    /// longer than its MTU.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send(&[self.header.as_slice(), payload].concat())
    }
}
