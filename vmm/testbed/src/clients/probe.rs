//! The requests of the prober, and their answers.

use super::icmp;
use crate::clients::ECHO_PORT;
use crate::pace::Pace;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// A kind of request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// A datagram to the UDP echo service, every millisecond or at the rate at which the guest answers
    /// requests, whichever is slower.
    #[default]
    Udp,
    /// An ICMP echo request, every 100 ms or at an eighth of the rate at which the guest answers requests,
    /// whichever is slower. The kernel of a Linux guest answers it, which takes milliseconds where kernel
    /// code is emulated.
    Icmp,
}

impl Probe {
    /// Returns the name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Probe::Udp => "UDP",
            Probe::Icmp => "ICMP",
        }
    }

    /// Returns the interval between requests.
    pub(super) fn period(self, pace: &Pace) -> Duration {
        match self {
            Probe::Udp => pace.pause(Duration::from_millis(1), 1),
            Probe::Icmp => pace.pause(Duration::from_millis(100), 8),
        }
    }

    /// Opens a socket that is connected to the VM with the address `vm`.
    pub(super) fn connect(self, vm: Ipv4Addr) -> io::Result<Socket> {
        let (socket, port) = match self {
            Probe::Udp => (Socket::new(Domain::IPV4, Type::DGRAM, None)?, ECHO_PORT),
            Probe::Icmp => (icmp::socket()?, 0),
        };
        socket.connect(&SockAddr::from(SocketAddrV4::new(vm, port)))?;
        Ok(socket)
    }

    /// Returns the bytes to send so that the answer carries `payload`.
    pub(super) fn request(self, number: u64, payload: &[u8]) -> Vec<u8> {
        match self {
            Probe::Udp => payload.to_vec(),
            // The sequence number has only 16 bits; the payload has the whole number.
            Probe::Icmp => icmp::CLIENTS.request(number as u16, payload),
        }
    }

    /// Returns the payload of a received answer, or `None` if the packet is not an answer to this prober.
    pub(super) fn answer(self, received: &[u8]) -> Option<Vec<u8>> {
        match self {
            Probe::Udp => Some(received.to_vec()),
            Probe::Icmp => icmp::CLIENTS.reply(received).map(|reply| reply.payload),
        }
    }
}
