//! How the prober knocks: what it sends, and what it takes for an answer.

use crate::demo::clients::ECHO_PORT;
use crate::demo::icmp;
use crate::demo::pace::Pace;
use crate::demo::standalone::GUEST_ADDRESS;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

/// A way to knock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// A datagram to the UDP echo service every millisecond, or as often as the guest answers requests.
    #[default]
    Udp,
    /// An ICMP echo request every 100 ms, or an eighth as often as the guest answers requests: a Linux guest has it
    /// answered by its kernel, which takes milliseconds where that is emulated.
    Icmp,
}

impl Probe {
    /// The name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Probe::Udp => "UDP",
            Probe::Icmp => "ICMP",
        }
    }

    /// From one to the next.
    pub(super) fn period(self, pace: &Pace) -> Duration {
        match self {
            Probe::Udp => pace.pause(Duration::from_millis(1), 1),
            Probe::Icmp => pace.pause(Duration::from_millis(100), 8),
        }
    }

    /// A socket that is connected to the VM.
    pub(super) fn connect(self) -> io::Result<Socket> {
        let (socket, port) = match self {
            Probe::Udp => (Socket::new(Domain::IPV4, Type::DGRAM, None)?, ECHO_PORT),
            Probe::Icmp => (icmp::socket()?, 0),
        };
        socket.connect(&SockAddr::from(SocketAddrV4::new(GUEST_ADDRESS, port)))?;
        Ok(socket)
    }

    /// What is sent to have `payload` come back.
    pub(super) fn knock(self, number: u64, payload: &[u8]) -> Vec<u8> {
        match self {
            Probe::Udp => payload.to_vec(),
            // The payload has the whole number.
            Probe::Icmp => icmp::CLIENTS.request(number as u16, payload),
        }
    }

    /// The payload of an answer; `None` of something that is none to this prober.
    pub(super) fn answer(self, received: &[u8]) -> Option<Vec<u8>> {
        match self {
            Probe::Udp => Some(received.to_vec()),
            Probe::Icmp => icmp::CLIENTS.reply(received).map(|reply| reply.payload),
        }
    }
}
