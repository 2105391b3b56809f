//! [`Trace`]: logs one line per frame at debug level, through `tracing` (target `netpath::frame`).

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use pnet::packet::Packet;
use pnet::packet::arp::{ArpOperations, ArpPacket};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::icmp::{IcmpPacket, IcmpTypes, echo_reply, echo_request};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::{TcpFlags, TcpPacket};
use pnet::packet::udp::UdpPacket;

use crate::port::{FramePort, PortError, Wake};

/// A port that logs each frame it receives and sends. While debug output is off it costs one check per
/// frame.
pub struct Trace<P> {
    port: P,
    label: String,
}

impl<P: FramePort> Trace<P> {
    /// Wraps `port`. `label` starts its log lines, to distinguish them from those of other ports.
    pub fn new(port: P, label: impl Into<String>) -> Self {
        Trace { port, label: label.into() }
    }

    /// The wrapped port.
    pub fn port(&self) -> &P {
        &self.port
    }
}

impl<P: FramePort> FramePort for Trace<P> {
    fn has_frame(&self) -> bool {
        self.port.has_frame()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        let received = self.port.receive(buffer)?;
        if let Some(length) = received {
            let frame = describe(&buffer[..length]);
            tracing::debug!(target: "netpath::frame", "{} rx {frame}", self.label);
        }
        Ok(received)
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        tracing::debug!(target: "netpath::frame", "{} tx {}", self.label, describe(frame));
        self.port.send(frame)
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.port.flush()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.port.pollable()
    }

    fn handle_poll_event(&mut self) -> Result<(), PortError> {
        self.port.handle_poll_event()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        self.port.wait(timeout)
    }
}

/// Returns a one-line summary of a frame for logs. The frame is parsed only when the summary is printed.
pub fn describe(frame: &[u8]) -> FrameSummary<'_> {
    FrameSummary(frame)
}

/// Displays a frame in one line; returned by [`describe`].
#[derive(Clone, Copy)]
pub struct FrameSummary<'a>(&'a [u8]);

impl fmt::Display for FrameSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.len();
        let Some(frame) = EthernetPacket::new(self.0) else {
            return write!(f, "{bytes} bytes, too short for Ethernet");
        };
        write!(f, "{} > {} {bytes} bytes ", frame.get_source(), frame.get_destination())?;
        let payload = frame.payload();
        let parsed = match frame.get_ethertype() {
            EtherTypes::Arp => arp(f, payload)?,
            EtherTypes::Ipv4 => ipv4(f, payload)?,
            EtherTypes::Ipv6 => ipv6(f, payload)?,
            other => return write!(f, "ethertype {:#06x}", other.0),
        };
        match parsed {
            Some(()) => Ok(()),
            None => write!(f, "{} truncated", frame.get_ethertype()),
        }
    }
}

/// `Some` if the line was written, `None` if the bytes do not hold the header.
type Written = Result<Option<()>, fmt::Error>;

fn arp(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> Written {
    let Some(arp) = ArpPacket::new(bytes) else { return Ok(None) };
    let (sender, target) = (arp.get_sender_proto_addr(), arp.get_target_proto_addr());
    match arp.get_operation() {
        ArpOperations::Request if sender == target => write!(f, "ARP announces {sender}")?,
        ArpOperations::Request => write!(f, "ARP who-has {target} tell {sender}")?,
        ArpOperations::Reply => write!(f, "ARP {sender} is-at {}", arp.get_sender_hw_addr())?,
        other => write!(f, "ARP operation {}", other.0)?,
    }
    Ok(Some(()))
}

fn ipv4(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> Written {
    let Some(ip) = Ipv4Packet::new(bytes) else { return Ok(None) };
    let (source, destination) = (ip.get_source(), ip.get_destination());
    // pnet's `payload` trusts the header's lengths, but stays within the slice.
    let first = ip.get_fragment_offset() == 0;
    let payload = if first { ip.payload() } else { &[] };
    transport(f, &source, &destination, ip.get_next_level_protocol(), payload)?;
    if !first {
        write!(f, " fragment at {}", u32::from(ip.get_fragment_offset()) * 8)?;
    }
    Ok(Some(()))
}

fn ipv6(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> Written {
    let Some(ip) = Ipv6Packet::new(bytes) else { return Ok(None) };
    let (source, destination) = (ip.get_source(), ip.get_destination());
    transport(f, &source, &destination, ip.get_next_header(), ip.payload())?;
    Ok(Some(()))
}

fn transport(
    f: &mut fmt::Formatter<'_>,
    source: &dyn fmt::Display,
    destination: &dyn fmt::Display,
    protocol: IpNextHeaderProtocol,
    bytes: &[u8],
) -> fmt::Result {
    write!(f, "{protocol} {source}")?;
    match protocol {
        IpNextHeaderProtocols::Udp => {
            let Some(udp) = UdpPacket::new(bytes) else { return write!(f, " > {destination}") };
            write!(f, ":{} > {destination}:{}", udp.get_source(), udp.get_destination())?;
            write!(f, " length {}", udp.get_length())
        }
        IpNextHeaderProtocols::Tcp => {
            let Some(tcp) = TcpPacket::new(bytes) else { return write!(f, " > {destination}") };
            write!(f, ":{} > {destination}:{} ", tcp.get_source(), tcp.get_destination())?;
            tcp_flags(f, tcp.get_flags())?;
            write!(f, " seq {} ack {}", tcp.get_sequence(), tcp.get_acknowledgement())?;
            write!(f, " length {}", tcp.payload().len())
        }
        IpNextHeaderProtocols::Icmp => {
            write!(f, " > {destination}")?;
            let Some(icmp) = IcmpPacket::new(bytes) else { return Ok(()) };
            match icmp.get_icmp_type() {
                IcmpTypes::EchoRequest => match echo_request::EchoRequestPacket::new(bytes) {
                    Some(echo) => {
                        echo_line(f, "request", echo.get_identifier(), echo.get_sequence_number())
                    }
                    None => Ok(()),
                },
                IcmpTypes::EchoReply => match echo_reply::EchoReplyPacket::new(bytes) {
                    Some(echo) => {
                        echo_line(f, "reply", echo.get_identifier(), echo.get_sequence_number())
                    }
                    None => Ok(()),
                },
                other => write!(f, " type {}", other.0),
            }
        }
        _ => write!(f, " > {destination}"),
    }
}

fn echo_line(f: &mut fmt::Formatter<'_>, kind: &str, id: u16, sequence: u16) -> fmt::Result {
    write!(f, " echo {kind} id {id} seq {sequence}")
}

fn tcp_flags(f: &mut fmt::Formatter<'_>, flags: u8) -> fmt::Result {
    let letters = [
        (TcpFlags::SYN, 'S'),
        (TcpFlags::FIN, 'F'),
        (TcpFlags::RST, 'R'),
        (TcpFlags::PSH, 'P'),
        (TcpFlags::ACK, '.'),
    ];
    write!(f, "[")?;
    for (_, letter) in letters.iter().filter(|(flag, _)| flags & flag != 0) {
        write!(f, "{letter}")?;
    }
    write!(f, "]")
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
