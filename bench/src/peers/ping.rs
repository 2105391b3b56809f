//! ICMP echo with times: a raw socket of our own, because ping(8) prints microseconds and paces itself.

use crate::error::BenchError;
use crate::series::Series;
use pnet::packet::Packet;
use pnet::packet::icmp::echo_reply::EchoReplyPacket;
use pnet::packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet::packet::icmp::{IcmpPacket, IcmpTypes, checksum};
use pnet::packet::ipv4::Ipv4Packet;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// ICMP header and data: what ping(8) sends unless told otherwise (RFC 792).
const ECHO_BYTES: usize = 8 + 56;

/// What the kernel puts in front of it: IPv4 headers have no options here, but may.
const REPLY_BYTES_MAX: usize = 60 + ECHO_BYTES;

/// Tells our requests from the ones that waited for the VM's boot.
const IDENTIFIER: u16 = 0x7065;

/// Somebody who pings one address, blocking until each answer.
pub(super) struct Pinger {
    socket: Socket,
    target: SockAddr,
    sequence: u16,
}

impl Pinger {
    /// Opens the socket in the namespace of the calling thread; sends `warm_up` requests that are not
    /// measured.
    pub(super) fn new(address: Ipv4Addr, warm_up: u64) -> Result<Pinger, BenchError> {
        let doing = || BenchError::os("opening a raw ICMP socket");
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
        let socket = socket.map_err(doing())?;
        socket.set_read_timeout(Some(crate::PATIENCE)).map_err(doing())?;
        let target = SockAddr::from(SocketAddrV4::new(address, 0));
        let mut pinger = Pinger { socket, target, sequence: 0 };
        for _request in 0..warm_up {
            pinger.ask()?;
        }
        Ok(pinger)
    }

    /// `count` requests, one after the other, each `gap` after the answer before; nanoseconds from the
    /// request to its answer.
    pub(super) fn run(&mut self, count: u64, gap: Duration) -> Result<Series, BenchError> {
        let mut series = Series::new();
        for _request in 0..count {
            if !gap.is_zero() {
                std::thread::sleep(gap);
            }
            series.record(self.ask()?.as_nanos() as u64);
        }
        Ok(series)
    }

    /// One request; how long its answer took.
    fn ask(&mut self) -> Result<Duration, BenchError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.sequence);
        let sent = Instant::now();
        self.socket.send_to(&request, &self.target).map_err(BenchError::os("sending a ping"))?;
        let mut reply = [0; REPLY_BYTES_MAX];
        loop {
            match (&self.socket).read(&mut reply) {
                Ok(length) if is_reply(&reply[..length], self.sequence) => {
                    return Ok(sent.elapsed());
                }
                // Some other ICMP message.
                Ok(_length) if sent.elapsed() < crate::PATIENCE => {}
                Ok(_length) => return Err(BenchError::no_answer("the VM")),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        return Err(BenchError::no_answer("the VM"));
                    }
                    _ => return Err(BenchError::os("receiving a ping")(error)),
                },
            }
        }
    }
}

fn request(sequence: u16) -> [u8; ECHO_BYTES] {
    let mut bytes = [0; ECHO_BYTES];
    let mut echo = MutableEchoRequestPacket::new(&mut bytes).expect("room for a header");
    echo.set_icmp_type(IcmpTypes::EchoRequest);
    echo.set_identifier(IDENTIFIER);
    echo.set_sequence_number(sequence);
    let sum = checksum(&IcmpPacket::new(echo.packet()).expect("room for a header"));
    echo.set_checksum(sum);
    bytes
}

/// Is this IPv4 packet the answer to our request `sequence`?
fn is_reply(bytes: &[u8], sequence: u16) -> bool {
    let Some(ip) = Ipv4Packet::new(bytes) else { return false };
    let Some(echo) = EchoReplyPacket::new(ip.payload()) else { return false };
    echo.get_icmp_type() == IcmpTypes::EchoReply
        && echo.get_identifier() == IDENTIFIER
        && echo.get_sequence_number() == sequence
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet::packet::ipv4::MutableIpv4Packet;

    /// What the kernel would give us for an ICMP message of `kind` with our identifier.
    fn packet(kind: u8, sequence: u16) -> Vec<u8> {
        let mut bytes = vec![0; 20 + ECHO_BYTES];
        let mut ip = MutableIpv4Packet::new(&mut bytes).unwrap();
        ip.set_version(4);
        ip.set_header_length(5);
        ip.set_total_length((20 + ECHO_BYTES) as u16);
        bytes[20..].copy_from_slice(&request(sequence));
        bytes[20] = kind;
        bytes
    }

    #[test]
    fn only_the_answer_to_this_request_is_a_reply() {
        assert!(is_reply(&packet(0, 7), 7));
        assert!(!is_reply(&packet(0, 6), 7), "the answer to another one");
        assert!(!is_reply(&packet(8, 7), 7), "a request");
        assert!(!is_reply(&packet(3, 7), 7), "unreachable");
        assert!(!is_reply(&packet(0, 7)[..24], 7), "cut short");
    }

    #[test]
    fn request_has_a_sound_checksum() {
        let bytes = request(0x1234);
        // The one's complement sum over everything, the checksum included, is all ones (RFC 1071).
        let words =
            bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        assert_eq!((sum >> 16) + (sum & 0xffff), 0xffff);
    }
}
