//! The compared transports: the logging channel and the kernel's sockets.

use super::bare_port::BarePort;
use super::channel::{self, ChannelClient, ChannelServer};
use super::policy::Policy;
use super::socket::{SocketKind, SocketPeer};
use crate::error::BenchError;
use crate::lan::Host;
use logchan::seal::Protection;
use logchan::time::Time;
use std::thread;
use std::time::Duration;
use vmm::link::now;

/// Bytes of a request, and of a reply if the variant has one.
pub(crate) const PAYLOAD_BYTES: usize = 64;

/// A way to send 64 bytes and to learn that they arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Variant {
    /// The logging channel, encrypted
    Channel,
    /// The logging channel with --insecure
    ChannelInsecure,
    /// The channel's port without the channel: receive ring and io_uring, echoed
    Port,
    /// UDP, echoed
    Udp,
    /// TCP with TCP_NODELAY, echoed
    Tcp,
    /// A packet socket with a system call for each frame, echoed
    #[value(name = "af_packet")]
    AfPacket,
}

impl Variant {
    /// The name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Variant::Channel => channel::name(Protection::Sealed),
            Variant::ChannelInsecure => channel::name(Protection::Insecure),
            Variant::Port => "port",
            Variant::Udp => "udp",
            Variant::Tcp => "tcp",
            Variant::AfPacket => "af_packet",
        }
    }

    /// Opens the side that answers. Must be called on its host.
    pub(crate) fn server(self, policy: Policy) -> Result<Box<dyn Server>, BenchError> {
        let socket = |kind| SocketPeer::server(kind, policy.wait());
        Ok(match self {
            Variant::Channel => Box::new(ChannelServer::open(Protection::Sealed, policy.wait())?),
            Variant::ChannelInsecure => {
                Box::new(ChannelServer::open(Protection::Insecure, policy.wait())?)
            }
            Variant::Port => Box::new(BarePort::open(Host::Server, policy.wait())?),
            Variant::Udp => Box::new(socket(SocketKind::Udp)?),
            Variant::Tcp => Box::new(socket(SocketKind::Tcp)?),
            Variant::AfPacket => Box::new(socket(SocketKind::Packet)?),
        })
    }

    /// Opens the side that sends requests. Must be called on its host after the server is open.
    pub(crate) fn client(self, policy: Policy) -> Result<Box<dyn Client>, BenchError> {
        let socket = |kind| SocketPeer::client(kind, policy.wait());
        Ok(match self {
            Variant::Channel => Box::new(ChannelClient::open(Protection::Sealed, policy.wait())?),
            Variant::ChannelInsecure => {
                Box::new(ChannelClient::open(Protection::Insecure, policy.wait())?)
            }
            Variant::Port => Box::new(BarePort::open(Host::Client, policy.wait())?),
            Variant::Udp => Box::new(socket(SocketKind::Udp)?),
            Variant::Tcp => Box::new(socket(SocketKind::Tcp)?),
            Variant::AfPacket => Box::new(socket(SocketKind::Packet)?),
        })
    }
}

/// The side that sends requests.
pub(crate) trait Client {
    /// Sends request `number` and waits until it is known to have arrived. `now` is the clock reading
    /// taken just before the call.
    fn exchange(&mut self, now: Time, number: u64) -> Result<(), BenchError>;

    /// Waits until `until`. By default it sleeps; a variant that has other work between two requests
    /// does that work.
    fn rest(&mut self, until: Time) -> Result<(), BenchError> {
        thread::sleep(Duration::from_nanos(until.since(now()).as_nanos()));
        Ok(())
    }
}

/// The side that answers.
pub(crate) trait Server {
    /// Answers requests `0..count` and verifies their contents.
    fn serve(&mut self, count: u64) -> Result<(), BenchError>;
}

/// Returns the bytes of request `number`. No two requests are equal.
pub(crate) fn request(number: u64) -> [u8; PAYLOAD_BYTES] {
    let mut bytes = [number as u8; PAYLOAD_BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Returns an error unless `bytes` are those of request `number`.
pub(crate) fn check(bytes: &[u8], number: u64) -> Result<(), BenchError> {
    if *bytes == request(number) {
        return Ok(());
    }
    let head = &bytes[..bytes.len().min(8)];
    Err(BenchError::Wrong(format!(
        "expected message {number}, received {} bytes that begin with {head:02x?}",
        bytes.len()
    )))
}
